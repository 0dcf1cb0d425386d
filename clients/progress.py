"""Where a batch is, as its worker reports it, or as far as Temporal knows without one."""

from __future__ import annotations

from datetime import timedelta

from pydantic import ValidationError
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowQueryFailedError,
)
from temporalio.service import RPCError, RPCStatusCode

from ..activities.task_queues import worker_polls
from ..contract import BatchProgress, BatchResult, BatchStatus, Phase, steps
from .children import with_children
from .connection import PASSING, worker_command
from .execution import Ending, describe, ending_of
from .listing import provider_of
from .running import with_rows

#: A worker answers a query in milliseconds; one that replays a long history first may need seconds.
_QUERY = timedelta(seconds=5)
#: Where no worker seems to be, one that has come just now gets this long.
_QUERY_UNHEARD = timedelta(seconds=1)


async def batch_progress(client: Client, batch_id: str) -> tuple[BatchProgress, bool]:
    """Return where a batch is, and whether that is known for certain; one that has ended needs no worker for it.

    Raises:
        BatchNotFound, RPCError: as `describe`.
    """
    description = await describe(client, batch_id)
    ended = await ending_of(client, description)
    if ended is not None:
        return _ended(description, ended), True
    handle = client.get_workflow_handle(batch_id)
    try:
        patience = _QUERY if await worker_polls(client, description.task_queue) else _QUERY_UNHEARD
        answer = await handle.query("progress", result_type=dict, rpc_timeout=patience)
        progress = await with_rows(client, description, BatchProgress.model_validate(answer))
        return await with_children(client, description, progress), True
    except (WorkflowQueryFailedError, ValidationError):
        why = "the worker cannot answer: its version may be older than this client's"
    except RPCError as error:
        if error.status not in PASSING and error.status != RPCStatusCode.FAILED_PRECONDITION:
            raise
        why = no_worker(client, description.task_queue)
    guess = BatchProgress(
        batch_id=batch_id,
        phase=_phase(description),
        provider=await provider_of(description) or "",
        started_at=description.start_time,
        waiting_for=why,
    )
    return guess, False


def no_worker(client: Client, task_queue: str) -> str:
    """Return what is said where no worker answers."""
    return f"no worker answers on task queue {task_queue!r}; {worker_command(client)} runs one"


def final(result: BatchResult) -> BatchProgress:
    """Return the last progress of a batch that has ended."""
    return BatchProgress(
        batch_id=result.batch_id,
        phase=Phase.ENDED,
        counts=result.counts,
        cost_usd=result.cost_usd,
        started_at=result.started_at,
        last_error=result.error,
        result=result,
    )


def _ended(description: WorkflowExecution, ending: Ending) -> BatchProgress:
    return final(
        ending.result
        or BatchResult(
            batch_id=description.id,
            status=BatchStatus.FAILED,
            started_at=description.start_time,
            ended_at=description.close_time,
            error=ending.error.message if ending.error else None,
        )
    )


#: What a pending activity says of the phase; a batch without one waits on a timer between polls.
_PHASES = {
    steps.PLAN.name: Phase.PLANNING,
    steps.UPLOAD.name: Phase.UPLOADING,
    steps.FIND.name: Phase.SUBMITTING,
    steps.CREATE.name: Phase.SUBMITTING,
    steps.FETCH.name: Phase.FETCHING,
    steps.RUN_ROWS.name: Phase.RUNNING,
    steps.COLLECT.name: Phase.RUNNING,
    steps.SETTLE.name: Phase.SETTLING,
    steps.APPLY.name: Phase.APPLYING,
    steps.FINISH.name: Phase.FINISHING,
}
#: The first workflow task is scheduled by event 2: with fewer than 5 events no worker has ever touched the batch.
_TOUCHED = 5


def _phase(description: WorkflowExecutionDescription) -> Phase:
    """Guess the phase from what the server knows, where no worker answers."""
    if description.history_length < _TOUCHED:
        return Phase.PLANNING
    pending = [activity.activity_type.name for activity in description.raw_description.pending_activities]
    return next((_PHASES[name] for name in pending if name in _PHASES), Phase.POLLING)
