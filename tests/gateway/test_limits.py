"""Tenants' limits, through the official client, over real HTTP, Temporal and sandbox."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch
from temporalio.client import WorkflowExecutionStatus

from durabatch.activities.gateway.messages import count_requests, remove_requests
from durabatch.activities.store import Store
from durabatch.contract.gateway_batch import GatewayBatch, message_rows_path, workflow_id
from durabatch.contract.gateway_layout import Listed, message_results_path
from durabatch.contract.gateway_limits import TURNS_WORKFLOW, TurnLedger
from durabatch.contract.ledger import LedgerStart, LedgerView, Reservation
from durabatch.gateway.errors import ApiError
from durabatch.gateway.stored import Stored
from durabatch.gateway.tenants import Tenant
from support.gateway import jsonl, line, new_id, open_gateway
from support.house import House, asked, connect, open_house

from .conftest import LINE, Opener

ORDER: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
ENDED = ("completed", "failed", "expired", "cancelled")
SLOW = {"finish_after_polls": 100_000, "cancel_fraction": 0.34}


def keys(*tenants: str, more: str = "") -> str:
    return "".join(
        f'[[gateway.keys]]\ntenant = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{more}\n'
        for name in tenants
    )


async def create(client: AsyncOpenAI, rows: int = 1, **fields: Any) -> Batch:
    lines = [line(f"r{n}") for n in range(rows)]
    for one in lines:
        one["body"].update(fields)
    file = await client.files.create(file=jsonl(lines), purpose="batch")
    return await client.batches.create(input_file_id=file.id, **ORDER)


async def until_ended(client: AsyncOpenAI, made: Batch) -> Batch:
    while (batch := await client.batches.retrieve(made.id)).status not in ENDED:
        await asyncio.sleep(0.3)
    return batch


async def until_bought(house: House, count: int) -> None:
    while len(await house.batches()) < count:
        await asyncio.sleep(0.1)


async def until_waiting(house: House, tenant: str, made: Batch) -> None:
    """Wait until a batch says that it waits for its turn."""
    handle = house.client.get_workflow_handle(workflow_id(tenant, made.id))
    while True:
        if "Waiting for its turn" in str(await asked(lambda: handle.query("__temporal_workflow_metadata"))):
            return
        await asyncio.sleep(0.1)


async def test_files_beyond_a_tenants_limits_are_not_taken(opened: Opener) -> None:
    limits = f"max_file_bytes = {10 * len(LINE)}\nmax_stored_bytes = {5 * len(LINE)}"
    async with opened(keys("search", more=limits) + keys("ads")) as door:
        search = door.client("search")
        with pytest.raises(openai.APIStatusError) as large:
            await search.files.create(file=LINE * 11, purpose="batch")
        assert (large.value.status_code, large.value.code) == (413, "file_too_large")
        kept = [await search.files.create(file=LINE * 2, purpose="batch") for _ in range(2)]
        with pytest.raises(openai.BadRequestError, match="exceeded your file storage quota") as full:
            await search.files.create(file=LINE * 2, purpose="batch")
        assert full.value.code == "storage_quota_exceeded"
        assert (await door.client("ads").files.create(file=LINE * 20, purpose="batch")).bytes == 20 * len(LINE)
        await search.files.delete(kept[0].id)
        both = [search.files.create(file=LINE * 2, purpose="batch") for _ in range(2)]
        found = await asyncio.gather(*both, return_exceptions=True)
        assert sorted(isinstance(one, openai.BadRequestError) for one in found) == [False, True]
        assert len([path for path in door.objects() if path.endswith("content") and "/search/" in path]) == 2


async def test_requests_and_results_of_message_batches_count_for_as_long_as_they_are_kept(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    stored, tenant = Stored(store), Tenant(name="search", max_stored_bytes=1000)
    batch = GatewayBatch(
        tenant="search", id=new_id(Listed.MESSAGES), input_file_id="", endpoint="/v1/messages", created_at=0
    )
    await store.write(message_rows_path("search", batch.id), b"x" * 300)
    await count_requests(store, batch)
    await store.write(message_results_path("search", batch.id), b"x" * 600)

    async def fits(size: int) -> bool:
        try:
            async with stored.room(tenant, 0) as room:
                room.take(size)
        except ApiError as refused:
            assert refused.code == "storage_quota_exceeded"
            return False
        stored.forget("search")  # nothing was stored here
        return True

    assert not await fits(101) and await fits(100)
    await remove_requests(store, "search", batch.id)
    assert not await fits(401) and await fits(400)


async def test_batches_beyond_a_tenants_limits_are_refused_before_they_cost(house: House) -> None:
    limits = "max_rows = 3\nmax_cost_usd_per_day = 1.0\n"
    async with open_gateway(house, limits) as client, house.worker():
        large = await until_ended(client, await create(client, 4))
        dear = await until_ended(client, await create(client, 1, max_tokens=4_000_000))
        fine = await until_ended(client, await create(client, 3, max_tokens=1_000_000))
        # It might have cost 0.90 USD, and cost less, so there is room again.
        again = await until_ended(client, await create(client, 3, max_tokens=1_000_000))
        unknown = await until_ended(client, await create(client, 1, model="nobodys-model"))
    assert large.errors and large.errors.data and large.errors.data[0].code == "too_many_tasks"
    assert dear.errors and dear.errors.data and dear.errors.data[0].code == "billing_hard_limit_reached"
    assert "1.2" in (dear.errors.data[0].message or "") and "of the 1.0 USD" in (dear.errors.data[0].message or "")
    assert unknown.errors and unknown.errors.data and unknown.errors.data[0].code == "price_unknown"
    assert (fine.status, again.status) == ("completed", "completed")
    assert len(await house.batches()) == 2


async def test_batches_wait_for_their_turn_and_a_cancel_ends_the_wait_at_once(house: House) -> None:
    await house.admin.settings(**SLOW)
    # A tenant of its own: the ledger of one that another test has used is served by that test's worker.
    async with open_gateway(house, f"max_batches = 1\n{keys('waits')}", key="waits") as client, house.worker():
        first = await create(client)
        await until_bought(house, 1)
        second, third = await create(client), await create(client)
        for made in (second, third):
            await until_waiting(house, "waits", made)
            assert (await client.batches.retrieve(made.id)).status == "in_progress"
        await client.batches.cancel(second.id)
        ended = await until_ended(client, second)
        assert ended.status == "cancelled" and ended.cancelled_at and ended.output_file_id is None
        assert len(await house.batches()) == 1
        await house.admin.settings(finish_after_polls=0)
        assert (await until_ended(client, first)).status == (await until_ended(client, third)).status == "completed"
    assert len(await house.batches()) == 2


@pytest.mark.slow
async def test_a_ledger_of_turns_on_a_task_queue_that_workers_have_left_goes_on_where_they_are(house: House) -> None:
    ledger = TurnLedger(name="moved", limit=2)
    there = await house.client.start_workflow(TURNS_WORKFLOW, id="moved-holder", task_queue="nobody")  # never ends
    holds = Reservation(holder="held", workflow_id=there.id, tokens=1, since=datetime.now(UTC), held=True)
    left = await house.client.start_workflow(
        TURNS_WORKFLOW,
        LedgerStart(account=ledger.name, provider="the gateway", model="batches", limit=1),
        id=ledger.id,
        task_queue="nobody",
        start_signal="reserve",
        start_signal_args=[holds, 1],
    )
    async with open_gateway(house, f"max_batches = 2\n{keys('moved')}", key="moved") as client, house.worker():
        assert (await until_ended(client, await create(client))).status == "completed"
        kept = house.client.get_workflow_handle(ledger.id)
        seen = await asked(lambda: kept.query("ledger", result_type=LedgerView))
    first = house.client.get_workflow_handle(ledger.id, run_id=left.first_execution_run_id)
    assert (await first.describe()).status is WorkflowExecutionStatus.TERMINATED
    assert (seen.limit, [one.holder for one in seen.holding]) == (2, ["held"])


@pytest.mark.slow
async def test_a_tenant_with_many_batches_does_not_keep_another_from_its_turn(house: House) -> None:
    await house.admin.settings(**SLOW)
    tenants = keys("search", "ads")
    async with open_gateway(house, f"max_batches_in_all = 2\n{tenants}", key="search") as search, house.worker():
        many = [await create(search, 2) for _ in range(8)]
        await until_bought(house, 2)
        ads = search.with_options(api_key="ads")
        small = await create(ads)
        await until_waiting(house, "ads", small)
        await house.admin.settings(finish_after_polls=0)
        assert (await until_ended(ads, small)).status == "completed"
        bought = len(await house.batches())
        for made in many:
            await until_ended(search, made)
    # Those that had their turn when it came, and one or two for each that has ended since; the others waited.
    assert bought < 9 == len(await house.batches())


@pytest.mark.slow
async def test_a_batch_whose_workflow_was_terminated_does_not_keep_its_turn(house: House) -> None:
    await house.admin.settings(**SLOW)
    async with open_gateway(house, f"max_batches = 1\n{keys('ended')}", key="ended") as client, house.worker():
        first = await create(client)
        await until_bought(house, 1)
        second = await create(client)
        await until_waiting(house, "ended", second)
        handle = house.client.get_workflow_handle(workflow_id("ended", first.id))
        await handle.terminate("by an operator")
        # Whoever asks for it starts it again: its rows are under way, so it has its turn beside whoever has it now.
        await client.batches.retrieve(first.id)
        await house.admin.settings(finish_after_polls=0)
        assert (await until_ended(client, first)).status == "completed"
        assert (await until_ended(client, second)).status == "completed"
    assert len(await house.batches()) == 2


@pytest.mark.slow
async def test_direct_batches_of_one_tenant_leave_a_worker_room_for_anothers(server: str, tmp_path: Path) -> None:
    provider = {"mode": "direct", "timeout": "300s"}
    async with open_house(await connect(server), tmp_path, provider) as house:
        both = keys("many", "few")
        # Half of a worker's slots are for steps that take long, as these do.
        async with open_gateway(house, both, key="many") as many, house.worker(max_concurrent_activities=8):
            file = await many.files.create(file=jsonl([line("r0", "[[sandbox:hang]]")]), purpose="batch")
            hanging = [await many.batches.create(input_file_id=file.id, **ORDER) for _ in range(8)]
            while (await house.admin.live())["open"] < 3:
                await asyncio.sleep(0.1)
            few = many.with_options(api_key="few")
            assert (await until_ended(few, await create(few))).status == "completed"
            assert {(await many.batches.retrieve(one.id)).status for one in hanging} <= {"validating", "in_progress"}
