"""Chaos, in short, where a server is hurt: Temporal killed, the provider killed, and requests held in mid-air.

What these do meets every batch of the lab, so they run one after the other.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from durabatch.contract import BatchStatus

from .check import audit
from .lab import Crew, Lab
from .orders import Order
from .scenarios import POLLS, RARELY, Ended, ended

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def whole(lab: Lab, crew: Crew, found: Ended) -> None:
    tally = await audit(lab, found)
    assert not tally.violations
    await crew.close()


async def killed_while_held(lab: Lab, op: str, kind: str, **spec: Any) -> Ended:
    """Kill the worker while the provider holds its request, and let go once another worker has taken over."""
    crew = lab.crew()
    order = crew.order(3)
    if op == "batches.cancel":
        await crew.submit(order, poll=RARELY, **spec)
        await crew.until(order, lambda progress: progress.provider_batch_id)
    fault = await lab.admin.fault(op, kind, times=1)
    if op == "batches.cancel":
        await crew.cancel(order)
    else:
        await crew.submit(order, **spec)
    await lab.held(fault["id"])
    await crew.workers[0].kill()
    if (op, kind) == ("batches.create", "hold_before"):
        # The late create: the next worker has bought the batch already when this one takes effect.
        await crew.until(order, lambda progress: progress.provider_batch_id)
    await lab.admin.clear(fault["id"])
    found = await ended(crew, [order])
    await whole(lab, crew, found)
    return found


async def test_create_crash_after_store(lab: Lab) -> None:
    """The provider has taken the create and its answer is on the way when the worker dies."""
    found = await killed_while_held(lab, "batches.create", "hold")
    assert [batch.adopted for result in found.values() for batch in result.provider_batches] == [True]


async def test_zombie_create_arrives_after_its_heir_has_paid(lab: Lab) -> None:
    found = await killed_while_held(lab, "batches.create", "hold_before")
    tally = await audit(lab, found)
    assert tally.fenced_off_batches == 1


async def test_zombie_owner_burns_inference(lab: Lab) -> None:
    """A worker is paused with its create in the air, for longer than its heartbeat; another takes over; it goes on."""
    crew = lab.crew()
    order = crew.order(3)
    fault = await lab.admin.fault("batches.create", "hold_before", times=1)
    await crew.submit(order)
    await lab.held(fault["id"])
    zombie = crew.workers[0]
    zombie.pause()
    await crew.until(order, lambda progress: progress.provider_batch_id)
    zombie.resume()
    await lab.admin.clear(fault["id"])
    await whole(lab, crew, await ended(crew, [order]))


async def test_async_result_destruction(lab: Lab) -> None:
    """The worker dies in the middle of the download, and the next one's breaks off halfway."""
    await lab.admin.fault("files.content", "truncate", fraction=0.5, skip=1, times=1)
    await killed_while_held(lab, "files.content", "hold")


async def test_cancel_reverted(lab: Lab) -> None:
    found = await killed_while_held(lab, "batches.cancel", "hold")
    assert {result.status for result in found.values()} == {BatchStatus.CANCELED}


async def test_temporal_is_killed_in_mid_poll(lab: Lab) -> None:
    crew = lab.crew()
    order = crew.order(3)
    fault = await lab.admin.fault("batches.retrieve", "hold", times=1)
    await crew.submit(order)
    await lab.held(fault["id"])
    await lab.kill_server()
    await lab.admin.clear(fault["id"])
    await lab.start_server()
    await whole(lab, crew, await ended(crew, [order]))


async def test_temporal_is_killed_while_a_create_is_under_way(lab: Lab) -> None:
    """The create succeeds, and there is nobody to report it to."""
    crew = lab.crew()
    order = crew.order(3)
    fault = await lab.admin.fault("batches.create", "hold", times=1)
    await crew.submit(order)
    await lab.held(fault["id"])
    await lab.kill_server()
    await lab.admin.clear(fault["id"])
    await lab.start_server()
    await whole(lab, crew, await ended(crew, [order]))


async def test_the_provider_is_killed_in_mid_batch(lab: Lab) -> None:
    crew = lab.crew()
    order = await crew.start(40, {7: "[[sandbox:rate_limited times=1]]"})
    await crew.until(order, lambda progress: progress.provider_batch_id)
    await lab.kill_sandbox()
    await crew.until(order, lambda progress: progress.last_error)
    await lab.start_sandbox()
    await crew.handle(order).signal("poll_now")
    await whole(lab, crew, await ended(crew, [order]))


async def test_everything_is_killed_at_once(lab: Lab) -> None:
    crew = lab.crew(2)
    orders: list[Order] = [await crew.start(20) for _ in range(3)]
    await crew.until(orders[0], lambda progress: progress.provider_batch_id)
    await asyncio.gather(lab.kill_server(), lab.kill_sandbox(), crew.dismiss())
    await asyncio.gather(lab.start_server(), lab.start_sandbox())
    crew.staff = 2
    await whole(lab, crew, await ended(crew, orders))


async def test_a_second_worker_of_the_same_account_joins_in_a_create(lab: Lab) -> None:
    """The second one is there already when the first dies with its create in the air."""
    crew = lab.crew()
    order = crew.order(3)
    fault = await lab.admin.fault("batches.create", "hold", times=1)
    await crew.submit(order)
    await lab.held(fault["id"])
    crew.staff = 2
    while len(crew.fit) < 2:
        await asyncio.sleep(0.05)
    await crew.workers[0].kill()
    await lab.admin.clear(fault["id"])
    await whole(lab, crew, await ended(crew, [order]))


@pytest.fixture(autouse=True)
async def without_faults(lab: Lab) -> None:
    await lab.ask(lab.admin.clear)
    await lab.ask(lambda: lab.admin.settings(finish_after_polls=POLLS))
