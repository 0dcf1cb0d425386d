"""The life of a batch on real Temporal servers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowFailureError, WorkflowHistory
from temporalio.exceptions import ApplicationError

from durabatch.contract import BatchStatus, Phase
from support.house import House


async def test_a_batch_ends_with_one_result_for_each_request_in_input_order(house: House) -> None:
    async with house.worker():
        handle = await house.start(40)
        result = await handle.result()
    assert result.status is BatchStatus.COMPLETED
    assert result.counts.total == result.counts.succeeded == 40
    rows = house.results(handle.id)
    assert [row["custom_id"] for row in rows] == [f"r{n}" for n in range(40)]
    assert all(row["status"] == "succeeded" and row["text"] and row["attempts"] == 1 for row in rows)
    assert result.usage.input_tokens == sum(row["usage"]["input_tokens"] for row in rows)
    assert (house.store / handle.id / "result.json").read_text().startswith("{")
    assert (house.store / handle.id / "errors.jsonl").read_text() == ""


async def test_a_worker_that_caches_no_workflow_replays_every_task_and_ends_the_same(house: House) -> None:
    async with house.worker(max_cached_workflows=0):
        handle = await house.start(5)
        result = await handle.result()
    assert result.counts.succeeded == 5


async def test_the_provider_holds_no_file_of_ours_when_the_batch_has_ended(house: House) -> None:
    async with house.worker():
        handle = await house.start(3)
        await handle.result()
    ledger = await house.admin.books()
    assert [file for file in ledger["files"] if file["purpose"] == "batch" and not file["deleted"]] == []


async def test_several_shards_run_as_children_and_come_back_in_order(house: House) -> None:
    async with house.worker():
        handle = await house.start(25, limits={"max_rows": 10})
        result = await handle.result()
        progress = await house.progress(handle)
    assert result.counts.succeeded == 25
    assert [batch.marker for batch in result.provider_batches] == [house.marker(handle.id, shard) for shard in range(3)]
    assert [row["custom_id"] for row in house.results(handle.id)] == [f"r{n}" for n in range(25)]
    assert (progress.shards.total, progress.shards.ended) == (3, 3)


async def test_rows_worth_another_try_get_it_and_their_last_word_wins(house: House) -> None:
    texts = [
        "fine",
        "[[sandbox:server_error times=1]] again",
        "[[sandbox:invalid_request]] never",
        "[[sandbox:skipped times=1]]",
    ]
    async with house.worker():
        handle = await house.start(texts)
        result = await handle.result()
    assert result.status is BatchStatus.COMPLETED
    assert (result.counts.succeeded, result.counts.failed) == (3, 1)
    rows = house.results(handle.id)
    assert [row["attempts"] for row in rows] == [1, 2, 1, 2]
    assert rows[2]["error"]["type"] == "invalid_request"
    assert [batch.rows for batch in result.provider_batches] == [4, 2]


async def test_a_batch_without_one_success_fails_and_still_has_its_results(house: House) -> None:
    async with house.worker():
        handle = await house.start(["[[sandbox:invalid_request]]", "[[sandbox:content_filtered]]"])
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == "BatchFailed"
    assert cause.details[0]["counts"]["failed"] == 2
    assert len(house.results(handle.id)) == 2


async def test_bad_rows_stop_the_batch_before_anything_is_submitted(house: House) -> None:
    async with house.worker():
        handle = await house.start(["good", 7, None])
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert "line 2" in caught.value.cause.message
    assert "line 3" in caught.value.cause.message
    assert await house.batches() == []


async def test_bad_rows_fail_alone_when_the_spec_says_so(house: House) -> None:
    async with house.worker():
        handle = await house.start(["good", 7, "good"], on_invalid_row="fail_row")
        result = await handle.result()
    assert (result.counts.succeeded, result.counts.failed) == (2, 1)
    rows = house.results(handle.id)
    assert [row["status"] for row in rows] == ["succeeded", "failed", "succeeded"]
    assert rows[1]["error"]["type"] == "invalid_row"


async def test_a_batch_that_the_provider_takes_a_day_for_stays_small(fast_house: House) -> None:
    # The default schedule: 15 s, then ever longer, 10 minutes at most. 140 polls are about a day.
    await fast_house.admin.settings(finish_after_polls=140)
    async with fast_house.worker():
        handle = await fast_house.start(3, poll={}, deadline="26h")
        result = await handle.result()
        history = await handle.fetch_history()
    assert result.status is BatchStatus.COMPLETED
    assert result.started_at is not None
    assert result.ended_at is not None
    assert result.ended_at - result.started_at > timedelta(hours=22)
    assert len(history.events) <= 2000
    assert _actions(history) <= 350
    assert max(event.ByteSize() for event in history.events) < 64 * 1024


def _actions(history: WorkflowHistory) -> int:
    """Count what Temporal Cloud bills: starts, timers, activity attempts, signals, children."""
    billed = {
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
        EventType.EVENT_TYPE_TIMER_STARTED,
        EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
    }
    return sum(event.event_type in billed for event in history.events)


async def test_no_row_reaches_the_history(house: House) -> None:
    secret = "the-prompt-that-must-not-travel"
    async with house.worker():
        handle = await house.start([secret, f"{secret} [[sandbox:server_error]]"])
        await handle.result()
        history = await handle.fetch_history()
    # As JSON it would be in base64, where nothing is found.
    found = b"".join(event.SerializeToString() for event in history.events)
    assert handle.id.encode() in found
    assert secret.encode() not in found
    assert b"sk-test" not in found


async def test_the_progress_tells_what_it_waits_for(house: House) -> None:
    await house.admin.settings(finish_after_polls=100)
    async with house.worker():
        handle = await house.start(3, poll={"first": "30s"})
        progress = await house.until(handle, lambda p: p.next_poll_at is not None)
        assert progress.phase is Phase.POLLING
        assert progress.provider_status_raw in ("validating", "in_progress")
        assert progress.waiting_for is not None
        assert "sandbox is working" in progress.waiting_for
        await house.admin.settings(finish_after_polls=0)
        await handle.signal("poll_now")
        result = await handle.result()
    assert result.status is BatchStatus.COMPLETED


@pytest.mark.slow
async def test_a_long_history_goes_on_in_a_new_run_and_forgets_nothing(fast_house: House) -> None:
    # 10 s polls for a day and a half would be 150,000 events; the workflow continues as new each 3,000.
    await fast_house.admin.settings(finish_after_polls=600)
    async with fast_house.worker():
        handle = await fast_house.start(3, poll={"first": "60s", "factor": 1, "maximum": "60s"})
        first_run = handle.first_execution_run_id
        result = await handle.result()
        last = await fast_house.client.get_workflow_handle(handle.id).describe()
    assert last.run_id != first_run
    assert result.status is BatchStatus.COMPLETED
    assert result.counts.succeeded == 3
    assert len(await fast_house.batches()) == 1


async def test_a_shard_whose_rows_were_all_refused_buys_nothing(house: House) -> None:
    async with house.worker():
        handle = await house.start(["good", "good", 7, 8], on_invalid_row="fail_row", limits={"max_rows": 2})
        result = await handle.result()
    assert result.status is BatchStatus.COMPLETED
    assert result.error is None
    assert (result.counts.succeeded, result.counts.failed) == (2, 2)
    assert len(await house.batches()) == 1
    assert [row["status"] for row in house.results(handle.id)] == ["succeeded", "succeeded", "failed", "failed"]


async def test_results_of_an_earlier_run_of_the_id_are_not_taken_for_this_ones(house: House) -> None:
    async with house.worker():
        await (await house.start(3, id="same")).result()
        await house.admin.fault("batches.create", "batch_outcome", outcome="failed", fraction=0, times=1)
        handle = await house.start(["other", "rows", "now"], id="same")
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert [row["status"] for row in house.results("same")] == ["failed"] * 3
