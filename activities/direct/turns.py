"""Whose call is next among the batches of one worker: a small fair queue.

The lower priority number first; among those of one priority, fairness keys share equally; among those of one key, its
batches. So a large batch takes no more than its part beside a small one, however many of its calls wait.
"""

from __future__ import annotations


class _Priority:
    """All keys of one priority."""

    __slots__ = ("clock", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.clock = 0.0  #: How much the key had been served whose turn was last.


class _Key:
    """All batches of one fairness key."""

    __slots__ = ("clock", "priority", "served")

    def __init__(self, priority: _Priority) -> None:
        self.priority = priority
        self.served = 0.0
        self.clock = 0.0


class Turn:
    """One batch's place. Who was away comes back as if it had been served as much as the one whose turn it is."""

    __slots__ = ("_key", "_served", "users")

    def __init__(self, key: _Key) -> None:
        self._key = key
        self._served = 0.0
        self.users = 0  #: Lanes that share it.

    @property
    def rank(self) -> tuple[int, float, float]:
        """The lowest is next."""
        key, priority = self._key, self._key.priority
        return priority.number, max(key.served, priority.clock), max(self._served, key.clock)

    @property
    def priority(self) -> int:
        return self._key.priority.number

    def serve(self, amount: float) -> None:
        """Note that a call of this batch was sent."""
        key, priority = self._key, self._key.priority
        if key.served > priority.clock:
            priority.clock = key.served
        key.served = priority.clock + amount
        if self._served > key.clock:
            key.clock = self._served
        self._served = key.clock + amount


class Turns:
    """The batches that have calls to send in this worker."""

    def __init__(self) -> None:
        self._priorities: dict[int, _Priority] = {}
        self._keys: dict[tuple[int, str], _Key] = {}
        self._turns: dict[tuple[int, str, str], Turn] = {}

    def join(self, priority: int, key: str, batch: str) -> Turn:
        """Return a batch's turn; all that join as the same batch share one. Each join has its `leave`."""
        key = key or f"batch/{batch}"  # a batch without a key is its own
        at = (priority, key, batch)
        if at not in self._turns:
            level = self._priorities.setdefault(priority, _Priority(priority))
            self._turns[at] = Turn(self._keys.setdefault((priority, key), _Key(level)))
        self._turns[at].users += 1
        return self._turns[at]

    def leave(self, turn: Turn) -> None:
        turn.users -= 1
        self._turns = {at: one for at, one in self._turns.items() if one.users}
        used = {at[:2] for at in self._turns}
        self._keys = {at: key for at, key in self._keys.items() if at in used}
        self._priorities = {
            number: one for number, one in self._priorities.items() if any(a[0] == number for a in used)
        }
