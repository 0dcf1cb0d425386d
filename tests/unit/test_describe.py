"""What the Web UI shows of a batch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from durabatch.contract import BatchProgress, Counts, Phase, ProviderStatus, ShardCounts, Usage
from durabatch.contract.steps import Applied
from durabatch.workflows.describe import details, failure_words

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_batch_under_way_shows_where_it_is_and_when_it_polls_again() -> None:
    progress = BatchProgress(
        batch_id="b",
        phase=Phase.POLLING,
        provider="openai",
        counts=Counts(total=50_000, succeeded=1234, failed=5),
        attempt=2,
        provider_status=ProviderStatus.IN_PROGRESS,
        provider_status_raw="in_progress",
        provider_batch_id="batch_1",
        next_poll_at=NOON,
        waiting_for="openai is working (in_progress).",
        last_error="Provider openai answered 503: down",
        deadline_at=NOON + timedelta(hours=26),
    )
    assert details(progress).splitlines() == [
        "**polling** at provider `openai`",
        "",
        "- Rows: 1,234 succeeded, 5 failed of 50,000",
        "- Provider batch `batch_1`: **in_progress** (attempt 2)",
        "- Waiting: openai is working (in_progress).",
        "- Next look at 2026-01-31 12:00:00 UTC (signal `poll_now` looks at once)",
        "- Last error: Provider openai answered 503: down",
        "- Deadline 2026-02-01 14:00:00 UTC",
    ]


def test_a_batch_that_has_just_begun_has_little_to_show() -> None:
    progress = BatchProgress(batch_id="b", phase=Phase.PLANNING, provider="openai")
    assert details(progress).splitlines() == ["**planning** at provider `openai`", "", "- Rows: not counted yet"]


def test_several_shards_and_a_cancel_are_shown() -> None:
    progress = BatchProgress(
        batch_id="b",
        phase=Phase.POLLING,
        provider="openai",
        shards=ShardCounts(total=1200, ended=1000),
        counts=Counts(total=9, succeeded=3, canceled=2, expired=4),
        cancel_requested=True,
    )
    shown = details(progress)
    assert "at provider `openai`, 1,000 of 1,200 shards ended" in shown
    assert "- Rows: 3 succeeded, 2 canceled, 4 expired of 9" in shown
    assert "- **A cancel is on its way.**" in shown


def test_a_providers_words_are_shown_as_words() -> None:
    progress = BatchProgress(
        batch_id="b",
        phase=Phase.POLLING,
        provider="openai",
        waiting_for="**bold** `code`\n# heading\n- item",
        last_error="`*`\n\n* x",
    )
    shown = details(progress)
    assert len(shown.splitlines()) == 5
    assert "- Waiting: ∗∗bold∗∗ 'code' # heading - item" in shown
    assert "- Last error: '∗'  ∗ x" in shown


def test_why_no_row_succeeded_names_the_most_frequent_classes_first() -> None:
    classes = {"timeout": 1, "rate_limited": 1200, "missing": 7, "expired": 7, "other": 2, "server_error": 3}
    applied = Applied(
        results="file:///b/results.jsonl",
        errors="file:///b/errors.jsonl",
        counts=Counts(total=1220, failed=1220),
        usage=Usage(),
        classes=classes,
    )
    assert failure_words(applied) == (
        "No row succeeded: 1,200 rate_limited, 7 expired, 7 missing, 3 server_error, 2 other."
    )
    assert "no row was sent" in failure_words(applied.model_copy(update={"classes": {}}))
