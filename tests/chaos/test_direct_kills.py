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


def direct(
    lab: Lab, endpoint: LiveEndpoint, in_flight: int = IN_FLIGHT, timeout: str = "3s", heartbeat: str = "2s"
) -> Crew:
    """Hire one worker that runs rows at an endpoint of the test's own."""
    crew = lab.crew(0, timeout=timeout)
    config = lab.folder / f"{crew.name}.toml"
    there = f'base_url = "{lab.admin.url}/v1"'
    here = f'base_url = "{endpoint.url}"\nmax_concurrent_requests = {in_flight}'
    text = config.read_text().replace(there, here, 1).replace('heartbeat = "2s"', f'heartbeat = "{heartbeat}"', 1)
    config.write_text(text)
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
        order = await crew.submit(crew.order(ROWS, direct=True))
        for _ in range(kills):
            await answered(endpoint, 100)
            await crew.fit[0].kill()
        result = await crew.result(order)
    again = sum(times - 1 for times in endpoint.calls.values())
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, ROWS)
    assert len(endpoint.calls) == ROWS
    assert max(endpoint.calls.values()) <= 1 + kills
    # What had its leave, and what had its answer, when the worker died, but for what the store had by then.
    assert again <= result.repeated <= kills * 3 * IN_FLIGHT // 2
    # Between leave and call a worker can die as well; then the call was not made, which nobody can know.
    assert result.repeated - again <= kills * IN_FLIGHT


async def test_a_worker_that_stood_still_sends_nothing_more_once_it_has_an_heir(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, live_endpoint(lambda text, times: Say(hang=0.1)) as endpoint:
        crew = direct(lab, endpoint)
        order = await crew.submit(crew.order(ROWS, direct=True))
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


async def test_a_cancel_is_heard_long_before_a_heartbeat_is_due(tmp_path: Path) -> None:
    """A thousand calls hang; the SDK would send the next heartbeat, and so hear of the cancel, after 96 s."""
    calls = 1000
    async with open_lab(tmp_path) as lab, live_endpoint(lambda text, times: Say(hang=3000.0)) as endpoint:
        crew = direct(lab, endpoint, in_flight=calls, timeout="50m", heartbeat="2m")
        order = await crew.submit(crew.order(calls + 100, direct=True))
        while endpoint.open < calls:
            await asyncio.sleep(0.05)
        await crew.cancel(order)
        async with asyncio.timeout(60):
            await endpoint.idle.wait()
            result = await crew.result(order)
    assert (result.status, result.counts.canceled) == (BatchStatus.CANCELED, calls + 100)
    assert (endpoint.open, endpoint.calls.total()) == (0, calls)
