"""Paid once (promise G1): whatever becomes of a create's answer, there is one provider batch for each marker."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from anthropic import Anthropic
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from durabatch.contract import BatchResult, BatchStatus
from durabatch.workers import Settings
from support.house import KEY, House


async def billed_once(house: House) -> None:
    ledger = await house.admin.books()
    assert len(ledger["batches"]) == 1
    assert set(ledger["rows"].values()) == {1}


async def reset_to_the_start(house: House, handle: WorkflowHandle[Any, Any]) -> None:
    """Do what `temporal workflow reset --type FirstWorkflowTask` does."""
    history = await handle.fetch_history()
    first_task = next(e for e in history.events if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
    await house.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            reason="an operator's wish",
            workflow_task_finish_event_id=first_task.event_id,
            request_id=uuid.uuid4().hex,
        )
    )


@pytest.mark.parametrize(
    ("kind", "options"),
    [("lost_answer", {}), ("lost_answer_status", {"status": 500}), ("lost_answer_status", {"status": 503})],
)
async def test_a_create_whose_answer_is_lost_is_found_and_adopted(
    house: House, kind: str, options: dict[str, int]
) -> None:
    await house.admin.fault("batches.create", kind, times=1, **options)
    async with house.worker():
        handle = await house.start(3)
        result = await handle.result()
    assert result.status is BatchStatus.COMPLETED
    assert [batch.adopted for batch in result.provider_batches] == [True]
    await billed_once(house)


async def test_a_create_that_never_arrived_is_made_again_with_another_file(house: House) -> None:
    await house.admin.fault("batches.create", "reset", times=1)
    async with house.worker():
        handle = await house.start(3)
        result = await handle.result()
    assert result.counts.succeeded == 3
    await billed_once(house)
    ledger = await house.admin.books()
    names = [file["filename"] for file in ledger["files"] if file["purpose"] == "batch"]
    assert sorted(name.rpartition("~")[2] for name in names) == ["g1.jsonl", "g2.jsonl"]


async def test_a_create_that_is_refused_for_now_after_one_that_never_arrived_uploads_no_more(house: House) -> None:
    await house.admin.fault("batches.create", "reset", times=1)
    await house.admin.fault("batches.create", "status", status=429, times=3)
    async with house.worker():
        handle = await house.start(3)
        while (await house.admin.books(summary=True))["requests"].get("batches.create", 0) < 5:
            if not (await house.progress(handle)).result:
                await handle.signal("poll_now")
            await asyncio.sleep(0.2)
        result = await handle.result()
    assert result.counts.succeeded == 3
    await billed_once(house)
    names = [file["filename"] for file in (await house.admin.books())["files"] if file["purpose"] == "batch"]
    assert sorted(name.rpartition("~")[2] for name in names) == ["g1.jsonl", "g2.jsonl"]


async def test_a_batch_that_a_listing_shows_late_is_still_found(house: House) -> None:
    await house.admin.settings(list_lag_seconds=0.6)  # the house's listing_lag is 1 s
    await house.admin.fault("batches.create", "lost_answer", times=1)
    async with house.worker():
        handle = await house.start(3)
        result = await handle.result()
    assert result.counts.succeeded == 3
    await billed_once(house)


async def test_an_upload_whose_answer_is_lost_is_found_rather_than_orphaned(house: House) -> None:
    await house.admin.fault("files.create", "lost_answer", times=2)
    async with house.worker():
        handle = await house.start(3)
        await handle.result()
    ledger = await house.admin.books()
    files = [file for file in ledger["files"] if file["purpose"] == "batch"]
    assert len(files) == 1
    assert files[0]["deleted"]


async def test_a_create_that_is_still_on_its_way_when_another_worker_takes_over_buys_nothing(house: House) -> None:
    # The zombie: its request is held before it takes effect, given up, made again, and then it arrives after all.
    fault = await house.admin.fault("batches.create", "hold_before", times=1)
    async with house.worker():
        handle = await house.start(3)
        while (await house.admin.books(summary=True))["requests"].get("batches.create", 0) < 2:
            await asyncio.sleep(0.1)
        await house.admin.clear(fault["id"])
        result = await handle.result()
    assert result.counts.succeeded == 3
    ledger = await house.admin.books()
    assert set(ledger["rows"].values()) == {1}
    # The late one was taken, found its file gone, and ran nothing.
    assert sorted((batch["status"], batch["rows_billed"]) for batch in ledger["batches"]) == [
        ("completed", 3),
        ("failed", 0),
    ]


async def test_a_reset_to_before_the_submit_adopts_what_was_paid_for(house: House) -> None:
    async with house.worker():
        handle = await house.start(3)
        await handle.result()
        await reset_to_the_start(house, handle)
        again = await house.client.get_workflow_handle(handle.id, result_type=BatchResult).result()
    assert again.counts.succeeded == 3
    assert again.provider_batches[0].adopted
    await billed_once(house)


async def test_a_reset_after_the_end_adopts_what_was_paid_for_though_other_rows_lie_there_by_now(house: House) -> None:
    async with house.worker():
        handle = await house.start(3)
        first = await handle.result()
        (house.store / "in" / f"{handle.id}.jsonl").write_text('{"custom_id": "other", "input": "Other."}\n')
        await reset_to_the_start(house, handle)
        again = await house.client.get_workflow_handle(handle.id, result_type=BatchResult).result()
    assert again.counts == first.counts
    assert [row["custom_id"] for row in house.results(handle.id)] == ["r0", "r1", "r2"]
    await billed_once(house)


async def test_a_cancel_that_comes_after_a_reset_and_before_the_plan_still_reaches_the_provider(house: House) -> None:
    await house.admin.settings(finish_after_polls=100_000, cancel_fraction=0.34)
    async with house.worker():
        handle = await house.start(3)
        await house.until(handle, lambda p: p.provider_batch_id)
    await reset_to_the_start(house, handle)
    again = house.client.get_workflow_handle(handle.id, result_type=BatchResult)
    await again.signal("cancel")
    async with house.worker():
        result = await again.result()
    assert result.status is BatchStatus.CANCELED
    assert (result.counts.succeeded, result.counts.canceled) == (1, 2)
    assert [batch["status"] for batch in await house.batches()] == ["cancelled"]


async def test_a_second_run_of_the_same_id_pays_nothing(house: House) -> None:
    async with house.worker():
        first = await (await house.start(3)).result()
        second = await (await house.start(3, id=first.batch_id)).result()
    assert first.provider_batches[0].id == second.provider_batches[0].id
    await billed_once(house)


@pytest.mark.slow
async def test_the_same_id_with_other_rows_is_another_batch(house: House) -> None:
    # Temporal forgets closed workflows after their retention; an id that comes again with new rows must not be given
    # the old ones' results.
    async with house.worker():
        first = await (await house.start(3)).result()
        result = await (await house.start(["new", "rows"], id=first.batch_id)).result()
    assert result.counts.total == result.counts.succeeded == 2
    assert len(await house.batches()) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_hopeless_answer_before_anything_is_submitted_fails_at_once(house: House, status: int) -> None:
    await house.admin.fault("batches.create", "status", status=status)
    async with house.worker():
        handle = await house.start(3)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    assert str(status) in cause.message
    assert cause.details[0]["counts"] == {"total": 3, "succeeded": 0, "failed": 3, "canceled": 0, "expired": 0}
    assert KEY not in cause.message


@pytest.mark.parametrize("status", [429, 503])
async def test_a_provider_that_is_busy_is_waited_for(house: House, status: int) -> None:
    await house.admin.fault("batches.create", "status", status=status, times=1, retry_after=1)
    async with house.worker():
        handle = await house.start(3)
        result = await handle.result()
    assert result.counts.succeeded == 3
    await billed_once(house)


async def test_a_queue_without_room_is_waited_for_and_uses_up_no_attempt(house: House) -> None:
    await house.admin.settings(enqueued_token_limit=1)
    async with house.worker():
        handle = await house.start(3, retry={"max_attempts": 1})
        progress = await house.until(handle, lambda p: p.waiting_for and "no room" in p.waiting_for)
        assert progress.next_poll_at is not None
        await house.admin.settings(enqueued_token_limit=None)
        await handle.signal("poll_now")
        result = await handle.result()
    assert result.counts.succeeded == 3
    assert [row["attempts"] for row in house.results(handle.id)] == [1, 1, 1]


async def test_another_account_never_gets_to_see_the_batch(house: House) -> None:
    await house.admin.settings(finish_after_polls=1000)
    async with house.worker():
        handle = await house.start(3)
        await house.until(handle, lambda p: p.provider_batch_id)
    asked = (await house.admin.books(summary=True))["requests"].get("batches.retrieve", 0)
    right = house.settings
    assert right.source is not None
    house.settings = Settings.load(right.source, {"KEY": "sk-another-account"})
    async with house.worker():
        await handle.signal("poll_now")
        progress = await house.until(handle, lambda p: p.waiting_for and "belongs to account" in p.waiting_for)
        assert "also_accounts" in (progress.waiting_for or "")
    assert (await house.admin.books(summary=True))["requests"].get("batches.retrieve", 0) == asked
    house.settings = right
    await house.admin.settings(finish_after_polls=0)
    async with house.worker():
        await handle.signal("poll_now")
        result = await handle.result()
    assert result.counts.succeeded == 3


@pytest.mark.parametrize("provider", ["sandbox", "claude"])
async def test_a_run_for_another_account_does_not_buy_what_an_earlier_run_bought(house: House, provider: str) -> None:
    await house.admin.settings(finish_after_polls=1000)
    async with house.worker():
        first = await house.start(3, provider=provider, model="claude-sonnet-4-5")
        await house.until(first, lambda p: p.provider_batch_id)
    await first.terminate("the key is changed")
    right = house.settings
    assert right.source is not None
    house.settings = Settings.load(right.source, {"KEY": "sk-another-account"})
    async with house.worker():
        second = await house.start(3, id=first.id, provider=provider, model="claude-sonnet-4-5")
        await house.until(second, lambda p: p.waiting_for and "belongs to account" in p.waiting_for)
    # It is waited out, because something is bought: the operator restores the key, and the run takes what is there.
    house.settings = right
    await house.admin.settings(finish_after_polls=0)
    async with house.worker():
        await second.signal("poll_now")
        result = await second.result()
    assert result.counts.succeeded == 3
    assert [batch.adopted for batch in result.provider_batches] == [True]
    await billed_once(house)


async def test_a_key_that_was_refused_leaves_nothing_behind_that_a_right_one_stumbles_over(house: House) -> None:
    await house.admin.revoke(KEY)
    async with house.worker():
        first = await house.start(3)
        with pytest.raises(WorkflowFailureError):
            await first.result()
    assert house.settings.source is not None
    house.settings = Settings.load(house.settings.source, {"KEY": "sk-the-right-one"})
    async with house.worker():
        result = await (await house.start(3, id=first.id)).result()
    assert result.counts.succeeded == 3


# --- Anthropic: no marker to search for, no file to fence with ---


async def test_an_anthropic_batch_whose_answer_is_lost_is_adopted_and_verified_by_its_ids(house: House) -> None:
    await house.admin.fault("batches.create", "lost_answer", times=1)
    async with house.worker():
        handle = await house.start(3, provider="claude", model="claude-sonnet-4-5")
        result = await handle.result()
    assert result.counts.succeeded == 3
    assert [batch.adopted for batch in result.provider_batches] == [True]
    await billed_once(house)
    assert [row["custom_id"] for row in house.results(handle.id)] == ["r0", "r1", "r2"]


async def test_an_anthropic_batch_that_runs_again_under_its_id_is_not_bought_again(house: House) -> None:
    await house.admin.settings(finish_after_polls=1000)
    async with house.worker():
        first = await house.start(3, provider="claude", model="claude-sonnet-4-5")
        await house.until(first, lambda p: p.provider_batch_id)
        await first.terminate("an operator's mistake")
        await house.admin.settings(finish_after_polls=0)
        result = await (await house.start(3, id=first.id, provider="claude", model="claude-sonnet-4-5")).result()
    assert result.counts.succeeded == 3
    await billed_once(house)


async def test_another_batch_of_the_same_size_is_not_taken_for_ours(house: House) -> None:
    await house.admin.settings(finish_after_polls=1000)
    async with house.worker():
        other = await house.start(3, provider="claude", model="claude-sonnet-4-5")
        await house.until(other, lambda p: p.provider_batch_id)
        await house.admin.fault("batches.create", "reset", times=1)
        ours = await house.start(3, provider="claude", model="claude-sonnet-4-5")
        await house.until(ours, lambda p: p.provider_batch_id)
        assert (await house.progress(ours)).provider_batch_id != (await house.progress(other)).provider_batch_id
        await house.admin.settings(finish_after_polls=0)
        for handle in (other, ours):
            assert (await handle.result()).counts.succeeded == 3
    assert len(await house.batches()) == 2


@pytest.mark.slow
async def test_a_strangers_batch_that_was_adopted_is_let_go_and_neither_cancelled_nor_kept(house: House) -> None:
    # Somebody else's create arrives in the moment of ours that is lost, with as many rows.
    stranger = Anthropic(api_key=KEY, base_url=house.sandbox.url, max_retries=0, timeout=60)
    await house.admin.settings(finish_after_polls=2)
    await house.admin.fault("batches.create", "reset", times=1)
    async with house.worker():
        handle = await house.start(3, provider="claude", model="claude-sonnet-4-5")
        await house.until(handle, lambda p: p.waiting_for and "may exist" in p.waiting_for)
        params = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "mine"}]}
        requests = [{"custom_id": f"stranger-{n}", "params": params} for n in range(3)]
        await asyncio.to_thread(lambda: stranger.messages.batches.create(requests=requests))  # type: ignore[arg-type]
        result = await handle.result()
    stranger.close()
    assert result.counts.succeeded == 3
    assert result.strays.unknown == 0
    assert all("stranger" not in row["custom_id"] for row in house.results(handle.id))
    ledger = await house.admin.books()
    assert [batch["status"] for batch in ledger["batches"]] == ["completed", "completed"]
    assert set(ledger["rows"].values()) == {1}


@pytest.mark.slow
async def test_a_stranger_that_outlasts_the_deadline_keeps_no_cancel_from_what_is_bought_after_it(house: House) -> None:
    stranger = Anthropic(api_key=KEY, base_url=house.sandbox.url, max_retries=0, timeout=60)
    await house.admin.settings(finish_after_polls=100_000)
    await house.admin.fault("batches.create", "reset", times=1)
    again = {"max_attempts": 9, "after_deadline": True}
    async with house.worker():
        handle = await house.start(3, provider="claude", model="claude-sonnet-4-5", deadline="5s", retry=again)
        await house.until(handle, lambda p: p.waiting_for and "may exist" in p.waiting_for)
        params = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "mine"}]}
        requests = [{"custom_id": f"stranger-{n}", "params": params} for n in range(3)]
        theirs = await asyncio.to_thread(lambda: stranger.messages.batches.create(requests=requests))  # type: ignore[arg-type]
        await house.until(handle, lambda p: p.waiting_for and "may be another's" in p.waiting_for)
        await asyncio.to_thread(lambda: stranger.messages.batches.cancel(theirs.id))
        await house.until(handle, lambda p: p.provider_batch_id not in (None, theirs.id))
        await handle.signal("cancel")
        result = await handle.result()
    stranger.close()
    # On a busy machine the deadline, which is renewed for what is bought again, may pass before the cancel is there: a
    # stop it is either way, and it reaches the provider.
    assert result.status in (BatchStatus.CANCELED, BatchStatus.EXPIRED)
    assert {batch["status"] for batch in await house.batches()} == {"cancelled"}


async def test_a_batch_that_was_cancelled_at_anthropic_is_canceled_and_never_completed(house: House) -> None:
    await house.admin.settings(finish_after_polls=1000, cancel_fraction=0.34)
    async with house.worker():
        handle = await house.start(3, provider="claude", model="claude-sonnet-4-5")
        await house.until(handle, lambda p: p.provider_batch_id)
        await handle.signal("cancel")
        result = await handle.result()
    assert result.status is BatchStatus.CANCELED
    assert (result.counts.succeeded, result.counts.canceled) == (1, 2)
