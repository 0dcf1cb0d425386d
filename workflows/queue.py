"""The queue of one account and model, as values: who has room, who waits, and whose turn is next. No Temporal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..contract.ledger import PAGE, Place, Reservation, page
from .waitlist import Waitlist


class Queue:
    """Tokens given out, and who waits for some.

    Whose turn is next: the lowest priority number; among those, whoever shares a fairness key with the fewest tokens
    given out (a batch without one is its own key); among those, who asked first. Nobody overtakes the next one, however
    small, so a large shard is never starved by smaller ones of its priority. A shard larger than the limit goes alone.

    A workflow task has two seconds, however many wait. So an event costs comparisons that grow with the logarithm of
    their number, and `grant` gives room to no more than a page holds: some 350.
    """

    def __init__(self, limit: int, holding: Iterable[Reservation] = (), waiting: Iterable[Reservation] = ()) -> None:
        self.limit = limit
        self._holding: dict[str, Reservation] = {}
        self._line = Waitlist()
        self._workflows: dict[str, set[str]] = {}  # the holders of each: one as a rule
        self._in_use = 0
        self._bytes = 0
        for reservation in holding:
            self._hold(reservation)
        for reservation in waiting:
            self._wait(reservation)

    @property
    def holding(self) -> list[Reservation]:
        """Those that have room."""
        return list(self._holding.values())

    @property
    def waiting(self) -> Iterator[Reservation]:
        """Those that wait, in the order of their turns if no reservation is added or removed."""
        return iter(self._line)

    @property
    def in_use(self) -> int:
        """Tokens given out."""
        return self._in_use

    @property
    def holders(self) -> int:
        """How many have room."""
        return len(self._holding)

    @property
    def waiters(self) -> int:
        """How many wait."""
        return len(self._line)

    @property
    def waiting_tokens(self) -> int:
        """What those who wait ask for."""
        return self._line.tokens

    @property
    def empty(self) -> bool:
        """Whether nobody has room and nobody waits."""
        return not self._workflows

    def reserve(self, reservation: Reservation) -> bool:
        """Take a reservation in, and return whether it has room already; the same holder keeps its place, or its room.

        A workflow has one attempt under way, so a reservation takes the place of one for another attempt, which was
        never given back. Not the later `since` counts: a workflow that is reset goes back to an earlier attempt.
        """
        had = reservation.holder in self._holding
        self.release(reservation.holder)
        self.release_all(reservation.workflow_id)
        if not had and not reservation.held:
            self._wait(reservation)
            return False
        if had or self._bytes + reservation.size <= PAGE:
            self._hold(reservation)  # beyond a page it goes uncounted: the provider has it, whatever is counted here
        return True

    def release(self, holder: str) -> None:
        """Take room back, or a reservation that waits; an unknown holder is fine."""
        reservation = self._line.remove(holder)
        if reservation is None:
            reservation = self._holding.pop(holder, None)
            if reservation is None:
                return
            self._count(reservation, -1)
        holders = self._workflows[reservation.workflow_id]
        holders.remove(holder)
        if not holders:
            del self._workflows[reservation.workflow_id]

    def release_all(self, workflow_id: str) -> bool:
        """Take back whatever a workflow has or waits for; return whether there was anything."""
        holders = sorted(self._workflows.get(workflow_id, ()))
        for holder in holders:
            self.release(holder)
        return bool(holders)

    def grant(self) -> list[Reservation]:
        """Give room to those whose turn it is, and return them."""
        granted = []
        while self._line:
            reservation = self._line.first
            over = self._in_use + reservation.tokens > self.limit or self._bytes + reservation.size > PAGE
            if over and self._holding:
                break
            self.release(reservation.holder)
            self._hold(reservation)
            granted.append(reservation)
        return granted

    def place(self, holder: str) -> Place:
        """Return a holder's place."""
        return Place(
            granted=holder in self._holding,
            ahead=self._line.ahead(holder),
            in_use=self._in_use,
            holders=len(self._holding),
            limit=self.limit,
        )

    def page(self) -> list[Reservation]:
        """Return those that wait, as many as may be carried; the others ask again, and have their place by then."""
        return page(self._line)

    def _hold(self, reservation: Reservation) -> None:
        self._holding[reservation.holder] = reservation
        self._count(reservation, 1)
        self._bind(reservation)

    def _wait(self, reservation: Reservation) -> None:
        self._line.add(reservation)
        self._bind(reservation)

    def _bind(self, reservation: Reservation) -> None:
        self._workflows.setdefault(reservation.workflow_id, set()).add(reservation.holder)

    def _count(self, reservation: Reservation, sign: int) -> None:
        self._in_use += sign * reservation.tokens
        self._bytes += sign * reservation.size
        self._line.given(reservation, sign * reservation.tokens)
