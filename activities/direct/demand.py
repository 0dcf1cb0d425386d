"""How much of a rate a worker asks for: what it used of late, or all that it can get where that was too little."""

from __future__ import annotations

from ...contract.rates import Shares

#: What a share is of.
_ALL = frozenset({"requests", "tokens", "slots"})
#: Asked for beyond what was used of late: a factor, and at least so much.
_MARGIN, _LEAST = 1.5, {"requests": 0.1, "tokens": 1.0, "slots": 1.0}


class Demand:
    """What was sent since the last ask, and what there was too little of.

    Args:
        now: seconds by the worker's own count.
    """

    def __init__(self, now: float) -> None:
        self.using = Shares(requests=0.0, tokens=0.0, slots=0.0)  #: As of the last ask.
        self._asked_at = now
        self._calls, self._tokens, self._most = 0, 0.0, 0
        self._short = _ALL  # before anything was sent, nobody knows
        self._wanted: frozenset[str] = frozenset()  # of what the last ask wanted as much as it can get
        self._sent_at: float | None = None  # None where the ledger knows that nothing is sent

    def sent(self, tokens: float, in_flight: int, now: float) -> None:
        """Note a call that is sent.

        Args:
            tokens: what it is charged with.
            in_flight: calls in flight, this one included.
            now: as above.
        """
        self._sent_at = now
        self._calls += 1
        self._tokens += tokens
        if in_flight > self._most:
            self._most = in_flight

    def lack(self, *what: str) -> bool:
        """Note that there is too little of this, or of everything; return whether that is news to the ledger."""
        self._short |= frozenset(what) or _ALL
        return not self._wanted >= self._short

    def dry(self, now: float, seconds: float) -> bool:
        """Return whether nothing was sent for so long, and the last ask does not say so."""
        return self._sent_at is not None and now - self._sent_at > seconds

    def ask(self, now: float, in_flight: int, *, dry: bool = False) -> Shares:
        """Return what to ask for, and begin to count anew.

        Args:
            now: as above.
            in_flight: calls in flight.
            dry: whether there is nothing more to send, whatever was used of late.
        """
        if dry:
            self._sent_at = None
            self._calls, self._tokens, self._most, self._short = 0, 0.0, in_flight, frozenset()
            self.using = Shares(requests=0.0, tokens=0.0, slots=0.0)
        passed, before = max(now - self._asked_at, 1e-3), self.using
        self.using = Shares(requests=self._calls / passed, tokens=self._tokens / passed, slots=float(self._most))
        wants = {what: self._want(what, before) for what in _ALL}
        self._wanted, self._short = self._short, frozenset()
        self._asked_at, self._calls, self._tokens, self._most = now, 0, 0.0, in_flight
        return Shares(**wants)

    def _want(self, what: str, before: Shares) -> float | None:
        if what in self._short:
            return None
        used: float = max(getattr(self.using, what), getattr(before, what))
        return used * _MARGIN + _LEAST[what]
