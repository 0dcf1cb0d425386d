"""The progress of a batch's child workflows, added to the batch's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from pydantic import ValidationError
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowQueryFailedError
from temporalio.service import RPCError

from ..contract import BatchProgress, Phase, ShardCounts
from ..contract.names import SHARD_WORKFLOW, shards_of
from .concurrency import concurrently
from .running import with_rows

#: A child that does not answer in time is left out: its shards count as under way.
_QUERY = timedelta(seconds=2)
_PARALLEL = 16


async def with_children(
    client: Client, description: WorkflowExecutionDescription, batch: BatchProgress
) -> BatchProgress:
    """Return a batch's progress, with what its running children know better than it does."""
    pending = [
        child.workflow_id
        for child in description.raw_description.pending_children
        if child.workflow_type_name == SHARD_WORKFLOW
    ]

    async def ask(workflow_id: str) -> BatchProgress | None:
        child = client.get_workflow_handle(workflow_id)
        try:
            answer = await child.query("progress", result_type=dict, rpc_timeout=_QUERY)
            progress = BatchProgress.model_validate(answer)
            if progress.phase is not Phase.RUNNING:
                return progress
            return await with_rows(client, await child.describe(rpc_timeout=_QUERY), progress)
        except (RPCError, WorkflowQueryFailedError, ValidationError):
            return None

    answers = await concurrently(ask, pending, _PARALLEL)
    # A child that has ended in the meantime is in the batch's own counts, or will be next time.
    return joined(batch, [answer for answer in answers if answer is not None and answer.phase is not Phase.ENDED])


def joined(batch: BatchProgress, children: Sequence[BatchProgress]) -> BatchProgress:
    """Return the progress of a batch and of its running children as one."""
    if not children:
        return batch
    counts = batch.counts
    for child in children:
        counts += child.counts.model_copy(update={"total": 0})
    ended = batch.shards.ended + sum(child.shards.ended for child in children)
    running = batch.shards.running
    soonest = min((child for child in children if child.next_poll_at), key=_next, default=None)
    waiting = next((child for child in children if child.waiting_for), None)
    return batch.model_copy(
        update={
            "counts": counts,
            "shards": ShardCounts(
                total=batch.shards.total,
                waiting=max(0, batch.shards.total - ended - running),
                running=running,
                ended=ended,
            ),
            "next_poll_at": soonest.next_poll_at if soonest else batch.next_poll_at,
            "waiting_for": _words(batch, waiting, len(children)),
            "last_error": batch.last_error or next((one.last_error for one in children if one.last_error), None),
        }
    )


def _next(progress: BatchProgress) -> float:
    return progress.next_poll_at.timestamp() if progress.next_poll_at else float("inf")


def _words(batch: BatchProgress, waiting: BatchProgress | None, children: int) -> str | None:
    if waiting is None:
        return batch.waiting_for
    which = shards_of(waiting.batch_id)
    others = f" ({children:,} shards are under way, each with a workflow of its own)" if children > 1 else ""
    return f"Shard {which}: {waiting.waiting_for}{others}"
