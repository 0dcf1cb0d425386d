"""Whether the endpoint answers at all: where that is in doubt, rows wait, and only check calls are sent. Pure."""

from __future__ import annotations

import asyncio

#: Failures without anything that was answered well in between until there is a doubt. Each check that is answered well
#: doubles them, up to a bound, until a row is: of many rows that fail each time, many are sent for each check.
_FAILURES, _MOST_FAILURES = 3, 192
#: Seconds between the first checks that fail, and between the later ones at most; each wait is twice the one before.
_FIRST_WAIT, _LAST_WAIT = 0.5, 8.0
#: Statuses by which a server, or what stands before it, says that it waited for too long: 524 is Cloudflare's.
_TOO_SLOW = frozenset({408, 504, 524})


def may_have_cost(status: int) -> bool:
    """Return whether a failure says that a server may have worked on the row all the same."""
    return status in _TOO_SLOW


class Breaker:
    """Counts failures between two successes. Times are of one clock, in seconds."""

    def __init__(self) -> None:
        self.opened_at: float | None = None  #: Since when the endpoint is in doubt; None while it is not.
        self.away = False  #: Whether a check has failed since.
        self.reason = ""  #: Of the last failure.
        self.doubted = asyncio.Event()  #: Set while it is open.
        self.closed = asyncio.Event()  #: Set while it is not.
        self.closed.set()
        self._failures = 0
        self._enough = _FAILURES
        self._checks = True
        self._wait = _FIRST_WAIT
        self._check_at = 0.0

    def answered(self, *, check: bool = False) -> None:
        """Note that something was answered well: a row, or only a check."""
        self._enough = min(2 * self._enough, _MOST_FAILURES) if check else _FAILURES
        self._close()

    def _close(self) -> None:
        self._failures = 0
        if self.opened_at is not None:
            self.opened_at, self.away, self._wait = None, False, _FIRST_WAIT
            self.doubted.clear()
            self.closed.set()

    def failed(self, reason: str, now: float, wait: float | None = None) -> None:
        """Note a failure of a row while nothing else was answered.

        Args:
            reason: what happened, as a sentence.
            now: the time.
            wait: for how many seconds the provider asks to be left alone.
        """
        self._failures += 1
        if self._failures >= self._enough and self._checks:
            self.doubt(reason, now, wait)

    def doubt(self, reason: str, now: float, wait: float | None = None) -> None:
        """Have the endpoint checked before any other row is sent."""
        if self.opened_at is None:
            self.opened_at, self.reason = now, reason
            self._check_at = now + (wait or 0.0)
            self.closed.clear()
            self.doubted.set()

    def failed_check(self, reason: str, now: float, wait: float | None = None) -> None:
        """Note that a check failed as well: the endpoint is away."""
        self.doubt(reason, now)
        self.away, self.reason = True, reason
        self._check_at = now + max(self._wait, wait or 0.0)
        self._wait = min(self._wait * 2, _LAST_WAIT)

    def trust(self) -> None:
        """Check no more, as checks say nothing here."""
        self._checks = False
        self._close()

    def delay(self, now: float) -> float:
        """Return for how many seconds the next check has to wait."""
        return max(0.0, self._check_at - now)
