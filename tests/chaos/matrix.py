"""Every step boundary: the worker is killed before and after each step, and while the provider holds each request.

Not part of `make test`; `make chaos` runs it before the soak.
"""

from __future__ import annotations

from functools import partial

import pytest

from .alone import killed_while_held
from .concurrently import Runs
from .scenarios import Scenario, killed_at

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

STEPS = ("plan", "upload", "find", "create", "poll", "cancel", "fetch", "settle", "tidy", "apply", "finish")
OPS = ("files.create", "batches.create", "batches.retrieve", "batches.list", "batches.cancel", "files.content")

TOGETHER: dict[str, Scenario] = {
    f"{step}-{when}": partial(killed_at, step=step, when=when) for step in STEPS for when in ("before", "after")
}
APART: dict[str, Scenario] = {
    f"{op}-{kind}": partial(killed_while_held, op=op, kind=kind) for op in OPS for kind in ("hold_before", "hold")
}


@pytest.mark.parametrize("name", TOGETHER)
async def test_killed_at_a_step(name: str, together: Runs) -> None:
    tally = await together[name]
    assert not tally.violations


@pytest.mark.parametrize("name", APART)
async def test_killed_while_the_provider_holds(name: str, apart: Runs) -> None:
    tally = await apart[name]
    assert not tally.violations
