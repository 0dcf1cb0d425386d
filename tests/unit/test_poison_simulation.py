"""Rows that always fail, and endpoints that are away: what an attempt makes of them, from minutes to hours of it.

Real runs on a clock that jumps; what is not real is the endpoint and the store.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durabatch.activities.direct.answer import Answer
from durabatch.activities.direct.governor import Governor
from durabatch.activities.direct.judgement import Pulse
from durabatch.activities.direct.kept import UNANSWERED
from durabatch.activities.direct.verdict import error_of
from durabatch.activities.lease import Lease
from durabatch.activities.providers import ProviderSettings
from durabatch.contract import AuthenticationFailed
from support.poison import BREAKS, CRASH, HANGS, REFUSED, Ended, Fault, World, run_attempt
from support.virtual_time import in_virtual_time

MINUTE, HOUR = 60.0, 3600.0


def run(world: World, rows: int, **options: Any) -> Ended:
    return in_virtual_time(run_attempt(world, rows, **options))


SLOW = pytest.mark.slow


def slow(*values: Any) -> list[Any]:
    return [pytest.param(value, marks=SLOW) for value in values]


@pytest.mark.parametrize("fault", [503, (504, 60.0), *slow(REFUSED, BREAKS, HANGS, 500, (504, 0.1))])
@pytest.mark.parametrize("begins", [0.7, *slow(0.0)])
def test_an_outage_of_an_hour_is_only_a_wait(fault: Fault, begins: float) -> None:
    """Of the whole endpoint or only of the route that answers rows: nothing else is asked."""
    world = World(lambda now, row: fault if begins <= now < begins + HOUR else None)
    ended = run(world, 300, slots=16)
    assert len(ended.good()) == 300
    assert ended.seconds < HOUR + 15 * MINUTE
    assert max(world.calls.values()) <= 8  # above all where each may be billed


POISONED = {"one": {299}, "twenty": set(range(280, 300)), "most": set(range(100, 300)), "all": set(range(300))}


@pytest.mark.parametrize("fault", [502, *slow(500, (504, 20.0), BREAKS, HANGS)])
@pytest.mark.parametrize("which", ["one", "most", *slow("twenty", "all", "half")])
def test_rows_that_always_fail_end_in_minutes_and_cost_no_other_row(which: str, fault: Fault) -> None:
    poison = POISONED.get(which) or {row for row in range(300) if row % 2}
    world = World(lambda now, row: fault if row in poison else None)
    ended = run(world, 300)
    assert set(ended.statuses) == set(range(300))
    assert ended.good() == set(range(300)) - poison
    assert ended.seconds < (10 if fault != HANGS else 25) * MINUTE
    assert max(world.calls.values()) <= 8
    # After each suspect that breaks a connection the endpoint is checked.
    assert world.checks <= (40 if fault != BREAKS else 5 * len(poison))


@pytest.mark.parametrize("down", [10.0, *slow(90.0)])
@pytest.mark.parametrize("then", [BREAKS, *slow(REFUSED, 502)])
def test_a_server_that_rows_crash_loses_these_rows_only(down: float, then: Fault) -> None:
    poison = {3, 150, 298, 299}
    world = World(lambda now, row: CRASH if row in poison else None, down=down, then=then)
    ended = run(world, 300)
    assert set(ended.statuses) == set(range(300))
    assert ended.good() == set(range(300)) - poison
    assert world.crashes <= 8 * len(poison)
    assert ended.seconds < 2 * HOUR


def test_an_outage_while_only_rows_that_always_fail_are_left_changes_nothing() -> None:
    world = World(lambda now, row: 503 if (now < HOUR and now > 1.0) or (row is not None and row >= 250) else None)
    ended = run(world, 300)
    assert ended.good() == set(range(250))
    assert len(ended.statuses) == 300
    assert ended.seconds < HOUR + 20 * MINUTE


def test_where_a_check_says_nothing_an_hour_is_waited_for_and_nothing_for_ever() -> None:
    """A model that refuses the check's question, and answers rows."""
    away = World(lambda now, row: 400 if row is None else 503 if now < HOUR else None)
    assert len(run(away, 20).good()) == 20
    poison = World(lambda now, row: 400 if row is None else 503 if row == 19 else None)
    ended = run(poison, 20)
    assert (len(ended.statuses), len(ended.good())) == (20, 19)
    assert HOUR < ended.seconds < 6 * HOUR


def test_a_server_that_fails_each_check_call_needs_none() -> None:
    world = World(lambda now, row: 500 if row is None or now < HOUR else None)
    ended = run(world, 20, check_calls=False)
    assert (len(ended.good()), world.checks) == (20, 0)


def test_a_check_that_finds_the_account_refused_ends_the_run() -> None:
    world = World(lambda now, row: 401 if row is None else 503)
    with pytest.raises(AuthenticationFailed):
        run(world, 20)


def test_a_sign_of_life_from_another_run_lets_no_row_wait_for_ever() -> None:
    """It comes while a check waits, and every row that is left has failed."""

    async def attempt() -> Ended:
        pulse = Pulse()

        async def another_run() -> None:
            await asyncio.sleep(25.0)
            pulse.signs += 1

        async with asyncio.timeout(HOUR), asyncio.TaskGroup() as group:
            group.create_task(another_run())
            return await run_attempt(world, 20, pulse=pulse)

    world = World(lambda now, row: (504, 0.1) if row is not None and row >= 18 else None, rest={504: 10.0})
    ended = in_virtual_time(attempt())
    assert (len(ended.statuses), len(ended.good())) == (20, 18)


def test_a_check_that_cannot_have_its_rate_does_not_keep_the_step() -> None:
    def fault(now: float, row: int | None) -> Fault | None:
        return None if now > HOUR or row is None else 429 if row == 0 else (500, 1.0)

    world = World(fault, rest={429: HOUR})
    ended = run(world, 4)
    assert len(ended.good()) == 4
    assert ended.longest < MINUTE


def test_a_check_that_has_waited_for_the_rate_is_not_sent_when_the_step_may_be_another_worker_s() -> None:
    lease = Lease(timeout=1e6)

    async def attempt() -> int:
        running = asyncio.create_task(run_attempt(world, 4, lease=lease))
        await asyncio.sleep(2.0)
        lease.confirmed_at -= 1e6
        await asyncio.sleep(8.0)
        asked = world.checks
        lease.confirmed_at += 1e6
        await running
        return asked

    world = World(
        lambda now, row: None if row is None or now > 5.0 else 429 if row == 0 else (500, 1.0), rest={429: 5.0}
    )
    assert in_virtual_time(attempt()) == 0
    assert world.checks > 0


def test_a_check_that_is_one_call_too_many_does_not_ask_for_credit() -> None:
    settings = ProviderSettings(name="p", kind="openai", base_url="http://p/v1")
    assert "credit" not in error_of(settings, Answer(429, {}, b"Too many requests")).message
    assert "Add credit" in error_of(settings, Answer(429, {}, b'{"error": {"code": "insufficient_quota"}}')).message


def test_a_row_that_is_given_up_unsent_does_not_count_as_sent() -> None:
    world = World(lambda now, row: 503 if now < HOUR else None)
    ended = run(world, 2, doubts={0: 24, 1: 24})
    assert ended.statuses == {0: UNANSWERED, 1: UNANSWERED}
    ended = run(world, 3, doubts={0: 24, 1: 24})
    assert ended.statuses == {0: UNANSWERED, 1: UNANSWERED, 2: 200}
    assert world.calls[0] == world.calls[1] == 0


def test_a_pause_that_ends_while_the_run_gives_it_up_loses_no_row() -> None:
    class Ending(Governor):
        """Its pause is over at the third look at the same moment."""

        looks = (0.0, 0)

        def waiting_for(self) -> str | None:
            now = asyncio.get_running_loop().time()
            self.looks = (now, self.looks[1] + 1 if self.looks[0] == now else 1)
            return super().waiting_for() if self.looks[1] < 3 else None

    world = World(lambda now, row: 429 if now < 1.0 else None, rest={429: 60.0})
    assert len(run(world, 3, kind=Ending).good()) == 3
