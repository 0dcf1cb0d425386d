"""Whether the endpoint answers at all: when it does not, calls stop but for a probe now and then. Pure.

One row can fail again and again by its own fault, so only failures of several rows, or such as no row can cause (no
connection, 502, 503), speak of the endpoint. Failures in which a server may have worked on the row until somebody's
patience was over (`may_have_cost`) do not: rows that are slow would be sent, and paid for, again and again.
"""

from __future__ import annotations

#: Failures in a row that no row can have caused, and rows that failed in a row, until the endpoint counts as dead.
_CLEAR_FAILURES = 3
_ROWS = 5
#: Seconds until the first probe, and between the later ones at most, also where something shows a sign of life; each
#: wait is twice the one before.
_FIRST_PROBE, _LAST_PROBE, _LIVELY_PROBE = 0.5, 8.0, 1.0
#: Statuses by which a server, or what stands before it, says that it waited for too long: 524 is Cloudflare's.
_TOO_SLOW = frozenset({408, 504, 524})
#: Statuses by which a server, or what stands before it, says that nobody is there to answer: Cloudflare's 520 to 527,
#: Anthropic's 529.
_NOBODY_THERE = frozenset({502, 503, 529, *range(520, 528)}) - _TOO_SLOW


def is_clear(status: int) -> bool:
    """Return whether a status says that the endpoint is not there, whatever the row."""
    return status in _NOBODY_THERE


def may_have_cost(status: int) -> bool:
    """Return whether a failure says that a server may have worked on the row all the same."""
    return status in _TOO_SLOW


class Breaker:
    """Counts failures between two successes. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self.opened_at: float | None = None  #: Since when it is open; None while the endpoint answers.
        self.reason = ""  #: Of the last failure.
        self._clear = 0
        self._rows = set[int]()
        self._wait = _FIRST_PROBE
        self._probe_at = 0.0
        self._probing = False

    def succeeded(self) -> None:
        """Note an answer that shows the endpoint to be well."""
        if self._rows:
            self._rows.clear()
            self._clear = 0
            self._wait = _FIRST_PROBE
            self.opened_at = None
            self._probing = False

    def failed(
        self, row: int, reason: str, now: float, *, clear: bool, wait: float | None = None, lives: bool = False
    ) -> bool:
        """Note a failure; return whether it opened the breaker.

        Args:
            row: which row it was.
            reason: what happened, as a sentence.
            now: the time.
            clear: whether no row can have caused it.
            wait: for how many seconds the provider asks to be left alone.
            lives: whether it shows a sign of life, so that it may be asked more often.
        """
        self._rows.add(row)
        self._clear += clear
        self.reason = reason
        if self.opened_at is not None:
            if self._probing:  # the others were under way when it opened
                self._probing = False
                self._wait = min(self._wait * 2, _LIVELY_PROBE if lives else _LAST_PROBE)
                self._probe_at = now + max(self._wait, wait or 0.0)
            return False
        if self._clear < _CLEAR_FAILURES and len(self._rows) < _ROWS:
            return False
        self.opened_at = now
        self._probe_at = now + max(self._wait, wait or 0.0)
        return True

    def undecided(self, now: float) -> None:
        """Note a failure that says nothing of the endpoint; where it was that of a probe, another one follows."""
        if self._probing:
            self._probing = False
            self._wait = min(self._wait * 2, _LAST_PROBE)
            self._probe_at = now + self._wait

    def delay(self, now: float) -> float:
        """Return for how many seconds the next call has to wait; 0 when it may be sent, as a probe where it is open."""
        if self.opened_at is None:
            return 0.0
        if self._probing:
            return _FIRST_PROBE  # its outcome is awaited
        if now < self._probe_at:
            return self._probe_at - now
        self._probing = True
        return 0.0
