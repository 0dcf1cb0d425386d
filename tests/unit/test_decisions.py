"""What the workflows decide, in tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from durabatch.contract import (
    BatchStatus,
    Counts,
    ErrorClass,
    PollPolicy,
    ProviderStatus,
    RowStatus,
)
from durabatch.contract.errors import error_classes
from durabatch.contract.steps import Snapshot
from durabatch.workflows.decisions import (
    BRIEF,
    FIXABLE,
    FIXABLE_CREATE,
    HOPELESS,
    LATE,
    MAX_CHILDREN,
    OUTAGE_FIRST,
    OUTAGE_LONGEST,
    RESTARTS_FULL,
    STREAK_GAP,
    absent_class,
    answered_rows,
    batch_status,
    direct_margin,
    lengthened,
    outage_delay,
    poll_delay,
    poll_policy,
    queue_was_full,
    refused_class,
    restart_delay,
    results_patience,
    shard_ranges,
    streak_delay,
    waits_for_payment,
    waits_out,
)

SECOND = timedelta(seconds=1)
NO_JITTER = PollPolicy(first=15 * SECOND, factor=1.5, maximum=600 * SECOND, jitter=0)


def batch(status: ProviderStatus, queue_full: bool = False) -> Snapshot:
    return Snapshot(id="batch_1", status=status, raw_status=status.value, queue_full=queue_full)


# --- the next poll ---


def test_polls_come_ever_less_often_until_the_longest_wait() -> None:
    delays = [poll_delay(NO_JITTER, polls, 0.5) / SECOND for polls in range(12)]
    assert delays[:4] == [15, 22.5, 33.75, 50.625]
    assert delays == sorted(delays)
    assert delays[-1] == 600


def test_a_day_takes_so_few_polls_that_history_stays_small() -> None:
    passed, polls = timedelta(0), 0
    while passed < timedelta(hours=24):
        passed += poll_delay(PollPolicy(), polls, 0.0)  # the shortest waits there are
        polls += 1
    assert polls * 11 <= 2000  # 11 events a poll, see the design's "history" benchmark


@pytest.mark.parametrize(("draw", "share"), [(0.0, 0.8), (0.25, 0.9), (0.5, 1.0), (1.0, 1.2)])
@pytest.mark.parametrize(("polls", "seconds"), [(0, 10), (3, 80), (50, 100)])
def test_jitter_changes_a_wait_by_its_share_at_most_either_way(
    draw: float, share: float, polls: int, seconds: int
) -> None:
    policy = PollPolicy(first=10 * SECOND, factor=2, maximum=100 * SECOND, jitter=0.2)
    assert poll_delay(policy, polls, draw) / SECOND == pytest.approx(seconds * share)


def test_any_number_of_polls_has_a_wait_and_none_is_zero() -> None:
    greedy = PollPolicy(first=0.1 * SECOND, factor=10, maximum=timedelta(days=1), jitter=0.5)
    for polls in (0, 1, 199, 200, 10**6):
        assert timedelta(0) < poll_delay(greedy, polls, 0.0) <= poll_delay(greedy, polls, 1.0) <= timedelta(hours=36)
    constant = PollPolicy(first=SECOND, factor=1, maximum=SECOND, jitter=0)
    assert {poll_delay(constant, polls, 0.3) for polls in (0, 5, 10**6)} == {SECOND}


# --- outages ---


@pytest.mark.parametrize(
    ("failures", "asked", "seconds"),
    [
        (1, None, 5),
        (2, None, 10),
        (3, None, 20),
        (8, None, 600),
        (10**9, None, 600),
        (1, 0, 5),
        (1, 3, 5),
        (1, 7, 7),
        (2, 3600, 3600),
        (10**9, 601, 601),
    ],
)
def test_an_outage_is_looked_at_ever_less_often_and_never_before_the_provider_wants(
    failures: int, asked: int | None, seconds: int
) -> None:
    assert outage_delay(failures, None if asked is None else asked * SECOND) == seconds * SECOND


def test_an_outage_is_looked_at_every_ten_minutes_at_least() -> None:
    assert max(outage_delay(failures, None) for failures in range(1, 100)) == OUTAGE_LONGEST == timedelta(minutes=10)


# --- errors ---


@pytest.mark.parametrize(
    ("code", "before", "after"),
    [
        # Nothing gets better by itself.
        ("invalid_spec", False, True),
        ("invalid_input", False, False),
        ("accounting_error", False, False),
        ("object_not_found", False, True),
        # An operator can fix these, which is only worth waiting for when something is paid for.
        ("authentication_failed", False, True),
        ("account_mismatch", False, True),
        ("unknown_provider", False, True),
        ("missing_key", False, True),
        ("configuration_error", False, True),
        ("provider_refused", False, True),
        ("provider_not_found", False, True),
        # These pass.
        ("provider_unavailable", True, True),
        ("rate_limited", True, True),
        ("queue_full", True, True),
        ("store_error", True, True),
        ("store_mismatch", True, True),
        ("timeout", True, True),
        ("KeyError", True, True),
        ("a code of a newer version", True, True),
    ],
)
def test_an_error_is_waited_out_or_not(code: str, before: bool, after: bool) -> None:
    assert waits_out(code, submitted=False) is before
    assert waits_out(code, submitted=True) is after


def test_the_codes_that_are_told_apart_exist() -> None:
    assert set(error_classes()) >= HOPELESS | FIXABLE
    assert not HOPELESS & FIXABLE


def test_what_the_error_tree_calls_retryable_is_waited_out() -> None:
    for code, cls in error_classes().items():
        if cls.retryable:
            assert waits_out(code, submitted=False), code


# --- rows that a provider batch did not return ---


@pytest.mark.parametrize(
    ("status", "stopped", "expected"),
    [
        (ProviderStatus.COMPLETED, None, ErrorClass.MISSING),
        # It had ended before the cancel reached it, so the rows are the provider's to account for.
        (ProviderStatus.COMPLETED, RowStatus.CANCELED, ErrorClass.MISSING),
        (ProviderStatus.COMPLETED, RowStatus.EXPIRED, ErrorClass.MISSING),
        (ProviderStatus.EXPIRED, None, ErrorClass.EXPIRED),
        (ProviderStatus.EXPIRED, RowStatus.EXPIRED, ErrorClass.EXPIRED),
        (ProviderStatus.CANCELED, None, ErrorClass.CANCELED),
        (ProviderStatus.CANCELED, RowStatus.CANCELED, ErrorClass.CANCELED),
        # It was the deadline that had the provider cancel it.
        (ProviderStatus.CANCELED, RowStatus.EXPIRED, ErrorClass.EXPIRED),
        (ProviderStatus.FAILED, None, ErrorClass.INVALID_REQUEST),
        (ProviderStatus.FAILED, RowStatus.CANCELED, ErrorClass.INVALID_REQUEST),
        # It never ended at all.
        (ProviderStatus.IN_PROGRESS, RowStatus.CANCELED, ErrorClass.CANCELED),
        (ProviderStatus.CANCELING, RowStatus.EXPIRED, ErrorClass.EXPIRED),
        (ProviderStatus.IN_PROGRESS, None, ErrorClass.MISSING),
    ],
)
def test_rows_that_did_not_come_back_have_a_reason(
    status: ProviderStatus, stopped: RowStatus | None, expected: ErrorClass
) -> None:
    assert absent_class(batch(status), stopped) is expected


def test_rows_of_a_batch_that_the_provider_lost_are_missing() -> None:
    assert absent_class(None, None) is ErrorClass.MISSING
    assert absent_class(None, RowStatus.CANCELED) is ErrorClass.MISSING


def test_a_full_queue_is_no_fault_of_the_rows() -> None:
    full = batch(ProviderStatus.FAILED, queue_full=True)
    assert queue_was_full(full)
    assert absent_class(full, None) is ErrorClass.RATE_LIMITED


@pytest.mark.parametrize(
    ("status", "queue_full"),
    [
        (ProviderStatus.FAILED, False),
        (ProviderStatus.COMPLETED, True),
        (ProviderStatus.EXPIRED, True),
    ],
)
def test_only_a_failed_batch_of_which_the_provider_says_so_met_a_full_queue(
    status: ProviderStatus, queue_full: bool
) -> None:
    assert not queue_was_full(batch(status, queue_full))


# --- streaks of one answer ---


def minutes(number: float) -> datetime:
    return datetime(2026, 11, 25, tzinfo=UTC) + timedelta(minutes=number)


def test_a_streak_lasts_from_its_first_answer_and_ends_where_something_else_came() -> None:
    streak = lengthened(None, minutes(0))
    assert streak.length == timedelta(0)
    for minute in (1, 10, 20, 20 + STREAK_GAP / timedelta(minutes=1)):
        streak = lengthened(streak, minutes(minute))
    assert streak.length == timedelta(minutes=50)
    # Hours of an outage between two answers of 404 say nothing about the batch.
    assert lengthened(streak, minutes(50 + 31)).length == timedelta(0)


def test_looks_of_a_streak_come_ever_less_often_and_an_hour_takes_few() -> None:
    streak, delays = lengthened(None, minutes(0)), []
    while streak.length < LATE:
        delays.append(streak_delay(streak))
        streak = lengthened(streak, streak.until + delays[-1])
    assert delays[0] == OUTAGE_FIRST and delays == sorted(delays) and delays[-1] == OUTAGE_LONGEST
    assert len(delays) < 20
    assert max(delays) < STREAK_GAP


# --- results of a batch that has ended ---

ENDS = [status for status in ProviderStatus if status.ended]
COUNTS = [(0, 0), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (0, 3)]  # of 3 rows
FILES = [(None, None), ("o", None), (None, "e"), ("o", "e")]


def ended(status: ProviderStatus, counts: tuple[int, int], files: tuple[str | None, str | None]) -> Snapshot:
    (completed, failed), (output, errors) = counts, files
    return Snapshot(
        id="b", status=status, raw_status="x", total=3, completed=completed, failed=failed, output=output, errors=errors
    )


@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("files", FILES)
def test_more_results_are_waited_for_exactly_while_more_rows_are_paid_than_came(
    status: ProviderStatus, counts: tuple[int, int], files: tuple[str | None, str | None]
) -> None:
    batch = ended(status, counts, files)
    completed, failed = counts
    for lines in range(4) if any(files) else [0]:
        for stopped in (False, True):
            patience = results_patience(batch, rows=3, lines=lines, stopped=stopped)
            due = completed + (failed if status is not ProviderStatus.FAILED else 0)
            if lines == 3:
                assert not patience  # every row is back
            elif lines < due or (completed and batch.output is None):
                assert patience == (BRIEF if stopped else LATE)
            elif status is ProviderStatus.COMPLETED and not due:
                assert patience == BRIEF
            else:
                assert not patience


@pytest.mark.parametrize(
    ("status", "counts", "files", "answered"),
    [
        (ProviderStatus.COMPLETED, (3, 0), (None, None), 3),
        (ProviderStatus.COMPLETED, (1, 2), (None, "e"), 1),
        # It counts nothing and names no output, and yet says that all is done.
        (ProviderStatus.COMPLETED, (0, 0), (None, None), 3),
        (ProviderStatus.COMPLETED, (0, 0), (None, "e"), 3),
        # What it sent decides.
        (ProviderStatus.COMPLETED, (0, 0), ("o", None), 0),
        # Nothing was answered, so nothing is paid for.
        (ProviderStatus.COMPLETED, (0, 3), (None, None), 0),
        (ProviderStatus.FAILED, (0, 0), (None, None), 0),
        (ProviderStatus.FAILED, (1, 2), (None, None), 1),
        (ProviderStatus.EXPIRED, (0, 0), (None, None), 0),
        (ProviderStatus.EXPIRED, (2, 1), ("o", "e"), 2),
        (ProviderStatus.CANCELED, (0, 3), (None, "e"), 0),
    ],
)
def test_how_many_rows_of_a_batch_are_paid_for(
    status: ProviderStatus, counts: tuple[int, int], files: tuple[str | None, str | None], answered: int
) -> None:
    assert answered_rows(ended(status, counts, files), rows=3) == answered


def test_rows_of_results_that_are_gone_are_paid_for() -> None:
    uncounted = ended(ProviderStatus.COMPLETED, (0, 0), ("o", None))
    assert answered_rows(uncounted, rows=3, gone=True) == 3


def test_a_batch_that_does_not_say_how_many_rows_it_has_still_has_some() -> None:
    silent = Snapshot(id="b", status=ProviderStatus.COMPLETED, raw_status="completed")
    assert results_patience(silent, rows=0, lines=0, stopped=False) == BRIEF
    assert answered_rows(silent, rows=0) == 1


def test_more_rows_are_never_counted_than_were_sent() -> None:
    batch = ended(ProviderStatus.COMPLETED, (3, 2), ("o", "e"))  # some servers count failed rows as completed as well
    assert not results_patience(batch, rows=3, lines=3, stopped=False)
    assert answered_rows(batch, rows=2) == 2


# --- how a batch ended ---


@pytest.mark.parametrize(
    ("counts", "cancel", "expected"),
    [
        (Counts(total=2, succeeded=2), False, BatchStatus.COMPLETED),
        (Counts(total=2, succeeded=1, failed=1), False, BatchStatus.COMPLETED),
        (Counts(total=2, failed=2), False, BatchStatus.FAILED),
        (Counts(total=2, succeeded=1, expired=1), False, BatchStatus.EXPIRED),
        (Counts(total=2, expired=2), False, BatchStatus.EXPIRED),
        (Counts(total=3, succeeded=1, failed=1, expired=1), False, BatchStatus.EXPIRED),
        (Counts(total=2, succeeded=1, canceled=1), True, BatchStatus.CANCELED),
        (Counts(total=2, canceled=2), True, BatchStatus.CANCELED),
        (Counts(total=3, succeeded=1, canceled=1, expired=1), True, BatchStatus.CANCELED),
        # A cancel that comes after the end changes nothing.
        (Counts(total=2, succeeded=2), True, BatchStatus.COMPLETED),
        (Counts(total=2, failed=2), True, BatchStatus.FAILED),
        # One that comes before the plan leaves no rows to count.
        (Counts(), True, BatchStatus.CANCELED),
        (Counts(), False, BatchStatus.FAILED),
    ],
)
def test_a_batch_ends_as_its_rows_did(counts: Counts, cancel: bool, expected: BatchStatus) -> None:
    assert batch_status(counts, cancel) is expected


def test_a_snapshot_knows_whether_it_is_final() -> None:
    ended = {status for status in ProviderStatus if batch(status).status.ended}
    assert ended == {
        ProviderStatus.COMPLETED,
        ProviderStatus.FAILED,
        ProviderStatus.EXPIRED,
        ProviderStatus.CANCELED,
    }


@pytest.mark.parametrize("shards", [1, 2, 199, 200, 201, 399, 400, 401, 9_999, 10_000, 10_001, 90_000])
def test_any_number_of_shards_is_shared_by_few_children(shards: int) -> None:
    ranges = shard_ranges(shards)
    assert len(ranges) <= MAX_CHILDREN
    taken = [number for one in ranges for number in range(one.first, one.last + 1)]
    assert taken == list(range(shards))  # each once, in order
    lengths = [one.length for one in ranges]
    assert set(lengths[:-1]) <= {lengths[0]} and lengths[-1] <= lengths[0]
    # A start, its confirmation and the end, and three events of a workflow task after each (promise G6).
    assert len(ranges) * 3 * 4 <= 4_000


def test_up_to_as_many_shards_as_children_each_has_one_and_its_number_for_a_name() -> None:
    assert [one.name for one in shard_ranges(3)] == ["00000", "00001", "00002"]
    assert {one.length for one in shard_ranges(MAX_CHILDREN)} == {1}
    assert [one.name for one in shard_ranges(MAX_CHILDREN + 1)][:2] == ["00000-00001", "00002-00003"]


# --- what is waited for once something is bought ---


@pytest.mark.parametrize(
    ("code", "step", "create"),
    [
        ("authentication_failed", True, True),
        ("quota_exhausted", True, True),
        ("provider_not_found", True, True),
        ("missing_key", True, False),  # a create without a key is not refused: it was not sent
        ("provider_refused", True, False),  # the provider will not have these rows, whatever else is bought
        ("accounting_error", False, False),
        (None, False, False),
    ],
)
def test_what_stops_a_shard_is_waited_out_once_another_is_bought(code: str | None, step: bool, create: bool) -> None:
    assert waits_for_payment(code or "", create=False) is step
    assert waits_for_payment(code or "", create=True) is create
    assert FIXABLE_CREATE < FIXABLE


# --- children that end too early ---


def test_children_that_end_all_the_time_do_not_fill_the_history_of_their_batch() -> None:
    events, passed, waiting = 1_800, timedelta(0), {child: (timedelta(0), 1) for child in range(MAX_CHILDREN)}
    while waiting and passed < timedelta(days=35):
        child = min(waiting, key=lambda child: waiting[child][0])
        passed, number = waiting.pop(child)
        events += 12  # initiated, started, ended, a timer, and the tasks in between
        delay = restart_delay(number, events)
        if delay is not None:
            waiting[child] = (passed + delay, number + 1)
    assert not waiting
    assert RESTARTS_FULL <= events <= RESTARTS_FULL + 12 * MAX_CHILDREN


def test_one_child_that_ends_again_and_again_is_followed_for_a_day_and_more() -> None:
    delays = [restart_delay(number, 100) for number in range(1, 40)]
    assert delays[0] == 5 * SECOND
    assert None not in delays
    assert sum((delay for delay in delays if delay), timedelta(0)) > timedelta(hours=20)


# --- direct mode takes over ---


@pytest.mark.parametrize(("deadline", "minutes"), [(26 * 60, 120), (8 * 60, 120), (60, 15), (1, 0.25)])
def test_direct_mode_takes_over_two_hours_before_the_deadline_or_a_quarter_of_it(deadline: int, minutes: float) -> None:
    assert direct_margin(timedelta(minutes=deadline)) == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("authentication_failed", ErrorClass.AUTHENTICATION),
        ("provider_not_found", ErrorClass.NOT_FOUND),
        ("quota_exhausted", ErrorClass.QUOTA_EXHAUSTED),
        ("store_error", ErrorClass.OTHER),
        (None, ErrorClass.OTHER),
    ],
)
def test_rows_of_a_refused_batch_say_what_it_was_refused_for(code: str | None, found: ErrorClass) -> None:
    assert refused_class(code) is found


def test_a_provider_that_sends_webhooks_is_asked_less_often_unless_the_spec_says_how_often() -> None:
    usual, hours = PollPolicy(), timedelta(hours=2)
    assert poll_policy(usual, None) == usual
    assert poll_policy(usual, hours) == PollPolicy(factor=2, maximum=hours)
    often = PollPolicy(first=timedelta(seconds=2), factor=3, maximum=timedelta(minutes=1))
    assert poll_policy(often, hours) == often
