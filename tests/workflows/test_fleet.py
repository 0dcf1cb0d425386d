"""Many shards: a bounded number of children, whatever becomes of one of them, and a progress that tells of all."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from durabatch.clients.client import BatchClient
from durabatch.contract import BatchResult, BatchStatus, Phase
from durabatch.workflows.decisions import MAX_CHILDREN
from support.house import House, connect


async def children(house: House, batch_id: str) -> Counter[str]:
    """Return the ids of the children that a batch has started, by how often."""
    history = await house.client.get_workflow_handle(batch_id).fetch_history()
    return Counter(
        event.child_workflow_execution_started_event_attributes.workflow_execution.workflow_id
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_more_shards_than_children_share_them_and_come_back_in_order(house: House) -> None:
    rows = MAX_CHILDREN + 3
    async with house.worker(max_concurrent_activities=40):
        handle = await house.start(rows, limits={"max_rows": 1}, poll={"first": "0.1s", "maximum": "0.1s"})
        result = await handle.result()
        started = await children(house, handle.id)
        history = await handle.fetch_history()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, rows)
    assert [row["custom_id"] for row in house.results(handle.id)] == [f"r{n}" for n in range(rows)]
    assert Counter(batch["marker"] for batch in await house.batches()) == Counter(
        house.marker(handle.id, shard) for shard in range(rows)
    )
    assert len(started) == -(-rows // 2) <= MAX_CHILDREN
    assert set(started.values()) == {1}
    assert f"{handle.id}/shards/00000-00001" in started
    assert len(result.provider_batches) == 100
    assert len(history.events) <= 4000
    assert max(event.ByteSize() for event in history.events) < 64 * 1024


@pytest.mark.slow
async def test_shards_are_spread_over_all_workers_of_the_queue(house: House, server: str) -> None:
    second = replace(house, client=await connect(server))
    async with (
        house.worker(identity="one", max_concurrent_activities=1),
        second.worker(identity="two", max_concurrent_activities=1),
    ):
        handle = await house.start(12, limits={"max_rows": 1})
        result = await handle.result()
        who = set()
        for child in await children(house, handle.id):
            history = await house.client.get_workflow_handle(child).fetch_history()
            who |= {event.activity_task_started_event_attributes.identity for event in history.events}
    assert result.counts.succeeded == 12
    assert who == {"", "one", "two"}  # "" where an event is of another kind
    assert len(await house.batches()) == 12


@pytest.mark.slow
async def test_a_shard_whose_workflow_is_terminated_is_taken_up_and_nothing_is_bought_twice(house: House) -> None:
    await house.admin.settings(finish_after_polls=100_000)
    async with house.worker():
        handle = await house.start(6, limits={"max_rows": 2})
        while len(await house.batches()) < 3:
            await asyncio.sleep(0.05)
        await house.client.get_workflow_handle(f"{handle.id}/shards/00001").terminate("by mistake")
        while (await children(house, handle.id))[f"{handle.id}/shards/00001"] < 2:
            await asyncio.sleep(0.2)
        await house.admin.settings(finish_after_polls=0)
        result = await handle.result()
    assert result.counts.succeeded == 6
    assert len(await house.batches()) == 3


async def reset(house: House, batch_id: str) -> WorkflowHandle[Any, BatchResult]:
    """Have a batch begin anew, from its very first step."""
    answer = await house.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=house.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=batch_id),
            reason="once more",
            workflow_task_finish_event_id=4,
            request_id=f"reset-{batch_id}",
        )
    )
    return house.client.get_workflow_handle(batch_id, run_id=answer.run_id, result_type=BatchResult)


async def billed(house: House) -> Counter[int]:
    """Return how often rows were billed, by how many rows."""
    return Counter((await house.admin.books())["rows"].values())


async def held(house: House) -> None:
    """Wait until the provider holds a request that it was told to hold."""
    while not any(fault["waiting"] for fault in await house.admin.faults()):
        await asyncio.sleep(0.05)


async def test_a_reset_batch_finds_what_its_children_bought(house: House) -> None:
    async with house.worker():
        handle = await house.start(6, limits={"max_rows": 2})
        assert (await handle.result()).counts.succeeded == 6
        again = await (await reset(house, handle.id)).result()
    assert again.counts.succeeded == 6
    assert len(await house.batches()) == 3


@pytest.mark.slow
async def test_children_of_a_batch_that_is_reset_leave_their_shards_to_new_ones(house: House) -> None:
    await house.admin.settings(finish_after_polls=100_000, cancel_fraction=0.5)
    async with house.worker():
        handle = await house.start(6, limits={"max_rows": 2})
        while len(await house.batches()) < 3:
            await asyncio.sleep(0.05)
        again = await reset(house, handle.id)
        while sum((await children(house, handle.id)).values()) < 3:
            await asyncio.sleep(0.2)
        await again.signal("cancel")
        result = await again.result()
    # The old children did not take the cancel at the provider for a mishap that is worth another try.
    assert (result.status, result.counts.succeeded, result.counts.canceled) == (BatchStatus.CANCELED, 3, 3)
    assert [batch["status"] for batch in await house.batches()] == ["cancelled"] * 3
    assert set(await billed(house)) == {1}


async def test_shards_that_are_told_too_late_to_leave_their_rows_to_others_are_gone_on_with(house: House) -> None:
    """As when a batch is reset twice, and the word of the first new run reaches a child of the second one."""
    await house.admin.settings(finish_after_polls=100_000)
    async with house.worker():
        handle = await house.start(4, limits={"max_rows": 2})
        while sum((await children(house, handle.id)).values()) < 2 or len(await house.batches()) < 2:
            await asyncio.sleep(0.05)
        retired = house.client.get_workflow_handle(f"{handle.id}/shards/00001")
        await retired.signal("retire")
        await retired.result()
        await house.admin.settings(finish_after_polls=0)
        result = await handle.result()
        started = await children(house, handle.id)
    assert (result.status, result.counts.succeeded, sorted(started.values())) == (BatchStatus.COMPLETED, 4, [1, 2])
    assert len(await house.batches()) == 2


@pytest.mark.parametrize("limits", [{}, {"max_rows": 3}], ids=["one shard", "two shards"])
async def test_a_batch_that_is_reset_while_a_create_is_on_its_way_buys_once(
    house: House, limits: dict[str, int]
) -> None:
    await house.admin.fault("batches.create", "hold_before", times=1)
    async with house.worker():
        handle = await house.start(6, limits=limits)
        await held(house)
        again = await reset(house, handle.id)
        # The create arrives when the new run has looked for it, and has not found it.
        await asyncio.sleep(1.5)
        await house.admin.clear()
        result = await again.result()
    assert result.counts.succeeded == 6
    assert await billed(house) == Counter({1: 6})


@pytest.mark.slow
async def test_a_shard_that_is_terminated_while_its_create_is_on_its_way_is_bought_once(house: House) -> None:
    await house.admin.fault("batches.create", "hold_before", times=1)
    async with house.worker():
        handle = await house.start(4, limits={"max_rows": 2})
        await held(house)
        for number in range(2):
            await house.client.get_workflow_handle(f"{handle.id}/shards/{number:05d}").terminate("by mistake")
        await asyncio.sleep(7)  # the new children have looked by now
        await house.admin.clear()
        result = await handle.result()
    assert result.counts.succeeded == 4
    assert await billed(house) == Counter({1: 4})


@pytest.mark.slow
async def test_rows_given_inline_are_not_carried_to_every_child(house: House) -> None:
    provider = house.settings.provider("sandbox").model_copy(update={"max_parallel_shards": 200})
    house.settings = house.settings.with_provider(provider)
    rows = [{"custom_id": f"r{n}", "input": "x" * 1000} for n in range(40)]
    async with house.worker():
        handle = await house.start(1, input=None, requests=rows, limits={"max_rows": 1})
        result = await handle.result()
        history = await handle.fetch_history()
    assert result.counts.succeeded == 40
    started = [
        event
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED
    ]
    assert len(started) == 40
    assert max(event.ByteSize() for event in started) < 4096


async def test_a_failed_shard_does_not_fail_its_siblings(house: House) -> None:
    await house.admin.fault("batches.create", "status", status=400, times=1)
    async with house.worker():
        result = await (await house.start(6, limits={"max_rows": 2})).result()
    assert result.status is BatchStatus.COMPLETED
    assert (result.counts.succeeded, result.counts.failed) == (4, 2)


async def test_a_cancel_reaches_shards_that_run_and_those_that_wait(house: House) -> None:
    await house.admin.settings(finish_after_polls=100_000, cancel_fraction=0.5)
    provider = house.settings.provider("sandbox").model_copy(update={"max_parallel_shards": 2})
    house.settings = house.settings.with_provider(provider)
    async with house.worker():
        handle = await house.start(10, limits={"max_rows": 2})
        while len(await house.batches()) < 2:
            await asyncio.sleep(0.05)
        await handle.signal("cancel", {"reason": "enough"})
        result = await handle.result()
    assert (result.status, result.cancel_reason) == (BatchStatus.CANCELED, "enough")
    assert (result.counts.succeeded, result.counts.canceled) == (2, 8)
    assert [batch["status"] for batch in await house.batches()] == ["cancelled"] * 2


async def test_the_client_tells_what_the_children_know(house: House) -> None:
    await house.admin.settings(finish_after_polls=100_000)
    async with house.worker():
        handle = await house.start(6, limits={"max_rows": 2})
        client = BatchClient(house.client, str(house.store), task_queue=house.task_queue)
        while True:
            seen = await client.status(handle.id)
            if seen.next_poll_at and seen.shards.running == 3:
                break
            await asyncio.sleep(0.1)
        assert seen.phase is Phase.POLLING
        assert "sandbox is working" in (seen.waiting_for or "")
        assert (seen.counts.total, seen.shards.total, seen.shards.ended) == (6, 3, 0)
        await handle.signal("cancel")
        assert (await handle.result()).status is BatchStatus.CANCELED
        assert (await client.status(handle.id)).counts.canceled == 6
    described = await house.client.get_workflow_handle(f"{handle.id}/shards/00000").describe()
    assert described.status is WorkflowExecutionStatus.COMPLETED


async def reset_to_its_last_task(house: House, batch_id: str) -> WorkflowHandle[Any, BatchResult]:
    """Reset a batch as `temporal workflow reset --type LastWorkflowTask` does, with its children under way."""
    history = await house.client.get_workflow_handle(batch_id).fetch_history()
    tasks = [
        event.event_id for event in history.events if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    answer = await house.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=house.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=batch_id),
            reason="LastWorkflowTask",
            workflow_task_finish_event_id=tasks[-1],
            request_id=f"reset-last-{batch_id}",
        )
    )
    return house.client.get_workflow_handle(batch_id, run_id=answer.run_id, result_type=BatchResult)


@pytest.mark.parametrize("what", ["end", "cancel"])
async def test_children_that_outlive_a_reset_of_their_batch_hear_it_and_are_heard(house: House, what: str) -> None:
    await house.admin.settings(finish_after_polls=100_000, cancel_fraction=0.5)
    async with house.worker():
        handle = await house.start(6, limits={"max_rows": 2}, poll={"first": "1h", "maximum": "1h"})
        while sum((await children(house, handle.id)).values()) < 3 or len(await house.batches()) < 3:
            await asyncio.sleep(0.1)
        again = await reset_to_its_last_task(house, handle.id)
        if what == "end":
            await house.admin.settings(finish_after_polls=0)
        ending = asyncio.create_task(again.result())
        if what == "cancel":
            await again.signal("cancel")
        while not ending.done():
            await again.signal("poll_now")  # the provider may take a moment for what it was asked to cancel
            await asyncio.wait([ending], timeout=1)
        result = await ending
        started = await children(house, handle.id)
    assert (result.status, result.counts.succeeded, result.counts.canceled) == (
        (BatchStatus.CANCELED, 3, 3) if what == "cancel" else (BatchStatus.COMPLETED, 6, 0)
    )
    assert set(started.values()) == {1}  # the same children all along
    assert len(await house.batches()) == 3
