"""What the command says of a batch, and the code with which it ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durabatch.cli.summary import duration, exit_code, money, progress_line, progress_text, result_facts, result_text
from durabatch.cli.watching import display
from durabatch.contract import (
    BatchProgress,
    BatchResult,
    BatchStatus,
    Counts,
    DirectShare,
    ErrorClass,
    InvalidInput,
    Phase,
    ProviderBatch,
    ProviderStatus,
    ResultRow,
    RowError,
    RowProblem,
    RowStatus,
    ShardCounts,
    Strays,
    Unpriced,
    Usage,
)

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def result(status: BatchStatus = BatchStatus.COMPLETED, **fields: Any) -> BatchResult:
    return BatchResult(batch_id="b", status=status, **fields)


@pytest.mark.parametrize(
    ("status", "counts", "code"),
    [
        (BatchStatus.COMPLETED, Counts(total=2, succeeded=2), 0),
        (BatchStatus.COMPLETED, Counts(total=2, succeeded=1, failed=1), 3),
        (BatchStatus.EXPIRED, Counts(total=2, succeeded=1, expired=1), 3),
        (BatchStatus.CANCELED, Counts(total=2, succeeded=1, canceled=1), 4),
        (BatchStatus.CANCELED, Counts(total=2, succeeded=2), 4),
        (BatchStatus.FAILED, Counts(total=2, failed=2), 1),
        (BatchStatus.FAILED, Counts(), 1),
    ],
)
def test_the_exit_code_says_how_a_batch_ended(status: BatchStatus, counts: Counts, code: int) -> None:
    assert exit_code(result(status, counts=counts)) == code


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        ("0", "$0.00"),
        ("12.3456", "$12.35"),
        ("1234.5", "$1,234.50"),
        ("0.5", "$0.5000"),
        ("0.0123456", "$0.01235"),
        ("0.0000021", "$0.000002100"),
        ("?", "$?"),
    ],
)
def test_money_shows_as_many_digits_as_it_takes(usd: str, shown: str) -> None:
    assert money(usd) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0.0 s"), (4.21, "4.2 s"), (59.4, "59 s"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (90000, "25 h 0 min")],
)
def test_a_duration_is_told_in_the_units_that_matter(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_result_for_programs_says_which_rows_are_wrong_and_how() -> None:
    problem = RowProblem(message="line 2, url: must be a string", code="invalid_field", line=2, field="url")
    facts = result_facts(result(BatchStatus.FAILED), InvalidInput("Rows are wrong.", [problem], total=7))
    assert facts["status"] == "failed"
    assert (facts["problems"], facts["problems_total"]) == ([problem.facts()], 7)
    assert problem.facts() == {
        "message": "line 2, url: must be a string",
        "code": "invalid_field",
        "line": 2,
        "field": "url",
    }


def test_a_result_tells_everything_that_happened() -> None:
    told = result_text(
        result(
            BatchStatus.CANCELED,
            counts=Counts(total=1200, succeeded=1000, failed=100, canceled=100),
            usage=Usage(input_tokens=5000, cached_input_tokens=100, output_tokens=700, reasoning_tokens=30),
            cost_usd="1.5",
            list_cost_usd="3",
            results="file:///data/a%20b/results.jsonl",
            errors="s3://bucket/b/errors.jsonl",
            provider_batches=tuple(
                ProviderBatch(
                    marker=f"b/0/{n}", id=f"batch_{n}", status=ProviderStatus.CANCELED, rows=n, adopted=n == 1
                )
                for n in range(1, 8)
            ),
            strays=Strays(unknown=1, duplicate=2, unreadable=3),
            started_at=START,
            ended_at=START + timedelta(seconds=185),
            cancel_reason="wrong prompt",
            canceled_by="me",
        ),
        None,
    )
    for words in (
        "by me: wrong prompt",
        "1,200: 1,000 succeeded, 100 failed, 100 canceled",
        "5,000 in (100 cached), 700 out (30 reasoning)",
        "$1.50 ($3.00 without the batch discount)",
        "1 unknown, 2 duplicate, 3 unreadable",
        "3 min 5 s",
        "batch_1 (1 row, canceled, found again)",
        "… and 2 more",
        "/data/a b/results.jsonl",
        "s3://bucket/b/errors.jsonl",
        "durabatch results b --errors",
    ):
        assert words in told
    # An unknown price is not a price of zero.
    assert "unknown" in result_text(result(usage=Usage(input_tokens=1)), None)


KNOWN = {"cost_usd": "1.5", "list_cost_usd": "3", "usage": Usage(input_tokens=1)}


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        (KNOWN, "$1.50 ($3.00 without the batch discount)"),
        (
            {**KNOWN, "unpriced": Unpriced(without_usage=3)},
            "at least $1.50 ($3.00 without the batch discount, not counted: 3 rows without usage)",
        ),
        (
            {**KNOWN, "unpriced": Unpriced(without_usage=1, without_price=1200, models={"m-1": 1200})},
            "at least $1.50 ($3.00 without the batch discount, not counted: 1 row without usage, "
            "1,200 rows of a model without a known price (m-1))",
        ),
        (
            {"unpriced": Unpriced(without_price=7, models={f"m-{number}": 1 for number in range(7)})},
            "unknown: 7 rows of models without a known price (m-0, m-1, m-2, m-3, m-4, …)",
        ),
        ({"unpriced": Unpriced(without_usage=2)}, "unknown: 2 rows without usage"),
        ({**KNOWN, "cost_usd": "3"}, "$3.00"),
        ({"usage": Usage(input_tokens=1)}, "unknown: the price of a model is not known"),
    ],
)
def test_a_cost_says_what_it_leaves_out(fields: dict[str, Any], cost: str) -> None:
    ended = result(**fields)
    lines = dict(line.split(maxsplit=1) for line in result_text(ended, None).splitlines())
    assert lines["Cost"] == cost
    progress = BatchProgress(batch_id="b", phase=Phase.ENDED, cost_usd=ended.cost_usd, result=ended)
    if ended.cost_usd:
        assert progress_line(progress) == f"ended · {cost.partition(' (')[0]}"


def test_a_result_tells_what_was_sent_directly_and_what_was_sent_again() -> None:
    batch = ProviderBatch(marker="b/0/1", id="batch_1", status=ProviderStatus.EXPIRED, rows=20)
    direct = DirectShare(rows=12, cost_usd="0.5")
    told = result_text(result(direct=direct, repeated=1, provider_batches=(batch,)), None)
    for words in (
        "12 rows sent one by one, at the list price, for $0.500",
        "1 call, sent again after a worker was lost",
    ):
        assert words in told


def test_what_was_sent_directly_as_a_whole_is_said_beside_its_cost() -> None:
    share = DirectShare(rows=2, cost_usd="0.5")
    usage = Usage(input_tokens=5)
    told = result_text(result(direct=share, cost_usd="0.5", list_cost_usd="0.5", usage=usage), None).splitlines()
    assert "Cost    $0.5000 (row by row, at the list price)" in told
    assert not any(line.startswith("Direct") for line in told)


def test_a_row_that_failed_is_shown_where_the_result_does_not_say_the_same() -> None:
    error = RowError(type=ErrorClass.NOT_FOUND, message="model 'm' is not there\x1b[31m")
    row = ResultRow(custom_id="a\n1", status=RowStatus.FAILED, error=error)
    failed = result(BatchStatus.FAILED, error="No row succeeded: 5 not_found.")
    assert "Example  a 1: [failed: not_found] model 'm' is not there [31m" in result_text(failed, None, None, row)
    said = failed.model_copy(update={"error": error.message})
    assert "Example" not in result_text(said, None, None, row)


def test_progress_tells_why_nothing_moves() -> None:
    progress = BatchProgress(
        batch_id="b",
        phase=Phase.POLLING,
        provider="openai",
        counts=Counts(total=10, succeeded=2, failed=1),
        shards=ShardCounts(total=4, ended=1, running=2, waiting=1),
        attempt=2,
        provider_status=ProviderStatus.IN_PROGRESS,
        provider_status_raw="in_progress",
        provider_batch_id="batch_1",
        next_poll_at=START,
        waiting_for="openai does not answer",
        last_error="an error that is over",
        cost_usd="0.5",
        started_at=START,
        cancel_requested=True,
    )
    line = progress_line(progress)
    assert line == (
        "polling · 3/10 rows (1 not succeeded) · 1/4 shards · attempt 2 · provider in_progress · $0.5000 · "
        "cancelling · openai does not answer"
    )
    # What went wrong last is not what is waited for: it may be over, and is not told as if it were not.
    moving = progress.model_copy(update={"waiting_for": None})
    assert progress_line(moving).endswith("cancelling · last error: an error that is over")
    told = progress_text(progress)
    for words in ("batch_1 (in_progress)", "1 of 4 ended, 2 under way", "requested", "openai does not answer", "over"):
        assert words in told
    assert "not known yet" in progress_text(BatchProgress(batch_id="b", phase=Phase.PLANNING))
    done = progress.model_copy(update={"result": result(counts=Counts(total=1, succeeded=1))})
    assert "openai does not answer" not in progress_line(done)
    assert "completed" in progress_text(done)


def test_a_wait_that_only_grows_shorter_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = "It waits for the end of a pause that provider p asked for"
    with display() as show:
        for why in (f"{waiting}, in 7 s.", f"{waiting}, in 2 s.", "It waits for room."):
            show(BatchProgress(batch_id="b", phase=Phase.RUNNING, waiting_for=why))
    assert capsys.readouterr().err.splitlines() == [f"running · {waiting}, in 7 s.", "running · It waits for room."]
