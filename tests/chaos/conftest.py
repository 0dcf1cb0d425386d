"""One lab for all tests of a module: a scenario has a crew of its own in it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from .lab import Lab, open_lab
from .scenarios import POLLS

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # pidfds and parent-death signals are Linux's


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path_factory.mktemp("lab")) as lab:
        await lab.admin.settings(finish_after_polls=POLLS)
        yield lab
