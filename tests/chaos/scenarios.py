"""The scenarios that need nothing but a crew of their own, so that several run in one lab at once.

Each starts batches, hurts its crew, and returns the batches with their results; what must be true of any batch is
checked by `check.audit`, and what is particular to the scenario here. They carry the names under which the field knows
these failures.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.service import RPCError

from durabatch.contract import BatchResult, BatchStatus

from .lab import Crew, Lab
from .orders import Order

Ended = dict[Order, BatchResult]
Scenario = Callable[[Lab], Awaitable[Ended]]
SCENARIOS: dict[str, Scenario] = {}
#: The provider asks for so many polls before a batch ends; a spec that polls rarely keeps its batch under way.
POLLS = 3
RARELY = {"first": "30s", "maximum": "60s"}


def scenario(run: Scenario) -> Scenario:
    SCENARIOS[run.__name__] = run
    return run


async def ended(crew: Crew, orders: Iterable[Order]) -> Ended:
    orders = list(orders)
    return dict(zip(orders, await asyncio.gather(*(crew.result(order) for order in orders)), strict=True))


async def killed_at(lab: Lab, step: str, when: str, times: int = 1, provider: str = "sandbox") -> Ended:
    """Kill the only worker at this step; the next one finishes the batch."""
    crew = lab.crew()
    order = crew.order(3, {1: "[[sandbox:rate_limited times=1]]"} if step == "settle" else {}, provider=provider)
    lab.arm(order, step, when, times=times)
    await crew.submit(order, poll=RARELY if step == "cancel" else {"first": "0.2s", "maximum": "1s"})
    if step == "cancel":
        await crew.until(order, lambda progress: progress.provider_batch_id)
        await crew.cancel(order)
    found = await ended(crew, [order])
    assert lab.spent(order) == times, f"{step} was not met {times} times"
    await crew.close()
    return found


async def _all(*runs: Awaitable[Ended]) -> Ended:
    found: Ended = {}
    for part in await asyncio.gather(*runs):
        found.update(part)
    return found


@scenario
async def create_crash_after_store(lab: Lab) -> Ended:
    """Killed when the provider has made the batch and before anybody else knows: it is found by its marker."""
    found = await killed_at(lab, "create", "after")
    assert [batch.adopted for result in found.values() for batch in result.provider_batches] == [True]
    return found


@scenario
async def create_crash_before_store(lab: Lab) -> Ended:
    """Killed before the provider saw the create: nobody can know that, so the first file is fenced off."""
    found = await killed_at(lab, "create", "before")
    assert [batch.adopted for result in found.values() for batch in result.provider_batches] == [False]
    return found


@scenario
async def duplicate_execution(lab: Lab) -> Ended:
    """One id started four times at once, with two workers."""
    crew = lab.crew(2)
    order = crew.order(5)
    await asyncio.gather(*(crew.submit(order) for _ in range(4)))
    return await ended(crew, [order])


@scenario
async def terminal_overwrite(lab: Lab) -> Ended:
    """A cancel after the provider's end, and one after the batch's own, change nothing."""
    crew = lab.crew()
    order = crew.order(4)
    lab.arm(order, "apply", "before")
    await crew.submit(order)
    await crew.until(order, lambda progress: progress.provider_batch_id)
    crew.staff = 0  # nobody follows the one who dies
    await lab.met(order)
    await crew.cancel(order)
    crew.staff = 1
    found = await ended(crew, [order])
    assert found[order].status is BatchStatus.COMPLETED
    folder = lab.folder / "store" / order.batch_id
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for _ in range(2):
        with contextlib.suppress(RPCError):  # "workflow execution already completed"
            await crew.handle(order).signal("cancel")
        with contextlib.suppress(RPCError):
            await crew.handle(order).cancel()
    assert await crew.result(order) == found[order]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return found


@scenario
async def worker_crash_strands_job(lab: Lab) -> Ended:
    """The only worker dies while it polls, and for a while there is none; the batch is taken up again."""
    crew = lab.crew()
    order = crew.order(3)
    lab.arm(order, "poll", "before")
    await crew.submit(order)
    await crew.until(order, lambda progress: progress.provider_batch_id)
    crew.staff = 0
    await lab.met(order)
    crew.staff = 1
    return await ended(crew, [order])


@scenario
async def cancel_event_lost(lab: Lab) -> Ended:
    """A cancel that is sent while no worker lives is obeyed by the next one."""
    crew = lab.crew()
    order = await crew.start(4, poll=RARELY)
    await crew.until(order, lambda progress: progress.provider_batch_id)
    await crew.dismiss()
    await crew.cancel(order)
    crew.staff = 1
    found = await ended(crew, [order])
    assert found[order].status is BatchStatus.CANCELED
    assert found[order].canceled_by == "chaos"
    return found


@scenario
async def cancel_reverted(lab: Lab) -> Ended:
    """The worker dies before, or after, the provider took the cancel: it stays cancelled."""
    found = await _all(killed_at(lab, "cancel", "before"), killed_at(lab, "cancel", "after"))
    assert {result.status for result in found.values()} == {BatchStatus.CANCELED}
    return found


@scenario
async def cancel_racing_completion(lab: Lab) -> Ended:
    """Cancels that meet the provider's end: either may win, and the accounts are whole."""
    crew = lab.crew(2)
    orders = [await crew.start(6) for _ in range(5)]

    async def cancel(order: Order, late: float) -> None:
        await crew.until(order, lambda progress: progress.provider_batch_id or progress.result)
        await asyncio.sleep(late)  # spread over the few polls that the provider takes
        with contextlib.suppress(RPCError):
            await crew.cancel(order)

    await asyncio.gather(*(cancel(order, 0.25 * number) for number, order in enumerate(orders)))
    return await ended(crew, orders)


@scenario
async def recovery_crash_loop(lab: Lab) -> Ended:
    """Whoever takes the batch up dies at the same place, three times."""
    return await killed_at(lab, "fetch", "before", times=3)


@scenario
async def orphaned_blob(lab: Lab) -> Ended:
    """Uploads that nobody wrote down are found again; and the file of a batch that never was is removed."""
    found = await _all(killed_at(lab, "upload", "before"), killed_at(lab, "upload", "after"), _abandoned(lab))
    files = (await lab.books())["files"]
    for order in found:
        names = [file["filename"] for file in files if f"~{order.batch_id}~" in file["filename"]]
        assert len(names) == len(set(names)) == 1
    return found


async def _abandoned(lab: Lab) -> Ended:
    crew = lab.crew()
    order = crew.order(3)
    lab.arm(order, "create", "before")
    await crew.submit(order)
    while not crew.fit:
        await asyncio.sleep(0.05)
    crew.staff = 0
    await lab.met(order)
    await crew.cancel(order)
    crew.staff = 1
    found = await ended(crew, [order])
    assert found[order].status is BatchStatus.CANCELED
    assert not found[order].provider_batches
    return found


@scenario
async def finalization_strand(lab: Lab) -> Ended:
    """Killed while the batch is brought to its end: settled, applied, written down, tidied up."""
    points = [("settle", "after"), ("apply", "after"), ("finish", "before"), ("finish", "after"), ("tidy", "after")]
    return await _all(*(killed_at(lab, step, when) for step, when in points))


@scenario
async def async_result_destruction(lab: Lab) -> Ended:
    """Killed when the results are in the store and before anybody knows, and before the results are written."""
    points = [("fetch", "after"), ("settle", "before")]
    return await _all(*(killed_at(lab, step, when) for step, when in points))


@scenario
async def replicas_execute_once(lab: Lab) -> Ended:
    """Three workers of one account on one queue; two of them die on the way, and another joins late."""
    crew = lab.crew(3)
    orders = [crew.order(8, {3: "[[sandbox:server_error times=1]]"}) for _ in range(4)]
    lab.arm(orders[0], "create", "after")
    lab.arm(orders[1], "poll", "after")
    await asyncio.gather(*(crew.submit(order) for order in orders))
    await lab.met(orders[0])
    crew.staff = 4
    return await ended(crew, orders)


@scenario
async def shards_execute_once(lab: Lab) -> Ended:
    """Three shards, each a workflow of its own, and a worker that dies in each one's create."""
    crew = lab.crew(2)
    order = crew.order(9)
    lab.arm(order, "create", "after", times=2)
    await crew.submit(order, limits={"max_rows": 3})
    found = await ended(crew, [order])
    assert len(found[order].provider_batches) == 3
    return found


async def zombie(lab: Lab, step: str, *, late: bool, provider: str = "sandbox") -> Ended:
    """A worker stops just before a step, another one takes over, and then the first goes on as if nothing were.

    Args:
        late: it goes on when the batch has ended, or else as soon as its heir has bought the batch.
    """
    crew = lab.crew()
    order = crew.order(3, provider=provider)
    lab.arm(order, step, "before", what="stop")
    await crew.submit(order)
    worker = await crew.zombie()
    await crew.until(order, lambda progress: progress.provider_batch_id)
    if late:
        await crew.result(order)
    await lab.late(worker, order, step)
    found = await ended(crew, [order])
    await crew.close()
    return found


@scenario
async def zombie_owner_burns_inference(lab: Lab) -> Ended:
    """Its create names a file that is gone, or is not sent at all."""
    return await _all(zombie(lab, "create", late=False), zombie(lab, "create", late=True))


@scenario
async def zombie_uploads_late(lab: Lab) -> Ended:
    """What it uploads when all is over would stay at the provider, so it does not."""
    return await zombie(lab, "upload", late=True)


@scenario
async def zombie_where_there_is_no_fence(lab: Lab) -> Ended:
    """Anthropic's rows go with the create, so no file can be deleted: the late worker itself has to hold back."""
    return await zombie(lab, "create", late=False, provider="claude")


@scenario
async def reset_before_submit(lab: Lab) -> Ended:
    """An operator resets the workflow to its first task, while it polls: the batch is adopted, not bought again."""
    crew = lab.crew()
    order = await crew.start(3)
    await crew.until(order, lambda progress: progress.provider_batch_id)
    history = await crew.handle(order).fetch_history()
    first = next(e for e in history.events if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
    await lab.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=order.batch_id),
            reason="an operator's wish",
            workflow_task_finish_event_id=first.event_id,
            request_id=f"reset-{order.batch_id}",
        )
    )
    for worker in crew.workers:
        await worker.kill()
    found = await ended(crew, [order])
    assert found[order].provider_batches[0].adopted
    return found


@scenario
async def create_crash_where_there_are_no_markers(lab: Lab) -> Ended:
    """Anthropic's batches carry no marker: the candidate is adopted, and its results prove that it was ours."""
    found = await killed_at(lab, "create", "after", provider="claude")
    assert [batch.adopted for result in found.values() for batch in result.provider_batches] == [True]
    return found
