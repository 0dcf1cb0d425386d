"""A provider that counts tokens, workers that send, and a ledger that answers late or not at all, in virtual time."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from durabatch.activities.direct.governor import Governor
from durabatch.activities.direct.lane import Lane, Ticket
from durabatch.activities.direct.rate_lease import NoLease, patience
from durabatch.activities.providers.base import LimitNews
from durabatch.contract.rates import RateAsk, RateLease, RateLimits
from durabatch.workflows.rate_shares import RateShares

#: The ledger's clock runs ahead of the workers', by about as much as it likes.
AHEAD = 1_800_000_000.0


def most_in_a_window(events: list[tuple[float, float]], seconds: float = 60.0) -> float:
    """Return the largest sum of amounts within so many seconds, wherever they begin."""
    most = total = 0.0
    window: deque[tuple[float, float]] = deque()
    for at, amount in sorted(events):
        window.append((at, amount))
        total += amount
        while window[0][0] <= at - seconds:
            total -= window.popleft()[1]
        most = max(most, total)
    return most


@dataclass
class Row:
    """What a call may use, what it uses, and how long it takes."""

    cap: int
    used: int
    latency: float


@dataclass
class World:
    """One account at one provider, and its ledger.

    Attributes:
        limits: as every worker's configuration has them.
        used: whether the provider counts what calls used, when they are answered.
        round_trip: seconds of an ask and its answer, at most.
        lost: share of asks that are lost, and of answers.
        away: from when until when Temporal does not answer, in seconds.
        refuse: whether the provider refuses what is over its limit.
    """

    limits: RateLimits
    seed: int = 1
    used: bool = False
    round_trip: float = 0.05
    lost: float = 0.0
    away: list[tuple[float, float]] = field(default_factory=list)
    refuse: RateLimits | None = None
    ttl: float = 30.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.shares = RateShares()
        self.asks = 0
        self.arrived: list[tuple[float, float]] = []
        self.answered: list[tuple[float, float]] = []
        self.refused: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self.sent_by: dict[str, int] = {}
        self.sent_by_then: dict[str, int] = {}
        self.ended_at = 0.0
        self._minute: deque[tuple[float, float]] = deque()
        self._in_minute = 0.0

    @property
    def now(self) -> float:
        return self.ended_at or asyncio.get_running_loop().time()

    def recent(self) -> float:
        """Return the tokens that arrived within the last minute."""
        while self._minute and self._minute[0][0] <= self.now - 60:
            self._in_minute -= self._minute.popleft()[1]
        return self._in_minute

    def arrive(self, tokens: float) -> None:
        self.arrived.append((self.now, tokens))
        self._minute.append((self.now, tokens))
        self._in_minute += tokens

    def gone(self) -> bool:
        return any(begin <= self.now < end for begin, end in self.away)

    def worker(self, row: Callable[[], Row], **lane: Any) -> Sender:
        return Sender(self, row, **lane)

    def worst(self, counted: str = "arrived") -> float:
        """Return the worst minute as a share of the limit."""
        assert self.limits.tokens_per_minute
        return most_in_a_window(getattr(self, counted)) / self.limits.tokens_per_minute

    def mean(self, counted: str = "arrived", since: float = 0.0) -> float:
        """Return what was used as a share of what could have been."""
        assert self.limits.tokens_per_minute
        spent = sum(tokens for at, tokens in getattr(self, counted) if at >= since)
        return spent / (self.limits.tokens_per_minute / 60 * (self.now - since))


class Line:
    """One worker's connection to the ledger."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = False

    async def lease(self, ask: RateAsk) -> RateLease:
        world, seconds = self.world, patience(ask)
        there, back = (world.random.uniform(0, world.round_trip / 2) for _ in range(2))
        if self.dead or world.gone() or world.random.random() < world.lost:
            await asyncio.sleep(seconds)
            raise NoLease("Temporal does not answer")
        await asyncio.sleep(there)
        world.asks += 1
        lease = world.shares.lease(ask, AHEAD + world.now)
        if world.random.random() < world.lost:
            await asyncio.sleep(max(0.0, seconds - there))
            raise NoLease("Temporal does not answer")
        await asyncio.sleep(back)
        return lease

    async def release(self, worker: str) -> None:
        if not self.dead and not self.world.gone():
            self.world.shares.release(worker)


class Sender:
    """A worker process that sends rows for as long as it lives."""

    def __init__(
        self, world: World, row: Callable[[], Row], *, rows: float = math.inf, name: str = "", **lane: Any
    ) -> None:
        self.world = world
        self.line = Line(world)
        self.governor = Governor(
            self.line, world.limits, used=world.used, ttl=world.ttl, label=name, what="provider p, model m"
        )
        self._row = row
        self.name = name
        self._lane = {"priority": 3, "fairness_key": "", "batch": name or "b", **lane}
        self._calls: set[asyncio.Task[None]] = set()
        self._feeder = asyncio.create_task(self.feed(name, rows, **self._lane))

    async def feed(self, name: str, rows: float = math.inf, **lane: Any) -> None:
        """Send rows through a lane of their own."""
        opened = self.governor.join(**lane)
        calls = set[asyncio.Task[None]]()
        try:
            while rows > 0:
                rows -= 1
                row = self._row()
                ticket = await opened.take(row.cap)
                call = asyncio.create_task(self._call(name, opened, row, ticket))
                for of in (calls, self._calls):
                    of.add(call)
                    call.add_done_callback(of.discard)
            opened.no_more()
            await asyncio.gather(*calls)
        finally:
            self.governor.leave(opened)

    async def _call(self, name: str, lane: Lane, row: Row, ticket: Ticket) -> None:
        world = self.world
        limit = world.refuse and world.refuse.tokens_per_minute
        if limit and world.recent() + row.cap > limit:
            world.refused.append(world.now)
            lane.rejected(ticket, LimitNews(retry_after=2.0))
            return
        world.arrive(row.used if world.used else row.cap)
        world.sent_by[name] = world.sent_by.get(name, 0) + 1
        world.in_flight += 1
        world.most_in_flight = max(world.most_in_flight, world.in_flight)
        try:
            await asyncio.sleep(row.latency)
            world.answered.append((world.now, row.used))
        finally:
            world.in_flight -= 1
        lane.done(ticket, row.used)

    @property
    def ended(self) -> bool:
        return self._feeder.done()

    async def kill(self) -> None:
        """End at once, calls in flight included; nobody is told."""
        self.line.dead = True
        await self.leave()

    async def leave(self) -> None:
        """End at once, and give the share back."""
        for task in (self._feeder, *self._calls):
            task.cancel()
        await asyncio.gather(self._feeder, *self._calls, return_exceptions=True)
        await self.governor.close()
