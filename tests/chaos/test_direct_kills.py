"""Direct mode with workers that are killed and that stand still: each row once, and what was sent twice is counted."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from durabatch.contract import BatchStatus
from durabatch.contract.steps import RUN_ROWS
from support.live_endpoint import LiveEndpoint, Say, live_endpoint

from .check import audit
from .lab import Crew, Lab, open_lab
from .orders import Order
from .processes import Held

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS, IN_FLIGHT = 600, 16


def direct(
    lab: Lab, endpoint: LiveEndpoint, in_flight: int = IN_FLIGHT, timeout: str = "3s", heartbeat: str = "2s"
) -> Crew:
    """Hire one worker that runs rows at an endpoint of the test's own."""
    crew = lab.crew(0, timeout=timeout)
    config = lab.folder / f"{crew.name}.toml"
    there = f'base_url = "{lab.admin.url}/v1"'
    here = f'base_url = "{endpoint.url}"\nmax_concurrent_requests = {in_flight}'
    text = config.read_text().replace(there, here, 1).replace('heartbeat = "2s"', f'heartbeat = "{heartbeat}"', 1)
    config.write_text(text)
    crew.staff = 1
    return crew


async def answered(endpoint: LiveEndpoint, more: int) -> None:
    """Wait until so many more calls were made, and calls are in flight."""
    wanted = endpoint.calls.total() + more
    while endpoint.calls.total() < wanted or not endpoint.open:
        await asyncio.sleep(0.01)


async def test_killed_workers_repeat_no_more_than_was_in_flight(tmp_path: Path) -> None:
    kills = 3
    async with open_lab(tmp_path) as lab, live_endpoint(lambda text, times: Say(hang=0.1)) as endpoint:
        crew = direct(lab, endpoint)
        order = await crew.submit(crew.order(ROWS, direct=True))
        for _ in range(kills):
            await answered(endpoint, 100)
            await crew.fit[0].kill()
        result = await crew.result(order)
    again = sum(times - 1 for times in endpoint.calls.values())
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, ROWS)
    assert len(endpoint.calls) == ROWS
    assert max(endpoint.calls.values()) <= 1 + kills
    # What had its leave, and what had its answer, when the worker died, but for what the store had by then.
    assert again <= result.repeated <= kills * 3 * IN_FLIGHT // 2
    # Between leave and call a worker can die as well; then the call was not made, which nobody can know.
    assert result.repeated - again <= kills * IN_FLIGHT


async def test_a_worker_that_stood_still_sends_nothing_more_once_it_has_an_heir(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, live_endpoint(lambda text, times: Say(hang=0.1)) as endpoint:
        crew = direct(lab, endpoint)
        order = await crew.submit(crew.order(ROWS, direct=True))
        await answered(endpoint, 100)
        zombie = crew.fit[0]
        zombie.pause()
        await endpoint.idle.wait()
        stood = endpoint.calls.total()
        await answered(endpoint, 100)  # by its heir
        assert endpoint.calls.total() > stood
        await lab.late(zombie, order, "run_rows")
        result = await crew.result(order)
    again = sum(times - 1 for times in endpoint.calls.values())
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, ROWS)
    assert len(endpoint.calls) == ROWS
    assert max(endpoint.calls.values()) <= 2
    assert again <= result.repeated <= 2 * IN_FLIGHT


async def interrupted(lab: Lab, order: Order, shards: int) -> int:
    """Return how many runs of a batch's rows did not come to their end."""
    begun = 0
    for number in range(shards):
        handle = lab.client.get_workflow_handle(f"{order.batch_id}/shards/{number:05d}")
        runs = set[int]()
        for event in (await handle.fetch_history()).events:
            if event.activity_task_scheduled_event_attributes.activity_type.name == RUN_ROWS.name:
                runs.add(event.event_id)
            started = event.activity_task_started_event_attributes
            begun += started.attempt if started.scheduled_event_id in runs else 0
    return begun - shards


async def test_twenty_thousand_rows_with_workers_killed_and_stopped_at_random(tmp_path: Path) -> None:
    """What is counted as repeated is compared with the books of the server, which knows each call by its row.

    They cannot be equal: a worker that dies between the note that a row may be sent and the call has not made the call,
    and nobody can know. Each such row held a slot in flight, so they are bounded by the slots.
    """
    rows, shard_rows, in_flight, staff, kills, stops = 20_000, 2_000, 64, 3, 6, 3
    dice = random.Random(10)
    async with open_lab(tmp_path) as lab:
        await lab.admin.settings(live_seconds=0.05)
        settings = {"max_concurrent_requests": in_flight, "max_parallel_shards": staff}
        crew = lab.crew(0, timeout="10m", **{name: str(value) for name, value in settings.items()})
        config = lab.folder / f"{crew.name}.toml"
        # Longer than the machine keeps a worker from its turn: a worker that finds itself lost has lost its calls, too.
        config.write_text(config.read_text().replace('heartbeat = "2s"', 'heartbeat = "5s"', 1))
        crew.staff = staff
        order = await crew.submit(crew.order(rows, direct=True), limits={"max_rows": shard_rows})
        zombies: list[Held] = []
        disturbances = ["kill"] * kills + ["stop"] * stops
        dice.shuffle(disturbances)
        for number, kind in enumerate(disturbances):
            wanted = rows * (number + dice.random()) / (kills + stops + 1)
            while (await lab.admin.live())["calls"] < wanted:
                await asyncio.sleep(0.1)
            while not crew.fit:
                await asyncio.sleep(0.05)
            worker = dice.choice(crew.fit)
            if kind == "kill":
                await worker.kill()
            else:
                worker.pause()
                zombies.append(worker)
                if len(zombies) > 1:  # the one before has an heir by now, or gets one while it goes on
                    zombies[-2].resume()
        seen = (await lab.admin.live())["calls"]
        while (await lab.admin.live())["calls"] < min(seen + 500, rows):
            await asyncio.sleep(0.1)
        zombies[-1].resume()
        result = await crew.result(order)
        books = await lab.admin.live()
        tally = await audit(lab, {order: result})
        lost = await interrupted(lab, order, rows // shard_rows)
    facts = {"repeated": result.repeated, "lost": lost} | {
        name: books[name] for name in ("calls", "ids", "repeated", "answered_again", "how")
    }
    assert (result.status, result.counts.succeeded, tally.violations) == (BatchStatus.COMPLETED, rows, []), facts
    assert books["ids"] == rows, facts
    # Never too few,
    assert books["repeated"] <= result.repeated, facts
    # and of what the server did not see a slot was held. What it answered, and nobody kept, is in its books: calls that
    # were in flight at a worker that was suspended, and answers that came while others were being written.
    assert result.repeated - books["repeated"] <= lost * in_flight, facts
    assert books["answered_again"] <= lost * in_flight * 3 // 2, facts
    # A worker may be killed before it has a shard, so not each kill ends a run.
    assert lost, facts


async def test_rows_wait_for_a_temporal_that_is_away_and_go_on_by_themselves(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, live_endpoint(lambda text, times: Say(hang=0.3)) as endpoint:
        crew = direct(lab, endpoint)
        order = await crew.submit(crew.order(ROWS, direct=True))
        await answered(endpoint, 60)
        await lab.kill_server()
        before = -1
        while endpoint.calls.total() != before or endpoint.open:  # until the lease is over, and calls are answered
            before = endpoint.calls.total()
            await asyncio.sleep(2)
        assert before < ROWS
        await asyncio.sleep(10)
        assert endpoint.calls.total() == before
        await lab.start_server()
        result = await crew.result(order)
    again = sum(times - 1 for times in endpoint.calls.values())
    assert (result.status, result.counts.succeeded, crew.deaths) == (BatchStatus.COMPLETED, ROWS, 0)
    assert len(endpoint.calls) == ROWS
    assert max(endpoint.calls.values()) <= 2
    assert again <= result.repeated <= 2 * IN_FLIGHT


async def test_a_cancel_is_heard_long_before_a_heartbeat_is_due(tmp_path: Path) -> None:
    """A thousand calls hang; the SDK would send the next heartbeat, and so hear of the cancel, after 96 s."""
    calls = 1000
    async with open_lab(tmp_path) as lab, live_endpoint(lambda text, times: Say(hang=3000.0)) as endpoint:
        crew = direct(lab, endpoint, in_flight=calls, timeout="50m", heartbeat="2m")
        order = await crew.submit(crew.order(calls + 100, direct=True))
        while endpoint.open < calls:
            await asyncio.sleep(0.05)
        await crew.cancel(order)
        async with asyncio.timeout(60):
            await endpoint.idle.wait()
            result = await crew.result(order)
    assert (result.status, result.counts.canceled) == (BatchStatus.CANCELED, calls + 100)
    assert (endpoint.open, endpoint.calls.total()) == (0, calls)
