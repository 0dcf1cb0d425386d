"""What makes a method a step (a Temporal activity): its name, heartbeats and threads, and its errors as failures."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import tempfile
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from ..contract import DurabatchError, InvalidInput, ProviderError, StoreError, WorkerBusy
from ..contract.step import Answer, Request, Step
from ..contract.steps import CREATE
from .lease import Lease, heartbeats, resume_point
from .log import log_answer, log_defect, log_failure, log_interruption, log_start

if TYPE_CHECKING:
    from .resources import Resources

#: A provider's Retry-After up to this is waited out inside the activity's own retries.
SHORT_WAIT = timedelta(seconds=30)
#: The package's folder: of a fault's frames, the last one in it is named.
_ROOT = Path(__file__).resolve().parent.parent
#: What a failure holds of the rows that are wrong: carried with the largest result it fits into 64 KiB (promise G6).
_PROBLEM_BYTES = 13 * 1024
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class _Steps(Protocol):
    """What holds steps."""

    @property
    def _resources(self) -> Resources: ...


Self = TypeVar("Self", bound=_Steps)
T = TypeVar("T")


def step(
    of: Step[Request, Answer], *, long: bool = False
) -> Callable[[Callable[[Self, Request, Lease], Awaitable[Answer]]], Callable[[Self, Request], Awaitable[Answer]]]:
    """Make a method an activity: it heartbeats by itself, and its errors carry the contract's codes.

    A heartbeat goes out only once a third of the heartbeat timeout has passed, so a short step costs no extra action.

    Args:
        of: its name, and the models of its request and its answer.
        long: whether it may take minutes or hours, so that it holds one of the places for such (see `LongSteps`).
    """

    def wrap(
        method: Callable[[Self, Request, Lease], Awaitable[Answer]],
    ) -> Callable[[Self, Request], Awaitable[Answer]]:
        async def run(self: Self, request: Request) -> Answer:
            lease, begun = Lease(resume_from=resume_point()), time.monotonic()
            with contextlib.suppress(Exception):  # a user's logging filter, for example: no step fails for its log
                log_start(of.name, request)
            try:
                with self._resources.long_steps.one(_fairness_key()) if long else contextlib.nullcontext():
                    async with heartbeats(lease):
                        answer = await method(self, request, lease)
                with contextlib.suppress(Exception):
                    log_answer(of.name, request, answer, time.monotonic() - begun)
                return answer
            except DurabatchError as error:
                log_failure(of.name, request, error)
                # Without its cause: a storage service's own words, for one, quote the access key's id.
                raise failure(error) from None
            except asyncio.CancelledError:
                log_interruption(of.name, request)
                raise
            except ApplicationError:
                raise
            except Exception as error:
                # Not of a create: a store's error there says that nothing was sent, and this one does not know.
                if isinstance(error, OSError) and error.errno in _NO_SPACE and of.name != CREATE.name:
                    full = _full()
                    log_failure(of.name, request, full)
                    raise failure(full) from None
                defect = _defect(of.name, error)
                log_defect(of.name, request, type(error).__name__, defect.message)
                raise defect from None

        functools.update_wrapper(run, method)
        # Temporal reads the step's models from the signature, where the lease has no place.
        del run.__wrapped__  # type: ignore[attr-defined]
        run.__annotations__ = {"request": of.request, "return": of.answer}
        return activity.defn(name=of.name)(run)

    return wrap


def _fairness_key() -> str:
    """Return the fairness key of the batch that a step is of; a step has it from its workflow."""
    return (activity.info().priority.fairness_key or "") if activity.in_activity() else ""


def failure(error: DurabatchError) -> ApplicationError:
    """Return an error of the contract as Temporal takes it: the code as its type, the facts as its details."""
    details: list[Any] = []
    if isinstance(error, InvalidInput):
        details.append({"problems": _first_problems(error), "total": error.total})
    wait = error.retry_after if isinstance(error, ProviderError) else None
    if wait is not None:
        details.append({"retry_after": wait.total_seconds()})
    return ApplicationError(
        error.message,
        *details,
        type=error.code,
        # A long wait is the workflow's, on a timer that everybody sees; a short one is Temporal's own.
        non_retryable=not error.retryable or (wait is not None and wait > SHORT_WAIT),
        next_retry_delay=_room_delay() if isinstance(error, WorkerBusy) else wait,
        # An outage is expected: the batch's progress reports it, and it does not count as a fault of the worker.
        category=ApplicationErrorCategory.BENIGN if error.retryable else ApplicationErrorCategory.UNSPECIFIED,
    )


def _first_problems(error: InvalidInput) -> list[dict[str, str | int]]:
    """Return as many of the rows that are wrong as a failure has room for: it is kept in history more than once."""
    found, size = [], 0
    for problem in error.problems:
        facts = problem.facts()
        size += len(json.dumps(facts))
        if size > _PROBLEM_BYTES:
            break
        found.append(facts)
    return found


def _room_delay() -> timedelta:
    """Return when a step is offered again for which a worker had no room: after 2, 4 and 8 s."""
    attempt = activity.info().attempt if activity.in_activity() else 1
    return timedelta(seconds=2 ** min(attempt, 5))


def _full() -> StoreError:
    # The store reports its own errors; what is left are the temporary files of a step.
    return StoreError(
        f"The worker's disk is full where it keeps temporary files ({tempfile.gettempdir()}): free some space there, "
        "or set TMPDIR to a folder that has some."
    )


def _defect(name: str, error: Exception) -> ApplicationError:
    """Return a fault of our own by its place in the code, without its words: they may quote a row (promise G8)."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _ROOT in Path(frame.filename).parents] or frames
    where = f"{_short(ours[-1].filename)} line {ours[-1].lineno}, in {ours[-1].name}" if ours else "an unknown place"
    return ApplicationError(
        f"Step {name} failed by a fault of Durabatch's own: {type(error).__name__} at {where}. Please report it.",
        type=type(error).__name__,
    )


def _short(file: str) -> str:
    path = Path(file)
    return path.relative_to(_ROOT).as_posix() if _ROOT in path.parents else path.name


async def in_thread(lease: Lease, work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own, and wait for its end even when cancelled.

    The work calls `lease.check()` now and then, so that a cancel reaches it, and the loss of the step.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            loop.call_soon_threadsafe(_settle, future, None, error)
        else:
            loop.call_soon_threadsafe(_settle, future, value, None)

    # A thread of its own rather than the loop's pool: a step may run for an hour, and pools are small.
    threading.Thread(target=run, name="durabatch-step", daemon=True).start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        lease.canceled = True
        with contextlib.suppress(Exception):
            await future
        raise


def _settle(future: asyncio.Future[T], value: T | None, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)  # type: ignore[arg-type]
