"""One worker process as a rate ledger knows it: what it was given, and what of that it may still be using. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..contract.rates import RateAsk, Shares

#: The order of the three in a vector; math.inf where there is no limit.
Amounts = tuple[float, float, float]
NOTHING: Amounts = (0.0, 0.0, 0.0)
SLOTS = 2
#: A ledger is asked without a break while it hears somebody at least so often, as a share of a lease; and a worker that
#: lives asks within this time once it can, as it tries again each sixth of a lease and waits as long for an answer.
UNBROKEN = 0.4
#: Leases of one worker that are counted one by one; older ones are counted together.
_KEPT = 4


class Heard(NamedTuple):
    """From when to when a ledger was asked without a break, by whomever."""

    since: float
    until: float


@dataclass(frozen=True)
class Grant:
    """A lease that may still be in use."""

    seq: int
    until: float
    amounts: Amounts


@dataclass
class Worker:
    """One worker process; times are seconds of the ledger's clock."""

    ask: RateAsk  #: The newest one.
    heard_at: float  #: When it came.
    renew_in: float = math.inf  #: When it was to ask again.
    given: list[Grant] = field(default_factory=list)
    wants: Amounts = NOTHING
    asks: int = 0  #: How often it has asked.

    def __post_init__(self) -> None:
        self.wants = amounts_of(self.ask.wants)

    def hear(self, ask: RateAsk, now: float) -> None:
        """Take a new ask into account: leases before the one that it obeys are used no more."""
        self.asks += 1
        # An ask that was overtaken by a later one of the same worker knows less.
        obeys = max(ask.obeys, self.ask.obeys)
        self.ask, self.heard_at, self.wants = ask.model_copy(update={"obeys": obeys}), now, amounts_of(ask.wants)
        self.given = [one for one in self.given if one.seq >= obeys]

    def held(self, which: int, now: float, heard: Heard) -> float:
        """Return the most that it may be using.

        Args:
            heard: from when to when the ledger was asked without a break.
        """
        extra = self._extra(heard) if which == SLOTS else 0.0
        most = max((one.amounts[which] for one in self.given if one.until + extra > now), default=0.0)
        # Calls in flight end when they end, also those that were sent under a larger lease.
        return max(most, self.ask.in_flight) if which == SLOTS and self.given else most

    def obeyed(self, now: float) -> Amounts:
        """Return what it surely may use at this moment by what it says itself."""
        mine = (one.amounts for one in self.given if one.seq == self.ask.obeys and one.until > now)
        return next(mine, NOTHING)

    def latest(self, now: float) -> Amounts:
        last = self.given[-1] if self.given else None
        return last.amounts if last and last.until > now else NOTHING

    def alive(self, now: float) -> bool:
        return any(one.until > now for one in self.given)

    @property
    def until(self) -> float:
        return max((one.until for one in self.given), default=0.0)

    def late(self, now: float) -> bool:
        return self.alive(now) and now - self.heard_at > 1.5 * self.renew_in

    def gone(self, now: float, heard: Heard) -> bool:
        return self.until + self._extra(heard) <= now

    def add(self, given: Grant) -> None:
        self.given.append(given)
        if len(self.given) > _KEPT:
            self.given[:2] = [together(self.given[:2])]

    def _extra(self, heard: Heard) -> float:
        """Return for how many seconds after its leases its slots are kept.

        While Temporal is away, leases end and calls go on, so slots are kept until the worker is sure to have asked
        again if it lives. Where others have asked all the while, it is known to be gone by the end of its lease.
        """
        due = self.heard_at + min(self.renew_in, self.until - self.heard_at)
        silent = heard.until - max(due, heard.since) >= UNBROKEN * self.ask.ttl
        return 0.0 if silent else self.ask.ttl


def amounts_of(shares: Shares) -> Amounts:
    return tuple(math.inf if one is None else one for one in (shares.requests, shares.tokens, shares.slots))  # type: ignore[return-value]


def together(given: Sequence[Grant]) -> Grant:
    """Return one lease in place of several, the newest last: as much as any of them, and for as long."""
    requests, tokens, slots = (max(one.amounts[which] for one in given) for which in range(3))
    return Grant(given[-1].seq, max(one.until for one in given), (requests, tokens, slots))
