"""Direct mode as a whole: the real steps against the sandbox's ordinary endpoints, counted in the sandbox's books."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

import pytest
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from durabatch.clients.progress import batch_progress
from durabatch.contract import BatchResult, BatchStatus
from support.house import KEY, House, free_port
from support.operator import (
    pause_activity,
    pending_activity,
    reset_activity,
    reset_points,
    reset_workflow,
    unpause_activity,
)

MODELS = {"sandbox": "gpt-4o-mini", "claude": "claude-sonnet-4-5"}


async def start(house: House, rows: int, what: str = "", **fields: Any) -> WorkflowHandle[Any, BatchResult]:
    name = uuid.uuid4().hex[:8]
    texts = [f"Row {name} {n}. {what}" for n in range(rows)]
    return await house.start(texts, mode="direct", **fields)


def whole(house: House, result: BatchResult, rows: int) -> None:
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, rows)
    assert [row["custom_id"] for row in house.results(result.batch_id)] == [f"r{n}" for n in range(rows)]


@pytest.mark.parametrize("provider", MODELS)
async def test_each_row_is_called_once_and_nothing_is_left_at_the_provider(house: House, provider: str) -> None:
    async with house.worker():
        result = await (await start(house, 50, provider=provider, model=MODELS[provider])).result()
    whole(house, result, 50)
    assert (result.cost_usd, result.repeated) == (result.list_cost_usd, 0)
    live = await house.admin.live()
    assert (live["calls"], live["ids"], live["how"]["answered"], live["open"]) == (50, 50, 50, 0)
    books = await house.admin.books()
    assert (books["batches"], books["files"]) == ([], [])


async def test_several_shards_are_run_and_come_back_in_order(house: House) -> None:
    async with house.worker():
        result = await (await start(house, 12, limits={"max_rows": 5})).result()
    whole(house, result, 12)
    assert (await house.admin.live())["calls"] == 12


async def test_a_row_that_is_refused_fails_alone(house: House) -> None:
    async with house.worker():
        handle = await house.start(["fine", "[[sandbox:invalid_request]]", "fine too"], mode="direct")
        result = await handle.result()
    assert (result.counts.succeeded, result.counts.failed) == (2, 1)
    assert [row["status"] for row in house.results(handle.id)] == ["succeeded", "failed", "succeeded"]


async def test_a_wrong_key_fails_a_batch_at_once_of_which_nothing_is_bought(house: House) -> None:
    await house.admin.revoke(KEY)
    async with house.worker():
        handle = await start(house, 20)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
        assert isinstance(caught.value.cause, ApplicationError)
        assert "refuses the key" in caught.value.cause.message
        assert [row["error"]["type"] for row in house.results(handle.id)] == ["authentication"] * 20
        await house.admin.restore(KEY)  # the same id again goes on as if nothing had been
        whole(house, await (await start(house, 20, id=handle.id)).result(), 20)
    live = await house.admin.live()
    assert live["repeated_unrefused"] == 0


async def test_a_key_that_is_revoked_in_between_is_waited_out_and_nothing_is_bought_twice(house: House) -> None:
    await house.admin.settings(live_seconds=0.2)
    provider = house.settings.provider("sandbox").model_copy(update={"max_concurrent_requests": 2})
    house.settings = house.settings.with_provider(provider)
    async with house.worker():
        handle = await start(house, 40)
        while (await house.admin.live())["how"]["answered"] < 4:
            await asyncio.sleep(0.05)
        await house.admin.revoke(KEY)
        await house.until(handle, lambda p: p.waiting_for and "key" in p.waiting_for)
        await house.admin.restore(KEY)
        await house.admin.settings(live_seconds=0)
        await handle.signal("poll_now")
        result = await handle.result()
    whole(house, result, 40)
    live = await house.admin.live()
    assert (live["repeated_unrefused"], result.repeated) == (0, 0)


async def test_a_cancel_drops_calls_that_hang_and_keeps_what_is_answered(house: House) -> None:
    async with house.worker():
        handle = await house.start(["fine", "[[sandbox:hang]]", "[[sandbox:hang]]"], mode="direct")
        while (await house.admin.live())["calls"] < 3:
            await asyncio.sleep(0.05)
        await handle.signal("cancel", {"reason": "enough"})
        result = await handle.result()
    assert (result.status, result.counts.succeeded, result.counts.canceled) == (BatchStatus.CANCELED, 1, 2)
    live = await house.admin.live()
    assert (live["open"], live["how"]["dropped"]) == (0, 2)


async def test_a_step_that_an_operator_pauses_sends_nothing_until_it_is_unpaused(house: House) -> None:
    async def pending(state: str) -> str:
        while True:
            description = (await handle.describe()).raw_description
            for found in description.pending_activities:
                if PendingActivityState.Name(found.state).endswith(state):
                    return found.activity_id
            await asyncio.sleep(0.1)

    async with house.worker(), asyncio.timeout(60):
        handle = await house.start(["fine", "[[sandbox:hang]]"], mode="direct")
        while (await house.admin.live())["calls"] < 2:
            await asyncio.sleep(0.05)
        activity = await pending("_STARTED")
        await pause_activity(house.client, handle.id, activity)
        await pending("_PAUSED")  # it has let go, and is not begun again
        live = await house.admin.live()
        assert (live["open"], live["calls"]) == (0, 2)
        await unpause_activity(house.client, handle.id, activity)
        while (await house.admin.live())["calls"] < 3:  # the call that was dropped
            await asyncio.sleep(0.05)
        await handle.signal("cancel", {"reason": "enough"})
        result = await handle.result()
    assert (result.counts.succeeded, result.counts.canceled, result.repeated) == (1, 1, 1)


@pytest.mark.slow  # as the one above, by another command
async def test_a_step_that_an_operator_resets_goes_on_with_the_rows_that_have_no_answer(house: House) -> None:
    async with house.worker(), asyncio.timeout(100):
        handle = await house.start(["fine", "[[sandbox:hang]]"], mode="direct")
        while (await house.admin.live())["calls"] < 2:
            await asyncio.sleep(0.05)
        activity = await pending_activity(house.client, handle.id, random.Random(1))
        assert activity is not None
        await reset_activity(house.client, handle.id, activity)
        while (await house.admin.live())["calls"] < 3:  # the call that was dropped
            await asyncio.sleep(0.05)
        await handle.signal("cancel", {"reason": "enough"})
        result = await handle.result()
    assert (result.counts.succeeded, result.counts.canceled, result.repeated) == (1, 1, 1)
    assert (await house.admin.live())["open"] == 0


async def test_the_status_says_why_no_row_is_sent_while_the_step_waits_by_itself(house: House) -> None:
    nowhere = house.settings.provider("sandbox").model_copy(update={"base_url": f"http://127.0.0.1:{free_port()}/v1"})
    house.settings = house.settings.with_provider(nowhere)
    async with house.worker():
        handle = await start(house, 2)
        while not (why := (await batch_progress(house.client, handle.id))[0].waiting_for):
            await asyncio.sleep(0.05)
        assert "connection refused" in why
        assert (await house.progress(handle)).waiting_for is None  # the workflow has not heard of it yet
        await handle.signal("cancel", {"reason": "enough"})
        await handle.result()


@pytest.mark.slow  # a worker that stops gives calls under way 10 s
async def test_the_status_never_takes_back_rows_that_are_kept_when_another_worker_goes_on(house: House) -> None:
    seen = [0]

    async def look() -> None:
        while True:
            seen.append((await batch_progress(house.client, handle.id))[0].counts.settled)
            await asyncio.sleep(0.02)

    async with house.worker():
        handle = await house.start(["fine", "fine too", "[[sandbox:hang]]"], mode="direct")
        while (await batch_progress(house.client, handle.id))[0].counts.settled < 2:
            await asyncio.sleep(0.05)
    async with house.worker():
        looking = asyncio.create_task(look())
        while (await house.admin.live())["calls"] < 4:  # the row that hung is sent again
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        looking.cancel()
        await handle.signal("cancel", {"reason": "enough"})
        assert (await handle.result()).counts.succeeded == 2
    assert set(seen[1:]) == {2}


@pytest.mark.slow  # the step waits for 20 s before the batch does
async def test_poll_now_ends_a_pause_that_the_provider_asked_for(house: House) -> None:
    await house.admin.fault("chat", "status", status=429, retry_after=3600, times=1)
    async with house.worker():
        handle = await start(house, 2)
        progress = await house.until(handle, lambda p: p.waiting_for)
        assert "the end of a pause that provider sandbox" in progress.waiting_for
        await handle.signal("poll_now")
        result = await handle.result()
    whole(house, result, 2)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("shards", [1, 2])
async def test_every_task_of_a_batch_that_has_ended_is_a_safe_place_to_reset_to(house: House, shards: int) -> None:
    """What is kept is not sent again, whichever task the batch is reset to."""

    async def one(point: int) -> int:
        handle = await start(house, 2 * shards, limits={"max_rows": 2})
        await handle.result()
        points = await reset_points(house.client, handle.id)
        await reset_workflow(house.client, handle.id, points[min(point, len(points) - 1)])
        again = house.client.get_workflow_handle(handle.id, result_type=BatchResult)
        result = await again.result()
        whole(house, result, 2 * shards)
        assert result.repeated == 0
        assert ((await house.admin.live())["repeated_unrefused"], point) == (0, point)
        return len(points)

    async with house.worker():
        tasks = await one(0)
        for point in range(1, tasks):
            await one(point)
    assert tasks >= 5
