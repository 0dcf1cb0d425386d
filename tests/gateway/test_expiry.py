"""Batches that have ended are kept as long as the configuration says, and one that is under way always."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch

from durabatch.activities.gateway.collecting import collect
from durabatch.activities.store import Store
from durabatch.clients.gc.sweep import Removed, Sweep
from durabatch.contract.gateway_batch import inner_id
from durabatch.contract.gateway_layout import DUE, due_path
from durabatch.contract.gateway_limits import FOR_EVER, Keep
from support.gateway import jsonl, line, open_gateway
from support.house import House

ORDER: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
AT_ONCE = timedelta(0)


async def create(client: AsyncOpenAI, **more: Any) -> Batch:
    file = await client.files.create(
        file=jsonl([line("r0"), line("r1", "[[sandbox:invalid_request]]")]), purpose="batch"
    )
    return await client.batches.create(input_file_id=file.id, **ORDER, **more)


async def ended(client: AsyncOpenAI, batch_id: str) -> Batch:
    while (batch := await client.batches.retrieve(batch_id)).status != "completed":
        await asyncio.sleep(0.3)
    return batch


def rows(house: House, batch: Batch) -> set[str]:
    """Return the names of what is left of the batch that ran the rows."""
    root = house.store / inner_id("default", batch.id)
    return {file.name for file in root.rglob("*") if file.is_file()}


@pytest.mark.slow
async def test_the_rows_of_a_batch_go_before_the_batch_and_the_batch_with_its_files(house: House) -> None:
    store = Store.open(str(house.store))
    key = {"extra_headers": {"Idempotency-Key": "nightly"}}
    async with open_gateway(house, "max_cost_usd_per_day = 5") as client, house.worker():
        first = await create(client, **key)
        batch = await ended(client, first.id)
        whole = rows(house, batch)
        assert {"results.jsonl", "plan.json", "result.json"} < whole
        assert await collect(store, FOR_EVER) == (0, 1)  # looked at, and never again
        assert rows(house, batch) == whole and await store.list(DUE) == []

        today = datetime.now(UTC).date()
        await store.write(due_path(today, "default", batch.id), b"")
        await collect(store, Keep(timedelta(days=3), timedelta(days=9)))
        (path,) = [path for path, _ in await store.list(DUE)]
        assert path in {due_path(today + timedelta(days=days), "default", batch.id) for days in (3, 4)}
        assert rows(house, batch) == whole

        await store.write(due_path(today, "default", batch.id), b"")
        await collect(store, Keep(AT_ONCE, timedelta(days=9)))
        assert rows(house, batch) == {"plan.json", "result.json", "intent"}
        assert await client.batches.retrieve(batch.id) == batch
        assert (await client.files.content(batch.output_file_id or "")).text.count("\n") == 1

        await store.write(due_path(today, "default", batch.id), b"")
        await collect(store, Keep(AT_ONCE, AT_ONCE))
        assert rows(house, batch) == set()
        with pytest.raises(openai.NotFoundError):
            await client.batches.retrieve(batch.id)
        assert [one.id async for one in client.batches.list()] == []
        assert [one.id async for one in client.files.list()] == [batch.input_file_id]  # which is the tenant's own
        left = [path for path, _ in await store.list("~gateway/default") if "/files/" not in path]
        assert {path.split("/")[2] for path in left} == {"index-files", "index-files-by", "spent"}

        again = await create(client, **key)
        assert again.id != first.id and (await ended(client, again.id)).request_counts is not None


@pytest.mark.slow
async def test_a_batch_that_is_under_way_is_left_alone(house: House) -> None:
    await house.admin.settings(finish_after_polls=100_000)
    store = Store.open(str(house.store))
    async with open_gateway(house) as client, house.worker():
        made = await create(client)
        while not await house.batches():
            await asyncio.sleep(0.05)
        whole = rows(house, made)
        await store.write(due_path(datetime.now(UTC).date(), "default", made.id), b"")
        await collect(store, Keep(AT_ONCE, AT_ONCE))
        assert rows(house, made) == whole
        await house.admin.settings(finish_after_polls=0)
        await ended(client, made.id)
        assert (await collect(store, Keep(AT_ONCE, AT_ONCE))).batches == 1  # its end has noted it again
        assert [one.id async for one in client.batches.list()] == []


@pytest.mark.slow
async def test_gc_finds_batches_that_ended_when_they_were_to_be_kept_for_ever(house: House) -> None:
    store = Store.open(str(house.store))

    async def sweep(keep: Keep) -> Removed:
        sweep = Sweep(house.client, store, [], rest=timedelta(days=30), results=False, say=lambda text: None, keep=keep)
        return await sweep.remove(await sweep.look(), orphans=False)

    async with open_gateway(house) as client, house.worker():
        old = await ended(client, (await create(client)).id)
        assert (await sweep(FOR_EVER)).gateway_batches == 1
        assert (await sweep(Keep(batches=timedelta(days=9)))).gateway_batches == 0
        assert await client.batches.retrieve(old.id) == old
        assert (await sweep(Keep(batches=AT_ONCE))).gateway_batches == 1
        assert [one.id async for one in client.batches.list()] == []
