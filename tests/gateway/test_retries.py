"""`POST /v1/batches/{id}/retry` through the official client, over real HTTP, Temporal and sandbox."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch

from support.gateway import jsonl, line, open_gateway
from support.house import House

ORDER: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
ENDED = ("completed", "failed", "expired", "cancelled")
ROWS = [
    line("fine"),
    line("twice", "[[sandbox:server_error times=3]]"),
    line("never", "[[sandbox:invalid_request]]"),
    line("once", "[[sandbox:server_error times=2]]"),
]


async def begun(client: AsyncOpenAI, rows: Any = ROWS, **fields: Any) -> str:
    file_id = (await client.files.create(file=jsonl(rows), purpose="batch")).id
    return (await client.batches.create(input_file_id=file_id, **ORDER, **fields)).id


async def ended(client: AsyncOpenAI, batch_id: str) -> Batch:
    while (batch := await client.batches.retrieve(batch_id)).status not in ENDED:
        await asyncio.sleep(0.3)
    return batch


async def retry(client: AsyncOpenAI, batch_id: str, **body: Any) -> Batch:
    return await client.post(f"/batches/{batch_id}/retry", cast_to=Batch, body=body or None)


async def ids_of(client: AsyncOpenAI, file_id: str | None) -> list[str]:
    assert file_id
    return [json.loads(one)["custom_id"] for one in (await client.files.content(file_id)).text.splitlines()]


@pytest.mark.slow
async def test_each_retry_is_a_batch_of_what_the_one_before_left_over(house: House) -> None:
    async with open_gateway(house) as client, house.worker():
        id = await begun(client, metadata={"team": "search"})
        original = await ended(client, id)
        assert original.request_counts and original.request_counts.failed == 3
        made = await asyncio.gather(*(retry(client, id) for _ in range(4)))
        assert len({one.id for one in made}) == 1
        first = await ended(client, made[0].id)
        assert first.model_extra and first.model_extra["retry_of"] == id
        assert (first.metadata, first.input_file_id) == ({"team": "search"}, original.input_file_id)
        assert await ids_of(client, first.output_file_id) == ["twice", "once"]
        assert await ids_of(client, first.error_file_id) == ["never"]
        # By the retry's own id it is the next one of the same batch; the same key is the same retry.
        second, again = [await retry(client, first.id, idempotency_key="night") for _ in range(2)]
        assert second.id == again.id != first.id
        with pytest.raises(openai.ConflictError, match="different parameters"):
            await begun(client, extra_body={"idempotency_key": "night"})
        last = await ended(client, second.id)
        assert last.model_extra and last.model_extra["retry_of"] == id
        assert (await retry(client, id, idempotency_key="night")).id == second.id
        assert [one.id async for one in client.batches.list()] == [second.id, first.id, id]


@pytest.mark.slow
async def test_what_cannot_be_retried_is_refused(house: House) -> None:
    async with open_gateway(house) as client, house.worker():
        wrong = await begun(client, b"{}\n")
        assert (await ended(client, wrong)).status == "failed"
        with pytest.raises(openai.BadRequestError, match="before its requests were run"):
            await retry(client, wrong)
        done = await begun(client, [line("fine")])
        await ended(client, done)
        with pytest.raises(openai.BadRequestError, match="every request has succeeded"):
            await retry(client, done)
        with pytest.raises(openai.NotFoundError):
            await retry(client, "batch_" + "0" * 24)
        await house.admin.settings(finish_after_polls=100_000)
        running = await begun(client)
        with pytest.raises(openai.ConflictError, match="Cannot retry a batch with status"):
            await retry(client, running)
