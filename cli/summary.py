"""A batch in a few lines: its result, or where it is."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from ..contract import (
    BatchProgress,
    BatchResult,
    BatchStatus,
    Counts,
    DirectShare,
    DurabatchError,
    InvalidInput,
    Phase,
    ResultRow,
    Unpriced,
)
from .terminal import CANCELED, SOME_ROWS_FAILED, plain_path, print_json, print_output

#: Provider batches that are listed; the others are counted.
_SHOWN = 5
#: Characters of an answer that are shown.
_CHARACTERS = 400


def print_result(
    result: BatchResult,
    failure: DurabatchError | None,
    copied: Path | None = None,
    *,
    example: ResultRow | None,
    as_json: bool,
) -> int:
    """Print a batch's result and return the exit code that says the same.

    Args:
        failure: why it failed, where it did.
        copied: where its results were copied to.
        example: a row that failed, to be shown to a person.
        as_json: whether a program reads it.

    Raises:
        DurabatchError: it failed before it had rows; that is printed as an error, not as a result.
    """
    if as_json:
        print_json(result_facts(result, failure, copied))
    elif failure is None or result.results:
        print_output(result_text(result, failure, copied, example))
    if failure is not None and not result.results:
        raise failure
    return exit_code(result)


def exit_code(result: BatchResult) -> int:
    """Return the exit code for a batch that has ended."""
    if result.status is BatchStatus.FAILED:
        return 1
    if result.status is BatchStatus.CANCELED:
        return CANCELED
    every = result.status is BatchStatus.COMPLETED and result.counts.succeeded == result.counts.total
    return 0 if every else SOME_ROWS_FAILED


def result_facts(result: BatchResult, failure: DurabatchError | None, copied: Path | None = None) -> dict[str, Any]:
    """Return a result for a program: the BatchResult, with where it was copied to and which rows were wrong."""
    facts = result.model_dump(mode="json")
    if copied is not None:
        facts["output"] = str(copied)
    if isinstance(failure, InvalidInput):
        facts["problems"], facts["problems_total"] = [one.facts() for one in failure.problems], failure.total
    return facts


def result_text(
    result: BatchResult,
    failure: DurabatchError | None,
    copied: Path | None = None,
    example: ResultRow | None = None,
) -> str:
    """Return a result for a person, as aligned lines."""
    counts = result.counts
    lines = [("Batch", result.batch_id), ("Status", result.status.value)]
    if result.cancel_reason or result.canceled_by:
        who = f"by {result.canceled_by}" if result.canceled_by else None
        lines.append(("Cancelled", ": ".join(filter(None, [who, result.cancel_reason]))))
    lines.append(("Rows", rows_by_status(counts)))
    lines += bill(result)
    if result.started_at and result.ended_at:
        lines.append(("Time", duration((result.ended_at - result.started_at).total_seconds())))
    for number, batch in enumerate(result.provider_batches[:_SHOWN]):
        adopted = ", found again" if batch.adopted else ""
        lines.append(
            (
                "" if number else "At provider",
                f"{batch.id} ({batch.rows:,} row{'s' * (batch.rows != 1)}, {batch.status.value}{adopted})",
            )
        )
    if (more := len(result.provider_batches) - _SHOWN) > 0:
        lines.append(("", f"… and {more} more"))
    if result.results:
        lines.append(("Results", str(copied) if copied else plain_path(result.results)))
    if result.errors and counts.succeeded < counts.total:
        lines.append(("Errors", plain_path(result.errors)))
    if result.error and (failure is None or result.results):
        lines.append(("Why", result.error))
    if example is not None and example.error is not None and example.error.message != result.error:
        lines.append(("Example", f"{plain(example.custom_id)}: {answer(example)}"))
    if result.errors and counts.succeeded < counts.total:
        lines.append(("Hint", f"`durabatch results {result.batch_id} --errors` shows the rows that did not succeed"))
    return aligned(lines)


def progress_text(progress: BatchProgress) -> str:
    """Return where a batch is, for a person, as aligned lines."""
    if progress.result is not None:
        return result_text(progress.result, None)
    lines = [("Batch", progress.batch_id), ("Phase", progress.phase.value), ("Provider", progress.provider or "?")]
    lines.append(("Rows", rows_by_status(progress.counts) if progress.counts.total else "not known yet"))
    if progress.shards.total > 1:
        shards = progress.shards
        lines.append(("Shards", f"{shards.ended} of {shards.total} ended, {shards.running} under way"))
    if progress.attempt > 1:
        lines.append(("Attempt", str(progress.attempt)))
    if progress.provider_status is not None:
        lines.append(("At provider", f"{progress.provider_batch_id or '?'} ({_raw(progress)})"))
    if progress.next_poll_at is not None:
        name = "Next try" if progress.phase is Phase.RUNNING else "Next poll"
        lines.append((name, f"in {duration(seconds_until(progress.next_poll_at))}"))
    if progress.cost_usd is not None:
        lines.append(("Cost", f"{_least(progress.result)}{money(progress.cost_usd)}"))
    if progress.cancel_requested:
        lines.append(("Cancel", "requested"))
    if progress.waiting_for:
        lines.append(("Waits for", progress.waiting_for))
    if progress.last_error:
        lines.append(("Last error", progress.last_error))
    if progress.started_at is not None:
        lines.append(("Running for", duration(-seconds_until(progress.started_at))))
    return aligned(lines)


def progress_line(progress: BatchProgress) -> str:
    """Return where a batch is on one line, without anything that changes by itself."""
    parts = [progress.phase.value]
    counts = progress.counts
    if counts.total:
        failed = f" ({counts.settled - counts.succeeded:,} not succeeded)" if counts.settled > counts.succeeded else ""
        parts.append(f"{counts.settled:,}/{counts.total:,} rows{failed}")
    if progress.shards.total > 1:
        parts.append(f"{progress.shards.ended}/{progress.shards.total} shards")
    if progress.attempt > 1:
        parts.append(f"attempt {progress.attempt}")
    if progress.provider_status is not None:
        parts.append(f"provider {_raw(progress)}")
    if progress.cost_usd is not None:
        parts.append(f"{_least(progress.result)}{money(progress.cost_usd)}")
    if progress.cancel_requested:
        parts.append("cancelling")
    if progress.result is None and progress.waiting_for:
        parts.append(progress.waiting_for)
    elif progress.result is None and progress.last_error:
        parts.append(f"last error: {progress.last_error}")  # it may be over
    return " · ".join(parts)


def seconds_until(moment: datetime) -> float:
    """Return how many seconds are left, negative when it has passed."""
    return (moment - datetime.now(UTC)).total_seconds()


def duration(seconds: float) -> str:
    """Return a length of time for a person: "4.2 s", "3 min 5 s", "2 h 10 min"."""
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def money(usd: str) -> str:
    """Return an amount for a person: to the cent where that says enough, else to four digits that count."""
    try:
        amount = Decimal(usd)
    except InvalidOperation:
        return f"${usd}"
    if amount == 0 or amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.{max(2, 3 - amount.adjusted())}f}"


def rows_by_status(counts: Counts) -> str:
    """Return how many rows there are, and how many of them ended how: "20: 19 succeeded, 1 failed"."""
    named = (
        ("succeeded", counts.succeeded),
        ("failed", counts.failed),
        ("canceled", counts.canceled),
        ("expired", counts.expired),
    )
    parts = [f"{count:,} {name}" for name, count in named if count]
    return f"{counts.total:,}{': ' if parts else ''}{', '.join(parts)}"


def bill(result: BatchResult) -> list[tuple[str, str]]:
    """Return what was used and paid, and what is odd about it."""
    usage, lines = result.usage, list[tuple[str, str]]()
    if usage.input_tokens or usage.output_tokens:
        cached = f" ({usage.cached_input_tokens:,} cached)" if usage.cached_input_tokens else ""
        reasoning = f" ({usage.reasoning_tokens:,} reasoning)" if usage.reasoning_tokens else ""
        lines.append(("Tokens", f"{usage.input_tokens:,} in{cached}, {usage.output_tokens:,} out{reasoning}"))
    if usage.input_tokens or usage.output_tokens or result.unpriced.total:
        lines.append(("Cost", _cost(result)))
    if result.direct is not None and result.provider_batches:
        lines.append(("Direct", _direct(result.direct)))
    if result.repeated:
        lines.append(("Repeated", f"{_count(result.repeated, 'call')}, sent again after a worker was lost"))
    if result.strays.unknown or result.strays.duplicate or result.strays.unreadable:
        lines.append(("Set aside", _strays(result)))
    return lines


def _cost(result: BatchResult) -> str:
    unpriced = _unpriced(result.unpriced)
    if result.cost_usd is None:
        return f"unknown: {unpriced or 'the price of a model is not known'}"
    discounted = result.list_cost_usd not in (None, result.cost_usd)
    listed = f"{money(result.list_cost_usd or '')} without the batch discount" if discounted else ""
    directly = "row by row, at the list price" if result.direct and not result.provider_batches else ""
    notes = ", ".join(filter(None, [listed, directly, f"not counted: {unpriced}" if unpriced else ""]))
    return f"{_least(result)}{money(result.cost_usd)}" + (f" ({notes})" if notes else "")


def _direct(direct: DirectShare) -> str:
    cost = f", for {money(direct.cost_usd)}" if direct.cost_usd else ""
    return f"{_count(direct.rows, 'row')} sent one by one, at the list price{cost}"


def answer(row: ResultRow) -> str:
    """Return a row's answer on one line; of one that has none, why."""
    if row.text is not None:
        more = len(row.text) - _CHARACTERS
        rest = f"… and {more:,} more characters" if more > 0 else ""
        return f"{plain(row.text[:_CHARACTERS])}{rest}"
    if row.error is not None:
        return f"[{row.status.value}: {row.error.type.value}] {plain(row.error.message[:_CHARACTERS])}".rstrip()
    return f"[{row.status.value}]"


def plain(text: str) -> str:
    """Return text on one line, without what would steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _least(result: BatchResult | None) -> str:
    return "at least " if result and result.cost_is_lower_bound else ""


def _unpriced(unpriced: Unpriced) -> str:
    """Return which answers a cost leaves out: "3 rows without usage, 2 rows of a model without a price (m-1)"."""
    parts = []
    if unpriced.without_usage:
        parts.append(f"{_count(unpriced.without_usage, 'row')} without usage")
    if unpriced.without_price:
        names = ", ".join(model or "unnamed" for model in list(unpriced.models)[:_SHOWN])
        more = ", …" if len(unpriced.models) > _SHOWN else ""
        what = "a model" if len(unpriced.models) == 1 else "models"
        parts.append(f"{_count(unpriced.without_price, 'row')} of {what} without a known price ({names}{more})")
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _strays(result: BatchResult) -> str:
    strays = result.strays
    return (
        f"{strays.unknown} unknown, {strays.duplicate} duplicate, {strays.unreadable} unreadable rows from the provider"
    )


def _raw(progress: BatchProgress) -> str:
    return progress.provider_status_raw or (progress.provider_status.value if progress.provider_status else "?")


def aligned(lines: list[tuple[str, str]]) -> str:
    """Return names and what is said of them, in two columns."""
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in lines)
