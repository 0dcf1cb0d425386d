"""The result that a batch ends with, from what became of its shards. Pure."""

from __future__ import annotations

from datetime import datetime

from ..contract import BatchResult, BatchStatus, Counts
from ..contract.steps import Applied
from .decisions import batch_status
from .describe import failure_words
from .state import Carried


def batch_result(
    batch_id: str,
    state: Carried,
    *,
    applied: Applied | None,
    error: str | None,
    now: datetime,
    metadata: dict[str, str],
) -> BatchResult:
    """Return the result of a batch.

    Args:
        state: what it knows by now, what became of its shards for example.
        applied: the merged results; None if it came to none.
        error: why it could not go on, if it could not.
        now: when it ended.
    """
    cancel, outcome = state.steering.cancel, state.outcome
    rows = state.plan.rows if state.plan else 0
    counts = applied.counts if applied else Counts(total=rows, failed=rows)
    if error is not None:
        status = BatchStatus.FAILED
    elif applied is None:
        status = BatchStatus.CANCELED if cancel else BatchStatus.EXPIRED
    else:
        status = batch_status(counts, cancel is not None)
    if error is None:
        error = outcome.error if outcome else None
    if error is None and applied is not None and status is BatchStatus.FAILED:
        error = failure_words(applied)
    result = BatchResult(
        batch_id=batch_id,
        status=status,
        counts=counts,
        provider_batches=(outcome.batches if outcome else ()) or state.shard.batches,
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
            "repeated": applied.repeated,
            "direct": applied.direct,
            "models": applied.models,
            "error_classes": applied.classes,
        }
    )
