"""Direct mode with workers that are killed and that stand still: each row once, and what was sent twice is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durabatch.contract import BatchStatus
from support.live_endpoint import LiveEndpoint, Say, live_endpoint

from .lab import Crew, Lab, open_lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS, IN_FLIGHT = 600, 16


def direct(lab: Lab, endpoint: LiveEndpoint) -> Crew:
    """Hire one worker that runs rows at an endpoint of the test's own."""
    crew = lab.crew(0)
    config = lab.folder / f"{crew.name}.toml"
    there = f'base_url = "{lab.admin.url}/v1"'
    here = f'base_url = "{endpoint.url}"\nmode = "direct"\nmax_concurrent_requests = {IN_FLIGHT}'
    config.write_text(config.read_text().replace(there, here, 1))
    crew.staff = 1
    return crew


async def answered(endpoint: LiveEndpoint, more: int) -> None:
    """Wait until so many more calls were made, and calls are in flight."""
    wanted = endpoint.calls.total() + more
    while endpoint.calls.total() < wanted or not endpoint.open:
        await asyncio.sleep(0.01)


async def test_killed_workers_repeat_no_more_than_was_in_flight(tmp_path: Path) -> None:
    kills = 3
    async with open_lab(tmp_path) as lab, live_endpoint(lambda text, times: Say(hang=0.1)) as endpoint:
        crew = direct(lab, endpoint)
        order = await crew.start(ROWS)
        for _ in range(kills):
            await answered(endpoint, 100)
            await crew.fit[0].kill()
        result = await crew.result(order)
    again = sum(times - 1 for times in endpoint.calls.values())
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, ROWS)
    assert len(endpoint.calls) == ROWS
    assert max(endpoint.calls.values()) <= 1 + kills
    # What had its leave, and what had its answer, when the worker died, but for what the store had by then.
    assert again <= result.repeated <= kills * 2 * IN_FLIGHT
    # Between leave and call a worker can die as well; then the call was not made, which nobody can know.
    assert result.repeated - again <= kills * IN_FLIGHT


async def test_a_worker_that_stood_still_sends_nothing_more_once_it_has_an_heir(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, live_endpoint(lambda text, times: Say(hang=0.1)) as endpoint:
        crew = direct(lab, endpoint)
        order = await crew.start(ROWS)
        await answered(endpoint, 100)
        zombie = crew.fit[0]
        zombie.pause()
        await endpoint.idle.wait()
        stood = endpoint.calls.total()
        await answered(endpoint, 100)  # by its heir
        assert endpoint.calls.total() > stood
        await lab.late(zombie, order, "run_rows")
        result = await crew.result(order)
    again = sum(times - 1 for times in endpoint.calls.values())
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, ROWS)
    assert len(endpoint.calls) == ROWS
    assert max(endpoint.calls.values()) <= 2
    assert again <= result.repeated <= 2 * IN_FLIGHT
