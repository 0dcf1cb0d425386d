"""Row work: a bounded number of threads that work on rows, however many steps run at a time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationErrorCategory
from temporalio.testing import ActivityEnvironment

from durabatch.activities.resources import LongSteps, Resources
from durabatch.activities.settle import Settle
from durabatch.activities.store import Store
from durabatch.contract import RetryPolicy, WorkerBusy
from durabatch.contract.steps import CreateAnswer, SettleRequest

THREADS = 2


async def hold(resources: Resources) -> None:
    """Take every place."""
    for _ in range(THREADS):
        await resources.row_work.acquire()
    assert resources.row_work.locked()


def give_back(resources: Resources) -> None:
    for _ in range(THREADS):
        resources.row_work.release()


async def a_while() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0.01)


async def test_a_step_that_waits_for_its_turn_goes_on_to_beat(desk: Any) -> None:
    await desk.plan(desk.chat("a"))
    desk.answered()
    await hold(desk.resources)
    environment, beats = ActivityEnvironment(), asyncio.Semaphore(0)
    environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=0.1))
    environment.on_heartbeat = lambda *details: beats.release()
    request = SettleRequest(
        attempt=desk.attempt, attempts=tuple(desk.sent), retry=RetryPolicy(max_attempts=1), unfinished="failed"
    )
    task = asyncio.ensure_future(environment.run(Settle(desk.resources).settle, request))
    for _ in range(3):
        await beats.acquire()
    assert not task.done()
    assert not desk.path("settled.json").exists()
    give_back(desk.resources)
    assert (await task).counts.total == 1


class Crowd(Store):
    """A store that counts who reads an index at a time, and lets nobody go on before it is told to."""

    active = most = 0
    lock = threading.Lock()
    go = threading.Event()

    def stream(self, path: str, *arguments: Any, **options: Any) -> Iterator[bytes]:
        if not path.endswith("rows.jsonl"):
            return super().stream(path, *arguments, **options)
        with Crowd.lock:
            Crowd.active += 1
            Crowd.most = max(Crowd.most, Crowd.active)
        Crowd.go.wait(60)
        with Crowd.lock:
            Crowd.active -= 1
        return super().stream(path, *arguments, **options)


async def test_no_more_threads_work_on_rows_than_are_useful(desk: Any) -> None:
    await desk.plan(*(desk.chat(f"r-{n}") for n in range(8)), limits={"max_rows": 1})
    desk.resources = Resources(Crowd.open(str(desk.folder)), desk._settings)
    tasks = []
    for desk.shard in range(8):
        tasks.append(asyncio.ensure_future(desk.settle("failed")))
    while Crowd.active < THREADS:
        await asyncio.sleep(0.01)
    await a_while()
    Crowd.go.set()
    assert [done.counts.total for done in await asyncio.gather(*tasks)] == [1] * 8
    assert Crowd.most == THREADS


async def test_rows_that_are_rewritten_wait_and_rows_that_go_as_they_are_do_not(desk: Any) -> None:
    await desk.plan(desk.chat("a"))
    assert desk.record()["verbatim"]
    await hold(desk.resources)
    assert (await desk.upload()).file_id
    give_back(desk.resources)

    desk.batch_id = "b-2"
    await desk.plan(desk.chat("a", model=None), model="gpt-4o-mini")
    assert not desk.record()["verbatim"]
    await hold(desk.resources)
    upload = asyncio.ensure_future(desk.upload())
    await a_while()
    assert not upload.done()
    assert len(await desk.files()) == 1
    give_back(desk.resources)
    assert (await upload).file_id


async def test_a_step_that_is_cancelled_while_it_waits_takes_no_place(desk: Any) -> None:
    await desk.plan(desk.chat("a"))
    await hold(desk.resources)
    task = asyncio.ensure_future(desk.settle("failed"))
    await a_while()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    give_back(desk.resources)
    await hold(desk.resources)
    assert not desk.path("settled.json").exists()


async def test_a_long_step_that_a_worker_has_no_room_for_is_given_back_and_a_short_one_is_done(desk: Any) -> None:
    await desk.plan(desk.chat("a"))
    uploaded = await desk.upload()
    desk.resources.long_steps.most = 1
    with desk.resources.long_steps.one():
        for step in (desk.plan, desk.upload, lambda: desk.settle("failed"), desk.apply):
            error = await desk.refused(step())
            assert (error.type, error.category) == ("worker_busy", ApplicationErrorCategory.BENIGN)
            assert error.next_retry_delay == timedelta(seconds=2)
        batch = (await desk.create(uploaded)).batch
        ended = await desk.ended(batch)
        assert (await desk.refused(desk.fetch(ended))).type == "worker_busy"
        assert (await desk.cancel(batch.id)).id == batch.id
    assert (await desk.upload()).file_id
    assert (await desk.fetch(ended)).rows == 1


async def test_a_create_that_a_worker_has_no_room_for_is_not_sent(desk: Any, sandbox: Any) -> None:
    await desk.plan({"custom_id": "a", "input": "Hi."}, provider="claude", model="claude-haiku-4-5")
    uploaded = await desk.upload()
    desk.resources.long_steps.most = 1
    with desk.resources.long_steps.one():
        created = await desk.create(uploaded)
    assert (created.answer, created.code) == (CreateAnswer.DEFERRED, "worker_busy")
    assert (await sandbox.books())["requests"] == {}
    assert (await desk.find()).standing == 0
    assert (await desk.create(uploaded)).answer is CreateAnswer.CREATED


async def test_a_step_that_fails_gives_its_place_back(desk: Any) -> None:
    await desk.plan(desk.chat("a"))
    desk.path("rows.jsonl").write_bytes(b"")
    for _ in range(THREADS + 1):
        assert (await desk.refused(desk.settle("failed"))).type == "accounting_error"
    await hold(desk.resources)


def test_the_places_belong_to_the_loop_that_uses_them(tmp_path: Path) -> None:
    resources = Resources(Store.open(str(tmp_path)), lambda name: pytest.fail(name))

    async def use() -> None:
        async def one() -> None:
            async with resources.row_work:
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(THREADS * 3)))
        await resources.close()

    for _ in range(2):  # a worker that is run again has another loop
        asyncio.run(use())


def test_batches_of_one_fairness_key_leave_room_for_another() -> None:
    steps = LongSteps(8)
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(steps.one("search"))
        with pytest.raises(WorkerBusy):
            stack.enter_context(steps.one("search"))
        stack.enter_context(steps.one("ads"))
        with pytest.raises(WorkerBusy):
            stack.enter_context(steps.one("ads"))
        with steps.one():  # one without a key takes whatever there is
            for key in ("", "third"):
                with pytest.raises(WorkerBusy):
                    stack.enter_context(steps.one(key))
        stack.enter_context(steps.one("third"))
    for key in ("", "search"):
        with LongSteps(1).one(key):
            pass
