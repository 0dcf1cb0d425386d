"""A provider that does not find a batch that it runs: waited out, looked for, and given up only when it is gone."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError

from durabatch.contract import BatchResult, BatchStatus
from durabatch.workflows.decisions import LATE
from support.house import House

pytestmark = pytest.mark.slow

#: What the default page of an ingress looks like to a client.
PAGE: dict[str, Any] = {"status": 404, "message": "default backend - 404"}
PROVIDERS = ["sandbox", "claude"]
HOURLY: dict[str, Any] = {"first": "1h", "maximum": "1h", "jitter": 0}


async def run(house: House, **fields: Any) -> tuple[BatchResult, timedelta]:
    async with house.worker():
        handle = await house.start(3, **{"id": "hidden", "poll": HOURLY, "deadline": "20d", **fields})
        try:
            result = await handle.result()
        except WorkflowFailureError as error:
            result = BatchResult.model_validate(error.cause.details[0])  # type: ignore[union-attr]
    assert result.ended_at is not None and result.started_at is not None
    return result, result.ended_at - result.started_at


async def ends(house: House) -> list[tuple[str, int]]:
    return [(batch["status"], batch["rows_billed"]) for batch in await house.batches()]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_404_in_mid_batch_is_waited_out_however_long_ago_the_submit_was(
    fast_house: House, provider: str
) -> None:
    await fast_house.admin.settings(finish_after_polls=7)
    await fast_house.admin.fault("batches.retrieve", "status", **PAGE, times=1, skip=6)
    result, took = await run(fast_house, provider=provider)
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 3)
    assert took > timedelta(hours=6)
    assert await ends(fast_house) == [("completed", 3)]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_way_to_the_provider_that_answers_404_to_everything_for_hours_loses_nothing(
    fast_house: House, provider: str
) -> None:
    await fast_house.admin.settings(finish_after_polls=2)
    # The first requests go through: they submit the batch. Then the listing is not found either.
    await fast_house.admin.fault("batches.retrieve", "status", **PAGE, times=20, skip=1)
    await fast_house.admin.fault("batches.list", "status", **PAGE, times=30, skip=1 if provider == "sandbox" else 0)
    result, took = await run(fast_house, provider=provider)
    assert result.counts.succeeded == 3
    assert took > timedelta(hours=5)
    assert await ends(fast_house) == [("completed", 3)]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_batch_that_only_its_listing_shows_goes_on(fast_house: House, provider: str) -> None:
    await fast_house.admin.settings(finish_after_polls=2)
    await fast_house.admin.fault("batches.retrieve", "status", **PAGE, times=40, skip=1)
    result, took = await run(fast_house, provider=provider)
    assert result.counts.succeeded == 3
    assert took > 2 * LATE
    assert await ends(fast_house) == [("completed", 3)]


async def test_a_batch_that_neither_polls_nor_its_listing_show_is_cancelled_before_its_rows_are_bought_again(
    fast_house: House,
) -> None:
    await fast_house.admin.settings(finish_after_polls=100_000, cancel_fraction=0)
    fault = await fast_house.admin.fault("batches.retrieve", "status", **PAGE, times=16, skip=1)
    await fast_house.admin.settings(list_lag_seconds=3600)
    async with fast_house.worker():
        handle = await fast_house.start(3, id="hidden", poll=HOURLY, deadline="20d", retry={"max_attempts": 2})
        ending = asyncio.create_task(handle.result())
        while len(await fast_house.batches()) < 2:
            await asyncio.sleep(0.05)
        await fast_house.admin.clear(fault["id"])
        await fast_house.admin.settings(finish_after_polls=0)
        result = await ending
    assert result.counts.succeeded == 3
    assert await ends(fast_house) == [("cancelled", 0), ("completed", 3)]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_batch_that_is_gone_is_bought_again_and_the_result_says_what_was_tried(
    fast_house: House, provider: str
) -> None:
    await fast_house.admin.settings(finish_after_polls=100_000)
    for op in ("batches.retrieve", "batches.cancel"):
        await fast_house.admin.fault(op, "status", **PAGE)
    await fast_house.admin.settings(list_lag_seconds=3600)
    result, took = await run(fast_house, provider=provider, deadline="150m", retry={"max_attempts": 1})
    assert len(result.provider_batches) == 2
    assert took < timedelta(hours=5)  # a stop in such a row still ends it
    [message] = {row["error"]["message"] for row in fast_house.results("hidden")}
    assert "its listing does not show it, and a cancel did not reach it" in message


async def test_a_cancel_that_is_answered_with_404_is_sent_again(fast_house: House) -> None:
    await fast_house.admin.settings(finish_after_polls=100_000, cancel_fraction=0.34)
    await fast_house.admin.fault("batches.cancel", "status", **PAGE, times=5)
    result, took = await run(fast_house, deadline="90m")
    assert result.status is BatchStatus.EXPIRED
    assert (result.counts.succeeded, result.counts.expired) == (1, 2)
    assert await ends(fast_house) == [("cancelled", 1)]
    assert took < timedelta(hours=3)


async def test_a_provider_that_takes_no_cancel_is_followed_to_its_own_end(fast_house: House) -> None:
    await fast_house.admin.settings(finish_after_polls=40)
    await fast_house.admin.fault("batches.cancel", "status", **PAGE)
    result, _ = await run(fast_house, deadline="90m")
    assert result.counts.succeeded == 3
    assert await ends(fast_house) == [("completed", 3)]
