"""What the workflows decide, as pure functions: values in, a value out, no Temporal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..contract import BatchStatus, Counts, ErrorClass, PollPolicy, ProviderStatus, RowStatus
from ..contract.names import shards_name
from ..contract.steps import Snapshot
from .attempt_state import Streak

#: A step that failed is tried again after 5 s, then after twice as long each time, up to 10 minutes.
OUTAGE_FIRST = timedelta(seconds=5)
OUTAGE_LONGEST = timedelta(minutes=10)
#: The worker had no room for a long step. It has some as soon as another one ends, so waits stop growing at 40 s.
BUSY = "worker_busy"
BUSY_FAILURES = 4
#: For this long, answers of 404 do not mean that a provider batch is gone: a proxy's default page says the same. And
#: for this long the results of a batch that has ended may come later than its end.
LATE = timedelta(hours=1)
#: The same once the batch was stopped, or where the provider does not say that there are more results.
BRIEF = timedelta(minutes=10)
#: For this long, answers of 404 where a batch's results should be do not mean that they are gone: they are paid for.
GONE = timedelta(hours=24)
#: Two answers of one streak are at most this far apart: the longest pause, and the time that a slow step takes.
STREAK_GAP = timedelta(minutes=30)
#: Failures of Durabatch or of a store are worth waiting out; these are not, as they never get better by themselves.
HOPELESS = frozenset({"invalid_input", "accounting_error", "durabatch_error"})
#: What is not in the store, or not in this worker's. Before anything is submitted it ends the batch at once, as the
#: input may never have been there; afterwards it was moved, or a worker was given another store.
MISSING = frozenset({"invalid_spec", "object_not_found"})
#: These need an operator. Before anything is submitted they end the batch at once; afterwards it waits for the fix.
FIXABLE = frozenset(
    {
        "authentication_failed",
        "quota_exhausted",
        "account_mismatch",
        "configuration_error",
        "unknown_provider",
        "missing_key",
        "provider_refused",
        "provider_not_found",
    }
)
#: Those of them that may refuse a create: the key, the credit, a missing route or a missing file. Any other refusal is
#: about the request itself.
FIXABLE_CREATE = frozenset({"authentication_failed", "quota_exhausted", "provider_not_found"})


#: What a refusal of the whole batch means for each of its rows.
_REFUSED = {
    "authentication_failed": ErrorClass.AUTHENTICATION,
    "missing_key": ErrorClass.AUTHENTICATION,
    "account_mismatch": ErrorClass.AUTHENTICATION,
    "quota_exhausted": ErrorClass.QUOTA_EXHAUSTED,
    "provider_not_found": ErrorClass.NOT_FOUND,
    "provider_refused": ErrorClass.INVALID_REQUEST,
}


#: Where direct mode is to finish what provider batches leave over, they are ended this long before the deadline, or a
#: quarter of the time that the batch may take if that is less: a cancel takes OpenAI up to ten minutes, and the rest is
#: for the rows. With the defaults (26 h, and a window of 24 h) they have their whole window.
DIRECT_MARGIN = timedelta(hours=2)


#: Each wait is this times the one before it where a webhook is expected: the first polls, in case it comes before the
#: batch is known to be anybody's, and then the backstop. Over a day it is 19 polls.
WEBHOOK_FACTOR = 2.0

#: Children of one batch: their starts and ends are some 10 events each of the batch's own history.
MAX_CHILDREN = 200

#: How often one child is restarted before the waits in between grow to an hour.
RESTARTS_OFTEN = 20
RESTARTS_SELDOM = timedelta(hours=1)
#: Events of the batch's own history after which a child is restarted only when an operator asks for it.
RESTARTS_FULL = 3_000


@dataclass(frozen=True)
class ShardRange:
    """Consecutive shards that one child workflow takes, one after another."""

    first: int
    last: int

    @property
    def length(self) -> int:
        return self.last - self.first + 1

    @property
    def name(self) -> str:
        """What they are called, in messages and in the id of their workflow."""
        return shards_name(self.first, self.last)


def shard_ranges(shards: int) -> list[ShardRange]:
    """Return the ranges of so many shards: one shard each, or more where there would be too many children."""
    length = -(-shards // MAX_CHILDREN)
    return [ShardRange(first, min(first + length, shards) - 1) for first in range(0, shards, length)]


def direct_margin(deadline: timedelta) -> timedelta:
    """Return how long before the deadline direct mode takes over.

    Args:
        deadline: the time that the batch may take.
    """
    return min(DIRECT_MARGIN, deadline / 4)


def poll_policy(asked: PollPolicy, webhook_poll: timedelta | None) -> PollPolicy:
    """Return how often a provider is asked: less often where it sends a webhook at the end of a batch.

    Args:
        asked: the spec's policy; what it does not leave at its default holds.
        webhook_poll: the longest pause between two polls, where the provider sends webhooks.
    """
    if webhook_poll is None:
        return asked
    usual = PollPolicy()
    return asked.model_copy(
        update={
            "factor": WEBHOOK_FACTOR if asked.factor == usual.factor else asked.factor,
            "maximum": webhook_poll if asked.maximum == usual.maximum else asked.maximum,
        }
    )


def poll_delay(policy: PollPolicy, polls: int, draw: float) -> timedelta:
    """Return the wait before the next poll.

    Args:
        policy: the spec's.
        polls: how many polls there were.
        draw: a random number from 0 to 1.
    """
    # The exponent is bounded so that a month of polls cannot overflow; by then the maximum has long been reached.
    grown = policy.first.total_seconds() * policy.factor ** min(polls, 200)
    seconds = min(grown, policy.maximum.total_seconds())
    return timedelta(seconds=seconds * (1 + policy.jitter * (2 * draw - 1)))


def outage_delay(failures: int, retry_after: timedelta | None) -> timedelta:
    """Return the wait before a failed step is tried again; at least as long as the provider asks for."""
    grown: timedelta = min(OUTAGE_FIRST * 2 ** min(failures - 1, 20), OUTAGE_LONGEST)
    return max(grown, retry_after) if retry_after else grown


def restart_delay(number: int, events: int) -> timedelta | None:
    """Return the wait before a child that ended too early is restarted; None if only an operator restarts it.

    Args:
        number: how many there were.
        events: of the batch's own history, which is bounded (promise G6) whatever ends its children.
    """
    if events >= RESTARTS_FULL:
        return None
    return outage_delay(number, None) if number <= RESTARTS_OFTEN else RESTARTS_SELDOM


def lengthened(streak: Streak | None, now: datetime) -> Streak:
    """Return a streak with one more answer; a new one, if the last answer is so long ago that something else came.

    An outage between two answers of 404 says nothing about what was not found, so it ends the streak.
    """
    if streak is None or now - streak.until > STREAK_GAP:
        return Streak(since=now, until=now)
    return Streak(since=streak.since, until=now)


def streak_delay(streak: Streak) -> timedelta:
    """Return the wait before the next look: as long as the streak is, within the bounds of an outage's waits."""
    return min(max(streak.length, OUTAGE_FIRST), OUTAGE_LONGEST)


def results_patience(batch: Snapshot, *, rows: int, lines: int, stopped: bool) -> timedelta:
    """Return how long more results of a batch that has ended are waited for; zero where it says that there are no more.

    Providers show `completed` some seconds before they name the files, and may name the files one after the other, or
    count late. As long as the counts say that more rows are finished than came back, those rows are paid for.

    Args:
        batch: the provider batch, ended.
        rows: how many rows it was sent.
        lines: how many lines of results came.
        stopped: whether the batch was asked to stop.
    """
    rows = rows or batch.total or batch.completed + batch.failed or 1
    # A batch that failed did not run what it counts as failed: there may be nothing more to say of those rows.
    failed = 0 if batch.status is ProviderStatus.FAILED else batch.failed
    finished = min(batch.completed + failed, rows)
    if lines < finished or (batch.completed and batch.output is None and lines < rows):
        return BRIEF if stopped else LATE
    if lines < rows and batch.status is ProviderStatus.COMPLETED and not finished:
        return BRIEF  # it says that every row is done, and counts none
    return timedelta(0)


def answered_rows(batch: Snapshot, *, rows: int, gone: bool = False) -> int:
    """Return how many rows an ended batch has answered, as far as it says: so many are billed.

    Args:
        batch: the provider batch, ended.
        rows: how many rows it was sent.
        gone: whether it named results that were not there.
    """
    rows = rows or batch.total or batch.completed + batch.failed or 1
    if batch.completed:
        return min(batch.completed, rows)
    silent = batch.output is None and not batch.failed
    # It counts nothing, and either says that all is done without naming an output, or what it named is not there.
    return rows if gone or (silent and batch.status is ProviderStatus.COMPLETED) else 0


def waits_out(code: str, *, submitted: bool) -> bool:
    """Return whether a step that failed with this code is to be tried again.

    Args:
        code: the error's code, or the name of an exception that Durabatch does not define.
        submitted: whether something paid for is at stake.
    """
    if code in HOPELESS:
        return False
    return submitted or code not in FIXABLE | MISSING


def waits_for_payment(code: str, *, create: bool) -> bool:
    """Return whether what failed for good would have been waited out if something of the batch had been bought.

    Args:
        code: the error's code.
        create: whether the provider refused a create with it.
    """
    return code in (FIXABLE_CREATE if create else FIXABLE)


def refused_class(code: str | None) -> ErrorClass:
    """Return what is the matter with rows that were not sent because a step failed for good with this code."""
    return _REFUSED.get(code or "", ErrorClass.OTHER)


def absent_class(batch: Snapshot | None, stopped: RowStatus | None) -> ErrorClass:
    """Return what is the matter with rows that a provider batch did not return.

    Args:
        batch: the provider batch as it was last; None if the provider lost it.
        stopped: why we cancelled it, if we did.
    """
    if batch is None or batch.status is ProviderStatus.COMPLETED:
        return ErrorClass.MISSING
    if batch.status is ProviderStatus.FAILED:
        return ErrorClass.RATE_LIMITED if queue_was_full(batch) else ErrorClass.INVALID_REQUEST
    if stopped is RowStatus.CANCELED:
        return ErrorClass.CANCELED
    if stopped is RowStatus.EXPIRED or batch.status is ProviderStatus.EXPIRED:
        return ErrorClass.EXPIRED
    return ErrorClass.CANCELED if batch.status is ProviderStatus.CANCELED else ErrorClass.MISSING


def queue_was_full(batch: Snapshot) -> bool:
    """Return whether the provider gave a batch up unrun because its queue had no room for it."""
    return batch.status is ProviderStatus.FAILED and batch.queue_full


def batch_status(counts: Counts, cancel_requested: bool) -> BatchStatus:
    """Return how a batch ended, from its rows."""
    if counts.canceled or (cancel_requested and counts.total == 0):
        return BatchStatus.CANCELED
    if counts.expired:
        return BatchStatus.EXPIRED
    return BatchStatus.COMPLETED if counts.succeeded else BatchStatus.FAILED
