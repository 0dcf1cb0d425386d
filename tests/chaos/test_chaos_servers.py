"""Chaos, in short, where a server is hurt: Temporal killed, the provider killed, and requests held in mid-air."""

from __future__ import annotations

import pytest

from .alone import ALONE as APART
from .concurrently import Runs

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("name", sorted(APART))
async def test_scenario(name: str, apart: Runs) -> None:
    tally = await apart[name]
    assert not tally.violations
