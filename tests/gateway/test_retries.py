"""`POST /v1/batches/{id}/retry` through the official client, over real HTTP, Temporal and sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch

from durabatch.activities.gateway.expiry import expire
from durabatch.activities.store import Store
from durabatch.contract.gateway_batch import BatchEntry, GatewayBatch
from durabatch.contract.gateway_layout import Listed, index_path, retries_folder
from durabatch.contract.gateway_limits import Keep
from support.gateway import jsonl, line, new_id, open_gateway
from support.house import House

from .conftest import Door

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


async def test_a_field_that_a_retry_has_not_is_refused(door: Door) -> None:
    batch = GatewayBatch(tenant="default", id=new_id(Listed.BATCHES), input_file_id="f", endpoint="/", created_at=1)
    await door.store.write(index_path("default", batch.id), BatchEntry(request=batch).model_dump_json().encode())
    answer = await door.http.post(f"/v1/batches/{batch.id}/retry", json={"provider": "x", "metadata": {}})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unknown_parameter", "metadata")


@pytest.mark.slow
async def test_a_retry_outlives_its_batch_and_is_retried_by_its_own_id(house: House) -> None:
    store, gone = Store.open(str(house.store)), Keep(timedelta(0), timedelta(0))
    async with open_gateway(house) as client, house.worker():
        id = await begun(client, metadata={"team": "search"})
        await ended(client, id)
        first = await ended(client, (await retry(client, id)).id)
        await expire(store, "default", id, gone, datetime.now(UTC))
        with pytest.raises(openai.NotFoundError):
            await retry(client, id)
        second = await retry(client, first.id)
        assert second.id == (await retry(client, first.id)).id  # it joins
        assert (second.metadata, (second.model_extra or {})["retry_of"]) == ({"team": "search"}, id)
        assert await ids_of(client, (await ended(client, second.id)).error_file_id) == ["never"]
        # Without what the retries know of each other, one could run again what another one has run.
        for path in await store.page(retries_folder("default", id), limit=9):
            await store.delete(path)
        with pytest.raises(openai.BadRequestError, match="known by a batch that was removed"):
            await retry(client, first.id)


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


@pytest.mark.slow
async def test_a_retry_that_was_cancelled_before_it_ran_leaves_its_rows_to_the_next_one(house: House) -> None:
    keys = f'[[gateway.keys]]\ntenant = "chain"\nsha256 = "{hashlib.sha256(b"chain").hexdigest()}"\n'
    async with open_gateway(house, f"max_batches = 1\n{keys}", key="chain") as client, house.worker():
        id = await begun(client)
        await ended(client, id)
        await house.admin.settings(finish_after_polls=100_000)
        running = await begun(client, [line("fine")])
        while (await client.batches.retrieve(running)).status != "in_progress":
            await asyncio.sleep(0.1)
        never, first = await begun(client), (await retry(client, id)).id
        for waiting in (never, first):  # for their turn
            while (await client.batches.retrieve(waiting)).status != "in_progress":
                await asyncio.sleep(0.1)
            await client.batches.cancel(waiting)
            assert (await ended(client, waiting)).status == "cancelled"
        with pytest.raises(openai.BadRequestError, match="before its requests were run"):
            await retry(client, never)
        second = await retry(client, first)
        assert second.id != first
        await house.admin.settings(finish_after_polls=0)
        assert await ids_of(client, (await ended(client, second.id)).output_file_id) == ["twice", "once"]


@pytest.mark.slow
async def test_a_retry_that_could_not_begin_leaves_its_rows_to_the_next_one(house: House) -> None:
    routes = "".join(f'[[gateway.routes]]\nmodel = "*"\nprovider = "{name}"\n' for name in ("sandbox", "claude"))
    async with open_gateway(house, routes, provider=None) as client, house.worker():
        row = line("twice", "[[sandbox:server_error times=2]]")
        id = await begun(client, [line("fine"), {**row, "body": {**row["body"], "seed": 1}}])
        await ended(client, id)
        first = await ended(client, (await retry(client, id, provider="claude")).id)
        assert first.errors and first.errors.data and first.request_counts
        assert (first.status, first.request_counts.failed) == ("failed", 0)
        assert "body.seed" in str(first.errors.data[0].message)
        assert (await client.get(f"/batches/{first.id}/results", cast_to=dict[str, Any]))["data"] == []
        again = await retry(client, first.id, provider="sandbox")
        assert again.id != first.id
        assert await ids_of(client, (await ended(client, again.id)).output_file_id) == ["twice"]


@pytest.mark.slow
async def test_a_retry_whose_gateway_was_killed_before_it_was_noted_is_started_by_whoever_asks(house: House) -> None:
    async with open_gateway(house, 'completion_windows = ["24h", "48h"]') as client, house.worker():
        id = await begun(client)
        await ended(client, id)
        made = await retry(client, id)
        await ended(client, made.id)
        store = Store.open(str(house.store))
        (path,) = await store.page(retries_folder("default", id), limit=9)
        order = GatewayBatch.model_validate_json(await store.read(path))
        lost = order.model_copy(update={"id": new_id(Listed.BATCHES), "left_by": made.id})
        await store.create(f"{path[:-1]}2", lost.model_dump_json().encode())
        with pytest.raises(openai.ConflictError, match=lost.id):
            await retry(client, id, completion_window="48h")
        assert (await ended(client, lost.id)).request_counts is not None
