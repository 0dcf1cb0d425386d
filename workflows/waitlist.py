"""Those who wait in an account's queue, kept in the order of their turns whatever is given out and comes back."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator
from heapq import heappop, heapreplace

from ..contract.ledger import Reservation
from ..contract.names import batch_of

#: When a reservation was made, in seconds since 1970, and its holder: the order among those of one lane.
_Spot = tuple[float, str]


class Waitlist:
    """Reservations in order: the lowest priority number; then the fairness key with the fewest tokens given out; then
    who asked first.

    Those of one priority and one key keep their order among each other whatever is given out: they are a lane. So of
    all reservations only the first of each lane has a rank that moves, and only when tokens of its key are given
    out or come back. Lanes and ranks are sorted lists: to find a place takes the logarithm of their length in
    comparisons, and to shift what comes behind it a few microseconds among tens of thousands.
    """

    def __init__(self) -> None:
        self.tokens = 0  #: What all of them ask for.
        self._reservations: dict[str, Reservation] = {}
        self._lanes: defaultdict[str, dict[int, list[_Spot]]] = defaultdict(dict)  # by key and priority
        self._ranks: list[tuple[int, int, float, str, str]] = []  # priority, tokens given, first spot; and the key
        self._given: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._reservations)

    def __iter__(self) -> Iterator[Reservation]:
        """Yield all reservations in order; each costs no more than the logarithm of the number of lanes."""
        merged = [(*rank, 0) for rank in self._ranks]  # sorted, so it is a heap
        while merged:
            priority, given, _, holder, key, index = merged[0]
            yield self._reservations[holder]
            lane = self._lanes[key][priority]
            if index + 1 < len(lane):
                heapreplace(merged, (priority, given, *lane[index + 1], key, index + 1))
            else:
                heappop(merged)

    @property
    def first(self) -> Reservation:
        """The reservation whose turn is next; there must be one."""
        return self._reservations[self._ranks[0][3]]

    def add(self, reservation: Reservation) -> None:
        """Put a reservation in its place; it replaces one of the same holder."""
        self.remove(reservation.holder)
        key = _key(reservation)
        self._unrank(key, reservation.priority)
        insort(self._lanes[key].setdefault(reservation.priority, []), _spot(reservation))
        self._rank(key, reservation.priority)
        self._reservations[reservation.holder] = reservation
        self.tokens += reservation.tokens

    def remove(self, holder: str) -> Reservation | None:
        """Take a holder's reservation out, and return it; None if it has none here."""
        reservation = self._reservations.pop(holder, None)
        if reservation is None:
            return None
        key, spot = _key(reservation), _spot(reservation)
        self._unrank(key, reservation.priority)
        lanes = self._lanes[key]
        lane = lanes[reservation.priority]
        del lane[bisect_left(lane, spot)]
        if not lane:
            del lanes[reservation.priority]
            if not lanes:
                del self._lanes[key]
        self._rank(key, reservation.priority)
        self.tokens -= reservation.tokens
        return reservation

    def given(self, reservation: Reservation, tokens: int) -> None:
        """Count tokens that were given out under a reservation's key, or came back if they are less than none."""
        key = _key(reservation)
        priorities = list(self._lanes.get(key, ()))
        for priority in priorities:
            self._unrank(key, priority)
        self._given[key] = self._given.get(key, 0) + tokens
        if not self._given[key]:
            del self._given[key]
        for priority in priorities:
            self._rank(key, priority)

    def ahead(self, holder: str) -> int:
        """Return how many come before a holder; none if it does not wait. Looks at each lane once."""
        reservation = self._reservations.get(holder)
        if reservation is None:
            return 0
        spot, own = _spot(reservation), (reservation.priority, self._given.get(_key(reservation), 0))
        count = 0
        for priority, given, since, first, key in self._ranks:
            if (priority, given, since, first) >= (*own, *spot):
                break  # and so does everybody in the lanes that follow
            lane = self._lanes[key][priority]
            count += len(lane) if (priority, given) < own else bisect_left(lane, spot)
        return count

    def _rank(self, key: str, priority: int) -> None:
        if lane := self._lanes.get(key, {}).get(priority):
            insort(self._ranks, self._rank_of(key, priority, lane))

    def _unrank(self, key: str, priority: int) -> None:
        if lane := self._lanes.get(key, {}).get(priority):
            del self._ranks[bisect_left(self._ranks, self._rank_of(key, priority, lane))]

    def _rank_of(self, key: str, priority: int, lane: list[_Spot]) -> tuple[int, int, float, str, str]:
        return (priority, self._given.get(key, 0), *lane[0], key)


def _spot(reservation: Reservation) -> _Spot:
    return reservation.since.timestamp(), reservation.holder


def _key(reservation: Reservation) -> str:
    # A key of the user's and a batch's id never meet: no batch id begins with a space.
    return f" {reservation.fairness_key}" if reservation.fairness_key else batch_of(reservation.holder)
