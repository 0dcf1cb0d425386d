"""The time-skipping server goes on skipping, whatever tests do to workflows on it."""

from __future__ import annotations

import asyncio

from support.house import House


async def test_time_is_skipped_on_after_a_batch_was_terminated_in_the_middle_of_a_poll(fast_house: House) -> None:
    house = fast_house
    await house.admin.settings(finish_after_polls=100_000)
    await house.admin.fault("batches.retrieve", "slow", delay_seconds=1)
    seldom = {"first": "5m", "maximum": "10m"}
    async with house.worker():
        first = await house.start(1, poll=seldom)
        await house.until(first, lambda p: p.next_poll_at)
        await first.signal("poll_now")
        while not (await first.describe()).raw_description.pending_activities:
            await asyncio.sleep(0.01)
        await first.terminate("in the middle of it")  # the client waits until it rests
        await house.admin.clear()
        await house.admin.settings(finish_after_polls=3)
        result = await (await house.start(1, poll=seldom)).result()
    assert result.counts.succeeded == 1
