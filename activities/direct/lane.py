"""A running attempt's way to its turns among the calls that a worker may send."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from ...contract.rates import SHOWN, RunningBatch
from ..estimate import bounded
from ..providers.base import LimitNews, LiveCalls
from .answer import Answer
from .pace import Charge, Costs
from .turns import Turn
from .verdict import Verdict, verdict


class Share(Protocol):
    """A worker's share of a rate, as its lanes use it: the governor."""

    @property
    def most_tokens(self) -> int | None: ...

    @property
    def minute(self) -> int | None:
        """Tokens that the account has a minute, as far as is known; None: no limit."""
        ...

    def may_send(self, lane: Lane) -> bool: ...

    def send(self, lane: Lane, tokens: float) -> Ticket: ...

    async def wait(self, lane: Lane, tokens: float) -> Ticket: ...

    def done(self, ticket: Ticket, used: int | None, news: LimitNews | None) -> None: ...

    def rejected(self, ticket: Ticket, news: LimitNews) -> None: ...

    def waiting_for(self) -> str | None: ...

    def pause_left(self) -> float | None: ...

    def resume(self) -> None: ...


class Ticket:
    """A call that may be sent."""

    __slots__ = ("charge", "lane")

    def __init__(self, lane: Lane, charge: Charge | None) -> None:
        self.lane: Lane | None = lane  #: None once it is settled.
        self.charge = charge


class Lane:
    """One running attempt's way to its turns; see `Governors.lane`."""

    def __init__(self, governor: Share, turn: Turn, costs: Costs, batch: str) -> None:
        self.turn = turn
        self.costs = costs
        self.batch = batch
        self.open = 0  #: Calls in flight.
        self.closed = False
        self.ended = False  #: Whether all its rows were sent, so that it asks for no more but to send some again.
        self.waiters: deque[tuple[asyncio.Future[Ticket], float, float]] = deque()  #: With tokens, and since when.
        self._governor = governor

    def wanted(self) -> bool:
        """Whether calls wait here; those that nobody waits for any more are dropped."""
        while self.waiters and self.waiters[0][0].done():
            self.waiters.popleft()
        return bool(self.waiters)

    async def take(self, tokens: float) -> Ticket:
        """Return when a call may be sent. Each ticket has its `done` or `rejected`.

        Args:
            tokens: what the call may use at most, input and output together.
        """
        governor = self._governor
        if (most := governor.minute) is not None:
            # A row may name a limit of its own beyond all sense. Where it is counted what was used, it would keep the
            # others waiting for what it never uses; what it does use is charged when it is answered.
            tokens = min(tokens, most)
        if governor.may_send(self):
            return governor.send(self, tokens)
        return await governor.wait(self, tokens)

    def done(self, ticket: Ticket, used: int | None = None, news: LimitNews | None = None) -> None:
        """Give a call's slot back: it was answered, it failed, or it was not sent after all.

        Args:
            used: the tokens that the answer says it used; None if it does not say, or there is none.
            news: what its headers say.
        """
        self._governor.done(ticket, used, news)

    def rejected(self, ticket: Ticket, news: LimitNews) -> None:
        """Give the slot of a call back that was refused with 429; this worker pauses."""
        self._governor.rejected(ticket, news)

    @property
    def most_tokens(self) -> int | None:
        """Tokens that a call may need at most: one that needs more can never be sent. None: no limit."""
        return self._governor.most_tokens

    @property
    def waiting_for(self) -> str | None:
        """Why nothing may be sent at present, in words; None if it may, or only waits for its turn."""
        return self._governor.waiting_for()

    def no_more(self) -> None:
        """Note that all rows were sent: until another lane begins, others may have the share."""
        self.ended = True

    def resume(self) -> None:
        """End a pause that the provider asked for: an operator knows better. Another 429 begins another one."""
        self._governor.resume()

    @property
    def resumes_in(self) -> float | None:
        """Seconds until a pause that the provider asked for is over; None if there is none."""
        return self._governor.pause_left()


def running(lanes: Iterable[Lane], now: float) -> tuple[RunningBatch, ...]:
    """Return the batches of some lanes, whose turn is next first, and for how long each has waited."""
    found: dict[str, RunningBatch] = {}
    for lane in sorted(lanes, key=lambda lane: lane.turn.rank):
        waits = round(now - lane.waiters[0][2], 1) if lane.waiters else 0.0
        known = found.get(lane.batch)
        if known is None or known.waits < waits:
            found[lane.batch] = RunningBatch(batch=lane.batch, priority=lane.turn.priority, waits=waits)
    return tuple(found.values())[:SHOWN]


def settle(lane: Lane, ticket: Ticket, live: LiveCalls, answer: Answer) -> tuple[Verdict, LimitNews]:
    """Give a call's leave back, with the tokens that its answer says; return what the answer means, and its headers."""
    news = live.limit_news(answer.status, answer.headers)
    found = verdict(answer)
    if found is Verdict.REJECTED:
        lane.rejected(ticket, news)
    else:
        used = live.used_tokens(answer.body)
        known = used is not None and used == bounded(used)  # else it is no count, as in the bill
        lane.done(ticket, used if known else None, news)
    return found, news
