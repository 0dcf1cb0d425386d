"""What one worker process may send to an account and a model: its share of the rate, and the turns of its batches.

The share is leased from the account's rate ledger (`rate_lease`) and renewed while it lasts. While there is none,
nothing is sent: when Temporal is away for longer than a lease, when the ledger was lost, while others have everything.
All of that passes by itself. Calls in flight are never touched.

Within the worker each running attempt has a lane. A call takes a slot in flight and its part of the rate at the same
moment, so that no paid token waits for a connection.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import uuid
from contextlib import suppress

from ...contract.rates import RateAsk, RateLease, RateLimits
from ..providers.base import LimitNews
from .demand import Demand
from .lane import Lane, Ticket, running
from .pace import Costs, Pace
from .rate_lease import NoLease, RateLedger
from .turns import Turns

logger = logging.getLogger("durabatch")

#: Calls that are let go in one turn of the event loop, so that thousands that have waited do not stop it.
_A_TICK = 100
#: Seconds between two looks whether there is room again, at least: with a high rate, several calls go at each.
_TICK = 0.002
#: For how long nothing is sent, as a share of the lease, until a worker says that it has nothing to send; no time where
#: it knows that all rows were sent. For as long no lane is there, until it gives its share back.
_DRY = 1 / 15
#: Seconds that a worker pauses after a 429 that does not say how long, doubled for each pause without a success.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class Governor:
    """One worker process's share of an account's rate for one model.

    Args:
        ledger: who leases it.
        limits: as the configuration has them.
        used: whether the server counts the tokens that calls have used, and not those that they may use.
        ttl: seconds that a lease is to last.
        label: what people know the process by.
        what: what the rate is of, as sentences name it.
    """

    def __init__(
        self, ledger: RateLedger, limits: RateLimits, *, used: bool, ttl: float, label: str, what: str
    ) -> None:
        self._ledger = ledger
        self._limits = limits
        self._used = used
        self._ttl = ttl
        self._label = label
        self._what = what
        self._name = uuid.uuid4().hex[:16]
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(used)
        self._turns = Turns()
        self._costs: dict[str, Costs] = {}  # by batch
        self._lanes: list[Lane] = []
        self._waiting: dict[Lane, None] = {}
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._slots = 0.0
        self._in_flight = 0
        self._lease: RateLease | None = None
        self._until = 0.0
        self._problem: str | None = None
        self._paused_until = 0.0
        self._pause = _FIRST_PAUSE
        self._seen = RateLimits()
        self._rejections = 0
        self._demand = Demand(self._loop.time())
        self._hurry = asyncio.Event()
        self._joined = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def may_send(self, lane: Lane) -> bool:
        """Whether a call of this lane may be sent at this moment."""
        if self._in_flight >= self._slots or (self._waiting and not self._first(lane)):
            return False
        now = self._loop.time()
        return self._paused_until <= now < self._until and self._pace.ready(now)

    def send(self, lane: Lane, tokens: float) -> Ticket:
        """Take a slot and a part of the rate."""
        self._in_flight += 1
        lane.open += 1
        charge = self._pace.spend(tokens, lane.costs)
        charged = tokens if charge is None else charge.tokens
        self._demand.sent(charged, self._in_flight, self._loop.time())
        lane.turn.serve(charged if self._pace.tokens is not None else 1.0)
        return Ticket(lane, charge)

    async def wait(self, lane: Lane, tokens: float) -> Ticket:
        """Return when it is this call's turn."""
        future: asyncio.Future[Ticket] = self._loop.create_future()
        lane.waiters.append((future, tokens, self._loop.time()))
        self._waiting[lane] = None
        self._dispatch()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.done(future.result(), None, None)  # it was let go, and nobody will send it
            else:
                self._dispatch()  # which forgets it
            raise

    def done(self, ticket: Ticket, used: int | None, news: LimitNews | None) -> None:
        lane, ticket.lane = ticket.lane, None
        if lane is None or lane.closed:
            return
        self._in_flight -= 1
        lane.open -= 1
        if used is not None:
            if used:
                self._pause = _FIRST_PAUSE
            if ticket.charge is not None:
                self._pace.settle(ticket.charge, used)
                if used:  # one that was not sent has used nothing, and says nothing of the others
                    lane.costs.learn(used)
        if news is not None:
            self._hear(news)
            if news.retry_after:
                self._rest(news.retry_after)
        if self._waiting:
            self._dispatch()

    def rejected(self, ticket: Ticket, news: LimitNews) -> None:
        if ticket.lane is None:
            return
        now = self._loop.time()
        if news.retry_after is not None:
            self._rest(news.retry_after)
        elif now >= self._paused_until:  # others that were in flight by then are part of the same refusal
            self._rest(self._pause * random.uniform(0.8, 1.2))
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._rejections += 1
        self._hurry.set()
        self.done(ticket, None, None)
        self._hear(news)

    def _rest(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, self._loop.time() + seconds)

    def resume(self) -> None:
        self._paused_until = 0.0
        self._dispatch()

    def _hear(self, news: LimitNews) -> None:
        for limit in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(news, limit)
            if value and value != getattr(self._seen, limit):
                self._seen = self._seen.model_copy(update={limit: float(value)})
                self._hurry.set()

    def _first(self, lane: Lane) -> bool:
        rank = lane.turn.rank
        return all(rank <= other.turn.rank for other in self._waiting if other is not lane) and not lane.waiters

    def _dispatch(self) -> None:
        """Let calls go whose turn it is, while there is room; come back when there may be."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        for _ in range(_A_TICK):
            for lane in [lane for lane in self._waiting if not lane.wanted()]:
                del self._waiting[lane]
            if not self._waiting:
                return
            lane = min(self._waiting, key=lambda lane: lane.turn.rank)
            delay = self._delay(lane.waiters[0][1])
            if delay:
                if delay < math.inf:
                    self._timer = self._loop.call_later(max(delay, _TICK), self._dispatch)
                return
            future, tokens, _ = lane.waiters.popleft()
            future.set_result(self.send(lane, tokens))
            if not lane.waiters:
                del self._waiting[lane]
                break  # a lane that asks for its calls one by one comes back before the others have their turn
        if self._waiting:
            self._timer = self._loop.call_soon(self._dispatch)

    def _delay(self, tokens: float) -> float:
        """Return the seconds until the next call may be sent; infinite where something else than time has to pass."""
        now = self._loop.time()
        if now >= self._until or self._slots < 1:
            self._lack()  # how much of it would be used cannot be seen
            return math.inf  # until the ledger answers
        if now < self._paused_until:
            return self._paused_until - now
        if self._in_flight >= self._slots:
            self._lack("slots")
            return math.inf  # until a call is done
        self._pace.fill(now)
        for_request, for_tokens = self._pace.delays(tokens)
        if for_request == math.inf or for_tokens == math.inf:
            self._lack()
        if for_request:
            self._lack("requests")
        if for_tokens:
            self._lack("tokens")
        return max(for_request, for_tokens)

    def _lack(self, *what: str) -> None:
        if self._demand.lack(*what):
            self._hurry.set()

    def join(self, priority: int, fairness_key: str, batch: str) -> Lane:
        """Open a lane; the first one begins to ask for a share."""
        costs = self._costs.setdefault(batch, Costs())
        lane = Lane(self, self._turns.join(priority, fairness_key, batch), costs, batch)
        self._lanes.append(lane)
        self._joined.set()
        self._lack()  # nobody knows yet how much it will send
        if self._keeper is None:
            self._keeper = self._loop.create_task(self._keep())
        return lane

    def leave(self, lane: Lane) -> None:
        """Close a lane; calls of it that nobody has settled count as done."""
        self._lanes.remove(lane)
        self._turns.leave(lane.turn)
        self._in_flight -= lane.open
        lane.closed = True
        self._waiting.pop(lane, None)
        for future, _, _ in lane.waiters:
            future.cancel()
        if len(self._costs) > 100:
            self._costs = {one.batch: one.costs for one in self._lanes}
        if not self._lanes:
            self._joined.clear()
            self._hurry.set()
        self._dispatch()

    async def close(self) -> None:
        """Stop asking, and give the share back."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
        await self._release()

    async def _keep(self) -> None:
        """Renew the lease while there are lanes; give it back soon after the last one has left."""
        failures = 0
        while True:
            if not self._lanes:
                # Not wait_for, which in Python 3.11 may lose a cancel that comes together with the event.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._ttl * _DRY):
                        await self._joined.wait()
                if not self._lanes:
                    await self._release()
                    await self._joined.wait()
            self._hurry.clear()
            asked_at = self._loop.time()
            try:
                lease = await self._ledger.lease(self._ask(asked_at))
            except Exception as error:  # whatever it is: without this task nothing would ever be sent again
                if not isinstance(error, NoLease):
                    logger.error("A rate ledger could not be asked: %s.", type(error).__name__)
                self._problem = str(error) if isinstance(error, NoLease) else "it could not be asked; see the log"
                failures = min(failures + 1, 8)
                await self._nap(min(self._ttl / 60 * 2**failures, self._ttl / 6) * random.uniform(0.8, 1.2))
            else:
                failures = 0
                self._apply(lease, asked_at)
                await self._nap(lease.renew_in * random.uniform(0.9, 1.1))

    async def _nap(self, seconds: float) -> None:
        """Wait until it is time to ask again, or until there is a reason to; never less than a moment."""
        least = min(seconds, self._ttl / 15 * random.uniform(0.9, 1.1))
        await asyncio.sleep(least)
        until = self._loop.time() + seconds - least
        while (left := until - self._loop.time()) > 0 and not (self._hurry.is_set() or self._dry()):
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, self._ttl * _DRY / 2)):
                    await self._hurry.wait()

    def _dry(self) -> bool:
        """Whether nothing is to be sent, so that others may have the share, and the ledger does not know it."""
        seconds = 0.0 if all(lane.ended for lane in self._lanes) else self._ttl * _DRY
        return not self._waiting and self._demand.dry(self._loop.time(), seconds)

    def _ask(self, now: float) -> RateAsk:
        wants = self._demand.ask(now, self._in_flight, dry=self._dry())
        ask = RateAsk(
            worker=self._name,
            label=self._label[:200],
            obeys=self._lease.seq if self._lease else 0,
            ttl=self._ttl,
            limits=self._limits,
            seen=self._seen,
            wants=wants,
            weight=4.0 ** (3 - min((lane.turn.priority for lane in self._lanes), default=3)),
            in_flight=self._in_flight,
            using=self._demand.using,
            rejections=self._rejections,
            batches=running(self._lanes, now),
        )
        self._rejections = 0
        if self._waiting:
            self._delay(next(iter(self._waiting)).waiters[0][1])  # what is short at this moment stays so
        return ask

    def _apply(self, lease: RateLease, asked_at: float) -> None:
        # Counted from the moment of the ask, so that it ends here before it ends at the ledger.
        self._lease, self._until, self._problem = lease, asked_at + lease.ttl, None
        amounts, now = lease.amounts, self._loop.time()
        self._slots = math.inf if amounts.slots is None else amounts.slots
        self._pace.lease(amounts.requests, amounts.tokens, now, self._until, alone=lease.workers < 2)
        self._dispatch()

    async def _release(self) -> None:
        if self._lease is not None and self._loop.time() < self._until:
            self._until = 0.0  # before anybody else may have it
            await self._ledger.release(self._name)

    @property
    def most_tokens(self) -> int | None:
        return None if self._used else self.minute  # what a call will have used, nobody knows beforehand

    @property
    def minute(self) -> int | None:
        most = self._lease.most_tokens if self._lease else self._limits.tokens_per_minute
        return None if most is None else int(most)

    def pause_left(self) -> float | None:
        return left if (left := self._paused_until - self._loop.time()) > 0 else None

    def waiting_for(self) -> str | None:
        now = self._loop.time()
        if now >= self._until:
            return f"a share of the rate of {self._what}: {self._problem or 'its ledger has not answered yet'}"
        if now < self._paused_until:
            return f"the end of a pause that {self._what} asked for, in {self._paused_until - now:.0f} s"
        buckets = (self._pace.requests, self._pace.tokens)
        nothing = self._slots < 1 or any(bucket is not None and bucket.rate <= 0 for bucket in buckets)
        return f"a share of the rate of {self._what}: other workers have all of it at present" if nothing else None
