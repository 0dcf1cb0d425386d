"""How a batch looks from outside, from how the batch that runs its rows has ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from openai.types import Batch

from durabatch.contract import BatchResult, BatchStatus, Counts, Usage
from durabatch.contract.gateway_batch import (
    MAX_ERRORS,
    BatchObject,
    Ended,
    GatewayBatch,
    GatewayStatus,
    Intake,
    LineError,
)
from durabatch.workflows.gateway_object import cancelling, concluded, finalizing, in_progress, refused, stopped

NOW = datetime.fromtimestamp(1_000_000, UTC)
LATER = datetime.fromtimestamp(1_000_100, UTC)
ORDER = GatewayBatch(
    tenant="search", id="batch_x", input_file_id="file-x", endpoint="/v1/chat/completions", created_at=999_000
)
INTAKE = Intake(rows=4, input="file:///x", provider="openai", model="m")


def checked(shown: BatchObject) -> Batch:
    return Batch.model_validate(shown.model_dump(mode="json"), strict=True)


def result(status: BatchStatus, **fields: Any) -> Ended:
    counts = Counts(total=4, succeeded=1, failed=1, canceled=1, expired=1)
    whole = {"results": "file:///r", "counts": counts, "usage": Usage(input_tokens=5, output_tokens=2), **fields}
    return Ended(result=BatchResult(batch_id="b", status=status, **whole))


@pytest.mark.parametrize(
    ("status", "expected", "instant"),
    [
        (BatchStatus.COMPLETED, "completed", "completed_at"),
        (BatchStatus.CANCELED, "cancelled", "cancelled_at"),
        (BatchStatus.EXPIRED, "expired", "expired_at"),
        (BatchStatus.FAILED, "completed", "completed_at"),  # its rows failed, which the error file says
    ],
)
def test_every_end_has_its_status_and_its_instant(status: BatchStatus, expected: str, instant: str) -> None:
    running = in_progress(ORDER.beginning(), INTAKE, NOW)
    over = concluded(running, result(status), LATER)
    assert (running.ended_at, over.ended_at) == (None, 1_000_100)
    shown = checked(over)
    assert shown.status == expected
    instants = ("completed_at", "cancelled_at", "expired_at", "failed_at")
    assert {name for name in instants if getattr(shown, name) is not None} == {instant}
    assert getattr(shown, instant) == 1_000_100
    # Whatever did not succeed is in the error file.
    assert shown.request_counts and shown.request_counts.model_dump() == {"total": 4, "completed": 1, "failed": 3}
    assert shown.usage and shown.usage.total_tokens == 7


def test_the_stages_before_the_end() -> None:
    shown = ORDER.beginning()
    assert (shown.status, shown.expires_at) == (GatewayStatus.VALIDATING, 999_000 + 24 * 3600)
    running = in_progress(shown, INTAKE, NOW)
    assert (running.status, running.model, running.request_counts.total) == (GatewayStatus.IN_PROGRESS, "m", 4)
    assert finalizing(running, LATER).status is GatewayStatus.FINALIZING
    asked = cancelling(running, NOW)
    assert cancelling(asked, LATER) == asked
    # One that was asked to stop says so until it has.
    assert finalizing(asked, LATER).status is in_progress(asked, INTAKE, LATER).status is GatewayStatus.CANCELLING


def test_a_batch_that_never_ran() -> None:
    assert stopped(ORDER.beginning(), canceled=True, now=NOW).status is GatewayStatus.CANCELLED
    assert stopped(ORDER.beginning(), canceled=False, now=NOW).status is GatewayStatus.EXPIRED
    errors = tuple(LineError(code="c", message="m", line=n) for n in range(MAX_ERRORS + 1))
    shown = refused(ORDER.beginning(), errors, 500, NOW)
    assert shown.errors is not None
    assert (shown.status, len(shown.errors.data), shown.errors.total) == (GatewayStatus.FAILED, MAX_ERRORS, 500)
    few = refused(ORDER.beginning(), errors[:2], 2, NOW)
    assert few.errors is not None and few.errors.total is None
    checked(few)


def test_a_batch_that_could_not_run_says_why() -> None:
    details: list[Any] = [
        BatchResult(batch_id="b", status=BatchStatus.FAILED, error="No key.").model_dump(mode="json"),
        {"code": "missing_key"},
    ]
    ended = Ended.of_failure("BatchFailed", "No key.", details)
    shown = concluded(ORDER.beginning(), ended, NOW)
    assert shown.status is GatewayStatus.FAILED and shown.errors is not None
    assert shown.errors.data == (LineError(code="missing_key", message="No key."),)
    details[1] = {
        "problems": [{"message": "line 2, body: no", "code": "invalid_field", "line": 2, "field": "body"}],
        "total": 9,
    }
    lines = concluded(ORDER.beginning(), Ended.of_failure("BatchFailed", "…", details), NOW).errors
    assert lines is not None and lines.total == 9
    assert lines.data == (LineError(code="invalid_request", message="body: no", param="body", line=2),)
    # Somebody's own workflow under this id, or another version's failure.
    odd = concluded(ORDER.beginning(), Ended.of_failure("odd", "It broke.", [7]), NOW).errors
    assert odd is not None and odd.data == (LineError(code="odd", message="It broke."),)


def test_a_batch_of_which_no_row_ran_can_be_called_failed() -> None:
    shown = concluded(ORDER.beginning(), result(BatchStatus.FAILED, error="Refused."), NOW).as_failed()
    assert (shown.status, shown.failed_at, shown.completed_at) == (GatewayStatus.FAILED, 1_000_000, None)
    kept = concluded(ORDER.beginning(), result(BatchStatus.CANCELED), NOW)
    assert kept.as_failed() == kept


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("No row succeeded: 4 other.", "No row succeeded: 4 other."),
        ("Each row's own reason is in file:///a/b/errors.jsonl.", "is in the store."),
        ("The store s3://bucket/x?y=1 does not work.", "The store the store does not work."),
        ("The folder is not there (gs://bucket/b): mount it.", "The folder is not there (the store): mount it."),
    ],
)
def test_no_place_in_the_store_is_shown_to_a_tenant(said: str, shown: str) -> None:
    for whole in ({}, {"results": None}):
        ended = result(BatchStatus.FAILED, error=said, errors="file:///a/b/errors.jsonl", **whole)
        errors = concluded(ORDER.beginning(), ended, NOW).errors
        assert errors is not None and errors.data[0].message.endswith(shown)
