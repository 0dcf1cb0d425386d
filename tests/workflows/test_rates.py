"""The rate of an account in direct mode, on a real Temporal server, as the provider counts what arrives."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment

from durabatch.activities.direct.governors import Governors
from durabatch.activities.direct.rate_lease import NoLease, TemporalLedger
from durabatch.cli.rates import lines, table
from durabatch.clients.ledgers import rates
from durabatch.contract import BatchStatus
from durabatch.contract.rates import RATES_WORKFLOW, RateAsk, RateLimits, RatesStart, RatesView, rates_id
from support.house import House, asked, connect, open_house

MODEL = "gpt-4o-mini"
#: Calls a minute, which are ten a second; the provider looks at six seconds.
A_MINUTE, PERIOD = 600, 6.0


@pytest.fixture
async def limited(server: str, tmp_path: Path) -> AsyncIterator[House]:
    """A house whose provider is asked ten times a second at most."""
    client = await connect(server)
    async with open_house(client, tmp_path, {"timeout": "20s"}) as house:
        provider = house.settings.provider("sandbox").model_copy(update={"requests_per_minute": A_MINUTE})
        house.settings = house.settings.with_provider(provider)
        await house.admin.settings(rate_period_seconds=PERIOD)
        yield house


def ledger(house: House) -> WorkflowHandle[Any, Any]:
    return house.client.get_workflow_handle(rates_id(house.settings.provider("sandbox").fingerprint, MODEL))


async def view(house: House) -> RatesView:
    return await asked(lambda: ledger(house).query("rates", result_type=RatesView))


async def shared_by(house: House, workers: int) -> RatesView:
    while len((seen := await view(house)).workers) != workers:
        await asyncio.sleep(0.1)
    return seen


async def answered(house: House, calls: int) -> None:
    while (await house.admin.live())["how"].get("answered", 0) < calls:
        await asyncio.sleep(0.05)


@pytest.mark.slow  # a rate is watched for a quarter of a minute
async def test_the_rate_holds_as_the_provider_counts_it_while_workers_join_and_leave(
    limited: House, server: str
) -> None:
    second = dataclasses.replace(limited, client=await connect(server))
    third = dataclasses.replace(limited, client=await connect(server))
    async with AsyncExitStack() as first:
        await first.enter_async_context(limited.worker())
        handle = await limited.start(160, mode="direct", limits={"max_rows": 20})
        await answered(limited, 20)
        async with second.worker():
            await answered(limited, 50)
            async with third.worker():
                await answered(limited, 90)
                await first.aclose()
                await answered(limited, 120)
            result = await handle.result()
    assert (result.status, result.counts.succeeded, result.repeated) == (BatchStatus.COMPLETED, 160, 0)
    (rate,) = await limited.admin.rates()
    a_second = A_MINUTE / 60
    # A period holds its limit, what may be made up for after a delay of half a second, and one call of each worker.
    assert rate["arrived_requests"]["most"] <= a_second * (PERIOD + 0.5) + 3
    assert rate["arrived_requests"]["total"] == 160


async def test_who_uses_the_rate_and_who_waits_is_shown(limited: House, server: str) -> None:
    async with limited.worker(identity="first@host"):
        handle = await limited.start(200, mode="direct")
        await answered(limited, 25)
        await shared_by(limited, 1)
        while not (seen := await view(limited)).workers[0].using.requests:
            await asyncio.sleep(0.1)
        assert (seen.limits.requests_per_minute, seen.limits.slots, seen.model) == (A_MINUTE, 256, MODEL)
        assert [batch.batch for batch in seen.workers[0].batches] == [handle.id]
        found, silent = await rates(limited.client)
        assert ledger(limited).id not in [one.id for one in silent]
        (mine,) = [one for one in found if one.account == seen.account]
        shown = "\n".join(lines(mine))
        assert f"of {A_MINUTE} requests" in shown and handle.id in shown
        assert f"of {A_MINUTE}" in table([("sandbox", mine)])
        await handle.signal("cancel")
        await handle.result()


async def test_providers_and_workers_of_one_account_share_its_rate_by_the_lowest_of_their_limits(house: House) -> None:
    """Two names for one account in this worker's configuration, and another worker that is configured otherwise."""
    high, low = (
        house.settings.provider("sandbox").model_copy(
            update={"name": name, "requests_per_minute": limit, "max_concurrent_requests": slots}
        )
        for name, limit, slots in (("high", 6000, 50), ("low", 1200, 80))
    )
    assert high.fingerprint == low.fingerprint
    environment = ActivityEnvironment(house.client)
    environment.info = dataclasses.replace(environment.info, task_queue=house.task_queue)
    handle = house.client.get_workflow_handle(rates_id(high.fingerprint, "shared"))
    beside = RateAsk(worker="elsewhere", ttl=30, limits=RateLimits(requests_per_minute=2400, slots=40))

    def given(seen: RatesView) -> float:
        return sum(worker.amounts.requests or 0.0 for worker in seen.workers)

    async def use() -> RatesView:
        governors = Governors(timedelta(seconds=4))
        lanes = [governors.lane(one, one.fingerprint, "shared", batch=one.name) for one in (high, low)]
        async with lanes[0] as first, lanes[1] as second:
            for lane in (first, second, first, second):
                lane.done(await lane.take(1))
            await TemporalLedger(
                house.client, house.task_queue, RatesStart(account=high.fingerprint, provider="high", model="shared")
            ).lease(beside)
            # Who asked first had more before the others were there, until it asks again.
            seen = RatesView()
            while len(seen.workers) < 3 or given(seen) > 1200 / 60 + 1e-6:
                await asyncio.sleep(0.05)
                seen = await asked(lambda: handle.query("rates", result_type=RatesView))
        await governors.close()
        return seen

    async with house.worker():
        seen: RatesView = await environment.run(use)
        await handle.terminate()
    assert (seen.limits.requests_per_minute, seen.limits.slots) == (1200, 40)


async def test_a_ledger_that_was_terminated_is_followed_by_one_that_waits_for_its_leases_to_end(house: House) -> None:
    of = RatesStart(account="a", provider="sandbox", model="lost")
    asks = TemporalLedger(house.client, house.task_queue, of)
    ask = RateAsk(worker="w", limits=RateLimits(slots=7))
    async with house.worker():
        assert (await asks.lease(ask)).amounts.slots == 7
        await house.client.get_workflow_handle(asks.id).terminate("by somebody")
        again = await asks.lease(ask.model_copy(update={"obeys": 1}))
        assert (again.amounts.slots, again.seq) == (0, 2)
        await house.client.get_workflow_handle(asks.id).terminate()


@pytest.mark.slow
async def test_a_ledger_on_a_task_queue_that_workers_have_left_goes_on_where_they_are(house: House) -> None:
    of = RatesStart(account="a", provider="sandbox", model="moved")
    asks, ask = TemporalLedger(house.client, house.task_queue, of), RateAsk(worker="w", limits=RateLimits(slots=7))
    left = await house.client.start_workflow(RATES_WORKFLOW, of, id=asks.id, task_queue="nobody")
    async with house.worker():
        with pytest.raises(NoLease, match="started again"):
            await asks.lease(ask)
        # What the one before has leased may still be in use.
        assert (await asks.lease(ask)).amounts.slots == 0
        await house.client.get_workflow_handle(asks.id).terminate()
    first = house.client.get_workflow_handle(asks.id, run_id=left.first_execution_run_id)
    assert "nobody" in str((await first.fetch_history()).events[-1].workflow_execution_terminated_event_attributes)


async def test_an_ask_that_is_cancelled_is_over_and_not_without_an_answer(house: House) -> None:
    asks = TemporalLedger(house.client, house.task_queue, RatesStart(account="a", provider="sandbox", model="silent"))
    handle = house.client.get_workflow_handle(asks.id)
    # Nobody runs the ledger. Its governor ends by this cancel, and a worker waits for its governors when it stops.
    ask = asyncio.create_task(asks.lease(RateAsk(worker="w", limits=RateLimits(slots=7))))
    while True:
        with suppress(RPCError):
            await handle.describe()
            break
        await asyncio.sleep(0.05)
    ask.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ask
    await handle.terminate()


async def test_what_is_sent_by_hand_does_not_disturb_a_ledger(house: House) -> None:
    of = RatesStart(account="a", provider="sandbox", model="by-hand")
    asks = TemporalLedger(house.client, house.task_queue, of)
    handle = house.client.get_workflow_handle(asks.id)
    ask = RateAsk(worker="w", limits=RateLimits(slots=7))
    async with house.worker():
        await asks.lease(ask)
        for junk in ([], ["?"], [{"worker": "x", "ttl": "soon"}], [None, 1, 2]):
            with pytest.raises(WorkflowUpdateFailedError):
                await handle.execute_update("lease", args=junk)
            await handle.signal("release", args=junk)
        assert (await asks.lease(ask)).amounts.slots == 7
        await asks.release("w")
        assert (await asks.lease(ask.model_copy(update={"worker": "v"}))).amounts.slots == 7
        await handle.terminate()


@pytest.mark.slow
async def test_a_ledger_goes_on_in_a_new_run_with_what_it_has_leased(house: House) -> None:
    asks = TemporalLedger(house.client, house.task_queue, RatesStart(account="a", provider="sandbox", model="long"))
    handle = house.client.get_workflow_handle(asks.id)
    other = RateAsk(worker="other", ttl=600, limits=RateLimits(slots=8))
    async with house.worker():
        await asks.lease(other)
        first = (await handle.describe()).run_id
        ask, asked_for = RateAsk(worker="w", ttl=600, limits=RateLimits(slots=8)), 0
        while (await handle.describe()).run_id == first:
            for _ in range(50):
                lease = await asks.lease(ask)
                ask, asked_for = ask.model_copy(update={"obeys": lease.seq}), asked_for + 1
                assert lease.amounts.slots == 0  # `other` has all of it
            assert asked_for <= 2000
        assert lease.seq == asked_for
        await handle.terminate()


async def test_a_ledger_that_nobody_asks_ends_by_itself(fast_house: House) -> None:
    house = fast_house
    asks = TemporalLedger(house.client, house.task_queue, RatesStart(account="a", provider="sandbox", model="idle"))
    handle = house.client.get_workflow_handle(asks.id)
    async with house.worker():
        await asks.lease(RateAsk(worker="w", limits=RateLimits(slots=8)))
        await house.admin.settings(finish_after_polls=100_000)
        seldom = {"first": "5m", "maximum": "10m"}
        idle = await house.start(1, provider="claude", model="claude-haiku-4-5", deadline="1h", poll=seldom)
        await idle.result()  # the server skips time while this waits
        assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED


async def test_a_governor_that_nobody_needs_gives_its_share_back(house: House) -> None:
    provider = house.settings.provider("sandbox")
    environment = ActivityEnvironment(house.client)
    environment.info = dataclasses.replace(environment.info, task_queue=house.task_queue)

    async def use() -> int:
        governors = Governors(timedelta(seconds=20))
        async with governors.lane(provider, provider.fingerprint, "left", batch="b") as lane:
            ticket = await lane.take(10)
            lane.done(ticket)
        await governors.close()
        return 1

    async with house.worker():
        handle = house.client.get_workflow_handle(rates_id(provider.fingerprint, "left"))
        assert await environment.run(use) == 1
        seen = await asked(lambda: handle.query("rates", result_type=RatesView))
        assert seen.workers == ()
        await handle.terminate()
    assert json.loads(seen.model_dump_json())["model"] == "left"
