"""What an operator does with Temporal's own commands buys nothing twice (promise G1).

Every task of a history is a safe place to reset to, and a create may be paused, reset and given more tries.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.api.workflowservice.v1 import UpdateActivityOptionsRequest
from temporalio.client import WorkflowHandle

from durabatch.contract import BatchResult, BatchStatus
from support.house import House
from support.operator import pause_activity, reset_activity, reset_points, reset_workflow, unpause_activity

MODELS = {"sandbox": "gpt-4o-mini", "claude": "claude-sonnet-4-5"}
#: Batches under way at a time where every task is tried.
AT_ONCE = 4


async def start(house: House, provider: str, rows: int, **fields: Any) -> WorkflowHandle[Any, BatchResult]:
    name = uuid.uuid4().hex[:8]
    texts = [f"Row {n}. [[sandbox:billed_as={name}-{n}]]" for n in range(rows)]
    return await house.start(texts, provider=provider, model=MODELS[provider], **fields)


async def bought_once(house: House, rows: int, batches: int = 1) -> None:
    """Check the provider's books: so many batches ran rows, each row once; and no file of ours is left there."""
    ledger = await house.admin.books()
    ran = Counter(batch["marker"] or batch["id"] for batch in ledger["batches"] if batch["rows_billed"])
    assert (len(ran), set(ran.values())) == (batches, {1})
    assert (len(ledger["rows"]), set(ledger["rows"].values())) == (rows, {1})
    assert {batch["status"] for batch in ledger["batches"] if not batch["rows_billed"]} <= {"failed"}  # fenced off
    assert [file["filename"] for file in ledger["files"] if file["purpose"] == "batch" and not file["deleted"]] == []


def whole(house: House, result: BatchResult, rows: int) -> None:
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, rows)
    assert [row["custom_id"] for row in house.results(result.batch_id)] == [f"r{n}" for n in range(rows)]


async def task_before(house: House, workflow_id: str, step: str) -> int:
    """Return the workflow task that scheduled a step first, once it is scheduled."""
    while True:
        history = await house.client.get_workflow_handle(workflow_id).fetch_history()
        for event in history.events:
            scheduled = event.activity_task_scheduled_event_attributes
            if (
                event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
                and scheduled.activity_type.name == step
            ):
                return scheduled.workflow_task_completed_event_id
        await asyncio.sleep(0.05)


async def newest(house: House, workflow_id: str) -> BatchResult:
    """Return the result of whichever run of a batch is the last one."""
    return await house.client.get_workflow_handle(workflow_id, result_type=BatchResult).result()


async def until_polled(house: House, workflow_id: str) -> None:
    await house.until(house.client.get_workflow_handle(workflow_id), lambda p: p.next_poll_at and p.provider_batch_id)


async def finish(house: House, handle: WorkflowHandle[Any, Any]) -> BatchResult:
    """Let the provider end its batches, and the batch with them."""
    await house.admin.settings(finish_after_polls=0)
    return await newest(house, handle.id)


async def children_started(house: House, workflow_id: str, wanted: int) -> None:
    """Wait until the newest run of a batch has so many shards."""
    kind = EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED
    while True:
        history = await house.client.get_workflow_handle(workflow_id).fetch_history()
        if len([event for event in history.events if event.event_type == kind]) >= wanted:
            return
        await asyncio.sleep(0.1)


# --- resets ---


@pytest.mark.parametrize(
    ("provider", "step"),
    [
        ("sandbox", "durabatch.find"),
        ("sandbox", "durabatch.upload"),
        ("sandbox", "durabatch.create"),
        ("sandbox", "durabatch.poll"),
        ("claude", "durabatch.create"),
    ],
)
async def test_a_batch_that_is_reset_while_it_polls_buys_once(house: House, provider: str, step: str) -> None:
    await house.admin.settings(finish_after_polls=100_000)
    async with house.worker():
        handle = await start(house, provider, 3)
        await until_polled(house, handle.id)
        await reset_workflow(house.client, handle.id, await task_before(house, handle.id, step))
        await until_polled(house, handle.id)
        whole(house, await finish(house, handle), 3)
    await bought_once(house, 3)


@pytest.mark.parametrize("provider", ["sandbox", "claude"])
async def test_a_batch_that_is_reset_between_find_and_create_after_its_end_buys_once(
    house: House, provider: str
) -> None:
    async with house.worker():
        handle = await start(house, provider, 3)
        await handle.result()
        await reset_workflow(house.client, handle.id, await task_before(house, handle.id, "durabatch.create"))
        result = await newest(house, handle.id)
    whole(house, result, 3)
    assert [batch.adopted for batch in result.provider_batches] == [True]
    await bought_once(house, 3)


@pytest.mark.parametrize(("provider", "step"), [("sandbox", "durabatch.upload"), ("claude", "durabatch.create")])
async def test_a_cancel_of_a_batch_that_is_reset_to_before_its_create_reaches_what_was_bought(
    house: House, provider: str, step: str
) -> None:
    await house.admin.settings(finish_after_polls=100_000, cancel_fraction=1)
    async with house.worker():
        handle = await start(house, provider, 3)
        await until_polled(house, handle.id)
        task = await task_before(house, handle.id, step)
    # Nobody works: so the new run has the search of before the create, and the cancel with it, in its first task.
    await reset_workflow(house.client, handle.id, task)
    await house.client.get_workflow_handle(handle.id).signal("cancel")
    async with house.worker():
        if provider == "claude":  # whose batches carry no marker: it is ours only once its results say so
            await house.admin.settings(finish_after_polls=0)
        result = await newest(house, handle.id)
    assert result.counts.succeeded == 3
    assert [batch.adopted for batch in result.provider_batches] == [True]
    assert [batch["status"] for batch in await house.batches()] == [
        "cancelled" if provider == "sandbox" else "completed"
    ]
    await bought_once(house, 3)


@pytest.mark.parametrize("provider", ["sandbox", "claude"])
async def test_a_cancel_of_a_batch_that_is_reset_to_before_a_settlement_reaches_the_attempt_after_it(
    house: House, provider: str
) -> None:
    retried, name = "[[sandbox:rate_limited times=1]]", uuid.uuid4().hex[:8]
    texts = [f"[[sandbox:billed_as={name}-{n}]] {retried if n else ''}" for n in range(3)]
    await house.admin.settings(cancel_fraction=1)
    await house.admin.fault("batches.create", "hold", skip=1, times=1)
    async with house.worker():
        handle = await house.start(texts, provider=provider, model=MODELS[provider])
        task = await task_before(house, handle.id, "durabatch.settle")
        while len(await house.batches()) < 2:
            await asyncio.sleep(0.05)
        await house.admin.settings(finish_after_polls=100_000)
        await house.admin.clear()
        await until_polled(house, handle.id)
    await reset_workflow(house.client, handle.id, task)
    await house.client.get_workflow_handle(handle.id).signal("cancel")
    async with house.worker():
        if provider == "claude":
            await house.admin.settings(finish_after_polls=0)
        result = await newest(house, handle.id)
    assert (result.counts.succeeded, [batch.adopted for batch in result.provider_batches]) == (3, [False, True])
    assert [batch["rows_billed"] for batch in await house.batches()] == [1, 2]


@pytest.mark.parametrize("provider", ["sandbox", "claude"])
async def test_a_batch_that_is_reset_to_its_last_task_while_a_create_is_under_way_buys_once(
    house: House, provider: str
) -> None:
    """As `temporal workflow reset --type LastWorkflowTask` does."""
    await house.admin.settings(finish_after_polls=100_000)
    await house.admin.fault("batches.create", "hold", times=1)
    async with house.worker():
        handle = await start(house, provider, 3)
        while not await house.batches():
            await asyncio.sleep(0.05)
        await reset_workflow(house.client, handle.id, (await reset_points(house.client, handle.id))[-1])
        await until_polled(house, handle.id)
        await house.admin.clear()
        whole(house, await finish(house, handle), 3)
    await bought_once(house, 3)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("moment", ["while it polls", "after its end"])
@pytest.mark.parametrize("provider", ["sandbox", "claude"])
async def test_every_task_of_a_batch_is_a_safe_place_to_reset_to(house: House, provider: str, moment: str) -> None:
    polls = moment == "while it polls"
    await house.admin.settings(finish_after_polls=100_000 if polls else 2)
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(rows: int, point: int) -> tuple[str, int, int]:
        """Reset a new batch to the task of this number; return its id, its rows, and how many tasks it had."""
        async with slots:
            handle = await start(house, provider, rows)
            await (until_polled(house, handle.id) if polls else handle.result())
            points = await reset_points(house.client, handle.id)
            await reset_workflow(house.client, handle.id, points[min(point, len(points) - 1)])
            await (until_polled(house, handle.id) if polls else newest(house, handle.id))
            return handle.id, rows, len(points)

    async with house.worker():
        # Each has another number of rows, so that at Anthropic none is a candidate for another.
        batches = [await one(2, 0)]
        batches += await asyncio.gather(*(one(2 + point, point) for point in range(1, batches[0][2])))
        await house.admin.settings(finish_after_polls=0)
        for batch_id, rows, _ in batches:
            whole(house, await newest(house, batch_id), rows)
    assert len(batches) >= (5 if polls else 8)
    await bought_once(house, sum(rows for _, rows, _ in batches), len(batches))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("moment", ["while it polls", "after its end"])
@pytest.mark.parametrize("who", ["batch", "shard"])
@pytest.mark.parametrize("provider", ["sandbox", "claude"])
async def test_every_task_of_a_fleet_is_a_safe_place_to_reset_to(
    house: House, provider: str, who: str, moment: str
) -> None:
    polls = moment == "while it polls"
    await house.admin.settings(finish_after_polls=100_000 if polls else 2)
    slots = asyncio.Semaphore(2)

    async def one(rows: int, point: int) -> tuple[str, int, int]:
        """Reset a new fleet of two shards, or a shard of it, to this task."""
        async with slots:
            handle = await start(house, provider, 2 * rows, limits={"max_rows": rows})
            shards = [f"{handle.id}/shards/{shard:05d}" for shard in (0, 1)]
            if polls:
                await children_started(house, handle.id, 2)
                for shard in shards:
                    await until_polled(house, shard)
            else:
                await handle.result()
            target = handle.id if who == "batch" else shards[1]
            points = await reset_points(house.client, target)
            await reset_workflow(house.client, target, points[min(point, len(points) - 1)])
            if not polls:
                await house.client.get_workflow_handle(target).result()
            elif who == "batch":
                await children_started(house, handle.id, 2)
            else:
                await until_polled(house, target)
            return handle.id, 2 * rows, len(points)

    async with house.worker():
        batches = [await one(1, 0)]
        batches += await asyncio.gather(*(one(1 + point, point) for point in range(1, batches[0][2])))
        await house.admin.settings(finish_after_polls=0)
        for batch_id, rows, _ in batches:
            whole(house, await newest(house, batch_id), rows)
    assert len(batches) >= 3
    await bought_once(house, sum(rows for _, rows, _ in batches), 2 * len(batches))


# --- temporal activity pause, unpause, reset, update-options ---


async def pending_create(house: House, workflow_id: str) -> str:
    """Return the id of a create that the provider has carried out, and that it has not answered."""
    while not await house.batches():
        await asyncio.sleep(0.05)
    while True:
        found = await house.client.get_workflow_handle(workflow_id).describe()
        for one in found.raw_description.pending_activities:
            if one.activity_type.name == "durabatch.create":
                return str(one.activity_id)
        await asyncio.sleep(0.05)


async def until_paused(house: House, workflow_id: str) -> None:
    """Wait until the try under way has heard of it and has ended."""
    while True:
        found = await house.client.get_workflow_handle(workflow_id).describe()
        if any(
            one.state == PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED
            for one in found.raw_description.pending_activities
        ):
            return
        await asyncio.sleep(0.05)


async def allow_more_tries(house: House, workflow_id: str, activity_id: str) -> None:
    request = UpdateActivityOptionsRequest(
        namespace="default", execution=WorkflowExecution(workflow_id=workflow_id), id=activity_id
    )
    request.activity_options.retry_policy.maximum_attempts = 5
    request.update_mask.paths.append("retry_policy.maximum_attempts")
    await house.client.workflow_service.update_activity_options(request)


@pytest.mark.parametrize("provider", ["sandbox", "claude"])
@pytest.mark.parametrize(
    "command",
    ["pause", pytest.param("reset", marks=pytest.mark.slow), pytest.param("more tries", marks=pytest.mark.slow)],
)
async def test_a_create_that_an_operator_interferes_with_buys_once(house: House, provider: str, command: str) -> None:
    await house.admin.settings(finish_after_polls=100_000)
    await house.admin.fault("batches.create", "hold", times=1)
    async with house.worker():
        handle = await start(house, provider, 3)
        create = await pending_create(house, handle.id)
        if command == "pause":
            await pause_activity(house.client, handle.id, create)
            await until_paused(house, handle.id)
            await unpause_activity(house.client, handle.id, create)
            await until_polled(house, handle.id)
        elif command == "reset":
            await reset_activity(house.client, handle.id, create)
            await until_polled(house, handle.id)
        else:  # and then its worker goes away
            await allow_more_tries(house, handle.id, create)
    async with house.worker():
        await until_polled(house, handle.id)
        await house.admin.clear()
        whole(house, await finish(house, handle), 3)
    await bought_once(house, 3)
    assert (await house.admin.books(summary=True))["requests"]["batches.create"] == 1
