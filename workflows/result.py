"""The result that a batch ends with, from what became of its shards. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..contract import BatchResult, BatchStatus, CancelRequest, Counts
from ..contract.steps import Applied
from .decisions import batch_status
from .describe import failure_words
from .state import MAX_LISTED, Carried, ShardOutcome


def batch_result(
    batch_id: str,
    state: Carried,
    *,
    cancel: CancelRequest | None,
    outcomes: Sequence[ShardOutcome],
    applied: Applied | None,
    error: str | None,
    now: datetime,
    metadata: dict[str, str],
) -> BatchResult:
    """Return the result of a batch.

    Args:
        state: what it knows by now.
        cancel: who wanted it to stop, if anybody did.
        outcomes: what became of the shards that have ended.
        applied: the merged results; None if it came to none.
        error: why it could not go on, if it could not.
        now: when it ended.
    """
    rows = state.plan.rows if state.plan else 0
    counts = applied.counts if applied else Counts(total=rows, failed=rows)
    if error is not None:
        status = BatchStatus.FAILED
    elif applied is None:
        status = BatchStatus.CANCELED if cancel else BatchStatus.EXPIRED
    else:
        status = batch_status(counts, cancel is not None)
    if error is None:
        error = next((outcome.error for outcome in outcomes if outcome.error), None)
    if error is None and applied is not None and status is BatchStatus.FAILED:
        error = failure_words(applied)
    batches = [batch for outcome in outcomes for batch in outcome.batches] or list(state.shard.batches)
    result = BatchResult(
        batch_id=batch_id,
        status=status,
        counts=counts,
        provider_batches=tuple(batches[:MAX_LISTED]),
        started_at=state.started_at,
        ended_at=now,
        error=error,
        cancel_reason=cancel.reason if cancel else None,
        canceled_by=cancel.requested_by if cancel else None,
        metadata=metadata,
    )
    if applied is None:
        return result
    return result.model_copy(
        update={
            "usage": applied.usage,
            "cost_usd": applied.cost_usd,
            "list_cost_usd": applied.list_cost_usd,
            "unpriced": applied.unpriced,
            "results": applied.results,
            "errors": applied.errors,
            "strays": applied.strays,
        }
    )
