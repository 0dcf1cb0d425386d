"""How a batch of the gateway's looks from outside, from what is known of it. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from ..contract import BatchResult, BatchStatus, Counts
from ..contract.gateway import without_key, without_store
from ..contract.gateway_analytics import token_usage
from ..contract.gateway_batch import (
    MAX_ERRORS,
    OUTPUT_FAILED,
    BatchObject,
    Ended,
    ErrorList,
    GatewayStatus,
    Intake,
    LineError,
    RequestCounts,
)

#: What our statuses are called by OpenAI.
_STATUS = {
    BatchStatus.COMPLETED: GatewayStatus.COMPLETED,
    BatchStatus.FAILED: GatewayStatus.FAILED,
    BatchStatus.EXPIRED: GatewayStatus.EXPIRED,
    BatchStatus.CANCELED: GatewayStatus.CANCELLED,
}
#: Which instant each end is noted in.
_INSTANT = {
    GatewayStatus.COMPLETED: "completed_at",
    GatewayStatus.FAILED: "failed_at",
    GatewayStatus.EXPIRED: "expired_at",
    GatewayStatus.CANCELLED: "cancelled_at",
}
#: Characters of an error's message.
_MESSAGE = 500
#: What our codes of rows that cannot be sent are called by OpenAI, where it has the same ones under another name.
_CODES = {
    "invalid_row": "invalid_request",
    "invalid_field": "invalid_request",
    "duplicate_field": "invalid_request",
    "row_too_large": "request_too_large",
}
#: How a problem's message begins; the line is a field of its own.
_LINE = re.compile(r"^line [\d,]+[,:] ")


def seconds(instant: datetime) -> int:
    """Return an instant as OpenAI writes it."""
    return int(instant.timestamp())


def cancelling(shown: BatchObject, now: datetime) -> BatchObject:
    """Return a batch that was asked to stop."""
    if shown.cancelling_at is not None:
        return shown
    return shown.model_copy(update={"status": GatewayStatus.CANCELLING, "cancelling_at": seconds(now)})


def in_progress(shown: BatchObject, intake: Intake, now: datetime) -> BatchObject:
    """Return a batch whose input is checked."""
    shown = shown.model_copy(
        update={
            "in_progress_at": seconds(now),
            "model": intake.model,
            "request_counts": RequestCounts(total=intake.rows),
        }
    )
    return _unless_cancelling(shown, GatewayStatus.IN_PROGRESS)


def finalizing(shown: BatchObject, now: datetime) -> BatchObject:
    """Return a batch whose rows have ended, and whose files are written."""
    shown = shown.model_copy(update={"finalizing_at": seconds(now)})
    return _unless_cancelling(shown, GatewayStatus.FINALIZING)


def _unless_cancelling(shown: BatchObject, status: GatewayStatus) -> BatchObject:
    return shown if shown.cancelling_at is not None else shown.model_copy(update={"status": status})


def stopped(shown: BatchObject, *, canceled: bool, now: datetime) -> BatchObject:
    """Return a batch that was stopped before anything of it ran."""
    return _over(shown, GatewayStatus.CANCELLED if canceled else GatewayStatus.EXPIRED, now)


def refused(shown: BatchObject, errors: tuple[LineError, ...], total: int, now: datetime) -> BatchObject:
    """Return a batch that failed before anything of it ran.

    Args:
        errors: why, the first of them.
        total: how many there are.
    """
    listed = ErrorList(data=errors[:MAX_ERRORS], total=total if total > len(errors[:MAX_ERRORS]) else None)
    return _over(shown.model_copy(update={"errors": listed}), GatewayStatus.FAILED, now)


def unwritten(shown: BatchObject, now: datetime) -> BatchObject:
    """Return a batch that has run, and whose files cannot be written."""
    message = "The batch has run, and its results cannot be written: ask whoever operates the gateway."
    return refused(shown, (LineError(code=OUTPUT_FAILED, message=message),), 1, now)


def concluded(shown: BatchObject, ended: Ended, now: datetime) -> BatchObject:
    """Return a batch that has run, but for its files.

    OpenAI's batch whose rows all failed is a completed one, and its error file says why. Failed is one that could not
    run at all.
    """
    result = ended.result
    if result.status is BatchStatus.FAILED and result.results is None:
        errors, total = _causes(result, ended.cause)
        return refused(shown, errors, total, now)
    status = _STATUS[result.status]
    if status is GatewayStatus.FAILED:
        status = GatewayStatus.COMPLETED
        if result.error:
            why = LineError(code="all_requests_failed", message=_for_tenants(result.error))
            shown = shown.model_copy(update={"errors": ErrorList(data=(why,))})
    if result.results is not None:
        shown = shown.model_copy(update={"request_counts": counts(result.counts), "usage": token_usage(result.usage)})
    return _over(shown, status, now)


def counts(found: Counts) -> RequestCounts:
    """Return rows as OpenAI counts them: a row that did not succeed is in the error file."""
    return RequestCounts(
        total=found.total, completed=found.succeeded, failed=found.failed + found.canceled + found.expired
    )


def _over(shown: BatchObject, status: GatewayStatus, now: datetime) -> BatchObject:
    return shown.model_copy(update={"status": status, _INSTANT[status]: seconds(now)})


def _causes(result: BatchResult, cause: dict[str, Any]) -> tuple[tuple[LineError, ...], int]:
    """Return why a batch could not run: its lines, where it was they, or else one sentence."""
    listed = [one for one in cause.get("problems") or () if isinstance(one, dict)]
    lines = tuple(_line_error(one) for one in listed[:MAX_ERRORS])
    if lines:
        total = cause.get("total")
        return lines, total if isinstance(total, int) else len(listed)
    code = cause.get("code")
    message = _for_tenants(result.error or "The batch could not be run.")
    return (LineError(code=code if isinstance(code, str) else "internal_error", message=message),), 1


def _for_tenants(words: str) -> str:
    return without_key(without_store(words))[:_MESSAGE]


def _line_error(problem: dict[str, Any]) -> LineError:
    line, field = problem.get("line"), problem.get("field")
    code = str(problem.get("code") or "invalid_request")
    return LineError(
        code=_CODES.get(code, code),
        message=_LINE.sub("", str(problem.get("message") or ""))[:_MESSAGE],
        param=field if isinstance(field, str) else None,
        line=line if isinstance(line, int) else None,
    )
