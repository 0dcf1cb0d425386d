"""The scenarios of a module are under way as soon as its first test asks; each test takes what became of its own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from .check import Tally, audit
from .concurrently import Runs, side_by_side
from .lab import open_lab
from .scenarios import POLLS

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # pidfds and parent-death signals are Linux's


def wanted(request: pytest.FixtureRequest, fixture: str) -> list[str]:
    """Return the scenarios of a module that this session runs, in the order in which their tests come."""
    items = [item for item in request.session.items if item.nodeid.startswith(request.node.nodeid)]
    return [item.callspec.params["name"] for item in items if fixture in item.fixturenames]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def together(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> AsyncIterator[Runs]:
    """The scenarios that share one lab."""
    async with open_lab(tmp_path_factory.mktemp("lab")) as lab:
        await lab.admin.settings(finish_after_polls=POLLS)

        async def run(name: str) -> Tally:
            return await audit(lab, await request.module.TOGETHER[name](lab))

        async with side_by_side(wanted(request, "together"), run, 12) as runs:
            yield runs


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apart(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> AsyncIterator[Runs]:
    """The scenarios that need a lab each."""

    async def run(name: str) -> Tally:
        async with open_lab(tmp_path_factory.mktemp("lab")) as lab:
            await lab.admin.settings(finish_after_polls=POLLS)
            return await audit(lab, await request.module.APART[name](lab))

    async with side_by_side(wanted(request, "apart"), run, 4) as runs:
        yield runs
