"""The rate of an account over workers that come and go, with the real ledger's decisions and real governors.

Minutes pass in milliseconds; what is counted is what arrives at a provider.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from durabatch.contract.rates import RateLimits
from support.rates import Row, Sender, World
from support.virtual_time import in_virtual_time

LIMITS = RateLimits(tokens_per_minute=150_000, slots=256)
SEEDS = pytest.mark.parametrize("seed", [1, 2])


def rows(cap: int, latency: float = 2.0, used: int | None = None) -> Callable[[], Row]:
    return lambda: Row(cap, cap if used is None else used, latency)


def mixed(seed: int) -> Callable[[], Row]:
    chance = random.Random(seed)
    return lambda: Row(1200, chance.randint(100, 1100), chance.uniform(10, 15))


def simulated(world: World, story: Callable[[World], Awaitable[list[Sender]]]) -> World:
    """Run a story, whose workers leave in the end."""
    random.seed(world.seed)  # the governors' jitter

    async def run() -> World:
        workers = await story(world)
        world.ended_at = world.now
        for worker in workers:
            await worker.leave()
        return world

    return in_virtual_time(run())


def steady(count: int, row: Callable[[], Row], seconds: float = 300) -> Callable[[World], Awaitable[list[Sender]]]:
    async def story(world: World) -> list[Sender]:
        workers = [world.worker(row, name=f"w{number}") for number in range(count)]
        await asyncio.sleep(seconds)
        return workers

    return story


async def come_and_go(world: World) -> list[Sender]:
    row = rows(300)
    workers = [world.worker(row)]
    for _ in range(2):
        await asyncio.sleep(60)
        workers.append(world.worker(row))
    await asyncio.sleep(180)
    await workers[0].leave()
    await asyncio.sleep(200)
    return workers[1:]


async def killed(world: World) -> list[Sender]:
    row = rows(300)
    workers = [world.worker(row) for _ in range(4)]
    for _ in range(5):
        await asyncio.sleep(60)
        await workers.pop(0).kill()
        workers.append(world.worker(row))
    await asyncio.sleep(60)
    return workers


async def flapping(world: World) -> list[Sender]:
    row = rows(300)
    workers = [world.worker(row) for _ in range(2)]
    for _ in range(8):
        guest = world.worker(row)
        await asyncio.sleep(20)
        await guest.leave()
        await asyncio.sleep(20)
    return workers


@pytest.mark.parametrize(
    ("count", "row", "mean"),
    [
        (1, rows(300, 0), 0.99),
        (1, rows(300), 0.99),
        (3, rows(300), 0.98),
        (3, rows(600, 10), 0.98),
        (50, rows(300), 0.95),
    ],
)
def test_no_minute_exceeds_the_limit_and_little_of_it_is_left(count: int, row: Callable[[], Row], mean: float) -> None:
    world = simulated(World(LIMITS), steady(count, row))
    assert world.worst() <= 1.02
    assert world.mean() >= mean
    assert world.asks <= 10 * count * 300 / 60 + 10


def test_workers_that_begin_together_share_within_seconds() -> None:
    first: dict[str, float] = {}

    def named(name: str) -> Callable[[], Row]:
        def row() -> Row:
            first.setdefault(name, asyncio.get_running_loop().time())
            return Row(300, 300, 2.0)

        return row

    async def story(world: World) -> list[Sender]:
        workers = []
        for name in ("a", "b", "c"):
            workers.append(world.worker(named(name), name=name))
            await asyncio.sleep(0.2)
        await asyncio.sleep(20)
        assert min(world.sent_by.values()) >= 0.7 * max(world.sent_by.values())
        return workers

    assert simulated(World(LIMITS), story).worst() <= 1.02


@SEEDS
def test_the_share_of_a_worker_without_rows_goes_to_the_others_while_its_last_answers_are_awaited(seed: int) -> None:
    async def story(world: World) -> list[Sender]:
        workers = [world.worker(rows(600)) for _ in range(2)]
        slow = world.worker(rows(600, 200), rows=100, name="slow")
        await asyncio.sleep(200)
        assert world.sent_by["slow"] == 100
        return [*workers, slow]

    world = simulated(World(LIMITS, seed=seed), story)
    assert world.worst() <= 1.02
    assert world.mean() >= 0.97


def shards(latency: float, spread: tuple[int, ...], rows_each: int) -> Callable[[World], Awaitable[list[Sender]]]:
    """A batch whose shards are spread so over workers; whose is done with one takes another one from the queue."""

    async def story(world: World) -> list[Sender]:
        workers = [world.worker(rows(600, latency), rows=0, name=f"w{number}") for number in range(len(spread))]
        chance = random.Random(world.seed)

        async def one_after_another(worker: Sender) -> None:
            while True:
                await worker.feed(worker.name, rows=rows_each, priority=3, fairness_key="", batch="b")
                await asyncio.sleep(chance.uniform(0.3, 1.0))  # it is joined, and the next one is asked for
                worker = chance.choice(workers)

        running = [
            asyncio.create_task(one_after_another(worker))
            for worker, count in zip(workers, spread, strict=True)
            for _ in range(count)
        ]
        await asyncio.sleep(240)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return workers

    return story


@pytest.mark.parametrize(
    ("latency", "spread", "rows_each", "mean"),
    [(0, (6, 1, 1), 100, 0.96), (2, (6, 1, 1), 100, 0.96), (10, (3, 3, 2), 250, 0.985)],
)
def test_little_is_lost_while_the_shards_of_a_batch_end_and_others_begin(
    latency: float, spread: tuple[int, ...], rows_each: int, mean: float
) -> None:
    world = simulated(World(LIMITS, seed=2), shards(latency, spread, rows_each))
    assert world.worst() <= 1.02
    assert world.mean(since=40) >= mean


@SEEDS
@pytest.mark.parametrize(("story", "mean"), [(come_and_go, 0.97), (flapping, 0.91), (killed, 0.85)])
def test_workers_that_join_leave_and_die_keep_the_limit(
    seed: int, story: Callable[[World], Awaitable[list[Sender]]], mean: float
) -> None:
    world = simulated(World(LIMITS, seed=seed), story)
    assert world.worst() <= 1.02
    assert world.mean() >= mean


@SEEDS
def test_slow_and_lost_answers_keep_the_limit(seed: int) -> None:
    world = simulated(World(LIMITS, seed=seed, round_trip=3, lost=0.2), steady(3, rows(300)))
    assert world.worst() <= 1.02
    assert world.mean() >= 0.85


@pytest.mark.parametrize(("seconds", "mean"), [(15, 0.98), (90, 0.7)])
def test_while_temporal_is_away_leases_run_out_and_afterwards_it_goes_on_by_itself(seconds: float, mean: float) -> None:
    world = simulated(World(LIMITS, away=[(100, 100 + seconds)]), steady(3, rows(300)))
    assert world.worst() <= 1.02
    assert world.mean() >= mean
    sent = [at for at, _ in world.arrived]
    assert not [at for at in sent if 130 < at < 100 + seconds]  # no lease is longer than 30 s
    assert [at for at in sent if at > 100 + seconds + 15]


@SEEDS
def test_what_calls_use_is_learned_where_the_server_counts_that(seed: int) -> None:
    world = simulated(World(LIMITS, seed=seed, used=True), steady(3, rows(600, used=150)))
    assert max(world.worst(), world.worst("answered")) <= 1.02
    assert world.mean() >= 0.95  # if it were never learned: 0.25


@SEEDS
def test_what_calls_use_may_differ_tenfold(seed: int) -> None:
    world = simulated(World(LIMITS, seed=seed, used=True), steady(3, mixed(seed)))
    assert world.worst() <= 1.02
    assert world.worst("answered") <= 1.03
    assert world.mean() >= 0.85


def test_a_row_of_two_hundredths_of_the_limit_exceeds_it_by_no_more_than_itself() -> None:
    world = simulated(World(LIMITS), steady(1, rows(3000)))
    assert world.worst() <= 1.02
    assert world.mean() >= 0.99


def test_requests_are_limited_as_tokens_are() -> None:
    limits = RateLimits(requests_per_minute=500, slots=256)
    world = World(limits)
    simulated(world, steady(3, rows(1)))
    world.limits = RateLimits(tokens_per_minute=500)  # rows of one token: tokens are requests
    assert world.worst() <= 1.02
    assert world.mean() >= 0.97


def test_no_more_calls_are_in_flight_than_there_are_slots_and_all_slots_are_used() -> None:
    world = simulated(World(RateLimits(slots=20)), come_and_go)
    assert world.most_in_flight == 20
    assert len(world.answered) >= 0.95 * 20 / 2 * world.now


def test_a_provider_that_allows_less_than_configured_is_refused_rarely() -> None:
    really = RateLimits(tokens_per_minute=100_000)
    world = World(LIMITS, refuse=really)
    simulated(world, steady(3, rows(300), 600))
    world.limits = really
    assert world.worst() <= 1.0  # it refuses what is over
    assert world.mean(since=120) >= 0.75
    late = [at for at in world.refused if at >= 300]
    assert len(late) / (world.now - 300) * 60 < 60  # against 333 calls a minute


def test_a_high_priority_comes_first_and_others_share_by_key_and_batch() -> None:
    async def story(world: World) -> list[Sender]:
        worker = world.worker(rows(300), name="a1", fairness_key="a", batch="a1")
        lanes = [("a2", "a", 3), ("b1", "b", 3), ("idle", "", 5)]
        feeders = [
            asyncio.create_task(worker.feed(name, priority=priority, fairness_key=key, batch=name))
            for name, key, priority in lanes
        ]
        await asyncio.sleep(120)
        world.sent_by_then = dict(world.sent_by)
        urgent = asyncio.create_task(worker.feed("urgent", priority=1, fairness_key="", batch="urgent"))
        await asyncio.sleep(60)
        for feeder in (*feeders, urgent):
            feeder.cancel()
        await asyncio.gather(*feeders, urgent, return_exceptions=True)
        return [worker]

    world = simulated(World(LIMITS), story)
    before = world.sent_by_then
    assert before["b1"] == pytest.approx(500, rel=0.02)
    assert before["a1"] == pytest.approx(250, rel=0.02)
    assert before["a2"] == pytest.approx(250, rel=0.02)
    assert "idle" not in before
    assert world.sent_by["urgent"] >= 490
    assert sum(world.sent_by.values()) - sum(before.values()) - world.sent_by["urgent"] <= 10
