"""Whatever step fails, with whatever error: the workflows end, or wait and say why, and their tasks never fail.

A task that fails is tried again for ever, with the same outcome, whatever is fixed meanwhile. The steps are the real
ones but for one, whose place a double takes that fails as it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from durabatch.activities.registry import all_activities
from durabatch.activities.resources import Resources
from durabatch.activities.store import Store
from durabatch.contract import BatchProgress, BatchResult, BatchSpec, BatchStatus, ledger_steps
from durabatch.contract import steps as names
from durabatch.contract.ledger import ledger_id
from durabatch.workers.plugin import PASSED_THROUGH
from durabatch.workflows import WORKFLOWS, BatchWorkflow
from support.house import House

#: Codes of each kind, and whether Temporal may try again by itself.
CODES = {
    "accounting_error": False,  # hopeless: nothing gets better by itself
    "authentication_failed": False,  # for an operator to fix
    "store_error": True,  # an outage
    "TypeError": True,  # none of ours: a defect
}
STEPS = [
    step.name
    for step in (
        *(names.PLAN, names.RECALL, ledger_steps.RESERVE, names.UPLOAD, names.FIND),
        *(names.CREATE, names.POLL, names.CANCEL),
        *(names.FETCH, ledger_steps.RELEASE, names.SETTLE, names.TIDY, names.APPLY, names.FINISH),
        *(names.RUN_ROWS, names.COLLECT),
    )
]
#: What every run of the tests looks at: each boundary of each workflow.
CORE = {
    (names.PLAN.name, "store_error", 1),
    (names.FIND.name, "accounting_error", 2),
    (names.SETTLE.name, "accounting_error", 1),
    (names.SETTLE.name, "accounting_error", 2),
    (names.SETTLE.name, "TypeError", 2),
    (names.APPLY.name, "accounting_error", 2),
    (names.FINISH.name, "accounting_error", 1),
    (names.RUN_ROWS.name, "accounting_error", 2),
    (names.COLLECT.name, "store_error", 1),
}
CASES = [
    pytest.param(*case, id="-".join(map(str, case)), marks=[] if case in CORE else [pytest.mark.slow])
    for case in [(step, code, shards) for step in STEPS for code in CODES for shards in (1, 2)]
]


@dataclass
class Double:
    """Takes the place of one step, and fails until it is asked not to."""

    step: str
    code: str
    broken: bool = True

    def stand_in_for(self, real: Any) -> Any:
        takes = real.__annotations__["request"]

        async def run(request: Any) -> Any:
            if self.broken:
                raise ApplicationError(
                    f"{self.step} fails with {self.code}.",
                    type=self.code,
                    non_retryable=not CODES[self.code],
                    next_retry_delay=timedelta(milliseconds=10),
                )
            return await real(request)

        run.__annotations__ = {"request": takes, "return": real.__annotations__["return"]}
        return activity.defn(name=self.step)(run)


@contextlib.asynccontextmanager
async def worker(house: House, double: Double) -> AsyncIterator[Worker]:
    """Run a worker of the house with one step that is not the real one."""
    settings = house.settings
    resources = Resources(Store.open(settings.store.url), settings.provider, settings.worker.heartbeat)
    real = {activity._Definition.must_from_callable(run).name: run for run in all_activities(resources)}
    real[double.step] = double.stand_in_for(real[double.step])
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH)
    async with Worker(
        house.client,
        task_queue=house.task_queue,
        workflows=list(WORKFLOWS),
        activities=list(real.values()),
        workflow_runner=SandboxedWorkflowRunner(restrictions=restrictions),
    ) as running:
        try:
            yield running
        finally:
            await resources.close()


def bounded(house: House) -> House:
    """Return the house with a provider whose queue is bounded, so that there is a ledger."""
    provider = house.settings.provider("sandbox").model_copy(update={"max_enqueued_tokens": 1_000_000})
    return replace(house, settings=house.settings.with_provider(provider))


async def progresses(house: House, batch_id: str) -> list[BatchProgress]:
    """Return what a batch and its shards say of themselves, as far as they have begun."""
    found = []
    for workflow_id in (batch_id, *(f"{batch_id}/shards/{shard:05d}" for shard in range(2))):
        handle = house.client.get_workflow_handle(workflow_id)
        with contextlib.suppress(RPCError):
            found.append(await handle.query("progress", result_type=BatchProgress))
    return found


async def nudge(house: House, batch_id: str) -> None:
    """Cut the waits of a batch and of its shards short."""
    for workflow_id in (batch_id, *(f"{batch_id}/shards/{shard:05d}" for shard in range(2))):
        with contextlib.suppress(RPCError):
            await house.client.get_workflow_handle(workflow_id).signal("poll_now")


async def no_task_failed(house: House, batch_id: str) -> None:
    ledger = ledger_id(house.settings.provider("sandbox").fingerprint, "gpt-4o-mini")
    for workflow_id in (batch_id, *(f"{batch_id}/shards/{shard:05d}" for shard in range(2)), ledger):
        try:
            history = await house.client.get_workflow_handle(workflow_id).fetch_history()
        except RPCError as error:
            assert error.status is RPCStatusCode.NOT_FOUND
            continue
        failed = [
            event.workflow_task_failed_event_attributes
            for event in history.events
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
        ]
        ours = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE
        assert [task.failure.message for task in failed if task.cause == ours] == []


async def start(house: House, double: Double, shards: int) -> WorkflowHandle[Any, BatchResult]:
    limits = {"max_rows": 2} if shards > 1 else {}
    if double.step == names.CANCEL.name:
        await house.admin.settings(finish_after_polls=100_000)
    if double.step != names.RECALL.name:
        mode = "direct" if double.step in (names.RUN_ROWS.name, names.COLLECT.name) else "batch"
        handle = await house.start(4, mode=mode, limits=limits)
        if double.step == names.CANCEL.name:
            while len(await house.batches()) < shards:
                await asyncio.sleep(0.05)
            await handle.signal("cancel")
        return handle
    # A cancel that comes before the plan: then it is asked whether there was one before.
    path = house.store / "in.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"custom_id": "a", "input": "Say something."}\n')
    spec = BatchSpec(provider="sandbox", input=path.as_uri(), model="gpt-4o-mini")
    batch_id = f"{house.task_queue}-canceled"
    return await house.client.start_workflow(
        BatchWorkflow.run, spec, id=batch_id, task_queue=house.task_queue, start_signal="cancel"
    )


@pytest.mark.parametrize(("step", "code", "shards"), CASES)
async def test_a_step_that_fails_ends_its_batch_or_is_waited_for_and_the_batch_goes_on(
    house: House, step: str, code: str, shards: int
) -> None:
    if step in (ledger_steps.RESERVE.name, ledger_steps.RELEASE.name):
        house = bounded(house)
    double = Double(step, code)
    async with worker(house, double):
        handle = await start(house, double, shards)
        ending = asyncio.create_task(handle.result())
        while not ending.done():
            seen = await progresses(house, handle.id)
            if any(f"{step} fails" in f"{one.waiting_for} {one.last_error}" for one in seen):
                break
            await nudge(house, handle.id)
            await asyncio.wait([ending], timeout=0.2)
        double.broken = False  # the operator has fixed it
        await house.admin.settings(finish_after_polls=0)  # the provider ends what nobody could cancel
        while not ending.done():
            await nudge(house, handle.id)
            if step == names.CANCEL.name:
                with contextlib.suppress(RPCError):  # it has ended just now
                    await handle.signal("cancel")
            await asyncio.wait([ending], timeout=0.3)
        with contextlib.suppress(WorkflowFailureError):
            result = await ending
            assert result.counts.settled == result.counts.total
        await no_task_failed(house, handle.id)


ENDLESS = [
    pytest.param(step, shards, id=f"{step}-{shards}", marks=[] if (step, shards) in keep else [pytest.mark.slow])
    for keep in [{(names.APPLY.name, 1)}]
    for step in (names.SETTLE.name, names.APPLY.name, names.FINISH.name)
    for shards in (1, 2)
]


@pytest.mark.parametrize(("step", "shards"), ENDLESS)
async def test_a_cancel_that_is_repeated_ends_a_wait_on_the_store_without_an_end(
    house: House, step: str, shards: int
) -> None:
    double = Double(step, "store_error")
    async with worker(house, double):
        handle = await start(house, double, shards)
        ending = asyncio.create_task(handle.result())
        for words in (f"{step} fails", "Another cancel ends this wait"):
            while not any(words in (one.waiting_for or "") for one in await progresses(house, handle.id)):
                await asyncio.sleep(0.1)
            await handle.signal("cancel", {"reason": "enough"})
        while not ending.done():
            with contextlib.suppress(RPCError):
                await handle.signal("cancel")
            await asyncio.wait([ending], timeout=0.3)
        if step == names.FINISH.name:  # its result is known, and Temporal has it
            result = await ending
            assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 4)
            assert "result.json could not be written" in (result.error or "")
        else:
            with pytest.raises(WorkflowFailureError) as caught:
                await ending
            assert isinstance(caught.value.cause, ApplicationError)
            assert caught.value.cause.type == "BatchFailed"
            assert caught.value.cause.details[1]["code"] == "store_error"
            assert f"{step} fails" in caught.value.cause.message
        await no_task_failed(house, handle.id)


@pytest.mark.slow
@pytest.mark.parametrize("code", CODES)
async def test_a_census_that_fails_leaves_the_ledger_going(fast_house: House, code: str) -> None:
    provider = fast_house.settings.provider("sandbox").model_copy(update={"max_enqueued_tokens": 1000})
    house = replace(fast_house, settings=fast_house.settings.with_provider(provider))
    await house.admin.settings(finish_after_polls=30)
    text = "word " * 200
    async with worker(house, Double(ledger_steps.CENSUS.name, code)):
        handles = [await house.start([text, text], poll={}) for _ in range(2)]
        for handle in handles:
            assert (await handle.result()).counts.succeeded == 2
            await no_task_failed(house, handle.id)


@pytest.mark.parametrize("arguments", [[{}, None], [{}, {}], [{"provider": "sandbox", "input": "file:///a"}, {"a": 1}]])
async def test_a_start_by_hand_with_what_only_a_run_carries_over_fails_at_once(house: House, arguments: Any) -> None:
    batch_id = f"{house.task_queue}-by-hand"
    async with house.worker():
        handle = await house.client.start_workflow(
            "BatchWorkflow", args=arguments, id=batch_id, task_queue=house.task_queue
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "invalid_spec"
    await no_task_failed(house, batch_id)
