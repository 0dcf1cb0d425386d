"""Fixtures: one dev server for all tests of a process, and a house for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.house import House, connect, dev_server, open_house, time_skipping


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a real Temporal dev server."""
    with dev_server() as address:
        yield address


@pytest.fixture
async def house(server: str, tmp_path: Path) -> AsyncIterator[House]:
    """A house on the real dev server, without a worker."""
    client = await connect(server)
    async with open_house(client, tmp_path, {"listing_lag": "1s", "timeout": "5s"}) as house:
        yield house


@pytest.fixture
async def fast_house(tmp_path: Path) -> AsyncIterator[House]:
    """A house on the time-skipping server, where a day passes in seconds, without a worker."""
    env = await time_skipping()
    async with env, open_house(env.client, tmp_path, {"listing_lag": "60s", "timeout": "5s"}) as house:
        yield house
