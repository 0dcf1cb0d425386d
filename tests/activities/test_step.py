"""The boundary between a step and Temporal: errors, heartbeats, threads, cancellation."""

from __future__ import annotations

import asyncio
import errno
import json
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from temporalio import activity
from temporalio.activity import ActivityCancellationDetails
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.testing import ActivityEnvironment

from durabatch.activities import registry
from durabatch.activities.lease import Lease
from durabatch.activities.resources import Resources
from durabatch.activities.step import SHORT_WAIT, failure, in_thread, step
from durabatch.contract import (
    AccountMismatch,
    AnswerLost,
    DurabatchError,
    InvalidInput,
    ObjectNotFound,
    ProviderUnavailable,
    QueueFull,
    RateLimited,
    RowProblem,
    RowStatus,
    StoreError,
    gateway_batch,
    gateway_limits,
    ledger_steps,
    steps,
    webhooks,
)
from durabatch.contract.errors import error_classes
from durabatch.contract.step import Step
from durabatch.contract.steps import CREATE

SECRET = "Sesame"
WRONG = RowProblem(message="line 1, url: a", code="invalid_field", line=1, field="url")


class Question(BaseModel):
    text: str = SECRET


class Steps:
    """A step that does whatever a test wants."""

    def __init__(self, work: Callable[[Lease], Awaitable[Any]]) -> None:
        self._work = work

    @step(Step("test.step", Question, Question))
    async def act(self, request: Question, lease: Lease) -> Question:
        """Ask."""
        await self._work(lease)
        return request

    @step(Step(CREATE.name, Question, Question))
    async def create(self, request: Question, lease: Lease) -> Question:
        """Buy."""
        await self._work(lease)
        return request


def environment(heartbeat: float | None = 60.0) -> ActivityEnvironment:
    found = ActivityEnvironment()
    timeout = None if heartbeat is None else timedelta(seconds=heartbeat)
    found.info = replace(found.info, heartbeat_timeout=timeout)
    return found


async def failed(work: Callable[[Lease], Awaitable[Any]], name: str = "act") -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        await environment().run(getattr(Steps(work), name), Question())
    return caught.value


def raises(error: BaseException) -> Callable[[Lease], Awaitable[None]]:
    async def work(lease: Lease) -> None:
        raise error

    return work


# --- what Temporal sees of a step ---


def test_a_step_is_an_activity_of_one_request_and_one_answer() -> None:
    definition = activity._Definition.must_from_callable(Steps(raises(KeyError())).act)
    assert definition.name == "test.step"
    assert definition.arg_types == [Question]
    assert definition.ret_type is Question
    assert Steps.act.__doc__ == "Ask."


def test_every_step_of_the_contract_is_registered_once(desk: Any) -> None:
    found = [activity._Definition.must_from_callable(one).name for one in registry.all_activities(desk.resources)]
    modules = (steps, ledger_steps, gateway_batch, gateway_limits, webhooks)
    values = [value for module in modules for value in vars(module).values()]
    named = {value.name for value in values if isinstance(value, Step)}
    assert sorted(name for name in found if name) == sorted(named)


# --- errors ---


@pytest.mark.parametrize("code", sorted(error_classes()))
def test_every_error_of_the_contract_goes_through_with_its_code(code: str) -> None:
    cls = error_classes()[code]
    error = failure(cls("What failed [where=here]."))
    assert (error.type, error.message, error.non_retryable) == (code, "What failed [where=here].", not cls.retryable)
    assert error.category is (
        ApplicationErrorCategory.BENIGN if cls.retryable else ApplicationErrorCategory.UNSPECIFIED
    )


@pytest.mark.parametrize(
    ("error", "non_retryable", "delay", "details"),
    [
        (RateLimited(retry_after=timedelta(seconds=7)), False, timedelta(seconds=7), ({"retry_after": 7.0},)),
        (RateLimited(retry_after=timedelta(0)), False, timedelta(0), ({"retry_after": 0.0},)),
        (QueueFull(retry_after=SHORT_WAIT), False, SHORT_WAIT, ({"retry_after": 30.0},)),
        # A long wait is the workflow's own, on a timer that everybody sees.
        (ProviderUnavailable(retry_after=timedelta(seconds=31)), True, timedelta(seconds=31), ({"retry_after": 31.0},)),
        (ProviderUnavailable(), False, None, ()),
        (AnswerLost(), True, None, ()),
        (AccountMismatch(), True, None, ()),
        (StoreError(), False, None, ()),
        (ObjectNotFound(), True, None, ()),
        (InvalidInput("Nine.", [WRONG], 9), True, None, ({"problems": [WRONG.facts()], "total": 9},)),
        (InvalidInput("None."), True, None, ({"problems": [], "total": 0},)),
    ],
)  # fmt: skip
async def test_an_error_carries_what_the_workflow_needs_to_know(
    error: DurabatchError, non_retryable: bool, delay: timedelta | None, details: tuple[Any, ...]
) -> None:
    found = await failed(raises(error))
    assert (found.type, found.message) == (error.code, error.message)
    assert (found.non_retryable, found.next_retry_delay) == (non_retryable, delay)
    assert found.details == details


async def test_of_many_rows_that_are_wrong_a_failure_holds_what_fits_into_history() -> None:
    many = [replace(WRONG, message="x" * 200, line=number, file="y" * 100) for number in range(1000)]
    (details,) = (await failed(raises(InvalidInput("Many.", many)))).details
    assert details["total"] == 1000
    assert details["problems"] == [problem.facts() for problem in many[: len(details["problems"])]]
    assert 12 * 1024 < len(json.dumps(details)) < 14 * 1024


@pytest.mark.parametrize(
    "error",
    [
        KeyError(SECRET),
        ValueError(f"invalid literal: {SECRET}"),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
        RuntimeError(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
    ],
)
async def test_an_unexpected_errors_words_stay_here(error: Exception) -> None:
    found = await failed(raises(error))
    assert found.type == type(error).__name__
    assert f"fault of Durabatch's own: {type(error).__name__} at tests/activities/test_step.py line " in found.message
    assert "in work. Please report it." in found.message
    # A cause would go into history as well.
    assert found.__cause__ is None
    assert SECRET not in found.message + repr(found.details)
    assert not found.non_retryable  # it may be one worker's own trouble


async def test_a_full_disk_is_told_with_where_it_is_full() -> None:
    work = raises(OSError(errno.ENOSPC, "No space left on device"))
    found = await failed(work)
    assert (found.type, found.non_retryable) == ("store_error", False)
    assert tempfile.gettempdir() in found.message and "TMPDIR" in found.message
    # Whether a create was sent by then, it does not say: there it stays what it is, and the batch is looked for.
    found = await failed(work, "create")
    assert found.type == "OSError"


async def test_the_cause_of_an_error_stays_here() -> None:
    async def work(lease: Lease) -> None:
        try:
            raise OSError(f"<AWSAccessKeyId>{SECRET}</AWSAccessKeyId>")
        except OSError as error:
            raise StoreError("The store cannot write.") from error

    found = await failed(work)
    assert found.message == "The store cannot write."
    assert found.__cause__ is None


async def test_an_error_that_is_temporals_already_stays_as_it_is() -> None:
    error = ApplicationError("As it is.", type="x", non_retryable=True)
    assert await failed(raises(error)) is error


async def test_a_thread_that_fails_tells_the_place_and_not_the_words() -> None:
    def work() -> None:
        raise KeyError(SECRET)

    found = await failed(lambda lease: in_thread(lease, work))
    assert "Step test.step failed by a fault of Durabatch's own: KeyError at tests/activities/" in found.message
    assert SECRET not in found.message


# --- threads ---


async def test_work_in_a_thread_returns_its_value_and_leaves_the_loop_free() -> None:
    done = threading.Event()

    async def release() -> None:
        done.set()

    async def work(lease: Lease) -> None:
        task = asyncio.create_task(release())  # runs only if the loop is free
        assert await in_thread(lease, lambda: done.wait(30)) is True
        await task

    assert await environment().run(Steps(work).act, Question()) == Question()


async def test_a_cancelled_step_stops_its_thread_and_waits_for_its_end() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def work(lease: Lease) -> None:
        def turn() -> None:
            begun.set()
            try:
                while True:
                    lease.check()
                    time.sleep(0.001)
            finally:
                time.sleep(0.05)
                ended.set()

        await in_thread(lease, turn)

    running = environment()
    task = asyncio.create_task(running.run(Steps(work).act, Question()))
    await asyncio.to_thread(begun.wait, 30)
    running.cancel(ActivityCancellationDetails(cancel_requested=True))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_cancelled_step_is_cancelled_even_if_its_thread_fails_on_the_way() -> None:
    begun = threading.Event()

    async def work(lease: Lease) -> None:
        def turn() -> None:
            begun.set()
            while not lease.canceled:
                time.sleep(0.001)
            raise KeyError(SECRET)

        await in_thread(lease, turn)

    running = environment()
    task = asyncio.create_task(running.run(Steps(work).act, Question()))
    await asyncio.to_thread(begun.wait, 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("step_name", ["plan", "settle"])
async def test_the_long_steps_heed_a_cancel_between_rows(desk: Any, step_name: str) -> None:
    rows = (f'{{"custom_id":"r-{n}","input":"Hi."}}\n'.encode() for n in range(40_000))
    (desk.folder / "input.jsonl").write_bytes(b"".join(rows))
    if step_name == "settle":
        await desk.plan(model="m")
        desk.answered()
    call = desk.plan(model="m") if step_name == "plan" else desk.settle(RowStatus.FAILED)
    task = asyncio.create_task(call)
    while "durabatch-step" not in {thread.name for thread in threading.enumerate()}:
        await asyncio.sleep(0)
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The step has waited for its thread, so what is not there now never comes.
    assert not desk.path("results.jsonl" if step_name == "settle" else "../../plan.json").exists()


# --- heartbeats ---


async def test_a_long_step_heartbeats_with_how_far_it_is() -> None:
    beats: list[Any] = []
    enough = asyncio.Event()

    def note(*details: Any) -> None:
        beats.extend(details)
        if len(beats) >= 3:
            enough.set()

    async def work(lease: Lease) -> None:
        lease.rows, lease.bytes = 7, 4096
        await enough.wait()

    running = environment(heartbeat=0.03)
    running.on_heartbeat = note
    await running.run(Steps(work).act, Question())
    assert beats[:3] == [{"rows": 7, "bytes": 4096}] * 3


async def test_a_heartbeat_tells_where_to_go_on_and_the_next_attempt_begins_with_it() -> None:
    beats: list[Any] = []
    seen: list[Any] = []
    enough = asyncio.Event()

    def note(*details: Any) -> None:
        beats.extend(details)
        enough.set()

    async def work(lease: Lease) -> None:
        seen.append(lease.resume_from)
        await enough.wait()

    running = environment(heartbeat=0.03)
    running.on_heartbeat = note
    place = {"cut": "0123", "shards": 4}
    running.info = replace(running.info, heartbeat_details=[{"rows": 7, "bytes": 0, "place": place}])
    await running.run(Steps(work).act, Question())
    # Kept from before the step has got anywhere: a worker that dies early must not lose it.
    assert seen == [place]
    assert beats[0] == {"rows": 0, "bytes": 0, "place": place}


async def test_a_long_step_heartbeats_while_its_thread_works() -> None:
    enough = threading.Event()

    async def work(lease: Lease) -> None:
        assert await in_thread(lease, lambda: enough.wait(30))

    running = environment(heartbeat=0.03)
    running.on_heartbeat = lambda *details: enough.set()
    await running.run(Steps(work).act, Question())


@pytest.mark.parametrize("heartbeat", [60.0, None])
async def test_a_short_step_sends_no_heartbeat(heartbeat: float | None) -> None:
    beats: list[Any] = []

    async def work(lease: Lease) -> None:
        assert lease.timeout == heartbeat
        assert lease.alive()

    running = environment(heartbeat)
    running.on_heartbeat = beats.append
    await running.run(Steps(work).act, Question())
    assert beats == []


async def test_heartbeats_end_with_the_step() -> None:
    async def work(lease: Lease) -> None:
        pass

    before = asyncio.all_tasks()
    await environment(heartbeat=0.03).run(Steps(work).act, Question())
    assert asyncio.all_tasks() == before


# --- the lease ---


def test_a_lease_without_a_time_limit_is_always_alive() -> None:
    assert Lease(renewed_at=time.monotonic() - 10**6).alive()


def test_a_lease_is_alive_for_half_its_time() -> None:
    now = time.monotonic()
    assert Lease(timeout=1000.0, renewed_at=now - 400).alive()
    assert not Lease(timeout=1000.0, renewed_at=now - 600).alive()


def test_a_heartbeat_renews_the_lease() -> None:
    lease = Lease(timeout=1000.0, renewed_at=time.monotonic() - 400)
    lease.renew()
    assert time.monotonic() - lease.renewed_at < 100
    assert lease.alive()


def test_a_lease_that_ran_out_is_never_alive_again() -> None:
    # Temporal may have given the step to another worker meanwhile, and a late heartbeat changes nothing about that.
    lease = Lease(timeout=1000.0, renewed_at=time.monotonic() - 600)
    for _ in range(3):
        lease.renew()
        assert not lease.alive()


async def test_a_thread_of_a_step_that_was_lost_ends_with_an_error_that_is_worth_another_try() -> None:
    async def work(lease: Lease) -> None:
        await in_thread(lease, lease.check)
        lease.renewed_at -= 60
        await in_thread(lease, lease.check)

    found = await failed(work)
    assert (found.type, found.non_retryable) == ("provider_unavailable", False)
    assert found.message == "The worker stood still, and another one may be doing this step by now."


async def test_asking_whether_a_step_is_ours_keeps_the_place_where_another_attempt_would_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beats: list[Any] = []

    class Client:
        def get_async_activity_handle(self, task_token: bytes) -> Client:
            return self

        async def heartbeat(self, *details: Any) -> None:
            beats.extend(details)

    async def work(lease: Lease) -> None:
        lease.rows = 7
        assert await lease.confirm()

    monkeypatch.setattr(activity, "client", Client)
    running = environment()
    place = {"cut": "0123", "shards": 4}
    running.info = replace(running.info, heartbeat_details=[{"rows": 7, "bytes": 0, "place": place}])
    await running.run(Steps(work).act, Question())
    assert beats == [{"rows": 7, "bytes": 0, "place": place}]


async def test_a_step_whose_event_loop_stood_still_knows_it() -> None:
    alive: list[bool] = []

    async def work(lease: Lease) -> None:
        alive.append(lease.alive())
        time.sleep(0.15)  # noqa: ASYNC251 - stands still
        alive.append(lease.alive())
        await asyncio.sleep(0.12)  # a heartbeat goes out
        alive.append(lease.alive())

    await environment(heartbeat=0.25).run(Steps(work).act, Question())
    assert alive == [True, False, False]


# --- resources ---


async def test_resources_open_a_provider_once_and_close_it(desk: Any) -> None:
    resources: Resources = desk.resources
    assert resources.provider("gpt") is resources.provider("gpt")
    first = resources.provider("gpt")
    await resources.close()
    assert resources.provider("gpt") is not first


async def test_an_earlier_key_of_the_same_account_may_be_gone_on_with(desk: Any) -> None:
    with pytest.raises(AccountMismatch) as caught:
        desk.resources.at_account("gpt", "0123456789abcdef")
    assert 'add also_accounts = ["0123456789abcdef"] to [providers.gpt]' in caught.value.message
    assert "sk-test" not in caught.value.message
    await desk.reopen(also_accounts=("0123456789abcdef",))
    assert desk.resources.at_account("gpt", "0123456789abcdef") is desk.resources.provider("gpt")
