"""A provider batch that has ended, and whose results come later, in part, or never (promises G1 and G3)."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError

from durabatch.contract import BatchResult, BatchStatus
from durabatch.workflows.decisions import BRIEF, GONE, LATE
from support.house import House

pytestmark = pytest.mark.slow

#: By provider: what hides its results from a batch that has ended, and where they are fetched from.
HIDDEN = {
    "sandbox": ({"/output_file_id": None, "/error_file_id": None}, "files.content"),
    "claude": ({"/results_url": None}, "batches.results"),
}
FEW_POLLS: dict[str, Any] = {"first": "10m", "maximum": "10m", "jitter": 0}


async def run(house: House, rows: Any = 3, **fields: Any) -> tuple[BatchResult, timedelta]:
    """Run a batch to its end; return its result and how long it took."""
    handle = await house.start(rows, **{"id": "late", "poll": FEW_POLLS, **fields})
    try:
        result = await handle.result()
    except WorkflowFailureError as error:
        result = BatchResult.model_validate(error.cause.details[0])  # type: ignore[union-attr]
    assert result.ended_at is not None and result.started_at is not None
    return result, result.ended_at - result.started_at


async def bought(house: House) -> list[int]:
    """Return the rows of each provider batch that were billed, and see that none was billed twice."""
    ledger = await house.admin.books()
    assert set(ledger["rows"].values()) <= {1}
    return [batch["rows_billed"] for batch in ledger["batches"]]


@pytest.mark.parametrize("provider", HIDDEN)
@pytest.mark.parametrize("late", [1, 5])
async def test_results_that_are_named_after_the_end_are_waited_for(fast_house: House, provider: str, late: int) -> None:
    hidden, _ = HIDDEN[provider]
    await fast_house.admin.fault("batches.retrieve", "override", put=hidden, times=5)
    async with fast_house.worker():
        result, _ = await run(fast_house, provider=provider)
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 3)
    assert await bought(fast_house) == [3]


async def test_a_wait_for_results_says_so(house: House) -> None:
    hidden, _ = HIDDEN["sandbox"]
    await house.admin.fault("batches.retrieve", "override", put=hidden)
    async with house.worker():
        handle = await house.start(3)
        words = "counts 3 finished rows and names no results yet; asking again"
        await house.until(handle, lambda p: p.waiting_for and words in p.waiting_for)
        await house.admin.clear()
        await handle.signal("poll_now")
        result = await handle.result()
    assert result.counts.succeeded == 3


@pytest.mark.parametrize("first", ["output", "error"])
async def test_of_two_files_that_are_named_one_after_the_other_both_are_fetched(fast_house: House, first: str) -> None:
    other = {"output": "error", "error": "output"}[first]
    await fast_house.admin.fault("batches.retrieve", "override", put={f"/{other}_file_id": None}, times=3)
    async with fast_house.worker():
        result, _ = await run(fast_house, ["fine", "[[sandbox:invalid_request]]", "fine too"])
    assert (result.counts.succeeded, result.counts.failed) == (2, 1)
    assert [row["attempts"] for row in fast_house.results("late")] == [1, 1, 1]
    assert fast_house.results("late")[1]["error"]["type"] == "invalid_request"
    assert await bought(fast_house) == [2]


@pytest.mark.parametrize("counts", [None, {}, {"total": 3, "completed": 0, "failed": 0}])
async def test_results_of_a_provider_that_counts_late_or_never_are_waited_for(fast_house: House, counts: Any) -> None:
    hidden = {**HIDDEN["sandbox"][0], "/request_counts": counts}
    await fast_house.admin.fault("batches.retrieve", "override", put=hidden, times=3)
    async with fast_house.worker():
        result, _ = await run(fast_house)
    assert result.counts.succeeded == 3
    assert await bought(fast_house) == [3]


@pytest.mark.parametrize("provider", HIDDEN)
async def test_results_that_come_short_are_fetched_again(fast_house: House, provider: str) -> None:
    _, content = HIDDEN[provider]
    await fast_house.admin.fault(content, "override", body='{"custom_id":"stranger"}\n', times=2)
    async with fast_house.worker():
        result, _ = await run(fast_house, provider=provider)
    assert result.counts.succeeded == 3
    assert await bought(fast_house) == [3]


@pytest.mark.parametrize("provider", HIDDEN)
async def test_rows_that_are_counted_and_never_come_back_are_not_bought_again(fast_house: House, provider: str) -> None:
    hidden, _ = HIDDEN[provider]
    await fast_house.admin.fault("batches.retrieve", "override", put=hidden)
    async with fast_house.worker():
        result, took = await run(fast_house, provider=provider)
    assert (result.status, result.counts.failed) == (BatchStatus.FAILED, 3)
    assert LATE <= took < LATE + timedelta(minutes=45)
    assert await bought(fast_house) == [3]
    errors = [row["error"] for row in fast_house.results("late")]
    assert {error["type"] for error in errors} == {"missing"}
    assert "names no results yet; what it may have billed is not bought again." in errors[0]["message"]


@pytest.mark.parametrize("provider", HIDDEN)
async def test_of_rows_of_which_some_come_back_the_others_are_not_bought_again(
    fast_house: House, provider: str
) -> None:
    async with fast_house.worker():
        result, _ = await run(fast_house, ["fine", "[[sandbox:missing]]", "fine"], provider=provider)
    assert (result.counts.succeeded, result.counts.failed) == (2, 1)
    assert await bought(fast_house) == [3]


async def test_rows_that_the_provider_does_not_count_are_bought(fast_house: House) -> None:
    async with fast_house.worker():
        result, took = await run(fast_house, ["fine", "[[sandbox:skipped times=1]]", "fine"])
    assert result.counts.succeeded == 3
    assert await bought(fast_house) == [2, 1]
    assert took < LATE  # there was nothing to wait for


async def test_a_batch_without_counts_and_files_is_waited_for_briefly_and_not_bought_again(fast_house: House) -> None:
    hidden = {**HIDDEN["sandbox"][0], "/request_counts": None}
    await fast_house.admin.fault("batches.retrieve", "override", put=hidden)
    async with fast_house.worker():
        result, took = await run(fast_house)
    assert result.counts.failed == 3
    assert BRIEF <= took < LATE
    assert await bought(fast_house) == [3]


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
async def test_a_batch_that_ran_nothing_is_not_waited_for(fast_house: House, status: str) -> None:
    await fast_house.admin.fault("batches.create", "batch_outcome", outcome=status, fraction=0, times=1)
    nothing = {**HIDDEN["sandbox"][0], "/request_counts": {"total": 3, "completed": 0, "failed": 0}}
    await fast_house.admin.fault("batches.retrieve", "override", put=nothing, times=1)
    async with fast_house.worker():
        result, took = await run(fast_house)
    assert took < timedelta(minutes=30)
    assert await bought(fast_house) == ([0] if status == "failed" else [0, 3])
    assert result.counts.succeeded == (0 if status == "failed" else 3)


async def test_a_stop_shortens_the_wait_for_results(fast_house: House) -> None:
    hidden, _ = HIDDEN["sandbox"]
    await fast_house.admin.fault("batches.retrieve", "override", put=hidden)
    async with fast_house.worker():
        result, took = await run(fast_house, deadline="25m")
    assert result.counts.failed == 3
    assert timedelta(minutes=25) <= took < timedelta(minutes=40)
    assert await bought(fast_house) == [3]


@pytest.mark.parametrize("provider", HIDDEN)
async def test_results_that_are_not_found_for_a_while_are_waited_for(fast_house: House, provider: str) -> None:
    _, content = HIDDEN[provider]
    await fast_house.admin.fault(content, "status", status=404, times=8, message="default backend - 404")
    async with fast_house.worker():
        result, _ = await run(fast_house, provider=provider)
    assert result.counts.succeeded == 3
    assert await bought(fast_house) == [3]


@pytest.mark.parametrize("provider", HIDDEN)
async def test_results_that_are_gone_are_given_up_after_a_day_and_not_bought_again(
    fast_house: House, provider: str
) -> None:
    _, content = HIDDEN[provider]
    await fast_house.admin.fault(content, "status", status=404, message="No such file.")
    async with fast_house.worker():
        _, took = await run(fast_house, provider=provider)
    assert GONE <= took < GONE + timedelta(hours=1)
    assert await bought(fast_house) == [3]
    messages = {row["error"]["message"] for row in fast_house.results("late")}
    assert len(messages) == 1 and "were not found: Provider" in (message := messages.pop()), messages
    assert "404: No such file." in message and "What is paid is not bought again." in message
    assert Counter(row["error"]["type"] for row in fast_house.results("late")) == {"missing": 3}


async def test_where_one_of_two_files_is_gone_the_other_one_is_kept(fast_house: House) -> None:
    await fast_house.admin.fault("files.content", "status", status=404, message="No such file.", times=1)
    rows = ["fine", "[[sandbox:invalid_request]]"]
    async with fast_house.worker():
        handle = await fast_house.start(rows, id="late", poll=FEW_POLLS)
        error = fast_house.store / "late" / "shards" / "00000" / "attempt-1" / "error.jsonl"
        result = await handle.result()
    assert error.exists()
    assert (result.counts.succeeded, result.counts.failed) == (1, 1)
