"""What can be learned: how far a batch is, the rows of one that has ended, and which batches there are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
)
from temporalio.service import RPCError, RPCStatusCode

from ..activities.manifest import stream_results
from ..activities.repair import repaired
from ..activities.store import Store
from ..contract import (
    BATCH_WORKFLOW,
    BatchNotFound,
    BatchProgress,
    BatchResult,
    BatchStatus,
    InvalidSpec,
    ObjectNotFound,
    Phase,
    ResultRow,
    StoreError,
    steps,
)
from ..contract.layout import result_path
from ..contract.names import check_batch_id
from .children import with_children
from .connection import PASSING
from .execution import Ending, ending

#: A worker answers a query in milliseconds; one that replays a long history first may need seconds.
_QUERY = timedelta(seconds=5)
#: Where no worker seems to be, one that has come just now gets this long.
_QUERY_UNHEARD = timedelta(seconds=1)
#: Batches whose end is looked up at a time, for a listing.
_PARALLEL = 8
#: Workers are gone from a task queue's list five minutes after their last poll, so an old entry proves nothing.
_POLLER_SECONDS = 70.0

#: What a listing can be narrowed to.
Status = Literal["running", "completed", "failed", "expired", "canceled"]

#: What Temporal may say of a batch that has a status of ours.
_EXECUTION = {
    "running": ("Running",),
    "completed": ("Completed",),
    "expired": ("Completed",),
    "canceled": ("Completed", "Canceled"),
    "failed": ("Failed", "Terminated", "TimedOut"),
}


class BatchRecord(BaseModel):
    """One line of a listing."""

    model_config = ConfigDict(frozen=True)

    batch_id: Annotated[str, Field(description="The batch.")]
    status: Annotated[Status, Field(description="Whether it runs, or how it ended.")]
    provider: Annotated[str | None, Field(description="The provider's name, where the batch was started by a client.")]
    started_at: Annotated[datetime, Field(description="When it began, UTC.")]
    ended_at: Annotated[datetime | None, Field(description="When it ended, UTC.")]
    metadata: Annotated[dict[str, str], Field(description="The spec's own labels.")]


async def found(client: Client, batch_id: str) -> WorkflowExecutionDescription:
    """Return what Temporal knows of a batch.

    Raises:
        BatchNotFound: the id belongs to a workflow that is no batch.
        RPCError: Temporal does not know the id, or does not answer.
    """
    description = await client.get_workflow_handle(batch_id).describe()
    if description.workflow_type != BATCH_WORKFLOW:
        raise BatchNotFound(
            f"There is no batch {batch_id!r}: the id belongs to a workflow of type {description.workflow_type}."
        )
    return description


async def progress(client: Client, batch_id: str) -> tuple[BatchProgress, bool]:
    """Return where a batch is, and whether that is known for certain; one that has ended needs no worker for it.

    Raises:
        BatchNotFound, RPCError: as `found`.
    """
    description = await found(client, batch_id)
    ended = await ending(client, description)
    if ended is not None:
        return final(description, ended), True
    handle = client.get_workflow_handle(batch_id)
    try:
        patience = _QUERY if await worker_polls(client, description.task_queue) else _QUERY_UNHEARD
        answer = await handle.query("progress", result_type=dict, rpc_timeout=patience)
        return await with_children(client, description, BatchProgress.model_validate(answer)), True
    except (WorkflowQueryFailedError, ValidationError):
        why = "the worker cannot answer: its version may be older than this client's"
    except RPCError as error:
        if error.status not in PASSING and error.status != RPCStatusCode.FAILED_PRECONDITION:
            raise
        why = f"no worker answers on task queue {description.task_queue!r}; start one with `durabatch worker`"
    guess = BatchProgress(
        batch_id=batch_id,
        phase=_phase(description),
        provider=await provider_of(description) or "",
        started_at=description.start_time,
        waiting_for=why,
    )
    return guess, False


def final(description: WorkflowExecution, ended: Ending) -> BatchProgress:
    """Return the last progress of a batch that has ended."""
    result = ended.result or BatchResult(
        batch_id=description.id,
        status=BatchStatus.FAILED,
        started_at=description.start_time,
        ended_at=description.close_time,
        error=ended.error.message if ended.error else None,
    )
    return BatchProgress(
        batch_id=description.id,
        phase=Phase.ENDED,
        counts=result.counts,
        cost_usd=result.cost_usd,
        started_at=result.started_at,
        last_error=result.error,
        result=result,
    )


#: What a pending activity says of the phase; a batch without one waits on a timer between polls.
_PHASES = {
    steps.PLAN.name: Phase.PLANNING,
    steps.UPLOAD.name: Phase.UPLOADING,
    steps.FIND.name: Phase.SUBMITTING,
    steps.CREATE.name: Phase.SUBMITTING,
    steps.FETCH.name: Phase.FETCHING,
    steps.SETTLE.name: Phase.SETTLING,
    steps.APPLY.name: Phase.APPLYING,
    steps.FINISH.name: Phase.FINISHING,
}
#: The first workflow task is scheduled by event 2: with fewer than 5 events no worker has ever touched the batch.
_TOUCHED = 5


def _phase(description: WorkflowExecutionDescription) -> Phase:
    """Guess the phase from what the server knows, for want of a worker that could tell."""
    if description.history_length < _TOUCHED:
        return Phase.PLANNING
    pending = [activity.activity_type.name for activity in description.raw_description.pending_activities]
    return next((_PHASES[name] for name in pending if name in _PHASES), Phase.POLLING)


async def provider_of(execution: WorkflowExecution) -> str | None:
    """Return the provider's name from a batch's memo, None where it has none."""
    value = (await execution.memo()).get("durabatch_provider")
    return value if isinstance(value, str) else None


async def listing(client: Client, status: Status | None, limit: int) -> AsyncGenerator[BatchRecord]:
    """Yield batches, the newest first.

    Raises:
        RPCError: Temporal does not answer.
    """
    query = f"WorkflowType = '{BATCH_WORKFLOW}'"
    if status is not None:
        query += f" AND ExecutionStatus IN ({', '.join(repr(word) for word in _EXECUTION[status])})"
    left, seen = limit, set[str]()
    executions = client.list_workflows(query, page_size=min(limit, 1000))
    while left > 0:
        waiting = [execution async for execution in _some(executions, _PARALLEL)]
        if not waiting:
            return
        fresh = {execution.id: execution for execution in reversed(waiting) if execution.id not in seen}
        seen.update(fresh)
        newest = await asyncio.gather(*(_newest(client, execution, status) for execution in reversed(fresh.values())))
        for record in await asyncio.gather(*(_record(client, execution) for execution in newest if execution)):
            if left > 0 and status in (None, record.status):
                left -= 1
                yield record


async def _newest(client: Client, listed: WorkflowExecution, status: Status | None) -> WorkflowExecution | None:
    """Return the run that an id stands for; None where a listing by status shows a run that a newer one has followed.

    A batch that failed may have been started again under its id, and one that was reset goes on in another run. A
    listing by status does not show that, and any listing may be a moment late.
    """
    if listed.status is WorkflowExecutionStatus.RUNNING:
        return listed
    try:
        newest = await client.get_workflow_handle(listed.id).describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return None  # Temporal has forgotten it since
    return newest if status is None or newest.run_id == listed.run_id else None


async def _some(source: Any, count: int) -> AsyncGenerator[WorkflowExecution]:
    for _ in range(count):
        try:
            yield await anext(source)
        except StopAsyncIteration:
            return


async def _record(client: Client, execution: WorkflowExecution) -> BatchRecord:
    memo = await execution.memo()
    provider, metadata = memo.get("durabatch_provider"), memo.get("durabatch_metadata")
    return BatchRecord(
        batch_id=execution.id,
        status=await _status(client, execution),
        provider=provider if isinstance(provider, str) else None,
        started_at=execution.start_time,
        ended_at=execution.close_time,
        metadata=metadata if isinstance(metadata, dict) else {},
    )


async def _status(client: Client, execution: WorkflowExecution) -> Status:
    if execution.status is WorkflowExecutionStatus.RUNNING:
        return "running"
    if execution.status is WorkflowExecutionStatus.CANCELED:
        return "canceled"
    if execution.status is not WorkflowExecutionStatus.COMPLETED:
        return "failed"
    # Temporal's "completed" stands for three of ours; the result tells them apart.
    handle = client.get_workflow_handle(execution.id, run_id=execution.run_id, result_type=BatchResult)
    result: BatchResult = await handle.result()
    return result.status.value


async def kept_result(store: Store, batch_id: str) -> BatchResult | None:
    """Return the result in a batch's own folder in the store, None if there is none.

    Raises:
        StoreError: the store failed.
    """
    try:
        check_batch_id(batch_id)
        result = BatchResult.model_validate_json(await store.read(result_path(batch_id)))
    except (InvalidSpec, ObjectNotFound, ValidationError):
        return None
    return result if result.batch_id == batch_id else None


async def rows(store: Store, uri: str) -> AsyncGenerator[ResultRow]:
    """Yield the rows of a results file in order, with one piece of it in memory at a time.

    Raises:
        StoreError: the store failed, or the file is not what Durabatch wrote.
    """
    number = 0
    async with contextlib.aclosing(lines(store, uri)) as stream:
        async for line in stream:
            number += 1
            yield _row(line, f"Line {number} of {uri}")


def _row(line: bytes, where: str) -> ResultRow:
    with contextlib.suppress(ValidationError):
        return ResultRow.model_validate_json(line)
    # pydantic takes fewer levels than JSON may have.
    with contextlib.suppress(ValueError):
        return ResultRow.model_validate_json(repaired(line))
    raise StoreError(f"{where} is no result row: the file was changed.")


async def lines(store: Store, uri: str) -> AsyncGenerator[bytes]:
    """Yield the lines of a results file, without their breaks; those of its parts, one after another, for a manifest.

    Raises:
        StoreError: the store failed, or a manifest or a part of it is damaged or gone.
    """
    pieces = stream_results(store, uri)
    rest: list[bytes] = []
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        *whole, tail = piece.split(b"\n")
        if whole:
            whole[0] = b"".join([*rest, whole[0]])
            rest = [tail]
        else:
            rest.append(tail)
        for line in whole:
            if line:
                yield line
    if last := b"".join(rest):
        yield last


async def worker_polls(client: Client, task_queue: str) -> bool:
    """Return whether a worker takes batches from the task queue.

    Raises:
        RPCError: Temporal does not answer.
    """
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    now = datetime.now().timestamp()
    return any(now - poller.last_access_time.ToSeconds() < _POLLER_SECONDS for poller in answer.pollers)
