"""A worker's share of a rate: who may send, who waits, and what it says of it; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from durabatch.activities.direct.governor import Governor
from durabatch.activities.direct.lane import Lane
from durabatch.activities.providers.base import LimitNews
from durabatch.contract.rates import RateLimits
from support.rates import Line, World
from support.virtual_time import in_virtual_time

#: 100 tokens a second.
LIMITS = RateLimits(tokens_per_minute=6000, slots=2)


def governed(story: Callable[[World, Governor, Lane], Awaitable[None]], *, used: bool = False) -> None:
    async def run() -> None:
        world = World(LIMITS)
        what = "provider p, model m"
        governor = Governor(Line(world), LIMITS, used=used, ttl=30, label="w", what=what)
        lane = governor.join(3, "", "b")
        await story(world, governor, lane)
        with suppress(ValueError):  # it may have left
            governor.leave(lane)
        await governor.close()

    in_virtual_time(run())


async def late(what: Awaitable[object], seconds: float) -> bool:
    """Whether something has not happened after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await what
    except TimeoutError:
        return True
    return False


def test_nothing_is_sent_before_there_is_a_share() -> None:
    async def story(world: World, governor: Governor, lane: Lane) -> None:
        assert lane.waiting_for == ("a share of the rate of provider p, model m: its ledger has not answered yet")
        lane.done(await lane.take(10))
        assert lane.waiting_for is None

    governed(story)


def test_a_slot_is_waited_for_and_its_tokens_are_taken_with_it() -> None:
    async def story(world: World, governor: Governor, lane: Lane) -> None:
        first, second = await lane.take(1), await lane.take(1)
        assert await late(lane.take(1), 5)
        lane.done(first)
        third = await lane.take(1)
        for ticket in (second, third, third):  # twice is once
            lane.done(ticket)
        await lane.take(1)
        await lane.take(1)
        assert await late(lane.take(1), 5)

    governed(story)


def test_a_large_row_is_made_up_for_by_the_next() -> None:
    async def story(world: World, governor: Governor, lane: Lane) -> None:
        lane.done(await lane.take(3000))
        begun = world.now
        lane.done(await lane.take(1))
        assert world.now - begun == pytest.approx(30, rel=0.01)

    governed(story)


def test_a_pause_that_the_provider_asks_for_is_kept_and_told() -> None:
    async def story(world: World, governor: Governor, lane: Lane) -> None:
        lane.rejected(await lane.take(1), LimitNews(retry_after=12))
        begun = world.now
        assert lane.waiting_for == "the end of a pause that provider p, model m asked for, in 12 s"
        assert lane.resumes_in == pytest.approx(12)
        lane.done(await lane.take(1))
        assert world.now - begun >= 12
        assert (lane.waiting_for, lane.resumes_in) == (None, None)

    governed(story)


def test_an_operator_ends_such_a_pause_and_another_429_begins_another() -> None:
    async def story(world: World, governor: Governor, lane: Lane) -> None:
        lane.rejected(await lane.take(1), LimitNews(retry_after=3600))
        begun = world.now
        waiting = asyncio.create_task(lane.take(1))
        await asyncio.sleep(5)
        lane.resume()
        lane.rejected(await waiting, LimitNews(retry_after=60))
        assert world.now - begun == pytest.approx(5)
        lane.done(await lane.take(1))
        assert world.now - begun >= 65

    governed(story)


def test_while_temporal_is_away_nothing_is_sent_once_the_lease_is_over() -> None:
    async def story(world: World, governor: Governor, lane: Lane) -> None:
        lane.done(await lane.take(1))
        world.away = [(world.now, world.now + 100)]
        back = world.now + 100
        await asyncio.sleep(40)
        assert lane.waiting_for == "a share of the rate of provider p, model m: Temporal does not answer"
        lane.done(await lane.take(1))
        assert back <= world.now <= back + 15

    governed(story)


def test_what_an_abandoned_lane_and_a_cancelled_wait_held_is_free_again() -> None:
    async def story(world: World, governor: Governor, lane: Lane) -> None:
        other = governor.join(3, "", "other")
        tickets = [await other.take(1), await other.take(1)]
        waiting = asyncio.create_task(lane.take(1))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        governor.leave(other)
        for ticket in tickets:
            other.done(ticket)  # too late, and without harm
        await lane.take(1)
        await lane.take(1)
        assert await late(lane.take(1), 5)

    governed(story)


def test_a_row_that_can_never_be_sent_is_known_by_the_limit_that_holds() -> None:
    async def story(world: World, governor: Governor, lane: Lane) -> None:
        assert lane.most_tokens == 6000
        lane.done(await lane.take(1), 1, LimitNews(tokens_per_minute=3000))
        await asyncio.sleep(10)
        assert lane.most_tokens == 3000

    governed(story)

    async def learned(world: World, governor: Governor, lane: Lane) -> None:
        assert lane.most_tokens is None  # what a call will have used, nobody knows beforehand

    governed(learned, used=True)


def test_a_share_is_given_back_soon_after_the_last_lane_has_left_and_had_again() -> None:
    async def story(world: World, governor: Governor, lane: Lane) -> None:
        lane.done(await lane.take(1))
        governor.leave(lane)
        await asyncio.sleep(15)
        assert world.shares.views(0.0) == ()
        again = governor.join(3, "", "b")
        begun = world.now
        again.done(await again.take(1))
        assert world.now - begun < 2
        governor.leave(again)

    governed(story)
