"""Cancel is one path (promise G5): three doors, every phase, the same end."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import Worker

from durabatch.contract import BatchResult, BatchSpec, BatchStatus, Phase
from support.house import House


@workflow.defn(sandboxed=False)  # its module imports pytest
class Parent:
    """Somebody's workflow that has a batch among its steps."""

    @workflow.run
    async def run(self, child_id: str, spec: BatchSpec, task_queue: str) -> None:
        await workflow.start_child_workflow(
            "BatchWorkflow",
            spec,
            id=child_id,
            task_queue=task_queue,
            parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
        )
        await workflow.wait_condition(lambda: False)


async def by_signal(house: House, handle: WorkflowHandle[Any, Any]) -> None:
    await handle.signal("cancel", {"reason": "too dear", "requested_by": "ada"})


async def by_temporal(house: House, handle: WorkflowHandle[Any, Any]) -> None:
    await handle.cancel(reason="too dear")


async def by_parent(house: House, handle: WorkflowHandle[Any, Any]) -> None:
    await house.client.get_workflow_handle(f"{handle.id}-parent").terminate("too dear")


DOORS = {"signal": by_signal, "temporal": by_temporal, "parent": by_parent}


@dataclass
class Moment:
    """A phase of a batch's life, held open so that a cancel can be put into it."""

    #: Sets the scene before the batch starts.
    hold: Callable[[House, str], Awaitable[None]]
    #: Whether the batch has come to the moment.
    there: Callable[[House, WorkflowHandle[Any, Any]], Awaitable[bool]]
    #: Lets things go on after the cancel.
    release: Callable[[House, str], Awaitable[None]]
    #: Provider batches that exist at the end.
    batches: int
    status: BatchStatus = BatchStatus.CANCELED
    #: Rows that are finished at the end, of three.
    finished: int = 0
    texts: tuple[str, ...] = ("one", "two", "three")
    worker_first: bool = True


async def nothing(house: House, batch_id: str) -> None:
    return


def fault(op: str, kind: str, **options: Any) -> Callable[[House, str], Awaitable[None]]:
    async def hold(house: House, batch_id: str) -> None:
        await house.admin.fault(op, kind, **options)

    return hold


async def clear(house: House, batch_id: str) -> None:
    await house.admin.clear()


def in_phase(phase: Phase) -> Callable[[House, WorkflowHandle[Any, Any]], Awaitable[bool]]:
    async def there(house: House, handle: WorkflowHandle[Any, Any]) -> bool:
        return (await house.progress(handle)).phase is phase

    return there


def asked(op: str, times: int = 1) -> Callable[[House, WorkflowHandle[Any, Any]], Awaitable[bool]]:
    async def there(house: House, handle: WorkflowHandle[Any, Any]) -> bool:
        return (await house.admin.books(summary=True))["requests"].get(op, 0) >= times

    return there


async def waiting(house: House, handle: WorkflowHandle[Any, Any]) -> bool:
    return (await house.progress(handle)).waiting_for is not None


async def at_once(house: House, handle: WorkflowHandle[Any, Any]) -> bool:
    return True


async def polled_forever(house: House, batch_id: str) -> None:
    await house.admin.settings(finish_after_polls=100_000, cancel_fraction=0.34)


def blocked(name: str) -> Callable[[House, str], Awaitable[None]]:
    """Put a folder where a file is to be written: the store then refuses, as one that is full or forbidden does."""

    async def hold(house: House, batch_id: str) -> None:
        (house.store / batch_id / name / "in the way").mkdir(parents=True)

    return hold


def unblocked(name: str) -> Callable[[House, str], Awaitable[None]]:
    async def release(house: House, batch_id: str) -> None:
        path: Path = house.store / batch_id / name
        (path / "in the way").rmdir()
        path.rmdir()
        with contextlib.suppress(RPCError):  # a batch that was cancelled while it was planned has ended by now
            await house.client.get_workflow_handle(batch_id).signal("poll_now")

    return release


MOMENTS = {
    "before_plan": Moment(nothing, at_once, nothing, 0, worker_first=False),
    "during_plan": Moment(blocked("plan.json"), waiting, unblocked("plan.json"), 0),
    "upload": Moment(fault("files.create", "hold_before"), asked("files.create"), clear, 0),
    "submit_in_flight": Moment(fault("batches.create", "hold"), asked("batches.create"), clear, 1, finished=1),
    "submit_lost": Moment(
        fault("batches.create", "lost_answer", times=1), asked("batches.create"), nothing, 1, finished=1
    ),
    "waiting_for_a_slot": Moment(
        fault("batches.create", "status", status=429, message="too many batches"), waiting, clear, 0
    ),
    "polling": Moment(polled_forever, in_phase(Phase.POLLING), nothing, 1, finished=1),
    "fetching": Moment(
        fault("files.content", "hold_before"), asked("files.content"), clear, 1, BatchStatus.COMPLETED, 3
    ),
    "settling": Moment(
        blocked("shards/00000/results.jsonl"),
        waiting,
        unblocked("shards/00000/results.jsonl"),
        1,
        BatchStatus.COMPLETED,
        3,
    ),
    "applying": Moment(blocked("results.jsonl"), waiting, unblocked("results.jsonl"), 1, BatchStatus.COMPLETED, 3),
    "between_attempts": Moment(
        fault("files.create", "hold_before", skip=1),
        asked("files.create", 2),
        clear,
        1,
        # Two rows are finished, and the third has its own last word: what it failed with.
        BatchStatus.COMPLETED,
        2,
        ("one", "[[sandbox:server_error times=1]]", "three"),
    ),
}


@pytest.mark.parametrize(
    ("name", "door"),
    [
        # Every moment by the signal, and one of them through the other doors, is quick enough for every day.
        pytest.param(name, door, marks=[] if door == "signal" or name == "polling" else [pytest.mark.slow])
        for name in MOMENTS
        for door in DOORS
    ],
)
async def test_a_cancel_ends_the_same_through_every_door_in_every_phase(house: House, name: str, door: str) -> None:
    moment = MOMENTS[name]
    if name in ("upload", "submit_in_flight", "submit_lost"):
        await polled_forever(house, "")
    batch_id = f"cancel-{uuid.uuid4().hex[:8]}"
    await moment.hold(house, batch_id)
    # Parents run elsewhere, so that a batch can have one before it has a worker.
    async with Worker(house.client, task_queue=f"{house.task_queue}-parents", workflows=[Parent]):
        if moment.worker_first:
            async with house.worker():
                handle = await _start(house, batch_id, door, moment.texts)
                while not await moment.there(house, handle):
                    await asyncio.sleep(0.05)
                await DOORS[door](house, handle)
                await house.until(handle, lambda p: p.cancel_requested)
                await moment.release(house, batch_id)
                result = await handle.result()
        else:
            handle = await _start(house, batch_id, door, moment.texts)
            await DOORS[door](house, handle)
            async with house.worker():
                result = await handle.result()
    await _check(house, moment, result, door)


async def _start(house: House, batch_id: str, door: str, texts: tuple[str, ...]) -> WorkflowHandle[Any, BatchResult]:
    if door != "parent":
        return await house.start(list(texts), id=batch_id)
    # A batch that never runs, for its spec: the parent starts the one that does.
    handle = await house.start(list(texts), id=batch_id)
    history = await handle.fetch_history()
    payloads = history.events[0].workflow_execution_started_event_attributes.input.payloads
    [spec] = await house.client.data_converter.decode(payloads, [BatchSpec])
    await handle.terminate("only its spec was wanted")
    await house.client.start_workflow(
        Parent.run,
        args=[batch_id, spec, house.task_queue],
        id=f"{batch_id}-parent",
        task_queue=f"{house.task_queue}-parents",
    )
    while True:
        child = await house.client.get_workflow_handle(batch_id).describe()
        if child.run_id != handle.first_execution_run_id:
            return house.client.get_workflow_handle(batch_id, run_id=child.run_id, result_type=BatchResult)
        await asyncio.sleep(0.05)


async def _check(house: House, moment: Moment, result: BatchResult, door: str) -> None:
    assert result.status is moment.status
    counts = result.counts
    assert counts.total == counts.succeeded + counts.failed + counts.canceled + counts.expired
    assert counts.succeeded == moment.finished
    if counts.total:
        rows = house.results(result.batch_id)
        assert [row["custom_id"] for row in rows] == ["r0", "r1", "r2"]
        assert sum(row["status"] == "succeeded" for row in rows) == counts.succeeded
    if door != "parent":
        assert result.cancel_reason == "too dear"
        assert result.canceled_by == ("ada" if door == "signal" else "temporal")
    else:
        assert result.canceled_by == "temporal"
    ledger = await house.admin.books()
    assert len(ledger["batches"]) == moment.batches
    assert all(batch["status"] in ("completed", "cancelled") for batch in ledger["batches"])
    assert not [file for file in ledger["files"] if file["purpose"] == "batch" and not file["deleted"]]


async def test_a_cancel_after_the_end_changes_nothing(house: House) -> None:
    async with house.worker():
        handle = await house.start(3)
        result = await handle.result()
        with pytest.raises(Exception, match="already completed"):
            await handle.signal("cancel")
    assert result.status is BatchStatus.COMPLETED


@pytest.mark.slow
async def test_the_first_cancel_gives_the_reason_and_later_ones_do_no_harm(house: House) -> None:
    await polled_forever(house, "")
    await house.admin.settings(cancel_polls=5)
    async with house.worker():
        handle = await house.start(3)
        await house.until(handle, lambda p: p.provider_batch_id)
        await handle.signal("cancel", {"reason": "first"})
        await house.until(handle, lambda p: p.cancel_requested)
        await handle.signal("cancel", {"reason": "second"})
        await handle.cancel()
        result = await handle.result()
    assert result.cancel_reason == "first"


async def test_a_cancel_of_several_shards_reaches_each_of_them(house: House) -> None:
    await polled_forever(house, "")
    async with house.worker():
        handle = await house.start(9, limits={"max_rows": 3})
        while len(await house.batches()) < 3:
            await asyncio.sleep(0.05)
        await handle.signal("cancel")
        result = await handle.result()
    assert result.status is BatchStatus.CANCELED
    assert result.counts.total == 9
    assert result.counts.succeeded == 3
    assert {batch["status"] for batch in await house.batches()} == {"cancelled"}
