"""Who may use how much of an account's rate: decisions over values, with the time as an argument.

Requests a second, tokens a second and calls in flight are divided in the same way. What counts is that the sum of
everything that anybody may be using never exceeds the limit, whatever is lost, late or dead:

- A worker that is given less than before may not know it yet. What it had counts until its next ask says that it obeys
  the smaller lease, or until the old one has ended.
- A worker counts the seconds of its lease from the moment it sent its ask, this side from when the ask is handled,
  which is later. So a lease always ends there before it ends here, and no clocks are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..contract.rates import (
    MAX_WORKERS,
    Given,
    RateAsk,
    RateLease,
    RateLimits,
    RatesCarried,
    RateWorker,
    Shares,
    WorkerView,
)
from .division import water_fill, whole
from .rate_worker import NOTHING, SLOTS, UNBROKEN, Amounts, Grant, Heard, Worker, amounts_of, together

#: After a 429 the limits are taken times this, at most once in so many seconds, in which this much of them grows back.
CUT, SECONDS_BETWEEN_CUTS, BACK = 0.9, 10.0, 0.01
#: However often it is refused, an account keeps this share of its limits.
LEAST = 0.05
#: Asks a second that a ledger serves with ease: with many workers, each asks more rarely, and its lease lasts longer.
ASKS_PER_SECOND = 4.0
#: When a lease is renewed, as a share of the time that it lasts: usually; where its worker is due more than it could be
#: given; and where it was given less than before. A worker's first lease lasts BEGINNING of that, and each later one
#: twice as much: workers of one batch begin within a second, and the first of them has been given everything.
USUALLY, SOON, AT_ONCE, BEGINNING = 1 / 3, 1 / 15, 1 / 100, 1 / 30
#: Where there are fewer slots than workers, they go round among them at this pace, in seconds.
TURN = 60.0


@dataclass(frozen=True)
class _Due:
    """What a worker is due of one of the three."""

    share: float
    want: float
    scarce: bool  #: Whether all together want more than there is.


class RateShares:
    """An account's rate for one model, and who may use how much of it."""

    def __init__(self, carried: RatesCarried | None = None) -> None:
        carried = carried or RatesCarried()
        self._workers = {
            one.ask.worker: Worker(
                one.ask,
                one.heard_at,
                given=[Grant(each.seq, each.until, amounts_of(each.amounts)) for each in one.given],
                asks=10,
            )
            for one in carried.workers
        }
        self._seen = carried.seen
        self._factor, self._cut_at = carried.factor, carried.cut_at
        self._quiet_until = carried.quiet_until
        self._heard = Heard(carried.heard_since, carried.heard_at)

    def lease(self, ask: RateAsk, now: float) -> RateLease:
        """Return what a worker may use.

        Args:
            now: seconds by this side's clock, which must not go backwards.
        """
        unbroken = now - self._heard.until <= UNBROKEN * ask.ttl
        self._heard = Heard(self._heard.since if unbroken else now, now)
        self._workers = {
            name: one for name, one in self._workers.items() if name == ask.worker or not one.gone(now, self._heard)
        }
        known = self._workers.get(ask.worker)
        if known is None and len(self._workers) >= MAX_WORKERS:
            return RateLease(
                seq=ask.obeys + 1,
                amounts=Shares(requests=0.0, tokens=0.0, slots=0.0),
                ttl=ask.ttl,
                renew_in=ask.ttl * USUALLY,
                limits=self.limits(now),
                most_tokens=self._lowest().tokens_per_minute,
                workers=len(self._workers),
            )
        worker = self._workers.setdefault(ask.worker, Worker(ask, now))
        worker.hear(ask, now)
        self._learn(ask, now)
        due, before = self._due(worker, now), worker.latest(now)
        amounts = self._amounts(worker, due, now)
        seq = max((ask.obeys, *(one.seq for one in worker.given))) + 1
        workers = sum(one is worker or one.alive(now) for one in self._workers.values())
        ttl = max(ask.ttl, workers / ASKS_PER_SECOND / USUALLY)
        worker.add(Grant(seq, now + ttl, amounts))
        worker.renew_in = self._renew_in(worker, due, before, amounts, ttl, now)
        return RateLease(
            seq=seq,
            amounts=_shares(amounts),
            ttl=ttl,
            renew_in=worker.renew_in,
            limits=self.limits(now),
            most_tokens=self._lowest().tokens_per_minute,
            workers=workers,
        )

    def release(self, worker: str) -> None:
        """Take back what a worker has, which uses nothing of it any more."""
        self._workers.pop(worker, None)

    def idle(self, now: float) -> bool:
        """Whether nobody has anything."""
        return all(one.gone(now, self._heard) for one in self._workers.values())

    def configured(self) -> RateLimits:
        """Return the lowest limits among the workers' configurations."""
        return _lowest(one.ask.limits for one in self._workers.values())

    def limits(self, now: float) -> RateLimits:
        """Return what may be given out at present, over all workers."""
        lowest, factor = self._lowest(), self.factor(now)
        return RateLimits(
            requests_per_minute=_times(lowest.requests_per_minute, factor),
            tokens_per_minute=_times(lowest.tokens_per_minute, factor),
            slots=None if lowest.slots is None else max(1, math.floor(lowest.slots * factor)),
        )

    def _lowest(self) -> RateLimits:
        return _lowest((self.configured(), self._seen))

    def factor(self, now: float) -> float:
        """Return the share of the limits that is given out since the last 429."""
        return min(1.0, self._factor + BACK * max(0.0, now - self._cut_at) / SECONDS_BETWEEN_CUTS)

    def views(self, now: float) -> tuple[WorkerView, ...]:
        """Return the workers that have a lease, by label."""
        alive = [one for one in self._workers.values() if one.alive(now)]
        return tuple(
            WorkerView(
                label=one.ask.label or one.ask.worker,
                amounts=_shares(one.latest(now)),
                using=one.ask.using,
                in_flight=one.ask.in_flight,
                batches=one.ask.batches,
                asked_at=datetime.fromtimestamp(one.heard_at, UTC),
                until=datetime.fromtimestamp(one.until, UTC),
            )
            for one in sorted(alive, key=lambda one: (one.ask.label, one.ask.worker))
        )

    def carried(self, now: float) -> RatesCarried:
        """Return all of this for the next run, without what is only shown."""
        return RatesCarried(
            workers=tuple(
                RateWorker(
                    ask=one.ask.model_copy(
                        update={
                            "batches": (),
                            "using": Shares(),
                            "seen": RateLimits(),
                            "label": one.ask.label[:40],
                            "rejections": 0,
                        }
                    ),
                    heard_at=one.heard_at,
                    given=tuple(
                        Given(seq=each.seq, until=each.until, amounts=_shares(each.amounts))
                        for each in (*([together(one.given[:-1])] if one.given[:-1] else ()), one.given[-1])
                    ),
                )
                for one in self._workers.values()
                if not one.gone(now, self._heard)
            ),
            seen=self._seen,
            factor=self._factor,
            cut_at=self._cut_at,
            quiet_until=self._quiet_until,
            heard_at=self._heard.until,
            heard_since=self._heard.since,
        )

    def _learn(self, ask: RateAsk, now: float) -> None:
        """Take over what the provider has said to a worker."""
        # The newest holds, so that a limit that the provider has raised is used.
        newest = {name: value for name, value in ask.seen if value is not None}
        self._seen = self._seen.model_copy(update=newest)
        if ask.rejections and now - self._cut_at >= SECONDS_BETWEEN_CUTS:
            self._factor, self._cut_at = max(LEAST, self.factor(now) * CUT), now

    def _due(self, worker: Worker, now: float) -> tuple[_Due, ...]:
        """Return what a worker would have of each if all knew at once what is due to them."""
        among = [one for one in self._workers.values() if one is worker or one.alive(now)]
        mine = among.index(worker)
        found = []
        for which, limit in enumerate(self._limit(now)):
            wants = [one.wants[which] for one in among]
            if limit == math.inf:
                found.append(_Due(math.inf, wants[mine], scarce=False))
                continue
            shares = water_fill(limit, list(zip(wants, (one.ask.weight for one in among), strict=True)))
            share = whole(shares, int(now // TURN))[mine] if which == SLOTS else shares[mine]
            found.append(_Due(share, wants[mine], scarce=math.fsum(wants) > limit))
        return tuple(found)

    def _amounts(self, worker: Worker, due: Sequence[_Due], now: float) -> Amounts:
        """Return what may be given to a worker at this moment, so that all together never have more than there is."""
        if now < self._quiet_until:
            return NOTHING
        others = [one for one in self._workers.values() if one is not worker]
        own, found = worker.obeyed(now), []
        for which, limit in enumerate(self._limit(now)):
            held = math.fsum(one.held(which, now, self._heard) for one in others)
            free = limit - held if limit < math.inf else math.inf
            # What it has already adds nothing to the sum: where a limit has become lower, all go down side by side.
            amount = min(due[which].share, max(free, own[which]))
            found.append(max(0.0, math.floor(amount + 1e-9) if which == SLOTS and amount < math.inf else amount))
        return found[0], found[1], found[2]

    def _renew_in(
        self, worker: Worker, due: Sequence[_Due], before: Amounts, amounts: Amounts, ttl: float, now: float
    ) -> float:
        """Return in how many seconds a worker should ask again."""
        each = list(zip(due, before, amounts, strict=True))
        if any(one.scarce and mine < had - 1e-9 for one, had, mine in each):
            # Who had more says as soon as may be that it has not any more: until then nobody has the difference.
            return ttl * AT_ONCE
        if any(mine < min(one.share, one.want) - 1e-9 for one, _, mine in each):
            return ttl * SOON
        # The share of one that should have asked by now may be about to come back.
        ends = (one.until - now for one in self._workers.values() if one is not worker and one.late(now))
        usually = ttl * min(USUALLY, BEGINNING * (1 << min(worker.asks - 1, 10)))
        return min(usually, min(ends, default=math.inf) + ttl * AT_ONCE)

    def _limit(self, now: float) -> Amounts:
        limits = self.limits(now)
        return (
            math.inf if limits.requests_per_minute is None else limits.requests_per_minute / 60,
            math.inf if limits.tokens_per_minute is None else limits.tokens_per_minute / 60,
            math.inf if limits.slots is None else float(limits.slots),
        )


def quiet(until: float) -> RatesCarried:
    """Return what a ledger begins with whose predecessor may have leases that are still in use."""
    return RatesCarried(quiet_until=until)


def _shares(amounts: Amounts) -> Shares:
    requests, tokens, slots = (None if one == math.inf else one for one in amounts)
    return Shares(requests=requests, tokens=tokens, slots=slots)


def _lowest(limits: Iterable[RateLimits]) -> RateLimits:
    every = list(limits)

    def least(values: Iterable[float | None]) -> float | None:
        return min((value for value in values if value is not None), default=None)

    slots = least(one.slots for one in every)
    return RateLimits(
        requests_per_minute=least(one.requests_per_minute for one in every),
        tokens_per_minute=least(one.tokens_per_minute for one in every),
        slots=None if slots is None else int(slots),
    )


def _times(limit: float | None, factor: float) -> float | None:
    return None if limit is None else limit * factor
