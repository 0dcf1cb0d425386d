"""Once anything of a batch is bought, whatever an operator can fix is waited out, for each shard of it (promise G4)."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from durabatch.contract import BatchProgress, BatchResult, BatchSpec, BatchStatus
from durabatch.contract.names import SHARD_WORKFLOW
from durabatch.contract.steps import PlanSummary
from durabatch.workers import Settings
from durabatch.workflows.shard_workflow import ShardRequest
from durabatch.workflows.state import ShardOutcome
from support.house import House, asked, connect

pytestmark = pytest.mark.slow

REFUSED = "refuses the key"


def at_a_time(house: House, shards: int) -> None:
    provider = house.settings.provider("sandbox").model_copy(update={"max_parallel_shards": shards})
    house.settings = house.settings.with_provider(provider)


async def some_child(house: House, batch_id: str, shards: int, words: str) -> None:
    """Wait until a shard's workflow waits for what these words say, and says so."""
    while True:
        for shard in range(shards):
            handle = house.client.get_workflow_handle(f"{batch_id}/shards/{shard:05d}")
            try:
                progress = await asked(lambda handle=handle: handle.query("progress", result_type=BatchProgress))
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                continue  # its turn has not come
            if progress.result is None and words in (progress.waiting_for or ""):
                return
        await asyncio.sleep(0.1)


async def nudged(house: House, handle: WorkflowHandle[Any, BatchResult]) -> BatchResult:
    """Return a batch's result; waits of its shards are cut short."""
    ending = asyncio.create_task(handle.result())
    while not ending.done():
        if not (await house.progress(handle)).result:
            await handle.signal("poll_now")
        await asyncio.wait([ending], timeout=1)
    return await ending


@pytest.mark.parametrize(
    ("op", "status", "words"),
    [
        ("batches.create", 401, "refuses the key"),
        pytest.param("batches.create", 402, "Add credit"),
        pytest.param("batches.list", 401, "refuses the key"),
        pytest.param("batches.create", 403, "with the key"),
        pytest.param("files.list", 403, "with the key"),
        pytest.param("files.create", 401, "refuses the key"),
    ],
)
async def test_a_key_or_an_account_that_fails_in_mid_fleet_loses_no_shard(
    house: House, op: str, status: int, words: str
) -> None:
    await house.admin.settings(finish_after_polls=3)
    at_a_time(house, 2)
    async with house.worker():
        handle = await house.start(12, limits={"max_rows": 2})
        while not await house.batches():
            await asyncio.sleep(0.05)
        await house.admin.fault(op, "status", status=status)
        await some_child(house, handle.id, 6, words)
        await house.admin.clear()
        result = await nudged(house, handle)
    assert (result.status, result.counts.succeeded, result.error) == (BatchStatus.COMPLETED, 12, None)
    assert Counter(batch["marker"] for batch in await house.batches()) == Counter(
        house.marker(handle.id, shard) for shard in range(6)
    )


async def test_a_shard_that_was_refused_is_tried_again_as_soon_as_another_one_is_bought(house: House) -> None:
    await house.admin.fault("batches.list", "status", status=403, times=1)
    await house.admin.fault("batches.create", "hold_before", times=1)
    async with house.worker():
        handle = await house.start(4, limits={"max_rows": 2})
        await house.until(handle, lambda p: "were refused" in (p.waiting_for or ""))
        assert await house.batches() == []
        await house.admin.clear()  # the create that was held goes on
        result = await handle.result()
    assert (result.status, result.counts.succeeded, result.error) == (BatchStatus.COMPLETED, 4, None)
    assert len(await house.batches()) == 2


async def test_a_worker_without_the_key_beside_one_that_has_it_loses_no_shard(
    house: House, server: str, tmp_path: Path
) -> None:
    await house.admin.settings(finish_after_polls=2)
    at_a_time(house, 2)
    settings = Settings.load(tmp_path / "durabatch.toml", {})
    keyless = replace(house, settings=settings, client=await connect(server))
    async with house.worker():
        handle = await house.start(12, limits={"max_rows": 2})
        while not await house.batches():
            await asyncio.sleep(0.05)
        async with keyless.worker():
            await some_child(house, handle.id, 6, "KEY")
        result = await nudged(house, handle)
    assert (result.status, result.counts.succeeded, result.error) == (BatchStatus.COMPLETED, 12, None)
    assert len(await house.batches()) == 6


@pytest.mark.parametrize("op", ["batches.list", "batches.create"])
async def test_a_key_that_is_wrong_from_the_start_fails_the_batch_at_once(house: House, op: str) -> None:
    await house.admin.fault(op, "status", status=401)
    at_a_time(house, 2)
    async with house.worker():
        handle = await house.start(12, limits={"max_rows": 2})
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    result = BatchResult.model_validate(caught.value.cause.details[0])
    assert REFUSED in (result.error or "")
    assert (result.status, result.counts.failed) == (BatchStatus.FAILED, 12)
    assert {row["status"] for row in house.results(handle.id)} == {"failed"}
    ledger = await house.admin.books(summary=True)
    assert ledger["requests"][op] == 6  # nothing is asked twice
    assert all(file["deleted"] for file in ledger["files"])
    history = await handle.fetch_history()
    assert not [event for event in history.events if event.event_type == EventType.EVENT_TYPE_TIMER_FIRED]


async def test_a_cancel_reaches_shards_that_were_refused_while_others_wait(house: House) -> None:
    await house.admin.fault("batches.list", "status", status=401, times=1)
    held = await house.admin.fault("batches.create", "hold_before", times=1)
    async with house.worker():
        handle = await house.start(4, limits={"max_rows": 2})
        await house.until(handle, lambda p: "were refused" in (p.waiting_for or ""))
        await handle.signal("cancel", {"reason": "enough"})
        await house.admin.clear(held["id"])
        result = await handle.result()
    assert result.status is BatchStatus.CANCELED
    assert result.counts.canceled + result.counts.succeeded == 4


async def planned(handle: WorkflowHandle[Any, Any]) -> tuple[PlanSummary, int]:
    """Return the plan that a batch goes by, and the workflow task that took note of it."""
    plan: PlanSummary | None = None
    async for event in handle.fetch_history_events():
        if plan is None and event.HasField("activity_task_completed_event_attributes"):
            payloads = event.activity_task_completed_event_attributes.result.payloads
            [plan] = await pydantic_data_converter.decode(payloads, [PlanSummary])
        elif plan is not None and event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            return plan, event.event_id
    raise AssertionError("it has no plan")


@pytest.mark.parametrize("limits", [{}, {"max_rows": 2}], ids=["one shard", "three shards"])
async def test_a_reset_batch_waits_for_the_key_with_which_it_has_bought_something_before(
    house: House, limits: dict[str, int]
) -> None:
    """Nothing in the history of the new run says so: the reset leaves it the plan, and no more."""
    await house.admin.settings(finish_after_polls=1)
    async with house.worker():
        handle = await house.start(6, limits=limits)
        assert (await handle.result()).counts.succeeded == 6
        bought = len(await house.batches())
        _, task = await planned(handle)
        await house.admin.fault("batches.list", "status", status=401)
        answer = await house.client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=house.client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=handle.id),
                reason="once more",
                workflow_task_finish_event_id=task,
                request_id=uuid.uuid4().hex,
            )
        )
        again = house.client.get_workflow_handle(handle.id, run_id=answer.run_id, result_type=BatchResult)
        if limits:
            await some_child(house, handle.id, 3, REFUSED)
        else:
            await house.until(again, lambda p: REFUSED in (p.waiting_for or ""))
        await house.admin.clear()
        result = await nudged(house, again)
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 6)
    assert len(await house.batches()) == bought


async def run_of_shards(house: House, skip: int, times: int) -> tuple[str, WorkflowHandle[Any, ShardOutcome]]:
    """Start a child for three shards, as where a batch has thousands of them, and have some looks refused.

    Its plan is that of a batch that was refused, and so has bought nothing.
    """
    await house.admin.fault("batches.list", "status", status=401)
    batch = await house.start(6, limits={"max_rows": 2})
    with pytest.raises(WorkflowFailureError):
        await batch.result()
    plan, _ = await planned(batch)
    await house.admin.clear()
    await house.admin.fault("batches.list", "status", status=401, skip=skip, times=times)
    for path in house.store.glob(f"{batch.id}/shards/*/settled.json"):
        path.unlink()
    request = ShardRequest(
        batch_id=batch.id,
        spec=BatchSpec(provider="sandbox", model="gpt-4o-mini", input=f"{house.store.as_uri()}/in/{batch.id}.jsonl"),
        plan=plan,
        shard=0,
        last=2,
        deadline_at=datetime.now(UTC) + timedelta(hours=1),
    )
    child = await house.client.start_workflow(
        SHARD_WORKFLOW, request, id=f"{batch.id}/by-hand", task_queue=house.task_queue, result_type=ShardOutcome
    )
    return batch.id, child


async def test_a_run_of_shards_waits_for_a_key_once_one_of_its_own_is_bought(house: House) -> None:
    async with house.worker():
        batch_id, child = await run_of_shards(house, skip=1, times=2)
        while True:
            progress = await asked(lambda: child.query("progress", result_type=BatchProgress))
            if REFUSED in (progress.waiting_for or ""):
                await child.signal("poll_now")
            if progress.shards.ended == 3:
                break
            await asyncio.sleep(0.1)
        outcome = await child.result()
    assert (outcome.settled.counts.succeeded, outcome.blocked) == (6, False)
    assert [batch.marker for batch in outcome.batches] == [house.marker(batch_id, shard) for shard in range(3)]


async def test_a_run_of_shards_that_is_refused_asks_for_one_of_them_only(house: House) -> None:
    async with house.worker():
        batch_id, child = await run_of_shards(house, skip=0, times=1)
        outcome = await child.result()
    assert outcome.blocked
    assert (outcome.settled.counts.failed, outcome.batches) == (6, ())
    assert REFUSED in (outcome.error or "")
    assert await house.batches() == []
    assert len(list(house.store.glob(f"{batch_id}/shards/*/settled.json"))) == 3
