"""Continue-as-new at every boundary: a real server that suggests it all the time, so each place that can, does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.worker import Worker

from durabatch.contract import BatchProgress, BatchResult, BatchSpec, BatchStatus, Counts, Phase, ShardCounts
from durabatch.contract.gateway_batch import PUBLISH, GatewayStatus, inner_id
from durabatch.contract.gateway_limits import TURN, TenantLimits
from durabatch.contract.ledger import ledger_id
from durabatch.contract.names import SHARD_WORKFLOW
from durabatch.contract.steps import PlanSummary
from durabatch.workflows.shard_workflow import ShardRequest
from durabatch.workflows.state import ShardOutcome
from support.gateway import Desk, line
from support.house import House, asked, connect, dev_server, open_house


@pytest.fixture(scope="module")
def restless() -> Iterator[str]:
    """The address of a server that suggests to continue as new from the first event on."""
    always = {"limit.historyCount.suggestContinueAsNew": 1, "history.continueAsNewMinInterval": "10ms"}
    with dev_server(**always) as address:
        yield address


@pytest.fixture
async def moving(restless: str, tmp_path: Path) -> AsyncIterator[House]:
    client = await connect(restless)
    async with open_house(client, tmp_path, {"listing_lag": "1s", "timeout": "5s"}) as house:
        yield house


async def runs(client: Client, workflow_id: str) -> int:
    """Return how many runs a workflow had, by its chain of continued runs."""
    found = 0
    run_id: str | None = (await client.get_workflow_handle(workflow_id).describe()).run_id
    while run_id:
        found += 1
        history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
    return found


async def tries(client: Client, workflow_id: str) -> str | None:
    """Return a step that the newest run of a workflow tries."""
    found = (await client.get_workflow_handle(workflow_id).describe()).raw_description.pending_activities
    return found[-1].activity_type.name if found else None


@pytest.mark.slow
async def test_every_phase_of_a_batch_can_be_the_last_of_its_run(moving: House) -> None:
    await moving.admin.settings(finish_after_polls=3)
    texts = ["fine", "[[sandbox:server_error times=1]]", "[[sandbox:skipped times=1]]", "[[sandbox:invalid_request]]"]
    async with moving.worker():
        handle = await moving.start(texts)
        result = await handle.result()
    assert (result.status, result.counts.succeeded, result.counts.failed) == (BatchStatus.COMPLETED, 3, 1)
    assert [batch.marker for batch in result.provider_batches] == [
        moving.marker(handle.id, 0, 1),
        moving.marker(handle.id, 0, 2),
    ]
    assert [batch["marker"] for batch in await moving.batches()] == [
        moving.marker(handle.id, 0, 1),
        moving.marker(handle.id, 0, 2),
    ]
    # Each of two attempts: after its upload, its create, each of four polls and its fetch; between them; and the end.
    assert await runs(moving.client, handle.id) >= 16


async def test_every_phase_of_direct_mode_can_be_the_last_of_its_run(moving: House) -> None:
    # The second row fails for good in the first attempt, which tries it three times, and is answered in the second.
    texts = ["fine", "[[sandbox:server_error times=4]]", "[[sandbox:invalid_request]]"]
    async with moving.worker():
        handle = await moving.start(texts, mode="direct")
        result = await handle.result()
    assert (result.status, result.counts.succeeded, result.counts.failed) == (BatchStatus.COMPLETED, 2, 1)
    assert [row["attempts"] for row in moving.results(handle.id)] == [1, 2, 1]
    live = await moving.admin.live()
    assert (live["repeated"] - 4, result.repeated) == (0, 0)  # the second row was called five times, on purpose
    # After the rows of each attempt, between the two, and at the end.
    assert await runs(moving.client, handle.id) >= 4


@pytest.mark.slow
async def test_rows_left_over_are_finished_directly_in_a_later_run(moving: House) -> None:
    await moving.admin.fault("batches.create", "batch_outcome", outcome="expired", fraction=0.5, times=1)
    async with moving.worker():
        result = await (await moving.start(4, retry={"on_expired": "direct"})).result()
    assert result.counts.succeeded == 4
    assert result.direct is not None
    assert (result.direct.rows, len(await moving.batches())) == (2, 1)
    assert (await moving.admin.live())["calls"] == 2


@pytest.mark.parametrize("fault", ["lost_answer", "reset"])
@pytest.mark.slow
async def test_doubt_about_a_create_is_carried(moving: House, fault: str) -> None:
    await moving.admin.fault("batches.create", fault, times=1)
    async with moving.worker():
        handle = await moving.start(3)
        result = await handle.result()
    assert result.counts.succeeded == 3
    ran = [batch for batch in await moving.batches() if batch["status"] == "completed"]
    assert [batch["marker"] for batch in ran] == [moving.marker(handle.id, 0, 1)]


@pytest.mark.slow
async def test_a_refusal_is_carried_and_not_asked_for_again(moving: House) -> None:
    await moving.admin.fault("batches.create", "status", status=400, times=1)
    batch_id = "refused-once"
    # A folder where the results belong: the store fails until it is gone, and the batch goes on to a new run meanwhile.
    stone = moving.store / batch_id / "shards" / "00000" / "results.jsonl"
    stone.mkdir(parents=True)
    async with moving.worker():
        handle = await moving.start(3, id=batch_id)
        while await runs(moving.client, batch_id) < 3:
            await handle.signal("poll_now")
            await asyncio.sleep(0.3)
        stone.rmdir()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert await moving.batches() == []
    assert [row["status"] for row in moving.results(batch_id)] == ["failed"] * 3


@pytest.mark.slow
async def test_an_outage_goes_through_many_runs(moving: House) -> None:
    await moving.admin.settings(finish_after_polls=2)
    async with moving.worker():
        handle = await moving.start(3)
        while not await moving.batches():
            await asyncio.sleep(0.02)
        await moving.admin.fault("*", "status", status=503, times=9)
        while not (progress := await moving.progress(handle)).result:
            if progress.waiting_for and "working" not in progress.waiting_for:
                await handle.signal("poll_now")
            await asyncio.sleep(0.1)
        result = await handle.result()
    assert result.counts.succeeded == 3
    assert len(await moving.batches()) == 1


@pytest.mark.slow
async def test_no_signal_is_lost_between_two_runs(moving: House) -> None:
    await moving.admin.settings(finish_after_polls=100_000, cancel_fraction=0.5)
    async with moving.worker():
        handle = await moving.start(6, poll={"first": "0.1s", "factor": 1, "maximum": "0.1s"})
        await moving.until(handle, lambda p: p.provider_batch_id)
        for _ in range(40):  # each one ends a wait, and with it a run
            await handle.signal("poll_now")
            await asyncio.sleep(0.02)
        await handle.signal("cancel", {"reason": "in between", "requested_by": "the night shift"})
        for _ in range(10):
            await handle.signal("poll_now")
        result = await handle.result()
    assert result.status is BatchStatus.CANCELED
    assert (result.cancel_reason, result.canceled_by) == ("in between", "the night shift")
    assert (result.counts.succeeded, result.counts.canceled) == (3, 3)
    assert await runs(moving.client, handle.id) > 4


async def test_temporals_own_cancel_is_not_lost_between_two_runs(moving: House) -> None:
    await moving.admin.settings(finish_after_polls=100_000)
    async with moving.worker():
        handle = await moving.start(4, poll={"first": "0.1s", "factor": 1, "maximum": "0.1s"})
        await moving.until(handle, lambda p: p.provider_batch_id)
        # By its id alone: the run that we started has long been followed by others.
        await moving.client.get_workflow_handle(handle.id).cancel()
        result = await handle.result()
    assert result.status is BatchStatus.CANCELED
    assert {batch["status"] for batch in await moving.batches()} == {"cancelled"}


@pytest.mark.slow
async def test_shards_continue_and_their_batch_does_not_notice(moving: House) -> None:
    await moving.admin.settings(finish_after_polls=2)
    texts: list[Any] = [f"row {n}" for n in range(9)]
    texts[4] = "[[sandbox:server_error times=1]] again"
    async with moving.worker():
        handle = await moving.start(texts, limits={"max_rows": 3})
        result = await handle.result()
    assert result.counts.succeeded == 9
    assert Counter(batch["marker"] for batch in await moving.batches()) == Counter(
        [
            moving.marker(handle.id, 0, 1),
            moving.marker(handle.id, 1, 1),
            moving.marker(handle.id, 1, 2),
            moving.marker(handle.id, 2, 1),
        ]
    )
    assert await runs(moving.client, handle.id) == 1
    assert await runs(moving.client, f"{handle.id}/shards/00001") > 8


@pytest.mark.slow
async def test_a_run_of_shards_goes_on_between_two_of_them(moving: House) -> None:
    """As where a batch has thousands of shards: one child takes several of them, one after another."""
    texts: list[Any] = [f"row {n}" for n in range(6)]
    texts[1] = "[[sandbox:invalid_request]]"
    async with moving.worker():
        batch = await moving.start(texts, limits={"max_rows": 2})
        await batch.result()
        request = ShardRequest(
            batch_id=batch.id,
            spec=BatchSpec(provider="sandbox", input=f"{moving.store.as_uri()}/in/{batch.id}.jsonl"),
            plan=await planned(batch),
            shard=0,
            last=2,
            deadline_at=datetime.now(UTC) + timedelta(hours=1),
        )
        for path in moving.store.glob(f"{batch.id}/shards/*/settled.json"):
            path.unlink()
        child = await moving.client.start_workflow(
            SHARD_WORKFLOW, request, id=f"{batch.id}/again", task_queue=moving.task_queue, result_type=ShardOutcome
        )
        outcome: ShardOutcome = await child.result()
        progress = await child.query("progress", result_type=BatchProgress)
    assert outcome.settled.counts == Counts(total=6, succeeded=5, failed=1)
    assert [one.marker for one in outcome.batches] == [moving.marker(batch.id, shard) for shard in range(3)]
    assert progress.shards == ShardCounts(total=3, ended=3)
    assert len(await moving.batches()) == 3  # found by their markers, and not bought again
    assert len(list(moving.store.glob(f"{batch.id}/shards/*/settled.json"))) == 3
    # Each of three shards: after its adoption, after its fetch, and at its end.
    assert await runs(moving.client, child.id) >= 9


async def planned(handle: WorkflowHandle[Any, Any]) -> PlanSummary:
    """Return the plan that a batch went by."""
    for event in (await handle.fetch_history()).events:
        if event.HasField("activity_task_completed_event_attributes"):
            payloads = event.activity_task_completed_event_attributes.result.payloads
            plan: PlanSummary
            [plan] = await pydantic_data_converter.decode(payloads, [PlanSummary])
            return plan
    raise AssertionError("it has no plan")


@pytest.mark.slow
async def test_a_gateways_batch_joins_its_rows_in_a_new_run_however_often_it_is_signalled(moving: House) -> None:
    await moving.admin.settings(finish_after_polls=100_000)
    desk = Desk(moving)
    async with moving.worker():
        handle = await desk.start(desk.batch(await desk.upload([line("r0")])))
        while not await moving.batches():
            await asyncio.sleep(0.05)
        newest = moving.client.get_workflow_handle(handle.id)
        while await runs(moving.client, handle.id) < 3:
            await newest.signal("poll_now")
            await asyncio.sleep(0.2)
        await moving.admin.settings(finish_after_polls=0)
        ended = await handle.result()
    assert (ended.status, ended.request_counts.completed) == (GatewayStatus.COMPLETED, 1)
    assert len(await moving.batches()) == 1


@pytest.mark.slow
async def test_a_gateways_batch_that_was_stopped_before_its_turn_never_runs(moving: House) -> None:
    desk = Desk(moving)
    batch = desk.batch(await desk.upload([line("r0")]), limits=TenantLimits(max_batches=1))
    # Neither can it have its turn at first, nor can its files be written: so it goes on in a new run.
    async with moving.worker(without={TURN.name, PUBLISH.name}):
        handle = await desk.start(batch)
        while await tries(moving.client, handle.id) != TURN.name:
            await asyncio.sleep(0.1)
        await handle.signal("cancel")
        while await tries(moving.client, handle.id) != PUBLISH.name:
            await asyncio.sleep(0.1)
        before = await runs(moving.client, handle.id)
        while await runs(moving.client, handle.id) == before:
            await asyncio.sleep(0.2)
    async with moving.worker():
        ended = await handle.result()
    assert (ended.status, ended.request_counts.completed) == (GatewayStatus.CANCELLED, 0)
    with pytest.raises(RPCError, match="not found"):
        await moving.client.get_workflow_handle(inner_id(batch.tenant, batch.id)).describe()


@pytest.mark.slow
async def test_a_deadline_that_was_renewed_is_carried(moving: House) -> None:
    await moving.admin.settings(finish_after_polls=100_000, cancel_fraction=0.5)
    async with moving.worker():
        handle = await moving.start(4, deadline="3s", retry={"max_attempts": 9, "after_deadline": True})
        await moving.until(handle, lambda p: p.attempt > 1 and p.provider_batch_id)
        await moving.admin.settings(finish_after_polls=0)
        result = await handle.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 4)


@pytest.mark.slow
async def test_a_ledger_carries_who_has_room_and_who_waits(restless: str, tmp_path: Path) -> None:
    client = await connect(restless)
    text = "word " * 200
    async with open_house(client, tmp_path, {"listing_lag": "1s", "max_enqueued_tokens": "1000"}) as house:
        await house.admin.settings(enqueued_token_limit=1000)
        async with house.worker():
            handles = [await house.start([text, text]) for _ in range(6)]
            results = await asyncio.gather(*(handle.result() for handle in handles))
            ledger = ledger_id(house.settings.provider("sandbox").fingerprint, "gpt-4o-mini")
            kept = client.get_workflow_handle(ledger)
            while (view := await asked(lambda: kept.query("ledger")))["holders"]:
                await asyncio.sleep(0.1)
        assert {result.status for result in results} == {BatchStatus.COMPLETED}
        assert [batch["status"] for batch in await house.batches()] == ["completed"] * 6
        assert (view["in_use"], view["waiting"]) == (0, 0)
        assert await runs(client, ledger) > 4


async def went_on(house: House, batch_id: str, more: int = 1) -> None:
    """Nudge a batch until it has gone through some more runs."""
    wanted = await runs(house.client, batch_id) + more
    while await runs(house.client, batch_id) < wanted:
        await house.client.get_workflow_handle(batch_id).signal("poll_now")
        await asyncio.sleep(0.3)


def stone(house: House, batch_id: str, name: str) -> Path:
    """Put a folder where the store is to have an object: it fails until the folder is gone."""
    path = house.store / batch_id / name
    path.mkdir(parents=True)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits",
    [pytest.param({}, id="one shard"), pytest.param({"max_rows": 2}, id="two shards")],
)
async def test_an_outage_in_every_phase_after_the_shards_goes_through_many_runs(
    moving: House, limits: dict[str, int]
) -> None:
    batch_id = "stones-on-the-way"
    results, result_json = (stone(moving, batch_id, name) for name in ("results.jsonl", "result.json"))
    seen: list[BatchResult] = []

    @activity.defn(name="tell_me")
    async def tell_me(result: BatchResult) -> None:
        seen.append(result)

    queue = f"{moving.task_queue}-handlers"
    async with moving.worker(), Worker(moving.client, task_queue=queue, activities=[tell_me]):
        # The first try to delete a shard's file fails, and so does each at the end of the batch.
        await moving.admin.fault("files.delete", "status", status=401)
        handle = await moving.start(
            4, id=batch_id, limits=limits, on_complete={"activity": "tell_me", "task_queue": queue}
        )
        await moving.until(handle, lambda p: p.phase is Phase.APPLYING and p.waiting_for)
        await went_on(moving, batch_id)
        progress = await moving.progress(handle)
        shards = 2 if limits else 1
        assert progress.shards == ShardCounts(total=shards, ended=shards)
        assert (progress.counts.total, progress.counts.succeeded) == (4, 4)
        results.rmdir()
        await moving.until(handle, lambda p: p.phase is Phase.FINISHING and p.waiting_for)
        await went_on(moving, batch_id)
        assert seen == []
        result_json.rmdir()
        await handle.signal("poll_now")
        await moving.until(handle, lambda p: seen and p.waiting_for and "refuses the key" in p.waiting_for)
        await went_on(moving, batch_id)
        await moving.admin.clear()
        await handle.signal("poll_now")
        result = await handle.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 4)
    assert [batch.marker for batch in result.provider_batches] == [
        moving.marker(batch_id, shard, 1) for shard in range(shards)
    ]
    assert seen == [result]  # called once, whatever came after it
    assert len(await moving.batches()) == shards
    assert all(file["deleted"] for file in (await moving.admin.books())["files"] if file["purpose"] == "batch")


@pytest.mark.slow
async def test_an_outage_while_a_batch_is_planned_goes_through_many_runs(moving: House) -> None:
    plan = stone(moving, "no-plan-yet", "plan.json")
    async with moving.worker():
        handle = await moving.start(3, id="no-plan-yet")
        await moving.until(handle, lambda p: p.phase is Phase.PLANNING and p.waiting_for)
        await went_on(moving, handle.id)
        plan.rmdir()
        await handle.signal("poll_now")
        result = await handle.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 3)
    assert len(await moving.batches()) == 1
