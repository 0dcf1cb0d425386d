"""How many calls an endpoint can answer in time, learned from those that it does not. Arithmetic, without a clock.

A server that works on a few calls at a time (Ollama: one to four) lets the others wait, in the order in which they
came. With more of them than it gets to within the time that a call has, the last ones run out of time, and would again.
That is no fault of their rows. It shows as a call that had no answer in time while earlier ones were answered, and none
that was begun later.
"""

from __future__ import annotations

import math

#: What room is made for another call by an answer that came within half of the time: a quarter more by the time that
#: the effect is seen, so that answers take some half of the time in the end, and few run out of it.
_GROWTH = 0.25
#: How often a row may run out of time in this way until it counts as its own fault.
_FORGIVEN = 12


class Room:
    """How many calls of one process may be in flight at an endpoint."""

    def __init__(self) -> None:
        self.open = 0  #: Calls in flight.
        self.most = math.inf  #: How many there may be.
        self._begun = 0
        self._good = 0  # those that were answered well
        self._newest = 0  # the latest begun of those
        self._late = 0  # calls begun by then were in the crowd that the present room is due to

    def full(self, gathering: int) -> bool:
        """Whether no more calls may be begun.

        Args:
            gathering: calls that are about to be begun.
        """
        return self.open + gathering >= self.most

    def begin(self) -> tuple[int, int]:
        """Count a call; return its number and how many were answered well by now."""
        self.open += 1
        self._begun += 1
        return self._begun, self._good

    def end(self) -> None:
        """Count a call out, whatever became of it."""
        self.open -= 1

    def answered(self, number: int, left: float) -> None:
        """Take note of a good answer.

        Args:
            number: of the call.
            left: what is left of the time that it had, as a share of it.
        """
        self._good += 1
        self._newest = max(self._newest, number)
        if left > 0.5:
            self.most += _GROWTH

    def checked(self) -> None:
        """Take note of a check call that was answered soon: who had no answer may have had nobody before it."""
        self.most *= 4

    def crowded(self, number: int, good: int, forgiven: int) -> bool:
        """Return whether a call ran out of time because too many others were before it; then there is less room.

        Args:
            number, good: what `begin` returned.
            forgiven: how often its row ran out of time in this way before.
        """
        within = self._good - good
        if not within or self._newest > number or forgiven >= _FORGIVEN:
            return False
        if number > self._late:
            if self.open < 2:  # there is no crowd
                return False
            self.most, self._late = max(1.0, min(within, self.most) / 2), self._begun
        return True
