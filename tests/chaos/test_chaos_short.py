"""Chaos, in short: real processes, killed where it hurts; each scenario carries the name that the field knows it by."""

from __future__ import annotations

import pytest

from .check import audit
from .lab import Lab

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def test_create_crash_after_store(lab: Lab) -> None:
    crew = lab.crew()
    order = crew.order(3)
    lab.arm(order.batch_id, "create", "after")
    await crew.submit(order)
    result = await crew.result(order)
    tally = await audit(lab, {order: result})
    assert not tally.violations
    assert lab.spent(order.batch_id) == 1
    assert tally.adopted == 1
