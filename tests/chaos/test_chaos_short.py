"""Chaos, in short: real processes, killed where it hurts; each scenario carries the name that the field knows it by."""

from __future__ import annotations

import pytest

from .concurrently import Runs
from .scenarios import SCENARIOS as TOGETHER

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", sorted(TOGETHER))
async def test_scenario(name: str, together: Runs) -> None:
    tally = await together[name]
    assert not tally.violations
