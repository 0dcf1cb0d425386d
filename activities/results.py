"""The rows of results.jsonl, and what they say about a row that no provider answered."""

from __future__ import annotations

import msgspec

from ..contract import ErrorClass, Mode, RowStatus
from ..contract.steps import AttemptRecord, SettleRequest
from .providers.outcome import RowFailure, RowResponse, RowTokens
from .records import Refusal

_encode = msgspec.json.Encoder().encode

#: The status of a row whose last error is of this class; with any other class it failed.
STATUS_OF = {ErrorClass.EXPIRED: RowStatus.EXPIRED, ErrorClass.CANCELED: RowStatus.CANCELED}
#: What rows without a result say when a cancel or the deadline came first.
_UNFINISHED = {
    RowStatus.CANCELED: (ErrorClass.CANCELED, "The batch was cancelled before this row was finished."),
    RowStatus.EXPIRED: (ErrorClass.EXPIRED, "The batch's deadline came before this row was finished."),
    RowStatus.FAILED: (ErrorClass.OTHER, "The batch ended before this row was submitted."),
}
#: The same where the provider ended its batch, and gave no other reason.
_ENDED_THERE = {
    ErrorClass.CANCELED: "The provider's batch was cancelled there before this row was finished.",
    ErrorClass.EXPIRED: "The provider's window closed before this row was finished.",
    ErrorClass.RATE_LIMITED: "The provider's queue had no room for the batch that this row was in.",
    ErrorClass.INVALID_REQUEST: "The provider refused the batch that this row was in.",
}
_UNANSWERED = "The provider's batch ended without an answer to this row."


class ResultRow(msgspec.Struct, kw_only=True):
    """A line of results.jsonl; the contract's ResultRow describes it."""

    custom_id: str
    status: RowStatus
    text: str | None = None
    model: str | None = None
    usage: RowTokens | None = None
    cost_usd: str | None = None
    response: RowResponse | None = None
    error: RowFailure | None = None
    attempts: int = 0
    provider_batch_id: str | None = None
    mode: Mode | None = None


def result_line(row: ResultRow) -> bytes:
    """Return a row as it is written, its line break included."""
    return _encode(row) + b"\n"


def unread(place: str) -> RowFailure:
    """Return why a row failed whose result cannot be read, but for its id.

    Args:
        place: where its line is kept, in the batch's folder.
    """
    message = f"The provider returned this row, and its result cannot be read; it is kept in {place}."
    return RowFailure(type=ErrorClass.OTHER, code="unreadable_result", message=message)


def unanswered(
    refusal: Refusal | None, past: AttemptRecord | None, request: SettleRequest
) -> tuple[RowStatus, RowFailure]:
    """Return how a row ended that no provider answered, and why.

    Args:
        refusal: why the plan refused it, if it did.
        past: the last attempt that took it, if one did.
        request: how the batch ended.
    """
    if refusal is not None:
        failure = RowFailure(type=ErrorClass.INVALID_ROW, code=refusal.field, message=str(refusal))
        return RowStatus.FAILED, failure
    # A row that waited for room in the provider's queue when the batch was stopped had no chance to fail.
    stopped = request.unfinished in (RowStatus.CANCELED, RowStatus.EXPIRED)
    if past is not None and past.absent not in STATUS_OF and not (stopped and not past.counted):
        status, kind = RowStatus.FAILED, past.absent
        message = past.message or _ENDED_THERE.get(kind, _UNANSWERED)
    else:
        # Why it is unfinished: as the batch ended, or else as the provider said.
        status = request.unfinished or RowStatus.FAILED
        kind, message = _UNFINISHED[status]
        if status is RowStatus.FAILED:
            kind = request.kind
        message = request.message or message
        if past is not None and status is RowStatus.FAILED:
            status, kind = STATUS_OF[past.absent], past.absent
            message = past.message or _ENDED_THERE[kind]
    return status, RowFailure(type=kind, code=kind.value, message=message)
