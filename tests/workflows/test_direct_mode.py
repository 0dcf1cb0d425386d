"""Direct mode as the workflows see it: rows that a step sends, again and again until each has an answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from durabatch.clients.progress import batch_progress
from durabatch.contract import BatchStatus, Mode, Phase
from support.direct import direct_worker, endpoint_of
from support.house import House

DIRECT: dict[str, Any] = {"mode": "direct"}


async def test_rows_are_run_directly_and_cost_the_list_price(house: House) -> None:
    endpoint = endpoint_of(house)
    async with direct_worker(house, endpoint):
        handle = await house.start(3, **DIRECT, priority=2, fairness_key="search")
        result = await handle.result()
    assert (result.status, result.counts.succeeded, result.repeated) == (BatchStatus.COMPLETED, 3, 0)
    assert result.provider_batches == ()
    assert result.cost_usd == result.list_cost_usd == "0.0000135"
    assert result.direct is not None
    assert (result.direct.rows, result.direct.cost_usd) == (3, "0.0000135")
    rows = house.results(handle.id)
    assert [row["custom_id"] for row in rows] == ["r0", "r1", "r2"]
    assert {(row["mode"], row["provider_batch_id"], row["attempts"]) for row in rows} == {("direct", None, 1)}
    assert [(one.priority_key, one.fairness_key) for one in endpoint.priorities] == [(2, "search")]
    assert await house.batches() == []


async def test_rows_worth_another_try_go_into_a_second_attempt_and_no_others(house: House) -> None:
    endpoint = endpoint_of(house, statuses={1: [500], 2: [400]})
    async with direct_worker(house, endpoint):
        handle = await house.start(4, **DIRECT)
        result = await handle.result()
    assert (result.counts.succeeded, result.counts.failed) == (3, 1)
    assert list(endpoint.sent.values()) == [[0, 1, 2, 3], [1]]
    assert [row["attempts"] for row in house.results(handle.id)] == [1, 2, 1, 1]


@pytest.mark.parametrize("waits", [False, True])
async def test_an_endpoint_that_is_dead_is_waited_for_and_the_progress_says_why(house: House, waits: bool) -> None:
    endpoint = endpoint_of(house, a_run=2, waits=waits)
    async with direct_worker(house, endpoint):
        handle = await house.start(5, **DIRECT)
        progress = await house.until(handle, lambda p: p.waiting_for)
        assert (progress.phase, progress.waiting_for) == (Phase.RUNNING, endpoint.reason)
        assert (progress.counts.total, progress.counts.succeeded) == (5, 2)
        assert progress.next_poll_at is not None
        assert progress.last_error == (None if waits else endpoint.reason)  # a wait for the rate is no error
        endpoint.a_run = None
        await handle.signal("poll_now")
        result = await handle.result()
    assert result.counts.succeeded == 5
    assert list(endpoint.sent.values()) == [[0, 1, 2, 3, 4]]
    assert (endpoint.runs, result.repeated) == (2, 1)  # as this endpoint counts them


async def test_an_outage_of_an_hour_is_only_a_wait(fast_house: House) -> None:
    house = fast_house
    endpoint = endpoint_of(house, a_run=0)
    async with direct_worker(house, endpoint):
        handle = await house.start(3, **DIRECT)
        ending = asyncio.create_task(handle.result())  # time is skipped while somebody waits
        while endpoint.runs < 13:  # after 5 s, 10 s, and at last 10 minutes: an hour and more
            await asyncio.sleep(0.01)
        assert (await house.progress(handle)).last_error == endpoint.reason
        endpoint.a_run = None
        result = await ending
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 3)
    assert result.started_at is not None
    assert result.ended_at is not None
    assert result.ended_at - result.started_at > timedelta(hours=1)


async def test_a_cancel_interrupts_the_rows_and_keeps_what_is_answered(house: House) -> None:
    endpoint = endpoint_of(house, a_run=2, holds=True)
    async with direct_worker(house, endpoint):
        handle = await house.start(5, **DIRECT)
        while not any(len(kept) == 2 for kept in endpoint.kept.values()):
            await asyncio.sleep(0.05)
        await handle.signal("cancel", {"reason": "enough"})
        result = await handle.result()
    assert (result.status, result.counts.succeeded, result.counts.canceled) == (BatchStatus.CANCELED, 2, 3)
    assert [row["status"] for row in house.results(handle.id)] == ["succeeded"] * 2 + ["canceled"] * 3


@pytest.mark.slow  # with a deadline that a busy machine comes to plan before
async def test_the_deadline_interrupts_the_rows_and_keeps_what_is_answered(house: House) -> None:
    endpoint = endpoint_of(house, a_run=2, holds=True)
    async with direct_worker(house, endpoint):
        handle = await house.start(5, **DIRECT, deadline="20s")
        result = await handle.result()
    assert (result.status, result.counts.succeeded, result.counts.expired) == (BatchStatus.EXPIRED, 2, 3)


async def test_a_deadline_that_is_renewed_lets_the_rows_go_on(house: House) -> None:
    endpoint = endpoint_of(house, a_run=2, holds=True, whole_from=2)
    async with direct_worker(house, endpoint):
        # On a busy machine several of these deadlines may pass.
        handle = await house.start(5, **DIRECT, deadline="3s", retry={"max_attempts": 20, "after_deadline": True})
        result = await handle.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 5)
    assert sorted(number for sent in endpoint.sent.values() for number in sent) == [0, 1, 2, 3, 4]
    assert len(endpoint.sent) > 1


@pytest.mark.parametrize("shards", [1, 2])
async def test_the_progress_moves_while_the_rows_are_sent(house: House, shards: int) -> None:
    endpoint = endpoint_of(house, a_run=2, holds=True)
    async with direct_worker(house, endpoint):
        handle = await house.start(3 * shards, **DIRECT, limits={"max_rows": 3})
        while True:
            progress, certain = await batch_progress(house.client, handle.id)
            if certain and progress.counts.succeeded == 2 * shards:
                break
            await asyncio.sleep(0.1)
        assert (progress.phase, progress.counts.total) == (Phase.RUNNING, 3 * shards)
        await handle.signal("cancel")
        result = await handle.result()
    assert (result.counts.succeeded, result.counts.canceled) == (2 * shards, shards)


async def test_a_refused_key_fails_a_batch_at_once_of_which_nothing_is_bought(house: House) -> None:
    endpoint = endpoint_of(house, a_run=0, fails_with="authentication_failed")
    async with direct_worker(house, endpoint):
        handle = await house.start(3, **DIRECT)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert "The key is refused." in caught.value.cause.message
    assert endpoint.runs == 1


async def test_a_refused_key_is_waited_out_once_something_is_bought(house: House) -> None:
    endpoint = endpoint_of(house, a_run=1)
    async with direct_worker(house, endpoint):
        handle = await house.start(3, **DIRECT)
        await house.until(handle, lambda p: p.waiting_for)
        endpoint.fails_with = "authentication_failed"
        await handle.signal("poll_now")
        await house.until(handle, lambda p: p.waiting_for and "The key is refused." in p.waiting_for)
        endpoint.fails_with, endpoint.a_run = None, None
        await handle.signal("poll_now")
        result = await handle.result()
    assert result.counts.succeeded == 3
    assert list(endpoint.sent.values()) == [[0, 1, 2]]


async def test_several_shards_are_run_directly_and_each_row_once(house: House) -> None:
    endpoint = endpoint_of(house)
    async with direct_worker(house, endpoint):
        handle = await house.start(6, **DIRECT, limits={"max_rows": 2})
        result = await handle.result()
    assert (result.counts.succeeded, len(endpoint.sent)) == (6, 3)
    assert result.direct is not None
    assert result.direct.rows == 6
    assert [row["custom_id"] for row in house.results(handle.id)] == [f"r{n}" for n in range(6)]


async def test_the_providers_mode_holds_where_the_spec_names_none(house: House) -> None:
    provider = house.settings.provider("sandbox").model_copy(update={"mode": Mode.DIRECT})
    house.settings = house.settings.with_provider(provider)
    endpoint = endpoint_of(house)
    async with direct_worker(house, endpoint):
        result = await (await house.start(2)).result()
        assert (result.counts.succeeded, endpoint.runs, result.provider_batches) == (2, 1, ())
        result = await (await house.start(2, mode="batch")).result()
        assert (result.counts.succeeded, endpoint.runs, len(result.provider_batches)) == (2, 1, 1)
