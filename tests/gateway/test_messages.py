"""`/v1/messages/batches` through the official client, over real HTTP, Temporal and sandbox."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from support.gateway import open_gateway
from support.house import House, connect, dev_server, open_house

CLAUDE = "claude-haiku-4-5"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with dev_server() as address:
        yield address


@pytest.fixture
async def house(server: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(await connect(server), tmp_path, {"listing_lag": "1s", "timeout": "5s"}) as house:
        yield house


def row(custom_id: str, text: str = "Say something.", **params: Any) -> Any:
    said = {"model": CLAUDE, "max_tokens": 50, "messages": [{"role": "user", "content": text}], **params}
    return {"custom_id": custom_id, "params": said}


@contextlib.asynccontextmanager
async def opened(
    house: House, gateway: str = "", *, provider: str | None = "claude", key: str = "any"
) -> AsyncIterator[AsyncAnthropic]:
    """Serve a gateway, and yield an official client that checks every answer strictly."""
    async with open_gateway(house, gateway, provider=provider, key=key) as openai:
        root = str(openai.base_url).removesuffix("/v1/")
        async with AsyncAnthropic(
            base_url=root, api_key=key, max_retries=0, _strict_response_validation=True
        ) as client:
            yield client


async def until_ended(client: AsyncAnthropic, batch_id: str) -> MessageBatch:
    while (batch := await client.messages.batches.retrieve(batch_id)).processing_status != "ended":
        await asyncio.sleep(0.3)
    return batch


async def results_of(client: AsyncAnthropic, batch_id: str) -> list[MessageBatchIndividualResponse]:
    """Return a batch's results, held strictly against the client's types, which it does not do itself."""
    found = [one async for one in await client.messages.batches.results(batch_id)]
    return [MessageBatchIndividualResponse.model_validate_json(one.model_dump_json(), strict=True) for one in found]


async def test_the_official_clients_whole_flow(house: House) -> None:
    async with opened(house) as client, house.worker():
        batches = client.messages.batches
        made = await batches.create(requests=[row(f"r{n}") for n in range(3)])
        assert (made.processing_status, made.request_counts.processing) == ("in_progress", 3)
        assert (made.expires_at - made.created_at, made.results_url) == (timedelta(hours=24), None)
        assert [one.id async for one in batches.list()] == [made.id]
        ended = await until_ended(client, made.id)
        assert ended.request_counts.model_dump() == {
            "processing": 0, "succeeded": 3, "errored": 0, "canceled": 0, "expired": 0,
        }  # fmt: skip
        assert ended.ended_at and ended.ended_at >= ended.created_at == made.created_at
        found = await results_of(client, made.id)
        assert [one.custom_id for one in found] == ["r0", "r1", "r2"]
        assert found[0].result.type == "succeeded" and found[0].result.message.model == CLAUDE
        with pytest.raises(anthropic.BadRequestError, match="has already ended"):
            await batches.cancel(made.id)
        assert (await batches.delete(made.id)).type == "message_batch_deleted"
        assert [one.id async for one in batches.list()] == []
        for call in (batches.retrieve, batches.results, batches.delete, batches.cancel):
            with pytest.raises(anthropic.NotFoundError) as gone:
                await call(made.id)
            assert gone.value.body["error"]["type"] == "not_found_error" and gone.value.request_id  # type: ignore[index]
    assert len(await house.batches()) == 1


async def test_rows_end_as_anthropic_says_and_in_their_order(house: House) -> None:
    rows = [
        row("unlimited", max_tokens=None),
        row("fine"),
        row("refused", "[[sandbox:invalid_request]]"),
        row("late", "[[sandbox:batch_expired]]"),
        row("roles", messages=[{"role": "wizard", "content": "hi"}]),
        row("streamed", stream=True),
    ]
    async with opened(house) as client, house.worker():
        made = await client.messages.batches.create(requests=rows)
        ended = await until_ended(client, made.id)
        found = await results_of(client, made.id)
    assert [one.custom_id for one in found] == [one["custom_id"] for one in rows]
    kinds = [one.result.type for one in found]
    assert kinds == ["errored", "succeeded", "errored", "expired", "errored", "errored"]
    counts = ended.request_counts
    assert (counts.succeeded, counts.errored, counts.expired, counts.processing) == (1, 4, 1, 0)
    errors = [one.result.error.error for one in found if one.result.type == "errored"]
    assert {error.type for error in errors} == {"invalid_request_error"}
    assert errors[0].message == "params.max_tokens: is missing, and Anthropic needs it"
