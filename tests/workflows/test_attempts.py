"""The rows that an attempt was bought with are its rows for good, whichever run of its batch comes later (G1)."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from durabatch.contract import BatchResult, BatchStatus
from support.house import House

MODELS = {"sandbox": "gpt-4o-mini", "claude": "claude-sonnet-4-5"}
CLASSES = ["rate_limited", "server_error", "timeout", "expired", "canceled", "missing"]
#: One row is answered at once, one is busy at first, and one is refused at first.
TEXTS = [
    "[[sandbox:billed_as=a]]",
    "[[sandbox:billed_as=b]][[sandbox:rate_limited times=1]]",
    "[[sandbox:billed_as=c]][[sandbox:invalid_request times=1]]",
]


async def start(house: House, provider: str, **fields: Any) -> WorkflowHandle[Any, BatchResult]:
    return await house.start(TEXTS, provider=provider, model=MODELS[provider], **fields)


@pytest.mark.parametrize("provider", ["sandbox", "claude"])
@pytest.mark.parametrize("classes", [[*CLASSES, "invalid_request"], []])
async def test_rows_that_are_bought_a_second_time_stay_so_where_the_batch_is_started_again_with_another_policy(
    house: House, provider: str, classes: list[str]
) -> None:
    # A batch ends when it is asked for: the first attempt's at once, and the second one's not before the fault is gone.
    await house.admin.settings(finish_after_polls=0)
    await house.admin.fault("batches.retrieve", "status", status=503, skip=1)
    async with house.worker():
        handle = await start(house, provider, retry={"max_attempts": 3})
        await house.until(handle, lambda p: p.attempt == 2 and p.provider_batch_id)
        await handle.terminate()
        again = await start(house, provider, id=handle.id, retry={"max_attempts": 3, "classes": classes})
        await house.until(again, lambda p: p.attempt == 2 and p.provider_batch_id)
        await house.admin.clear()
        await again.signal("poll_now")
        result = await again.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 3 if classes else 2)
    assert [batch["rows_billed"] for batch in await house.batches()] == ([1, 1, 1] if classes else [1, 1])
    assert set((await house.admin.books())["rows"].values()) == {1}


async def test_another_day_s_attempts_allow_no_more_of_them_today(house: House) -> None:
    async with house.worker():
        first = await (await start(house, "sandbox")).result()
        texts = ["Today.", "[[sandbox:rate_limited times=9]] Today."]
        result = await (await house.start(texts, id=first.batch_id, retry={"max_attempts": 1})).result()
    assert (result.counts.succeeded, result.counts.failed) == (1, 1)
    assert [batch["rows"] for batch in await house.batches()] == [3, 1, 2]
