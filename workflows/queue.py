"""The queue of one account and model, as values: who has room, who waits, and whose turn is next. No Temporal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..contract.ledger import Claim, Holder, Place
from ..contract.names import batch_of

#: Bytes of claims that a ledger holds, of each kind, so that it can be carried to a new run (promise G6 allows 64 KiB):
#: some 300 that have room, and as many that wait.
PAGE = 56 * 1024
#: Lines of either kind that a view shows.
SHOWN = 50


class Queue:
    """Tokens given out, and who waits for some.

    Whose turn is next: the lowest priority number; among those, whoever shares a fairness key with the fewest tokens
    given out (a batch without one is its own key); among those, who asked first. Nobody overtakes the next one, however
    small, so a large shard is never starved by smaller ones of its priority. A shard larger than the limit goes alone.
    """

    def __init__(self, limit: int, holding: Iterable[Claim] = (), waiting: Iterable[Claim] = ()) -> None:
        self.limit = limit
        self._holding = {claim.holder: claim for claim in holding}
        self._waiting = {claim.holder: claim for claim in waiting}
        self._bytes = sum(_size(claim) for claim in self._holding.values())

    @property
    def holding(self) -> list[Claim]:
        """Those that have room."""
        return list(self._holding.values())

    @property
    def waiting(self) -> list[Claim]:
        """Those that wait, in the order in which they would have their turn if nobody came and nobody went."""
        return sorted(self._waiting.values(), key=self._rank())

    @property
    def in_use(self) -> int:
        """Tokens given out."""
        return sum(claim.tokens for claim in self._holding.values())

    @property
    def empty(self) -> bool:
        """Whether nobody has room and nobody waits."""
        return not self._holding and not self._waiting

    def reserve(self, claim: Claim) -> bool:
        """Take a claim in, and return whether it has room already; the same holder keeps its place, or its room.

        A workflow has one attempt under way, so a claim takes the place of one for another attempt, which was never
        given back. Not the later `since` counts: a workflow that is reset goes back to an earlier attempt.
        """
        for other in self._of(claim.workflow_id):
            if other.holder != claim.holder:
                self.release(other.holder)
        if claim.holder in self._holding or claim.held:
            self._waiting.pop(claim.holder, None)
            if claim.holder in self._holding or self._bytes + _size(claim) <= PAGE:
                self._give(claim)  # beyond a page it goes uncounted: the provider has it, whatever is counted here
            return True
        self._waiting[claim.holder] = claim
        return False

    def release(self, holder: str) -> None:
        """Take room back, or a claim that waits; an unknown holder is fine."""
        self._waiting.pop(holder, None)
        claim = self._holding.pop(holder, None)
        if claim is not None:
            self._bytes -= _size(claim)

    def grant(self) -> list[Claim]:
        """Give room to those whose turn it is, and return them."""
        granted = []
        while self._waiting:
            claim = min(self._waiting.values(), key=self._rank())
            over = self.in_use + claim.tokens > self.limit or self._bytes + _size(claim) > PAGE
            if over and self._holding:
                break
            del self._waiting[claim.holder]
            self._give(claim)
            granted.append(claim)
        return granted

    def place(self, holder: str) -> Place:
        """Return where a holder stands."""
        order = [claim.holder for claim in self.waiting]
        return Place(
            granted=holder in self._holding,
            ahead=order.index(holder) if holder in order else 0,
            in_use=self.in_use,
            holders=len(self._holding),
            limit=self.limit,
        )

    def page(self) -> list[Claim]:
        """Return those that wait, as many as may be carried; the others ask again, and have their place by then."""
        kept, size = [], 0
        for claim in self.waiting:
            size += _size(claim)
            if size > PAGE:
                break
            kept.append(claim)
        return kept

    def _of(self, workflow_id: str) -> list[Claim]:
        both = (*self._holding.values(), *self._waiting.values())
        return [claim for claim in both if claim.workflow_id == workflow_id]

    def _give(self, claim: Claim) -> None:
        before = self._holding.get(claim.holder)
        self._bytes += _size(claim) - (_size(before) if before else 0)
        self._holding[claim.holder] = claim

    def _rank(self) -> _Rank:
        return _Rank(self._holding.values())


class _Rank:
    """The order of turns, as it is now."""

    def __init__(self, holding: Iterable[Claim]) -> None:
        self._given = Counter[str]()
        for claim in holding:
            self._given[_key(claim)] += claim.tokens

    def __call__(self, claim: Claim) -> tuple[int, int, float, str]:
        return claim.priority, self._given[_key(claim)], claim.since.timestamp(), claim.holder


def shown(claims: list[Claim]) -> tuple[Holder, ...]:
    """Return the first claims as a view shows them."""
    return tuple(Holder(holder=claim.holder, tokens=claim.tokens, since=claim.since) for claim in claims[:SHOWN])


def _key(claim: Claim) -> str:
    # A key of the user's and a batch's id never meet: no batch id begins with a space.
    return f" {claim.fairness_key}" if claim.fairness_key else batch_of(claim.holder)


def _size(claim: Claim) -> int:
    return len(claim.holder) + len(claim.workflow_id) + 4 * len(claim.fairness_key) + 150
