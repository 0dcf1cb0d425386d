"""Chaos, in short: real processes, killed where it hurts; each scenario carries the name that the field knows it by.

A scenario mostly waits, for a heartbeat to be missed or a listing to settle, so they run side by side in one lab; a
test takes what became of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from .check import Tally, audit
from .lab import Lab
from .scenarios import SCENARIOS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

#: Scenarios at a time.
ABREAST = 6
Runs = dict[str, asyncio.Task[Tally]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(lab: Lab, request: pytest.FixtureRequest) -> AsyncIterator[Runs]:
    """All scenarios that this session wants, under way."""
    places = asyncio.Semaphore(ABREAST)

    async def run(name: str) -> Tally:
        async with places, asyncio.timeout(100):
            ended = await SCENARIOS[name](lab)
            return await audit(lab, ended)

    # In the order in which the tests come, which pytest-randomly chooses.
    wanted = [item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")]
    tasks = {name: asyncio.create_task(run(name)) for name in wanted if name in SCENARIOS}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
async def test_scenario(name: str, runs: Runs) -> None:
    tally = await runs[name]
    assert not tally.violations
