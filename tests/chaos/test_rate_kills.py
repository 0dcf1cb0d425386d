"""The rate of an account while workers are killed and others take their place, as the provider counts what arrives."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durabatch.contract import BatchStatus

from .lab import open_lab

#: Calls a minute, which are ten a second; the provider looks at six seconds.
A_MINUTE, PERIOD = 600, 6.0
ROWS, STAFF = 150, 3


@pytest.mark.slow  # a rate is watched for a quarter of a minute
async def test_the_rate_holds_while_workers_are_killed_and_others_take_their_place(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab:
        crew = lab.crew(0)
        config = lab.folder / f"{crew.name}.toml"
        there = f'base_url = "{lab.admin.url}/v1"'
        limited = f"{there}\nrequests_per_minute = {A_MINUTE}"
        config.write_text(config.read_text().replace(there, limited, 1))
        crew.staff = STAFF
        await lab.admin.settings(rate_period_seconds=PERIOD)
        order = await crew.submit(crew.order(ROWS, direct=True))
        for calls in (30, 70):
            while (await lab.admin.live())["calls"] < calls:
                await asyncio.sleep(0.05)
            await crew.fit[0].kill()
        result = await crew.result(order)
        (rate,) = await lab.admin.rates()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, ROWS)
    arrived = rate["arrived_requests"]
    # A period holds its limit, what may be made up for after a delay of half a second, and one call of each worker.
    assert arrived["most"] <= A_MINUTE / 60 * (PERIOD + 0.5) + STAFF
    assert arrived["total"] >= ROWS
