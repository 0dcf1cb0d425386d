"""Which batches there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from ..contract import BATCH_WORKFLOW, BatchResult

#: Batches whose end is looked up at a time, for a listing.
_PARALLEL = 8

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
    """Return the newest run of an id; None where a listing by status shows a run that a newer one has followed.

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
    # Temporal's "completed" covers three of our statuses; the result says which.
    handle = client.get_workflow_handle(execution.id, run_id=execution.run_id, result_type=BatchResult)
    result: BatchResult = await handle.result()
    return result.status.value


async def provider_of(execution: WorkflowExecution) -> str | None:
    """Return the provider's name from a batch's memo, None where it has none."""
    value = (await execution.memo()).get("durabatch_provider")
    return value if isinstance(value, str) else None
