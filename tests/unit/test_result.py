"""What a batch ends with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durabatch.contract import BatchResult, BatchStatus, CancelRequest, Counts, ProviderBatch, ProviderStatus, Usage
from durabatch.contract.steps import Applied, Settled
from durabatch.workflows.result import batch_result
from durabatch.workflows.state import Carried, ShardOutcome, SteeringState

BEGUN = datetime(2026, 1, 31, 12, tzinfo=UTC)
CANCEL = CancelRequest(reason="too dear", requested_by="ada")


def ended(**facts: Any) -> BatchResult:
    given = {"applied": None, "error": None, "metadata": {"team": "search"}, **facts}
    steering = SteeringState(deadline_at=BEGUN + timedelta(hours=24), cancel=given.pop("cancel", None))
    state = Carried(started_at=BEGUN, steering=steering)
    state.end_shards(given.pop("outcomes", []))
    return batch_result("b-1", state, now=BEGUN + timedelta(hours=1), **given)


def applied(counts: Counts, **classes: int) -> Applied:
    uris = {name: f"file:///s/b-1/{name}.jsonl" for name in ("results", "errors")}
    return Applied(counts=counts, usage=Usage(), classes=classes, **uris)


def outcome(*ids: str, error: str | None = None) -> ShardOutcome:
    batches = tuple(ProviderBatch(marker=f"b-1/0/{id}", id=id, status=ProviderStatus.COMPLETED, rows=1) for id in ids)
    return ShardOutcome(settled=Settled(), batches=batches, error=error)


@pytest.mark.parametrize(
    ("facts", "status", "error"),
    [
        ({"applied": applied(Counts(total=2, succeeded=1, failed=1))}, BatchStatus.COMPLETED, None),
        ({"applied": applied(Counts(total=2, succeeded=1, canceled=1)), "cancel": CANCEL}, BatchStatus.CANCELED, None),
        ({"applied": applied(Counts(total=2, succeeded=1, expired=1))}, BatchStatus.EXPIRED, None),
        ({"cancel": CANCEL}, BatchStatus.CANCELED, None),  # before there was a plan
        ({}, BatchStatus.EXPIRED, None),
        ({"error": "No such file.", "cancel": CANCEL}, BatchStatus.FAILED, "No such file."),
        (
            {"applied": applied(Counts(total=2, failed=2), timeout=2)},
            BatchStatus.FAILED,
            "No row succeeded: 2 timeout.",
        ),
        (
            {"applied": applied(Counts(total=2, failed=2), timeout=2), "outcomes": [outcome(), outcome(error="No.")]},
            BatchStatus.FAILED,
            "No.",
        ),
    ],
)
def test_a_batch_ends_as_its_rows_did_and_says_why(facts: dict[str, Any], status: BatchStatus, error: str) -> None:
    result = ended(**facts)
    assert (result.status, result.error) == (status, error)
    assert result.canceled_by == ("ada" if "cancel" in facts else None)
    assert (result.started_at, result.metadata) == (BEGUN, {"team": "search"})
    assert result.results == (facts["applied"].results if "applied" in facts else None)


def test_the_provider_batches_of_all_shards_are_listed_and_of_many_the_first_hundred() -> None:
    outcomes = [outcome(*(f"{shard}-{number}" for number in range(60))) for shard in range(2)]
    listed = [batch.id for batch in ended(outcomes=outcomes, error="No.").provider_batches]
    assert len(listed) == 100
    assert listed[58:62] == ["0-58", "0-59", "1-0", "1-1"]
