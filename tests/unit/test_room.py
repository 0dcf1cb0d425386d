"""How many calls are in flight at a server that takes few at a time."""

from __future__ import annotations

import heapq
import itertools
from collections import deque

import pytest

from durabatch.activities.direct.room import Room

TIMEOUT = 60.0


def served(rows: int, *, parallel: int, seconds: float, most: int, hangs: frozenset[int] = frozenset()) -> list[int]:
    """Run rows at a server that works on some calls at a time and lets the others wait; a call may take a minute.

    Args:
        parallel: how many it works on.
        seconds: how long each takes.
        most: calls in flight that are allowed.
        hangs: rows that it never answers, and that hold up no other one.

    Returns:
        How many failures were held against each row.
    """
    room, now, order = Room(), 0.0, itertools.count()
    left, failures, late = deque(range(rows)), [0] * rows, 0
    free = [0.0] * parallel  # when the server can begin another call, for each that it works on
    events: list[
        tuple[float, int, int, tuple[int, int], bool]
    ] = []  # when, order, row, what `begin` returned, answered
    forgiven = [0] * rows
    while left or events:
        while left and room.open < most and not room.full(0):
            row = left.popleft()
            number = room.begin()
            begun = max(now, free[0])
            end = begun + seconds
            if row in hangs or end - now > TIMEOUT:  # it works on none whose client has gone
                heapq.heappush(events, (now + TIMEOUT, next(order), row, number, False))
            else:
                heapq.heapreplace(free, end)
                heapq.heappush(events, (end, next(order), row, number, True))
        now, _, row, number, answered = heapq.heappop(events)
        if answered:
            room.answered(number[0], 0.0)  # no growth: what is left of the time is another test's
        elif room.crowded(*number, forgiven[row]):
            forgiven[row] += 1
            late += 1
            left.append(row)
        else:
            failures[row] += 1
            if failures[row] < 3:
                left.append(row)
        room.end()
    assert late < 2 * most
    return failures


@pytest.mark.parametrize(("parallel", "seconds"), [(1, 5.0), (4, 12.0), (2, 40.0), (1, 50.0)])
def test_no_row_is_held_responsible_for_those_before_it(parallel: int, seconds: float) -> None:
    assert sum(served(2000, parallel=parallel, seconds=seconds, most=256)) == 0


def test_a_server_that_is_fast_enough_is_given_all_calls() -> None:
    room = Room()
    for _ in range(1000):
        assert not room.full(0)
        room.begin()


def test_a_row_that_hangs_is_held_responsible_for_itself() -> None:
    failures = served(500, parallel=8, seconds=1.0, most=64, hangs=frozenset({3, 250, 499}))
    assert {row for row, count in enumerate(failures) if count} == {3, 250, 499}
    assert {failures[row] for row in (3, 250, 499)} == {3}


def test_room_comes_back_with_answers_that_come_soon_and_a_row_is_forgiven_a_bounded_number_of_times() -> None:
    room = Room()
    first, second, third = (room.begin() for _ in range(3))
    room.answered(first[0], 0.9)
    assert room.crowded(*second, 0) and room.most == 1
    assert room.crowded(*third, 0) and room.most == 1  # of the same crowd
    assert not room.crowded(*third, 12)
    room.answered(room.begin()[0], 0.2)
    assert room.most == 1
    for _ in range(8):
        room.answered(room.begin()[0], 0.9)
    assert room.most == 3
