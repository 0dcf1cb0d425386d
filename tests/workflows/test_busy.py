"""A worker whose long steps wait has slots for the short ones of other batches."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from durabatch.contract import BatchStatus, Phase
from support.house import connect, open_house

pytestmark = pytest.mark.slow

SLOTS = 8
BATCHES = 12


@pytest.mark.parametrize(
    ("provider", "op"),
    [
        pytest.param({"provider": "sandbox", "model": "gpt-4o-mini"}, "files.create", id="uploads"),
        # Whose rows go inline.
        pytest.param({"provider": "claude", "model": "claude-haiku-4-5"}, "batches.create", id="creates"),
    ],
)
async def test_a_poll_and_a_cancel_go_through_while_the_long_steps_of_many_batches_wait(
    server: str, tmp_path: Path, provider: dict[str, Any], op: str
) -> None:
    async with open_house(await connect(server), tmp_path, {"listing_lag": "1s", "timeout": "240s"}) as house:
        await house.admin.settings(finish_after_polls=100_000)
        async with house.worker(max_concurrent_activities=SLOTS):
            polled, canceled = await house.start(2), await house.start(2)
            for handle in (polled, canceled):
                await house.until(handle, lambda progress: progress.phase is Phase.POLLING)
            fault = (await house.admin.fault(op, "hold_before"))["id"]
            crowd = [await house.start(1, **provider) for _ in range(BATCHES)]
            while (waiting := (await house.admin.faults())[0]["waiting"]) < SLOTS // 2:
                await asyncio.sleep(0.05)
            await canceled.signal("cancel", {"reason": "changed my mind"})
            while "cancelled" not in {batch["status"] for batch in await house.batches()}:
                await asyncio.sleep(0.05)
            polls = (await house.admin.books())["requests"]["batches.retrieve"]
            while (await house.admin.books())["requests"]["batches.retrieve"] < polls + 3:
                await polled.signal("poll_now")
                await asyncio.sleep(0.05)
            assert waiting == (await house.admin.faults())[0]["waiting"] == SLOTS // 2
            await house.admin.settings(finish_after_polls=0)
            await house.admin.clear(fault)
            assert (await canceled.result()).status is BatchStatus.CANCELED
            for handle in (polled, *crowd):
                assert (await handle.result()).status is BatchStatus.COMPLETED
        bought = Counter(batch["id"] for batch in await house.batches())
        assert len(bought) == BATCHES + 2
