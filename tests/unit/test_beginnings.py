"""Connections of thousands of calls that begin at the same moment."""

from __future__ import annotations

import asyncio
from collections import Counter

from durabatch.activities.direct.beginnings import A_TURN, Beginnings


async def test_a_turn_of_the_event_loop_begins_few_connections_however_many_are_wanted() -> None:
    beginnings, loop = Beginnings(), asyncio.get_running_loop()
    turns, begun = 0, Counter[int]()

    def count() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(count)

    async def begin() -> None:
        await beginnings.turn()
        begun[turns] += 1

    loop.call_soon(count)
    calls = [asyncio.create_task(begin()) for _ in range(1000)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert max(begun.values()) <= 2 * A_TURN  # some that waited for this turn, and others that came in it
    assert begun.total() >= 500
    assert [call for call in calls[1::2] if call.cancelled()] == []
    for _ in range(3):  # it is as at first
        await asyncio.sleep(0)
    await asyncio.wait_for(beginnings.turn(), 10)
