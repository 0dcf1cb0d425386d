"""An outage is only a wait (promise G4), nothing paid is thrown away (G3), and the deadline (G5's neighbour)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from durabatch.contract import BatchResult, BatchStatus
from support.house import KEY, House


async def test_an_outage_of_six_hours_is_only_a_wait(fast_house: House) -> None:
    # Four quick tries and then one wait of at most 10 minutes: 160 refused requests are more than six hours.
    await fast_house.admin.settings(finish_after_polls=3)
    async with fast_house.worker():
        handle = await fast_house.start(3, poll={})
        while not await fast_house.batches():
            await asyncio.sleep(0.02)
        await fast_house.admin.fault("*", "outage", times=170)
        result = await handle.result()
    assert result.status is BatchStatus.COMPLETED
    assert result.counts.succeeded == 3
    assert result.started_at is not None
    assert result.ended_at is not None
    assert result.ended_at - result.started_at > timedelta(hours=6)
    assert len(await fast_house.batches()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("op", ["batches.retrieve", pytest.param("files.content", marks=pytest.mark.slow)])
async def test_every_kind_of_failure_on_the_way_home_is_outlived(house: House, op: str) -> None:
    for status in (500, 502, 503, 429):
        await house.admin.fault(op, "status", status=status, times=1)
    await house.admin.fault(op, "reset", times=1)
    async with house.worker():
        handle = await house.start(3)
        while True:
            progress = await house.progress(handle)
            if progress.result:
                break
            if progress.waiting_for and "sandbox is working" not in progress.waiting_for:
                await handle.signal("poll_now")
            await asyncio.sleep(0.1)
        result = await handle.result()
    assert result.counts.succeeded == 3
    assert len(await house.batches()) == 1


async def test_a_download_that_breaks_off_is_never_taken_for_the_whole(house: House) -> None:
    await house.admin.fault("files.content", "truncate", fraction=0.4, times=3)
    async with house.worker():
        handle = await house.start(200)
        result = await handle.result()
    assert result.counts.succeeded == 200
    assert len(house.results(handle.id)) == 200


async def test_a_key_that_is_refused_after_the_submit_blocks_visibly_and_recovers(house: House) -> None:
    await house.admin.settings(finish_after_polls=1000)
    async with house.worker():
        handle = await house.start(3)
        await house.until(handle, lambda p: p.provider_batch_id)
        await house.admin.revoke(KEY)
        await handle.signal("poll_now")
        progress = await house.until(handle, lambda p: p.waiting_for and "refuses the key" in p.waiting_for)
        assert KEY not in progress.model_dump_json()
        await house.admin.restore(KEY)
        await house.admin.settings(finish_after_polls=0)
        await handle.signal("poll_now")
        result = await handle.result()
    assert result.counts.succeeded == 3


async def test_a_batch_that_the_provider_does_not_show_yet_is_only_late(house: House) -> None:
    await house.admin.fault("batches.retrieve", "status", status=404, times=1)
    async with house.worker():
        handle = await house.start(3)
        await house.until(handle, lambda p: p.waiting_for and "does not find its batch" in p.waiting_for)
        await handle.signal("poll_now")
        result = await handle.result()
    assert result.counts.succeeded == 3
    assert len(await house.batches()) == 1


async def test_a_batch_that_the_provider_lost_is_submitted_again_after_an_hour(fast_house: House) -> None:
    # While it is not found, waits are 5 s, 10 s, … 10 minutes: 14 answers of 404 are an hour. Its listing does not show
    # it either, and a cancel is the last that is tried.
    await fast_house.admin.settings(list_lag_seconds=3600)
    for op, times in (("batches.retrieve", 15), ("batches.cancel", 1)):
        await fast_house.admin.fault(op, "status", status=404, times=times)
    async with fast_house.worker():
        handle = await fast_house.start(3, poll={}, retry={"max_attempts": 1})
        result = await handle.result()
    assert result.counts.succeeded == 3
    assert [batch.marker.rpartition("/")[2] for batch in result.provider_batches] == ["1", "2"]


async def test_an_expired_provider_batch_keeps_what_it_finished_and_the_rest_goes_on(house: House) -> None:
    await house.admin.fault("batches.create", "batch_outcome", outcome="expired", fraction=0.5, times=1)
    async with house.worker():
        handle = await house.start(10)
        result = await handle.result()
    assert result.status is BatchStatus.COMPLETED
    assert result.counts.succeeded == 10
    assert sorted({row["attempts"] for row in house.results(handle.id)}) == [1, 2]
    billed = (await house.admin.books())["rows"]
    assert set(billed.values()) == {1}


async def test_rows_that_expire_to_the_last_are_told_as_expired(house: House) -> None:
    await house.admin.fault("batches.create", "batch_outcome", outcome="expired", fraction=0.5, times=2)
    async with house.worker():
        handle = await house.start(8, retry={"max_attempts": 2})
        result = await handle.result()
    assert result.status is BatchStatus.EXPIRED
    assert (result.counts.succeeded, result.counts.expired) == (6, 2)


async def test_partial_results_of_a_batch_cancelled_at_the_provider_are_kept(house: House) -> None:
    await house.admin.fault("batches.create", "batch_outcome", outcome="cancelled", fraction=0.5, times=1)
    async with house.worker():
        handle = await house.start(10, retry={"max_attempts": 1})
        result = await handle.result()
    assert (result.counts.succeeded, result.counts.canceled) == (5, 5)
    assert result.status is BatchStatus.CANCELED


async def test_a_batch_that_the_provider_refuses_whole_says_why(house: House) -> None:
    await house.admin.fault("batches.create", "batch_outcome", outcome="failed", fraction=0, times=1)
    async with house.worker():
        handle = await house.start(3)
        with pytest.raises(Exception, match="Workflow execution failed"):
            await handle.result()
        progress = await house.progress(handle)
    assert progress.result is not None
    assert progress.result.status is BatchStatus.FAILED
    assert "invalid_request" in (progress.result.error or "")
    assert all("refused the batch" in row["error"]["message"] for row in house.results(handle.id))


@pytest.mark.slow
async def test_at_the_deadline_finished_rows_are_kept_and_the_others_expire(fast_house: House) -> None:
    await fast_house.admin.settings(finish_after_polls=100_000, cancel_fraction=0.5, cancel_polls=3)
    async with fast_house.worker():
        handle = await fast_house.start(10, poll={}, deadline="26h")
        result = await handle.result()
    assert result.status is BatchStatus.EXPIRED
    assert (result.counts.succeeded, result.counts.expired) == (5, 5)
    assert result.started_at is not None
    assert result.ended_at is not None
    assert timedelta(hours=26) <= result.ended_at - result.started_at < timedelta(hours=27)
    assert [batch["status"] for batch in await fast_house.batches()] == ["cancelled"]


@pytest.mark.slow
async def test_at_the_deadline_rows_are_submitted_again_where_the_spec_says_so(fast_house: House) -> None:
    await fast_house.admin.settings(finish_after_polls=300, cancel_fraction=0.5)
    async with fast_house.worker():
        handle = await fast_house.start(10, poll={}, deadline="26h", retry={"max_attempts": 2, "after_deadline": True})
        ending = asyncio.create_task(handle.result())  # time is skipped only while somebody waits for the end
        await fast_house.until(handle, lambda p: p.attempt == 2)
        await fast_house.admin.settings(finish_after_polls=2)
        result = await ending
    assert result.status is BatchStatus.COMPLETED
    assert result.counts.succeeded == 10
    assert [batch.rows for batch in result.provider_batches] == [10, 5]


@pytest.mark.slow
@pytest.mark.parametrize("op", ["files.create", "batches.create"])
async def test_rows_that_could_not_be_submitted_before_the_deadline_are_bought_once_where_it_is_renewed(
    house: House, op: str
) -> None:
    await house.admin.settings(finish_after_polls=100_000)
    outage = await house.admin.fault(op, "reset")  # of a create, it leaves a doubt
    wanted: dict[str, Any] = {"deadline": "3s", "retry": {"max_attempts": 20, "after_deadline": True}}
    async with house.worker():
        first = await house.start(3, **wanted)
        deadline = (await house.progress(first)).deadline_at
        await house.until(first, lambda p: p.deadline_at != deadline)
        await house.admin.clear(outage["id"])
        await first.signal("poll_now")
        await house.until(first, lambda p: p.provider_batch_id)
        # Whoever comes later looks for the first attempt before any other, and finds it.
        await first.terminate("an operator's mistake")
        await house.admin.settings(finish_after_polls=0)
        result = await (await house.start(3, id=first.id, **wanted)).result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 3)
    assert [row["attempts"] for row in house.results(first.id)] == [1, 1, 1]
    ledger = await house.admin.books()
    assert [batch["rows_billed"] for batch in ledger["batches"]] == [3]


async def test_a_batch_that_ended_just_before_the_deadline_is_not_cancelled(fast_house: House) -> None:
    # Polls after 20 and 40 hours find it unfinished; the look at the deadline, before anything is cancelled, does not.
    await fast_house.admin.settings(finish_after_polls=2)
    async with fast_house.worker():
        handle = await fast_house.start(3, poll={"first": "20h", "maximum": "20h", "jitter": 0}, deadline="55h")
        result = await handle.result()
    assert result.status is BatchStatus.COMPLETED
    assert [batch["status"] for batch in await fast_house.batches()] == ["completed"]


@pytest.mark.slow
async def test_a_key_that_is_broken_for_days_does_not_fill_the_history(fast_house: House) -> None:
    # Refused looks are 10 minutes apart: 600 of them are four days, and more events than one run may have.
    await fast_house.admin.settings(finish_after_polls=1)
    async with fast_house.worker():
        handle = await fast_house.start(3, poll={}, deadline="26h")
        while not await fast_house.batches():
            await asyncio.sleep(0.02)
        await fast_house.admin.fault("*", "status", status=401, times=600)
        result = await handle.result()
        last = await fast_house.client.get_workflow_handle(handle.id).fetch_history()
    assert last.run_id != handle.first_execution_run_id
    assert len(last.events) <= 4000
    assert result.counts.total == 3
    assert len(await fast_house.batches()) == 1


async def test_a_cancel_is_heard_while_a_provider_asks_for_an_hour_of_silence(house: House) -> None:
    await house.admin.settings(finish_after_polls=1000, cancel_fraction=0.34)
    async with house.worker():
        handle = await house.start(3)
        await house.until(handle, lambda p: p.provider_batch_id)
        await house.admin.fault("batches.retrieve", "status", status=429, retry_after=3600, times=1)
        await handle.signal("poll_now")
        await house.until(handle, lambda p: p.waiting_for and "429" in p.waiting_for)
        await handle.signal("cancel")
        result = await handle.result()
    assert result.status is BatchStatus.CANCELED
    assert result.counts.succeeded == 1


async def test_a_cancel_is_heard_while_a_provider_asks_for_silence_after_a_create_without_answer(house: House) -> None:
    await house.admin.settings(finish_after_polls=1000, cancel_fraction=0.34)
    await house.admin.fault("batches.create", "lost_answer_status", status=503, retry_after=3600, times=1)
    async with house.worker():
        handle = await house.start(3)
        await house.until(handle, lambda p: p.waiting_for and "may exist" in p.waiting_for)
        await handle.signal("cancel")
        result = await handle.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.CANCELED, 1)


@pytest.mark.slow
async def test_a_key_that_stays_broken_ends_the_batch_and_buys_nothing_again(fast_house: House) -> None:
    await fast_house.admin.settings(finish_after_polls=100_000)
    async with fast_house.worker():
        handle = await fast_house.start(
            3, deadline="10m", poll={"first": "1m", "maximum": "5m"}, retry={"max_attempts": 3, "after_deadline": True}
        )
        while not await fast_house.batches():
            await asyncio.sleep(0.02)
        await fast_house.admin.revoke(KEY)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    # A week past its deadline it gives up. Its rows may have run, so they are never sent a second time.
    assert isinstance(caught.value.cause, ApplicationError)
    result = BatchResult.model_validate(caught.value.cause.details[0])
    assert result.ended_at is not None and result.started_at is not None
    assert result.ended_at - result.started_at > timedelta(days=7)
    assert result.counts.failed == 3
    rows = fast_house.results(handle.id)
    assert {row["error"]["type"] for row in rows} == {"missing"}
    assert "could not be followed to its end" in rows[0]["error"]["message"]
    await fast_house.admin.restore(KEY)
    assert len(await fast_house.batches()) == 1
