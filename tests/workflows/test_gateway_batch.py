"""A batch of the gateway's, from its input file to its output files, on a real server."""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import timedelta

import pytest
from openai.types import Batch
from temporalio.client import WorkflowFailureError

from durabatch.activities.gateway.files import find
from durabatch.activities.gateway.intake import read_entry
from durabatch.contract import BatchResult
from durabatch.contract.gateway_batch import OUTPUT_FAILED, BatchEntry, BatchObject, GatewayStatus, inner_id
from durabatch.contract.gateway_layout import index_path
from durabatch.contract.gateway_limits import LEAVE, TURN, TenantLimits, turn_ledgers
from durabatch.contract.layout import result_path
from durabatch.contract.ledger import LedgerView
from durabatch.workflows import GatewayBatchWorkflow
from support.gateway import Desk, line
from support.house import House, asked
from support.operator import reset_points, reset_workflow

SLOW = {"finish_after_polls": 100_000, "cancel_fraction": 0.34}


def strict(shown: BatchObject) -> Batch:
    """Return a batch as the official client's types take it, every field checked."""
    return Batch.model_validate(shown.model_dump(mode="json"), strict=True)


async def test_rows_become_an_output_file_in_input_order(house: House) -> None:
    desk = Desk(house)
    batch = desk.batch(await desk.upload([line(f"r{n}") for n in range(5)]), metadata={"team": "search"})
    async with house.worker():
        handle = await desk.start(batch)
        ended = await handle.result()
        assert await desk.shown(handle) == ended
        inner = house.client.get_workflow_handle(inner_id(batch.tenant, batch.id))
        events = [event for one in (handle, inner) for event in (await one.fetch_history()).events]
    assert await desk.final(batch) == ended
    steps = [event for event in events if event.HasField("activity_task_scheduled_event_attributes")]
    keys = {one.activity_task_scheduled_event_attributes.priority.fairness_key for one in steps}
    assert len(steps) > 6 and keys == {batch.tenant}
    found = strict(ended)
    assert (found.status, found.model, found.metadata) == ("completed", "gpt-4o-mini", {"team": "search"})
    assert found.request_counts and found.request_counts.model_dump() == {"total": 5, "completed": 5, "failed": 0}
    assert found.usage and found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens > 0
    assert found.created_at <= (found.in_progress_at or 0) <= (found.finalizing_at or 0) <= (found.completed_at or 0)
    assert found.errors is found.error_file_id is found.failed_at is None
    lines = await desk.content(found.output_file_id)
    assert [one["custom_id"] for one in lines] == [f"r{n}" for n in range(5)]
    assert all(set(one) == {"id", "custom_id", "response", "error"} and one["error"] is None for one in lines)
    assert all(set(one["response"]) == {"status_code", "request_id", "body"} for one in lines)
    assert all(one["response"]["body"]["choices"] for one in lines)
    assert len({one["id"] for one in lines}) == 5


async def test_rows_that_fail_are_in_an_error_file_of_their_own(house: House) -> None:
    desk = Desk(house)
    async with house.worker():
        ended = await desk.run([line("good"), line("bad", "[[sandbox:invalid_request]]")])
    assert ended.status is GatewayStatus.COMPLETED
    assert ended.request_counts.model_dump() == {"total": 2, "completed": 1, "failed": 1}
    assert [one["custom_id"] for one in await desk.content(ended.output_file_id)] == ["good"]
    (bad,) = await desk.content(ended.error_file_id)
    assert (bad["custom_id"], bad["response"]["status_code"]) == ("bad", 400)
    assert bad["response"]["body"]["error"]["message"]


async def test_a_batch_whose_rows_all_fail_is_completed_and_says_why(house: House) -> None:
    desk = Desk(house)
    async with house.worker():
        ended = await desk.run([line("bad", "[[sandbox:invalid_request]]")])
    assert (ended.status, ended.output_file_id) == (GatewayStatus.COMPLETED, None)
    assert ended.errors is not None and ended.errors.data[0].code == "all_requests_failed"
    assert len(await desk.content(ended.error_file_id)) == 1


async def test_a_wrong_file_fails_the_batch_and_nothing_is_bought(house: House) -> None:
    desk, other = Desk(house), Desk(house, "other")
    theirs = await other.upload([line("r0")])
    async with house.worker():
        for file_id in ("file-0", theirs):
            ended = await (await desk.start(desk.batch(file_id))).result()
            assert ended.status is GatewayStatus.FAILED and ended.failed_at
            assert ended.errors is not None
            (error,) = ended.errors.data
            assert (error.code, error.param, error.line) == ("invalid_request", "file_id", None)
            assert error.message == f"Cannot find file {file_id}."
        wrong = await (await desk.start(desk.batch(await desk.upload([line("r0")], "user_data")))).result()
        lines = await desk.run([line("r0"), {"custom_id": "r1"}, line("r0")])
    assert wrong.errors is not None and "user_data" in wrong.errors.data[0].message
    assert lines.errors is not None
    assert [(error.line, error.code) for error in lines.errors.data] == [
        *[(2, "missing_required_parameter")] * 3,
        (3, "duplicate_custom_id"),
    ]
    strict(lines)
    assert await house.batches() == []


async def test_a_cancel_keeps_the_rows_that_were_finished(house: House) -> None:
    await house.admin.settings(**SLOW)
    desk = Desk(house)
    async with house.worker():
        handle = await desk.start(desk.batch(await desk.upload([line(f"r{n}") for n in range(6)])))
        while not await house.batches():
            await asyncio.sleep(0.05)
        assert (await desk.shown(handle)).status is GatewayStatus.IN_PROGRESS
        await handle.signal(GatewayBatchWorkflow.cancel)
        shown = await desk.shown(handle)
        ended = await handle.result()
    assert shown.status in (GatewayStatus.CANCELLING, GatewayStatus.CANCELLED) and shown.cancelling_at
    assert ended.status is GatewayStatus.CANCELLED and ended.cancelled_at and ended.cancelling_at
    assert ended.request_counts.model_dump() == {"total": 6, "completed": 2, "failed": 4}
    assert len(await desk.content(ended.output_file_id)) == 2
    unfinished = await desk.content(ended.error_file_id)
    assert [(one["response"], one["error"]["code"]) for one in unfinished] == [(None, "batch_cancelled")] * 4
    strict(ended)


async def test_a_workflow_that_was_terminated_joins_its_batch_and_buys_nothing_twice(house: House) -> None:
    await house.admin.settings(**SLOW)
    desk = Desk(house)
    batch = desk.batch(await desk.upload([line(f"r{n}") for n in range(3)]))
    async with house.worker():
        first = await desk.start(batch)
        while not await house.batches():
            await asyncio.sleep(0.05)
        await asked(lambda: first.terminate("by an operator"))
        await desk.store.delete(f"~gateway/{batch.tenant}/files/{batch.input_file_id}/meta.json")
        second = await desk.start(batch)
        while (await desk.shown(second)).status is GatewayStatus.VALIDATING:
            await asyncio.sleep(0.05)
        await house.admin.settings(finish_after_polls=0)
        ended = await second.result()
    assert (ended.status, ended.request_counts.completed) == (GatewayStatus.COMPLETED, 3)
    assert len(await desk.content(ended.output_file_id)) == 3
    assert len(await house.batches()) == 1


async def test_a_batch_that_was_terminated_below_it_goes_on(house: House) -> None:
    await house.admin.settings(**SLOW)
    desk = Desk(house)
    batch = desk.batch(await desk.upload([line(f"r{n}") for n in range(3)]))
    async with house.worker():
        handle = await desk.start(batch)
        while not await house.batches():
            await asyncio.sleep(0.05)
        inner = house.client.get_workflow_handle(inner_id(batch.tenant, batch.id))
        await asked(lambda: inner.terminate("by an operator"))
        await house.admin.settings(finish_after_polls=0)
        ended = await handle.result()
    assert (ended.status, ended.request_counts.completed) == (GatewayStatus.COMPLETED, 3)
    assert len(await house.batches()) == 1


async def test_a_provider_that_refuses_the_key_fails_the_batch_in_its_words(house: House) -> None:
    await house.admin.revoke("sk-test")
    desk = Desk(house)
    async with house.worker():
        ended = await desk.run([line("r0")])
        (row,) = await desk.content(ended.error_file_id)
    assert ended.status is GatewayStatus.FAILED and ended.errors is not None
    for said in (ended.errors.data[0].message, row["error"]["message"]):
        assert "refuses the key" in said and "Ask whoever operates the gateway." in said
        assert "environment" not in said  # where the key is kept is the operator's
    assert (ended.failed_at or 0) >= ended.created_at and ended.completed_at is None
    strict(ended)


async def test_a_batch_that_the_door_gave_up_is_not_run_after_all(house: House) -> None:
    desk = Desk(house)
    batch = desk.batch(await desk.upload([line("r0")]))
    final = batch.beginning().model_copy(update={"status": GatewayStatus.FAILED})
    entry = BatchEntry(request=batch, final=final)
    await desk.store.write(index_path(batch.tenant, batch.id), entry.model_dump_json().encode())
    async with house.worker():
        ended = await (await desk.start(batch)).result()
    assert ended.status is GatewayStatus.FAILED and ended.errors is not None
    assert ended.errors.data[0].code == "not_started"
    assert await house.batches() == []


async def test_a_start_by_hand_that_is_wrong_fails(house: House) -> None:
    async with house.worker():
        handle = await house.client.start_workflow(
            "DurabatchGatewayBatch", {"batch": {}}, id="by-hand", task_queue=house.task_queue
        )
        with pytest.raises(WorkflowFailureError):
            await handle.result()


@pytest.mark.slow
async def test_a_cancel_of_a_workflow_that_was_started_again_keeps_what_the_first_one_bought(house: House) -> None:
    await house.admin.settings(**SLOW)
    desk = Desk(house)
    batch = desk.batch(await desk.upload([line(f"r{n}") for n in range(6)]))
    async with house.worker():
        first = await desk.start(batch)
        while not await house.batches():
            await asyncio.sleep(0.05)
        await asked(lambda: first.terminate("by an operator"))
    second = await desk.start(batch)
    await second.signal(GatewayBatchWorkflow.cancel)  # before it has looked at anything
    async with house.worker():
        ended = await second.result()
    assert (ended.status, ended.model) == (GatewayStatus.CANCELLED, "gpt-4o-mini")
    assert ended.request_counts.model_dump() == {"total": 6, "completed": 2, "failed": 4}
    assert [one["status"] for one in await house.batches()] == ["cancelled"]


@pytest.mark.slow
@pytest.mark.parametrize("rows_too", [False, True])
async def test_a_cancel_while_no_turn_can_be_had_keeps_what_an_earlier_run_bought(house: House, rows_too: bool) -> None:
    await house.admin.settings(**SLOW)
    desk = Desk(house, f"tenant-{secrets.token_hex(4)}")
    batch = desk.batch(await desk.upload([line(f"r{n}") for n in range(6)]), limits=TenantLimits(max_batches=1))
    async with house.worker():
        first = await desk.start(batch)
        while not await house.batches():
            await asyncio.sleep(0.05)
        await asked(lambda: first.terminate("by an operator"))
        if rows_too:
            inner = house.client.get_workflow_handle(inner_id(batch.tenant, batch.id))
            await asked(lambda: inner.terminate("by an operator"))
    async with house.worker(without={TURN.name}):
        second = await desk.start(batch)
        while (await desk.shown(second)).status is GatewayStatus.VALIDATING:
            await asyncio.sleep(0.05)
        await second.signal(GatewayBatchWorkflow.cancel)
        ended = await second.result()
    assert ended.status is GatewayStatus.CANCELLED
    assert ended.request_counts.model_dump() == {"total": 6, "completed": 2, "failed": 4}
    assert [one["status"] for one in await house.batches()] == ["cancelled"]


async def test_the_files_do_not_wait_until_a_turn_is_given_back(house: House) -> None:
    desk = Desk(house, f"tenant-{secrets.token_hex(4)}")
    limits = TenantLimits(max_batches=1, max_batches_in_all=5)
    batch = desk.batch(await desk.upload([line("r0")]), limits=limits)
    async with house.worker(without={LEAVE.name}):
        handle = await desk.start(batch)
        while await desk.final(batch) is None:
            await asyncio.sleep(0.05)
    async with house.worker():
        ended = await handle.result()
        for ledger in turn_ledgers(batch.tenant, limits):
            kept = house.client.get_workflow_handle(ledger.id)
            seen = await asked(lambda kept=kept: kept.query("ledger", result_type=LedgerView))  # type: ignore[misc]
            assert (seen.limit, seen.in_use, seen.waiting) == (ledger.limit, 0, 0)
    assert (ended.status, ended) == (GatewayStatus.COMPLETED, await desk.final(batch))


async def test_results_that_do_not_add_up_fail_the_batch_once_until_an_operator_has_seen_to_them(house: House) -> None:
    desk = Desk(house)
    batch = desk.batch(await desk.upload([line(f"r{n}") for n in range(3)]))
    results = house.store / inner_id(batch.tenant, batch.id) / "results.jsonl"
    async with house.worker():
        await (await desk.start(batch)).result()
        entry = await read_entry(desk.store, batch)
        unpublished = entry.model_copy(update={"final": None, "published": False})
        path = index_path(batch.tenant, batch.id)
        await desk.store.write(path, unpublished.model_dump_json().encode())
        whole = results.read_bytes()
        results.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
        handle = await desk.start(batch)
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        failed = await desk.final(batch)
        assert failed is not None and failed.errors is not None
        assert (failed.status, failed.errors.data[0].code) == (GatewayStatus.FAILED, OUTPUT_FAILED)
        assert str(house.store) not in failed.model_dump_json()  # the operator's, and in the workflow's failure
        strict(failed)
        results.write_bytes(whole)
        await reset_workflow(house.client, handle.id, (await reset_points(house.client, handle.id))[0])
        ended = await house.client.get_workflow_handle(handle.id, result_type=BatchObject).result()
    assert ended.status is GatewayStatus.COMPLETED
    assert await desk.final(batch) == ended


@pytest.mark.slow
async def test_files_that_are_written_long_after_the_batchs_end_expire_by_their_own_time(house: House) -> None:
    desk = Desk(house)
    batch = desk.batch(await desk.upload([line("r0")]), output_expires_seconds=3600)
    async with house.worker():
        await (await desk.start(batch)).result()
        entry = await read_entry(desk.store, batch)
        unpublished = entry.model_copy(update={"final": None, "published": False})
        await desk.store.write(index_path(batch.tenant, batch.id), unpublished.model_dump_json().encode())
        path = result_path(inner_id(batch.tenant, batch.id))
        result = BatchResult.model_validate_json(await desk.store.read(path))
        assert result.ended_at is not None
        early = result.model_copy(update={"ended_at": result.ended_at - timedelta(days=2)})
        await desk.store.write(path, early.model_dump_json().encode())
        began = int(time.time())
        ended = await (await desk.start(batch)).result()
    record = await find(desk.store, desk.tenant, ended.output_file_id or "")
    assert record is not None and record.expires_at == record.created_at + 3600 >= began + 3600


@pytest.mark.slow
async def test_a_batch_whose_time_is_over_keeps_the_rows_that_were_finished(fast_house: House) -> None:
    house = fast_house
    await house.admin.settings(**SLOW)
    desk = Desk(house)
    batch = desk.batch(await desk.upload([line(f"r{n}") for n in range(6)]))
    async with house.worker():
        handle = await desk.start(batch)
        ended = await handle.result()  # the server skips a day while this waits
    strict(ended)
    assert (ended.status, ended.cancelling_at, ended.completed_at) == (GatewayStatus.EXPIRED, None, None)
    assert ended.expires_at and ended.expired_at
    assert 0 <= ended.expired_at - ended.expires_at < 3 * 3600
    assert ended.request_counts.model_dump() == {"total": 6, "completed": 2, "failed": 4}
    assert len(await desk.content(ended.output_file_id)) == 2
    unfinished = await desk.content(ended.error_file_id)
    assert {(row["response"], row["error"]["code"]) for row in unfinished} == {(None, "batch_expired")}
    assert [one["status"] for one in await house.batches()] == ["cancelled"]
    assert await desk.final(batch) == ended


@pytest.mark.slow
async def test_a_reset_to_any_task_buys_nothing_twice_and_changes_nothing_that_has_ended(house: House) -> None:
    await house.admin.settings(**SLOW)
    desk = Desk(house, f"tenant-{secrets.token_hex(4)}")
    rows = [line("r0"), line("r1", "[[sandbox:invalid_request]]"), line("r2")]
    batch = desk.batch(await desk.upload(rows), limits=TenantLimits(max_batches=1))
    async with house.worker():
        handle = await desk.start(batch)
        while not await house.batches():
            await asyncio.sleep(0.05)
        under_way = len(await reset_points(house.client, handle.id))
        for number in range(under_way):
            # Of the newest run: each reset has begun another one, with events of its own.
            await reset_workflow(house.client, handle.id, (await reset_points(house.client, handle.id))[number])
            while (await desk.shown(house.client.get_workflow_handle(handle.id))).status is GatewayStatus.VALIDATING:
                await asyncio.sleep(0.05)
            while len(await reset_points(house.client, handle.id)) <= number + 1:
                await asyncio.sleep(0.05)
        await house.admin.settings(finish_after_polls=0)
        newest = house.client.get_workflow_handle(handle.id, result_type=BatchObject)
        ended = await newest.result()
        content = {path: path.read_bytes() for path in (house.store / "~gateway").rglob("*") if path.is_file()}
        after = len(await reset_points(house.client, handle.id))
        for number in range(after):
            points = await reset_points(house.client, handle.id)
            await reset_workflow(house.client, handle.id, points[min(number, len(points) - 1)])
            assert await house.client.get_workflow_handle(handle.id, result_type=BatchObject).result() == ended
    assert under_way >= 2 and after >= 3
    assert ended.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}
    assert content == {path: path.read_bytes() for path in (house.store / "~gateway").rglob("*") if path.is_file()}
    assert len(await house.batches()) == 1
