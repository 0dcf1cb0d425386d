"""`/v1/messages/batches` through the official client, over real HTTP, Temporal and sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from durabatch.contract.gateway_batch import workflow_id
from support.gateway import open_gateway
from support.house import House, asked, connect, dev_server, open_house
from support.operator import reset_points, reset_workflow

CLAUDE = "claude-haiku-4-5"


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
            base_url=root, api_key=key, max_retries=0, timeout=60, _strict_response_validation=True
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
        stored = [path.name for path in (house.store / "~gateway/default/messages" / made.id).iterdir()]
        assert any(name.startswith("requests-") for name in stored)
        assert (await batches.delete(made.id)).type == "message_batch_deleted"
        assert not list((house.store / "~gateway/default/messages" / made.id).glob("requests-*"))
        assert [one.id async for one in batches.list()] == []
        for call in (batches.retrieve, batches.results, batches.delete, batches.cancel):
            with pytest.raises(anthropic.NotFoundError) as gone:
                await call(made.id)
            assert gone.value.body["error"]["type"] == "not_found_error" and gone.value.request_id  # type: ignore[index]
    assert len(await house.batches()) == 1


@pytest.mark.slow
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


@pytest.mark.slow
async def test_the_same_through_a_provider_of_openais_shape(house: House) -> None:
    rows = [
        row("fine", model="gpt-4o-mini", system="Be brief."),
        row("thinks", model="gpt-4o-mini", thinking={"type": "enabled", "budget_tokens": 1024}),
        row("again", "[[sandbox:rate_limited times=1]]", model="gpt-4o-mini"),
    ]
    async with opened(house, provider="sandbox") as client, house.worker():
        made = await client.messages.batches.create(requests=rows)
        ended = await until_ended(client, made.id)
        found = await results_of(client, made.id)
    assert (ended.request_counts.succeeded, ended.request_counts.errored) == (2, 1)
    assert [one.custom_id for one in found] == ["fine", "thinks", "again"]
    first, second = found[0].result, found[1].result
    assert first.type == "succeeded" and first.message.stop_reason == "end_turn"
    assert first.message.content[0].type == "text" and first.message.usage.input_tokens > 0
    assert second.type == "errored"
    assert second.error.error.message == "params.thinking: cannot be translated for a provider of OpenAI's shape"


@pytest.mark.slow
async def test_a_batch_that_no_request_of_can_run_says_why_at_each(house: House) -> None:
    async with opened(house) as client, house.worker():
        rows = [row("a", max_tokens=None), row("b", stream=True)]
        made = await client.messages.batches.create(requests=rows)
        ended = await until_ended(client, made.id)
        found = await results_of(client, made.id)
    assert (ended.request_counts.errored, ended.request_counts.processing) == (2, 0)
    words = [one.result.error.error.message for one in found if one.result.type == "errored"]
    assert "params.max_tokens" in words[0] and "params.stream" in words[1]
    assert await house.batches() == []


@pytest.mark.slow
async def test_a_batch_is_canceled_once_however_often_it_is_asked(house: House) -> None:
    await house.admin.settings(finish_after_polls=100_000, cancel_fraction=0.34)
    async with opened(house) as client, house.worker():
        made = await client.messages.batches.create(requests=[row(f"r{n}") for n in range(3)])
        while not await house.batches():
            await asyncio.sleep(0.05)
        for call in (client.messages.batches.delete, client.messages.batches.results):
            with pytest.raises((anthropic.BadRequestError, anthropic.AnthropicError), match=r"has not ended|finished"):
                await call(made.id)
        shown = [await client.messages.batches.cancel(made.id) for _ in range(2)]
        assert {one.processing_status for one in shown} <= {"canceling", "ended"}
        assert all(one.cancel_initiated_at for one in shown)
        ended = await until_ended(client, made.id)
        assert (ended.request_counts.succeeded, ended.request_counts.canceled) == (1, 2)
        kinds = [one.result.type for one in await results_of(client, made.id)]
    assert sorted(kinds) == ["canceled", "canceled", "succeeded"]


@pytest.mark.slow
async def test_creates_with_one_idempotency_key_are_one_batch(house: House) -> None:
    key = {"Idempotency-Key": "nightly"}
    async with opened(house) as client, house.worker():
        batches, rows = client.messages.batches, [row("a")]
        made = await asyncio.gather(*(batches.create(requests=rows, extra_headers=key) for _ in range(6)))
        assert len({one.id for one in made}) == 1
        with pytest.raises(anthropic.ConflictError, match="different parameters"):
            await batches.create(requests=[row("b")], extra_headers=key)
        await until_ended(client, made[0].id)
        assert (await batches.create(requests=rows, extra_body={"idempotency_key": "nightly"})).results_url
        await batches.delete(made[0].id)
        with pytest.raises(anthropic.ConflictError, match="was deleted"):
            await batches.create(requests=rows, extra_headers=key)
        assert [one.id async for one in batches.list()] == []
    assert len(await house.batches()) == 1
    # Of the creates that were not the first, nothing stays.
    assert len(list(house.store.glob("default.msgbatch_*/input-*.jsonl"))) == 0


@pytest.mark.slow
async def test_another_tenants_batch_is_not_there(house: House) -> None:
    keys = "".join(
        f'[[gateway.keys]]\ntenant = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{more}\n'
        for name, more in (("search", ""), ("ads", 'models = ["claude-*"]\nmax_rows = 1'))
    )
    async with opened(house, keys, key="search") as search, house.worker():
        ads, key = search.with_options(api_key="ads"), {"Idempotency-Key": "k"}
        made = await search.messages.batches.create(requests=[row("a")], extra_headers=key)
        await until_ended(search, made.id)
        theirs = ads.messages.batches
        for call in (theirs.retrieve, theirs.cancel, theirs.results, theirs.delete):
            with pytest.raises(anthropic.NotFoundError, match=f"Message batch {made.id} not found"):
                await call(made.id)
        assert [one.id async for one in theirs.list()] == []
        assert [one.id async for one in theirs.list(after_id=made.id)] == []
        own = await theirs.create(requests=[row("a")], extra_headers=key)
        assert own.id != made.id
        with pytest.raises(anthropic.BadRequestError, match="the model gpt-5 does not exist or you do not have"):
            await theirs.create(requests=[row("a", model="gpt-5")])
        with pytest.raises(anthropic.BadRequestError, match="List should have at most 1 items"):
            await theirs.create(requests=[row("a"), row("b")])
        assert (await until_ended(ads, own.id)).request_counts.succeeded == 1
        assert len(await results_of(search, made.id)) == 1


@pytest.mark.slow
async def test_a_batch_that_may_cost_more_than_its_tenants_day_is_not_run(house: House) -> None:
    key = f'[[gateway.keys]]\ntenant = "search"\nsha256 = "{hashlib.sha256(b"k").hexdigest()}"\n'
    async with opened(house, f"{key}max_cost_usd_per_day = 0.0001", key="k") as client, house.worker():
        made = await client.messages.batches.create(requests=[row("a"), row("b", max_tokens=100_000)])
        assert (await until_ended(client, made.id)).request_counts.errored == 2
        errors = [one.result.error.error for one in await results_of(client, made.id) if one.result.type == "errored"]
    assert {error.type for error in errors} == {"billing_error"}
    assert "are left of the 0.0001 USD that your batches may cost a day" in errors[0].message
    assert await house.batches() == []


@pytest.mark.slow
async def test_a_batch_whose_workflow_was_lost_is_started_again_by_whoever_asks(house: House) -> None:
    async with opened(house) as client:
        made = await client.messages.batches.create(requests=[row("a")])
        handle = house.client.get_workflow_handle(workflow_id("default", made.id))
        await asked(lambda: handle.terminate("by an operator"))
        async with house.worker():
            assert (await until_ended(client, made.id)).request_counts.succeeded == 1
    assert len(await house.batches()) == 1


@pytest.mark.slow
async def test_a_batch_that_was_deleted_before_its_last_step_was_over_stays_deleted(house: House) -> None:
    async with opened(house) as client, house.worker():
        made = await client.messages.batches.create(requests=[row("a")])
        await until_ended(client, made.id)
        handle = house.client.get_workflow_handle(workflow_id("default", made.id))
        await handle.result()
        await client.messages.batches.delete(made.id)
        # The last step runs again, as it does when a worker was killed before Temporal knew that it is done.
        await reset_workflow(house.client, handle.id, (await reset_points(house.client, handle.id))[-2])
        await house.client.get_workflow_handle(handle.id).result()
        assert [one.id async for one in client.messages.batches.list()] == []
        assert list((house.store / "~gateway/default/messages").rglob("results.jsonl")) == []


@pytest.mark.slow
async def test_a_create_that_temporal_does_not_take_is_ended_or_goes_on_with_its_key(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        with dev_server() as address:
            house = await stack.enter_async_context(open_house(await connect(address), tmp_path, {}))
            batches = (await stack.enter_async_context(opened(house))).messages.batches
        for headers in ({"Idempotency-Key": "k"}, {}):
            with pytest.raises(anthropic.InternalServerError, match="Temporal does not answer"):
                await batches.create(requests=[row("a")], extra_headers=headers)
        plain, keyed = [one async for one in batches.list()]
        assert (keyed.processing_status, keyed.request_counts.processing) == ("in_progress", 1)
        assert (plain.processing_status, plain.request_counts.errored) == ("ended", 1)
        results = [one async for one in await batches.results(plain.id)]
    assert len(results) == 1 and results[0].result.type == "errored"
    assert results[0].result.error.error.message == "Temporal did not answer, and the batch was not started."


@pytest.mark.slow
async def test_the_synchronous_client(house: House) -> None:
    def use(client: anthropic.Anthropic) -> list[str]:
        made = client.messages.batches.create(requests=[row("a"), row("b")])
        while client.messages.batches.retrieve(made.id).processing_status != "ended":
            time.sleep(0.3)
        assert made.id in [one.id for one in client.messages.batches.list(limit=1)]
        return [one.custom_id for one in client.messages.batches.results(made.id)]

    async with opened(house) as client, house.worker():
        with anthropic.Anthropic(
            base_url=str(client.base_url), api_key="any", max_retries=0, timeout=60, _strict_response_validation=True
        ) as sync:
            assert await asyncio.to_thread(use, sync) == ["a", "b"]
