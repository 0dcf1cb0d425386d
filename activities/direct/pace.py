"""When the next call may be sent: a worker's share of the rate, spent evenly. Arithmetic, with the time as an argument.

Together with the ledger's rule that the shares never add up to more than the limit, it keeps every minute, wherever it
begins, within the limit: a share is a rate, what is not spent of it is lost after half a second, and a new share begins
with nothing saved up.
"""

from __future__ import annotations

import math
from collections import deque

#: Seconds of its share that a worker may catch up with when it is late: the worst minute has 60.5 seconds' worth.
BURST = 0.5
#: Seconds over which the server counts.
MINUTE = 60
#: Rows that must have been answered before what they used says anything about the others; and the rows that it is the
#: mean of.
ENOUGH, RECENT = 20, 200
#: What is spent of a fraction that floating point has lost.
_ROUNDING = 1e-6


class Bucket:
    """One rate: filled evenly while its lease lasts, emptied by what is sent, and never far above zero.

    A call may be sent when it is not below zero, whatever the call takes; the next one waits until that is made up for.
    """

    __slots__ = ("at", "level", "new", "rate", "until")

    def __init__(self) -> None:
        self.rate = 0.0  #: A second.
        self.level = 0.0
        self.at = 0.0
        self.until = 0.0  #: When the lease ends.
        self.new = False  #: Whether its first call is still to be paid for in advance.

    def fill(self, now: float) -> None:
        end = now if now < self.until else self.until
        if end > self.at:
            self.level = min(self.level + self.rate * (end - self.at), self.rate * BURST)
            self.at = end

    def ready(self, now: float) -> bool:
        """Whether a call may be sent, for sure; the usual case, in few steps."""
        if now >= self.until or self.new:
            return False
        level = self.level + self.rate * (now - self.at)
        most = self.rate * BURST
        self.level = level if level < most else most
        self.at = now
        return level >= 0.0 < most

    def lease(self, rate: float, now: float, until: float, alone: bool) -> None:
        """Go on at another rate; one that lapsed in between has saved nothing up.

        Args:
            alone: whether nobody else has a share. Among several, each pays for its first call in advance: fifty that
                begin at the same time would send fifty calls at once, which is more than the rate of all together.
        """
        self.fill(now)
        if now >= self.until:
            self.level = min(self.level, 0.0)
            self.new = not alone
        self.level = min(self.level, rate * BURST)
        self.rate, self.at, self.until = rate, now, until

    def delay(self, amount: float) -> float:
        """Return the seconds until a call of this size may be sent, as of the last fill; infinite without a rate."""
        if self.new and self.rate > 0:
            self.level -= amount
            self.new = False
        if self.level >= -_ROUNDING:
            return 0.0 if self.rate > 0 else math.inf
        return -self.level / self.rate if self.rate > 0 else math.inf


class Second:
    """What was sent in one second, as far as it is known."""

    __slots__ = ("before", "number", "spent", "variance")

    def __init__(self, number: int, before: float) -> None:
        self.number = number
        self.before = before  #: What all leases had allowed when it began.
        self.spent = 0.0
        self.variance = 0.0  #: Of the part of it that is an estimate.


class Window:
    """What was sent within the last minute, beside what the leases allowed in it.

    Where the server counts what calls have used, a worker knows that only when they are answered. Until then it counts
    their mean, and twice the standard deviation of their sum on top.
    """

    def __init__(self) -> None:
        self._seconds: deque[Second] = deque()
        self._spent = 0.0
        self._variance = 0.0
        self._allowed = 0.0

    def advance(self, rate: float, since: float, now: float, until: float) -> None:
        """Take into account that a rate was leased from one time on, until now or until its end."""
        if self._seconds and self._seconds[-1].number == int(now):
            self._allowed += rate * max(0.0, min(now, until) - since)
            return
        last = self._seconds[-1].number if self._seconds else int(now) - 1
        for number in range(max(last + 1, int(now) - MINUTE), int(now) + 1):
            by_then = max(0.0, min(number, until) - since)
            self._seconds.append(Second(number, self._allowed + rate * by_then))
        self._allowed += rate * max(0.0, min(now, until) - since)
        while self._seconds[0].number <= self._seconds[-1].number - MINUTE:
            old = self._seconds.popleft()
            self._spent -= old.spent
            self._variance -= old.variance

    def full(self) -> bool:
        surplus = 2 * math.sqrt(max(0.0, self._variance))
        return self._spent + surplus > self._allowed - self._seconds[0].before if self._seconds else False

    def spend(self, tokens: float, variance: float) -> Second:
        second = self._seconds[-1]
        second.spent += tokens
        second.variance += variance
        self._spent += tokens
        self._variance += variance
        return second

    def settle(self, second: Second, more: float, variance: float) -> None:
        """Correct what was estimated: by so many tokens more, and with so much variance that is gone."""
        second.spent += more
        second.variance -= variance
        if self._seconds and second.number >= self._seconds[0].number:
            self._spent += more
            self._variance -= variance


class Costs:
    """What the calls of one batch use, learned from those that were answered."""

    def __init__(self) -> None:
        self._used: deque[int] = deque(maxlen=RECENT)
        self._total = 0
        self._squares = 0

    def learn(self, used: int) -> None:
        if len(self._used) == RECENT:
            oldest = self._used[0]
            self._total -= oldest
            self._squares -= oldest * oldest
        self._used.append(used)
        self._total += used
        self._squares += used * used

    def estimate(self) -> tuple[float, float] | None:
        """Return mean and variance of one call's tokens; None before they are known."""
        count = len(self._used)
        if count < ENOUGH:
            return None
        mean = self._total / count
        return mean, max(0.0, self._squares / count - mean * mean)


class Charge:
    """What a call was charged when it was sent, where it is corrected once the call is answered."""

    __slots__ = ("learned", "second", "tokens", "variance")

    def __init__(self, tokens: float, variance: float, learned: bool, second: Second) -> None:
        self.tokens = tokens
        self.variance = variance
        self.learned = learned
        self.second = second


class Pace:
    """A worker's share of an account's rate.

    Args:
        used: whether the server counts what calls have used, and not what they may use at most.
    """

    def __init__(self, used: bool) -> None:
        self.requests: Bucket | None = None  #: None: no limit.
        self.tokens: Bucket | None = None
        self._window = Window() if used else None

    def lease(self, requests: float | None, tokens: float | None, now: float, until: float, alone: bool) -> None:
        """Take over a new share: numbers a second, None where there is no limit."""
        self.fill(now)
        self.requests = _leased(self.requests, requests, now, until, alone)
        self.tokens = _leased(self.tokens, tokens, now, until, alone)

    def fill(self, now: float) -> None:
        """Let time pass; everything else is as of the last fill."""
        if self.requests is not None:
            self.requests.fill(now)
        if self.tokens is not None:
            if self._window is not None:
                self._window.advance(self.tokens.rate, self.tokens.at, now, self.tokens.until)
            self.tokens.fill(now)

    def ready(self, now: float) -> bool:
        """Whether a call may be sent, for sure; where it says no, `fill` and `delays` know better."""
        if self.requests is not None and not self.requests.ready(now):
            return False
        if self.tokens is None:
            return True
        if self._window is None:
            return self.tokens.ready(now)
        self._window.advance(self.tokens.rate, self.tokens.at, now, self.tokens.until)
        return self.tokens.ready(now) and not self._window.full()

    def delays(self, tokens: float) -> tuple[float, float]:
        """Return the seconds until requests and tokens allow a call of so many tokens; infinite without a share."""
        for_request = self.requests.delay(1.0) if self.requests is not None else 0.0
        if self.tokens is None:
            return for_request, 0.0
        for_tokens = self.tokens.delay(tokens)
        if not for_tokens and self._window is not None and self._window.full():
            for_tokens = 0.05  # until answers come in, or an earlier second leaves the minute
        return for_request, for_tokens

    def spend(self, tokens: float, costs: Costs) -> Charge | None:
        """Send a call; return its charge if that has to be settled.

        Args:
            tokens: what it may use at most.
            costs: what others of its batch have used.
        """
        if self.requests is not None:
            self.requests.level -= 1.0
        if self.tokens is None:
            return None
        if self._window is None:
            self.tokens.level -= tokens
            return None
        estimate = costs.estimate()
        charged, variance = estimate or (tokens, 0.0)
        self.tokens.level -= charged
        return Charge(charged, variance, estimate is not None, self._window.spend(charged, variance))

    def settle(self, charge: Charge, used: int) -> None:
        """Correct a charge by what the call has used."""
        more = used - charge.tokens
        if self._window is not None:
            self._window.settle(charge.second, more, charge.variance)
        # A call that was charged at its most gets nothing back: all of the first ones at once would be a burst.
        if self.tokens is not None and (charge.learned or more > 0):
            self.tokens.level = min(self.tokens.level - more, self.tokens.rate * BURST)


def _leased(bucket: Bucket | None, rate: float | None, now: float, until: float, alone: bool) -> Bucket | None:
    if rate is None:
        return None
    bucket = bucket or Bucket()
    bucket.lease(rate, now, until, alone)
    return bucket
