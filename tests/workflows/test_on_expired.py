"""`retry.on_expired = "direct"`: the ordinary endpoint finishes what a provider batch or the deadline left over."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from durabatch.contract import BatchResult, BatchStatus, ProviderStatus
from support.house import House
from support.operator import reset_points, reset_workflow

DIRECTLY: dict[str, Any] = {"retry": {"on_expired": "direct"}}
SLOW = {"finish_after_polls": 100_000, "cancel_fraction": 0.5}


async def expire(house: House, fraction: float = 0.5) -> None:
    await house.admin.fault("batches.create", "batch_outcome", outcome="expired", fraction=fraction, times=1)


def modes(house: House, batch_id: str) -> Counter[str]:
    rows = house.results(batch_id)
    assert [row["custom_id"] for row in rows] == [f"r{n}" for n in range(len(rows))]
    assert all((row["provider_batch_id"] is None) == (row["mode"] != "batch") for row in rows)
    return Counter(f"{row['mode']} {row['status']}" for row in rows)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_what_an_expired_provider_batch_left_over_is_finished_directly(house: House, attempts: int) -> None:
    await expire(house)
    async with house.worker():
        handle = await house.start(6, retry={"on_expired": "direct", "max_attempts": attempts})
        result = await handle.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 6)
    assert modes(house, handle.id) == {"batch succeeded": 3, "direct succeeded": 3}
    assert [batch.status for batch in result.provider_batches] == [ProviderStatus.EXPIRED]
    assert result.direct is not None
    assert result.cost_usd is not None
    assert result.list_cost_usd is not None
    paid, listed, direct = (
        Decimal(usd or "0") for usd in (result.cost_usd, result.list_cost_usd, result.direct.cost_usd)
    )
    assert result.direct.rows == 3
    assert paid == (listed - direct) / 2 + direct
    assert (await house.admin.live())["calls"] == 3


async def test_it_is_not_finished_directly_where_that_exceeds_max_cost_usd(house: House) -> None:
    await expire(house, 0.0)
    async with house.worker():
        # 6 rows of 1,000 bytes: some 280 tokens each at 0.15 USD a million, and half of that as a batch.
        handle = await house.start(["word " * 200] * 6, **DIRECTLY, max_cost_usd="0.0002")
        result = await handle.result()
    assert (result.status, result.counts.expired) == (BatchStatus.EXPIRED, 6)
    assert result.error is not None
    assert result.error.startswith("6 rows were left over and not finished directly")
    assert (await house.admin.live())["calls"] == 0


async def test_what_is_not_done_when_the_deadline_comes_near_is_finished_directly(fast_house: House) -> None:
    house = fast_house
    await house.admin.settings(**SLOW)
    async with house.worker():
        handle = await house.start(6, **DIRECTLY, poll={}, deadline="26h")
        result = await handle.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 6)
    assert modes(house, handle.id) == {"batch succeeded": 3, "direct succeeded": 3}
    assert result.started_at is not None
    assert result.ended_at is not None
    assert timedelta(hours=24) <= result.ended_at - result.started_at < timedelta(hours=26)


@pytest.mark.parametrize("dear", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_rows_that_could_not_be_submitted_by_then_are_run_directly_if_they_are_not_too_dear(
    fast_house: House, dear: bool
) -> None:
    house = fast_house
    await house.admin.fault("batches.create", "status", status=503)
    more = {"max_cost_usd": "0.0002"} if dear else {}
    async with house.worker():
        handle = await house.start(["word " * 200] * 6, **DIRECTLY, poll={}, deadline="40m", **more)
        result = await handle.result()
    if dear:
        assert (result.status, result.counts.expired) == (BatchStatus.EXPIRED, 6)
    else:
        assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 6)
        assert modes(house, handle.id) == {"direct succeeded": 6}
    assert (await house.admin.live())["calls"] == (0 if dear else 6)
    books = await house.admin.books()
    assert [file["filename"] for file in books["files"] if not file["deleted"]] == []


@pytest.mark.slow  # its deadline comes near after half a minute
@pytest.mark.parametrize("again", ["reset", "start"])
async def test_rows_that_were_run_directly_are_not_bought_as_a_provider_batch_by_another_run(
    house: House, again: str
) -> None:
    await house.admin.fault("batches.create", "status", status=429)
    rows = ["fine", "fine too", "[[sandbox:hang]]"]
    async with house.worker(), asyncio.timeout(150):
        handle = await house.start(rows, **DIRECTLY, poll={}, deadline="40s")
        while not list(house.store.rglob("kept/*.jsonl")):
            await asyncio.sleep(0.1)
        await house.admin.clear()
        points = await reset_points(house.client, handle.id)
        if again == "reset":
            await reset_workflow(house.client, handle.id, points[1])
        else:
            await handle.terminate()
            await house.start(rows, **DIRECTLY, poll={}, deadline="10m", id=handle.id)
        while (await house.admin.live())["calls"] < 4 and not await house.batches():
            await asyncio.sleep(0.1)
        handle = house.client.get_workflow_handle(handle.id, result_type=BatchResult)
        await handle.signal("cancel", {"reason": "enough"})
        result = await handle.result()
    assert (await house.batches(), result.counts.succeeded, result.repeated) == ([], 2, 1)


async def test_a_provider_that_is_not_to_finish_directly_buys_another_provider_batch(house: House) -> None:
    await expire(house)
    async with house.worker():
        result = await (await house.start(6)).result()
    assert (result.counts.succeeded, len(result.provider_batches), result.direct) == (6, 2, None)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_every_task_of_it_is_a_safe_place_to_reset_to(house: House) -> None:
    async def one(point: int) -> int:
        await expire(house)
        handle = await house.start(4, **DIRECTLY)
        await handle.result()
        before = (await house.admin.books())["live"]["billed"], len(await house.batches())
        points = await reset_points(house.client, handle.id)
        await reset_workflow(house.client, handle.id, points[min(point, len(points) - 1)])
        again = house.client.get_workflow_handle(handle.id, result_type=BatchResult)
        result = await again.result()
        assert (result.counts.succeeded, modes(house, handle.id)) == (4, {"batch succeeded": 2, "direct succeeded": 2})
        assert ((await house.admin.books())["live"]["billed"], len(await house.batches()), point) == (*before, point)
        return len(points)

    async with house.worker():
        tasks = await one(0)
        for point in range(1, tasks):
            await one(point)
    assert tasks >= 8
