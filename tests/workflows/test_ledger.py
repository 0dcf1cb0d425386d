"""Batches of one account wait their turn in its queue, on real Temporal servers, with a provider that enforces it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle

from durabatch.activities.ledger_history import read_ledger_history
from durabatch.contract import BatchStatus, LedgerView
from durabatch.contract.ledger import LEDGER_WORKFLOW, LedgerStart, Reservation, ledger_id
from durabatch.workflows import LedgerWorkflow
from support.house import House, asked, connect, open_house

#: A row of so many bytes is estimated at about 300 tokens, and counted by the provider at a little less.
TEXT = "word " * 200
LIMIT = 1000
SLOW = {"finish_after_polls": 100_000}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
#: Looks that are far apart, where hours are skipped: each costs as much time as it does in earnest.
SELDOM = {"first": "5m", "maximum": "10m"}


@pytest.fixture
async def bounded(server: str, tmp_path: Path) -> AsyncIterator[House]:
    """A house whose provider takes 1,000 tokens at a time, and whose worker knows it."""
    client = await connect(server)
    async with open_house(
        client, tmp_path, {"listing_lag": "1s", "timeout": "5s", "max_enqueued_tokens": str(LIMIT)}
    ) as house:
        await house.admin.settings(enqueued_token_limit=LIMIT)
        yield house


def ledger(house: House) -> WorkflowHandle[Any, Any]:
    account = house.settings.provider("sandbox").fingerprint
    return house.client.get_workflow_handle(ledger_id(account, "gpt-4o-mini"))


async def view(house: House, handle: WorkflowHandle[Any, Any] | None = None) -> LedgerView:
    return await asked(lambda: (handle or ledger(house)).query(LedgerWorkflow.ledger, result_type=LedgerView))


async def empty(house: House) -> LedgerView:
    while (seen := await view(house)).holders or seen.waiting:
        await asyncio.sleep(0.1)
    return seen


@pytest.mark.slow
async def test_fifty_batches_that_exceed_the_limit_twenty_times_all_complete_and_none_is_refused(
    bounded: House, server: str
) -> None:
    await bounded.admin.settings(**SLOW)
    second = replace(bounded, client=await connect(server))
    async with bounded.worker(), second.worker():
        handles = [await bounded.start([f"{n} {TEXT}", TEXT[:640]]) for n in range(50)]
        await bounded.until(handles[0], lambda p: p.waiting_for or p.provider_batch_id)  # so there is a ledger
        while (now := await view(bounded)).holders + now.waiting < 50:
            await asyncio.sleep(0.1)
        assert now.in_use + now.waiting_tokens >= 20 * LIMIT  # by our estimate
        await bounded.admin.settings(finish_after_polls=0)
        running = asyncio.gather(*(handle.result() for handle in handles))
        seen = now.in_use
        while not running.done():
            seen = max(seen, (await view(bounded)).in_use)
            await asyncio.sleep(0.1)
        results = await running
        left = await empty(bounded)
    assert [result.status for result in results] == [BatchStatus.COMPLETED] * 50
    assert sum(result.usage.input_tokens for result in results) >= 20 * LIMIT  # by the provider's own count
    assert [batch["status"] for batch in await bounded.batches()] == ["completed"] * 50  # each created once
    assert 0 < seen <= LIMIT
    assert (left.in_use, left.limit, left.waiting_tokens) == (0, LIMIT, 0)


async def test_shards_of_one_batch_wait_for_each_other(bounded: House) -> None:
    async with bounded.worker():
        handle = await bounded.start([TEXT] * 8, limits={"max_rows": 2})
        result = await handle.result()
        await empty(bounded)
    assert result.counts.succeeded == 8
    assert [batch["status"] for batch in await bounded.batches()] == ["completed"] * 4


@pytest.mark.slow
async def test_a_batch_is_cut_so_that_each_shard_has_room(bounded: House) -> None:
    async with bounded.worker():
        result = await (await bounded.start([TEXT] * 10)).result()
    assert result.counts.succeeded == 10
    assert len(result.provider_batches) >= 3  # 10 rows of 300 tokens in shards of 1,000 at most
    assert {batch["status"] for batch in await bounded.batches()} == {"completed"}


async def test_a_batch_that_waits_says_so_and_can_be_cancelled(bounded: House) -> None:
    await bounded.admin.settings(**SLOW)
    async with bounded.worker():
        first = await bounded.start([TEXT, TEXT])
        await bounded.until(first, lambda p: p.provider_batch_id)
        second = await bounded.start([TEXT, TEXT])
        progress = await bounded.until(second, lambda p: p.waiting_for)
        assert "its turn in the queue of provider sandbox" in progress.waiting_for
        assert "it is next" in progress.waiting_for
        seen = await view(bounded)
        assert [one.holder for one in seen.queue] == [bounded.marker(second.id)]
        await second.signal("cancel")
        result = await second.result()
        assert (result.status, result.counts.canceled) == (BatchStatus.CANCELED, 2)
        assert (await view(bounded)).waiting == 0
        await first.signal("cancel")
        await first.result()
        await empty(bounded)
    assert len(await bounded.batches()) == 1


@pytest.mark.slow
async def test_a_batch_of_a_higher_priority_has_its_turn_first(bounded: House) -> None:
    await bounded.admin.settings(**SLOW)
    async with bounded.worker():
        holder = await bounded.start([TEXT, TEXT])
        await bounded.until(holder, lambda p: p.provider_batch_id)
        usual = await bounded.start([TEXT, TEXT])
        await bounded.until(usual, lambda p: p.waiting_for)
        urgent = await bounded.start([TEXT, TEXT], priority=1)
        await bounded.until(urgent, lambda p: p.waiting_for)
        assert [one.holder for one in (await view(bounded)).queue] == [
            bounded.marker(urgent.id),
            bounded.marker(usual.id),
        ]
        await bounded.admin.settings(finish_after_polls=0)
        await asyncio.gather(*(handle.result() for handle in (holder, usual, urgent)))
    markers = [batch["marker"] for batch in await bounded.batches()]
    assert markers == [bounded.marker(holder.id), bounded.marker(urgent.id), bounded.marker(usual.id)]


async def test_those_who_share_a_fairness_key_share_one_turn(bounded: House) -> None:
    await bounded.admin.settings(**SLOW)
    async with bounded.worker():
        holder = await bounded.start([TEXT, TEXT], fairness_key="team-a")
        await bounded.until(holder, lambda p: p.provider_batch_id)
        again = await bounded.start([TEXT, TEXT], fairness_key="team-a")
        await bounded.until(again, lambda p: p.waiting_for)
        other = await bounded.start([TEXT, TEXT], fairness_key="team-b")
        await bounded.until(other, lambda p: p.waiting_for)
        assert [one.holder for one in (await view(bounded)).queue] == [
            bounded.marker(other.id),
            bounded.marker(again.id),
        ]
        for handle in (again, other, holder):
            await handle.signal("cancel")
        await asyncio.gather(*(handle.result() for handle in (again, other, holder)))


@pytest.mark.slow
async def test_the_queue_outlives_its_worker(bounded: House) -> None:
    await bounded.admin.settings(**SLOW)
    async with bounded.worker():
        first = await bounded.start([TEXT, TEXT])
        await bounded.until(first, lambda p: p.provider_batch_id)
        second = await bounded.start([TEXT, TEXT])
        await bounded.until(second, lambda p: p.waiting_for)
    await bounded.admin.settings(finish_after_polls=0)
    async with bounded.worker(max_cached_workflows=0):
        assert (await first.result()).status is BatchStatus.COMPLETED
        assert (await second.result()).status is BatchStatus.COMPLETED
        await empty(bounded)


async def test_a_retried_row_asks_for_less_room_than_its_whole_shard(bounded: House) -> None:
    async with bounded.worker():
        handle = await bounded.start([TEXT, TEXT, f"[[sandbox:server_error times=1]] {TEXT}"])
        result = await handle.result()
        history = await ledger(bounded).fetch_history()
    asked = [
        (await bounded.client.data_converter.decode(event.workflow_execution_signaled_event_attributes.input.payloads))[
            0
        ]["tokens"]
        for event in history.events
        if event.HasField("workflow_execution_signaled_event_attributes")
        and event.workflow_execution_signaled_event_attributes.signal_name == "reserve"
    ]
    assert result.counts.succeeded == 3
    assert len(asked) == 2 and asked[1] < asked[0] / 2


async def test_signals_that_are_no_claims_leave_the_ledger_as_it_was(bounded: House) -> None:
    await bounded.admin.settings(**SLOW)
    async with bounded.worker():
        first = await bounded.start([TEXT, TEXT])
        await bounded.until(first, lambda p: p.provider_batch_id)
        for arguments in ([], ["nonsense"], [{"holder": 1}, "x"], [None, None, None]):
            await ledger(bounded).signal("reserve", args=arguments)
            await ledger(bounded).signal("release", args=arguments)
        seen = await view(bounded)
        assert (seen.holders, seen.waiting, seen.limit) == (1, 0, LIMIT)
        await first.signal("cancel")
        await first.result()


async def test_a_ledger_that_was_terminated_goes_on_with_all_who_had_room_or_waited(bounded: House) -> None:
    await bounded.admin.settings(**SLOW)
    async with bounded.worker():
        first = await bounded.start([TEXT, TEXT])
        await bounded.until(first, lambda p: p.provider_batch_id)
        second = await bounded.start([TEXT, TEXT])
        await bounded.until(second, lambda p: p.waiting_for)
        await ledger(bounded).terminate("by mistake")
        third = await bounded.start([TEXT, TEXT])
        await bounded.until(third, lambda p: p.waiting_for)
        seen = await view(bounded)
        assert [one.holder for one in seen.holding] == [bounded.marker(first.id)]
        assert [one.holder for one in seen.queue] == [bounded.marker(second.id), bounded.marker(third.id)]
        await ledger(bounded).terminate("and again")
        # Nobody asks for some minutes, but the room that comes back reaches the next one all the same.
        await bounded.admin.settings(finish_after_polls=0)
        results = await asyncio.gather(*(handle.result() for handle in (first, second, third)))
        await empty(bounded)
    assert [result.status for result in results] == [BatchStatus.COMPLETED] * 3
    assert [batch["status"] for batch in await bounded.batches()] == ["completed"] * 3  # none was refused


@pytest.mark.slow
async def test_whoever_ended_with_a_ledger_that_was_terminated_keeps_nobody_waiting(bounded: House) -> None:
    await bounded.admin.settings(**SLOW)
    async with bounded.worker():
        first = await bounded.start([TEXT, TEXT])
        await bounded.until(first, lambda p: p.provider_batch_id)
        for handle in (first, ledger(bounded)):
            await handle.terminate("clearing up")
        await bounded.admin.settings(finish_after_polls=0, enqueued_token_limit=10 * LIMIT)
        second = await bounded.start([TEXT, TEXT])
        assert (await second.result()).status is BatchStatus.COMPLETED


@workflow.defn
class Idle:
    """One that may be told anything."""

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)


@pytest.mark.parametrize("end", ["terminate", "cancel"])
@pytest.mark.slow
async def test_what_a_ledger_held_is_read_from_its_history_in_any_order_of_events(house: House, end: str) -> None:
    draw = random.Random(end)
    others = [f"{house.task_queue}-{n}" for n in range(20)]
    for name in others:  # nobody runs them; they are there to be told
        await house.client.start_workflow(Idle.run, id=name, task_queue=f"{house.task_queue}-idle")
    start = LedgerStart(account=house.task_queue, provider="sandbox", model="m", limit=LIMIT)
    handle = await house.client.start_workflow(
        LedgerWorkflow.run, args=[start, [], []], id=ledger_id(start.account, "m"), task_queue=house.task_queue
    )
    async with house.worker():
        for _ in range(200):
            name, number = draw.choice([*others, "gone"]), draw.randint(1, 2)
            if draw.random() < 0.4:
                await handle.signal("release", f"{name}/0/{number}")
                continue
            since = datetime.now(UTC)
            reservation = Reservation(
                holder=f"{name}/0/{number}",
                workflow_id=name,
                tokens=draw.randint(1, 300),
                since=since,
                held=draw.random() < 0.1,
                priority=draw.choice([1, 3]),
            )
            await handle.signal("reserve", args=[reservation, LIMIT])
        before = await view(house, handle)
        while (again := await view(house, handle)) != before:
            before = again
        # A cancel is taken by whatever waits in it, and changes nothing of what it holds.
        await getattr(handle, end)()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    history = await read_ledger_history(house.client, handle.id)
    assert before.holders and before.waiting
    assert {one.holder for one in history.holding} == {one.holder for one in before.holding}
    assert {one.holder for one in history.waiting} == {one.holder for one in before.queue}
    assert sum(reservation.tokens for reservation in history.holding) == before.in_use
    for name in others:
        await house.client.get_workflow_handle(name).terminate()


@pytest.mark.slow
async def test_two_thousand_who_wait_have_their_turns_and_the_ledger_answers_all_the_while(house: House) -> None:
    waiting = [
        Reservation(holder=f"b{n:04d}/0/1", workflow_id=f"b{n:04d}", tokens=1000, since=NOON + timedelta(seconds=n))
        for n in range(2000)
    ]
    start = LedgerStart(account=house.task_queue, provider="sandbox", model="m", limit=1_000_000)
    large = Reservation(holder="large/0/1", workflow_id=f"{house.task_queue}-large", tokens=1_000_000, since=NOON)
    await house.client.start_workflow(Idle.run, id=large.workflow_id, task_queue=f"{house.task_queue}-idle")
    handle = await house.client.start_workflow(
        LedgerWorkflow.run,
        args=[start, [large], waiting],
        id=ledger_id(start.account, "m"),
        task_queue=house.task_queue,
    )
    first_run = handle.first_execution_run_id
    # Without the SDK's limit of two seconds for a workflow task: on a busy machine hundreds of signals may take longer,
    # and a workflow that is interrupted among them is never evicted, so that its worker would not end.
    async with house.worker(debug_mode=True):
        seen = await view(house, handle)
        assert (seen.holders, seen.waiting, seen.waiting_tokens) == (1, 2000, 2_000_000)
        place = await asked(lambda: handle.query(LedgerWorkflow.place, "b1999/0/1"))
        assert (place.granted, place.ahead) == (False, 1999)
        await handle.signal("release", large.holder)
        # None of those who wait is there to be told, so each gives its room to the next.
        while (seen := await view(house, handle)).holders or seen.waiting:
            await asyncio.sleep(0.1)
    told, a_task = [], [0]
    async for event in house.client.get_workflow_handle(handle.id, run_id=first_run).fetch_history_events():
        if event.HasField("signal_external_workflow_execution_initiated_event_attributes"):
            signal = event.signal_external_workflow_execution_initiated_event_attributes
            told += await house.client.data_converter.decode(signal.input.payloads)
            a_task[-1] += 1
        elif event.HasField("workflow_task_completed_event_attributes"):
            a_task.append(0)
        assert event.event_id <= 4000  # the others have their turns in a run of their own
    # A ledger that starts with holders looks at once whether they, and the first twenty who wait, are still there.
    found_gone = {reservation.holder for reservation in waiting[:20]} - set(told)
    in_turn = [reservation.holder for reservation in waiting if reservation.holder not in found_gone]
    assert told == in_turn[: len(told)]
    assert len(told) > 1000
    assert max(a_task) < 400
    await house.client.get_workflow_handle(large.workflow_id).terminate()


@pytest.fixture
async def fast_bounded(fast_house: House) -> House:
    """A house on the time-skipping server whose provider takes 1,000 tokens at a time."""
    provider = fast_house.settings.provider("sandbox").model_copy(update={"max_enqueued_tokens": LIMIT})
    fast_house.settings = fast_house.settings.with_provider(provider)
    return fast_house


async def test_room_of_a_batch_that_was_terminated_is_found_and_given_to_the_next(fast_bounded: House) -> None:
    house = fast_bounded
    await house.admin.settings(**SLOW)
    async with house.worker():
        first = await house.start([TEXT, TEXT], poll=SELDOM)
        await house.until(first, lambda p: p.provider_batch_id)
        second = await house.start([TEXT, TEXT])
        await house.until(second, lambda p: p.waiting_for)
        await first.terminate("nobody gives the room back")
        await house.admin.settings(finish_after_polls=0)
        result = await second.result()  # the server skips time while this waits
    assert result.status is BatchStatus.COMPLETED


async def test_one_that_is_gone_and_whose_turn_is_next_keeps_nobody_waiting(fast_bounded: House) -> None:
    house = fast_bounded
    await house.admin.settings(**SLOW)
    async with house.worker():
        first = await house.start([TEXT], poll=SELDOM)
        await house.until(first, lambda p: p.provider_batch_id)
        gone = await house.start([TEXT, TEXT, TEXT])
        await house.until(gone, lambda p: p.waiting_for)
        small = await house.start([TEXT], poll=SELDOM)
        await house.until(small, lambda p: p.waiting_for and "1 ahead" in p.waiting_for)
        await gone.terminate("it never gives its place back")
        handle = await house.start([TEXT], provider="claude", model="claude-haiku-4-5", deadline="30m", poll=SELDOM)
        await handle.result()  # the server skips time while this waits; the first one is still under way
        seen = await view(house)
        assert (seen.holders, seen.waiting) == (2, 0)
        await house.admin.settings(finish_after_polls=0)
        assert (await small.result()).status is BatchStatus.COMPLETED


async def test_a_ledger_that_nobody_needs_ends_by_itself(fast_bounded: House) -> None:
    house = fast_bounded
    async with house.worker():
        await (await house.start([TEXT])).result()
        await house.admin.settings(**SLOW)
        idle = {"provider": "claude", "model": "claude-haiku-4-5", "deadline": "1h", "poll": SELDOM}
        await (await house.start([TEXT], **idle)).result()
        await house.admin.settings(finish_after_polls=0)
        description = await ledger(house).describe()
        assert description.status is WorkflowExecutionStatus.COMPLETED
        assert description.workflow_type == LEDGER_WORKFLOW
        # And begins anew with the next batch.
        assert (await (await house.start([TEXT])).result()).status is BatchStatus.COMPLETED
