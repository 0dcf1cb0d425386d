"""The scenarios that hurt a server, or hold a request in mid-air: each needs a lab of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from durabatch.contract import BatchStatus

from .lab import Lab
from .orders import Order
from .scenarios import RARELY, Ended, Scenario, ended

ALONE: dict[str, Scenario] = {}


def alone(run: Scenario) -> Scenario:
    ALONE[run.__name__] = run
    return run


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
    return await ended(crew, [order])


@alone
async def create_crash_with_the_answer_on_its_way(lab: Lab) -> Ended:
    """The provider has taken the create and its answer is on the way when the worker dies."""
    found = await killed_while_held(lab, "batches.create", "hold")
    assert [batch.adopted for result in found.values() for batch in result.provider_batches] == [True]
    return found


@alone
async def zombie_create_arrives_after_its_heir_has_paid(lab: Lab) -> Ended:
    """The late create names a file that is gone: it is taken, fails, and runs nothing."""
    found = await killed_while_held(lab, "batches.create", "hold_before")
    books = await lab.books()
    assert len(books["batches"]) == 2
    return found


@alone
async def zombie_with_a_create_in_the_air(lab: Lab) -> Ended:
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
    return await ended(crew, [order])


@alone
async def download_destroyed_in_the_middle(lab: Lab) -> Ended:
    """The worker dies in the middle of the download, and the next one's breaks off halfway."""
    await lab.admin.fault("files.content", "truncate", fraction=0.5, skip=1, times=1)
    return await killed_while_held(lab, "files.content", "hold")


@alone
async def cancel_crash_with_the_answer_on_its_way(lab: Lab) -> Ended:
    """The provider has taken the cancel and its answer is on the way when the worker dies."""
    found = await killed_while_held(lab, "batches.cancel", "hold")
    assert {result.status for result in found.values()} == {BatchStatus.CANCELED}
    return found


@alone
async def temporal_is_killed_in_mid_poll(lab: Lab) -> Ended:
    crew = lab.crew()
    order = crew.order(3)
    fault = await lab.admin.fault("batches.retrieve", "hold", times=1)
    await crew.submit(order)
    await lab.held(fault["id"])
    await lab.kill_server()
    await lab.admin.clear(fault["id"])
    await lab.start_server()
    return await ended(crew, [order])


@alone
async def temporal_is_killed_while_a_create_is_under_way(lab: Lab) -> Ended:
    """The create succeeds, and there is nobody to report it to."""
    crew = lab.crew()
    order = crew.order(3)
    fault = await lab.admin.fault("batches.create", "hold", times=1)
    await crew.submit(order)
    await lab.held(fault["id"])
    await lab.kill_server()
    await lab.admin.clear(fault["id"])
    await lab.start_server()
    return await ended(crew, [order])


@alone
async def the_provider_is_killed_in_mid_batch(lab: Lab) -> Ended:
    crew = lab.crew()
    order = await crew.start(40, {7: "[[sandbox:rate_limited times=1]]"})
    await crew.until(order, lambda progress: progress.provider_batch_id)
    await lab.kill_sandbox()
    await crew.until(order, lambda progress: progress.last_error)
    await lab.start_sandbox()
    await crew.handle(order).signal("poll_now")
    return await ended(crew, [order])


@alone
async def everything_is_killed_at_once(lab: Lab) -> Ended:
    crew = lab.crew(2)
    orders: list[Order] = [await crew.start(20) for _ in range(3)]
    await crew.until(orders[0], lambda progress: progress.provider_batch_id)
    await asyncio.gather(lab.kill_server(), lab.kill_sandbox(), crew.dismiss())
    await asyncio.gather(lab.start_server(), lab.start_sandbox())
    crew.staff = 2
    return await ended(crew, orders)


@alone
async def a_second_worker_of_the_same_account_joins_in_a_create(lab: Lab) -> Ended:
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
    return await ended(crew, [order])
