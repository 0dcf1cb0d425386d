"""Whom a batch calls when it has ended."""

from __future__ import annotations

import asyncio

import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from durabatch.contract import BatchResult, BatchStatus, ConfigurationError, Phase
from durabatch.workers import BatchPlugin
from support.house import House


@workflow.defn(sandboxed=False)  # its module imports pytest
class Handler:
    """Somebody's workflow that goes on where a batch ended."""

    @workflow.run
    async def run(self, result: BatchResult) -> str:
        return f"{result.batch_id}: {result.counts.succeeded}"


async def test_an_activity_of_the_users_is_called_with_the_result(house: House) -> None:
    seen: list[BatchResult] = []

    @activity.defn(name="tell_me")
    async def tell_me(result: BatchResult) -> None:
        seen.append(result)

    queue = f"{house.task_queue}-handlers"
    async with house.worker(), Worker(house.client, task_queue=queue, activities=[tell_me]):
        handle = await house.start(2, on_complete={"activity": "tell_me", "task_queue": queue})
        result = await handle.result()
    assert seen == [result]


async def test_a_workflow_of_the_users_is_started_with_the_result(house: House) -> None:
    queue = f"{house.task_queue}-handlers"
    async with house.worker(), Worker(house.client, task_queue=queue, workflows=[Handler]):
        handle = await house.start(2, on_complete={"workflow": "Handler", "task_queue": queue})
        await handle.result()
        told = await house.client.get_workflow_handle(f"{handle.id}/on_complete", result_type=str).result()
    assert told == f"{handle.id}: 2"


async def test_a_handler_that_fails_does_not_take_the_results_with_it(house: House) -> None:
    @activity.defn(name="tell_me")
    async def tell_me(result: BatchResult) -> None:
        raise ApplicationError("no", non_retryable=True)

    queue = f"{house.task_queue}-handlers"
    async with house.worker(), Worker(house.client, task_queue=queue, activities=[tell_me]):
        handle = await house.start(2, on_complete={"activity": "tell_me", "task_queue": queue})
        result = await handle.result()
        progress = await house.progress(handle)
    assert result.status is BatchStatus.COMPLETED
    assert "on_complete failed" in (progress.last_error or "")


async def test_labels_of_the_users_come_back_with_the_result(house: House) -> None:
    async with house.worker():
        result = await (await house.start(1, metadata={"team": "search"})).result()
    assert result.metadata == {"team": "search"}


@pytest.mark.slow
async def test_a_shard_whose_workflow_was_terminated_is_finished_by_its_batch(house: House) -> None:
    await house.admin.settings(finish_after_polls=1000)
    async with house.worker():
        handle = await house.start(6, limits={"max_rows": 3})
        while len(await house.batches()) < 2:
            assert (await house.progress(handle)).result is None
        await house.client.get_workflow_handle(f"{handle.id}/shards/00001").terminate("by mistake")
        await house.admin.settings(finish_after_polls=0)
        result = await handle.result()
    assert result.counts.succeeded == 6
    assert len(await house.batches()) == 2


async def test_a_nudge_of_a_batch_reaches_its_shards(house: House) -> None:
    await house.admin.settings(finish_after_polls=1)
    async with house.worker():
        handle = await house.start(6, limits={"max_rows": 3}, poll={"first": "1h", "maximum": "1h"})
        while len(await house.batches()) < 2:
            assert (await house.progress(handle)).result is None
        progress = await house.until(handle, lambda p: p.waiting_for and "shards are under way" in p.waiting_for)
        assert progress.shards.total == 2
        while (await house.progress(handle)).result is None:
            await handle.signal("poll_now")
            await asyncio.sleep(0.3)
        result = await handle.result()
    assert result.counts.succeeded == 6


async def test_a_client_that_could_not_read_the_payloads_is_refused_at_once(house: House, server: str) -> None:
    plain = await Client.connect(server)
    with pytest.raises(ConfigurationError, match="data converter"):
        Worker(plain, task_queue=house.task_queue, plugins=[BatchPlugin(house.settings)])


@pytest.mark.parametrize("limits", [{"timeout": "2s"}, {"heartbeat": "1s"}], ids=["timeout", "heartbeat"])
async def test_a_handler_whose_worker_is_not_heard_of_any_more_is_tried_again(
    house: House, limits: dict[str, str]
) -> None:
    tries: list[int] = []

    @activity.defn(name="load_into_the_warehouse")
    async def load(result: BatchResult) -> None:
        tries.append(activity.info().attempt)
        if len(tries) == 1:
            await asyncio.Event().wait()  # for its batch, as good as dead

    queue = f"{house.task_queue}-handlers"
    async with house.worker(), Worker(house.client, task_queue=queue, activities=[load]):
        wanted = {"activity": "load_into_the_warehouse", "task_queue": queue, **limits}
        handle = await house.start(2, on_complete=wanted)
        assert (await handle.result()).status is BatchStatus.COMPLETED
        assert (await house.progress(handle)).last_error is None
    assert tries == [1, 2]


async def test_a_cancel_ends_the_wait_for_a_handler_that_nobody_runs(house: House) -> None:
    queue = f"{house.task_queue}-nobody"
    async with house.worker():
        handle = await house.start(2, on_complete={"activity": "tell_me", "task_queue": queue})
        progress = await house.until(handle, lambda p: "tell_me" in (p.waiting_for or ""))
        assert progress.phase is Phase.FINISHING
        assert queue in (progress.waiting_for or "")
        await handle.signal("cancel")
        result = await handle.result()
        progress = await house.progress(handle)
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 2)
    assert progress.last_error == "on_complete failed: a cancel came first"
