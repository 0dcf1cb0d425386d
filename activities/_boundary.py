"""The boundary between a step and Temporal: names, heartbeats, threads, and errors as Temporal takes them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import tempfile
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, get_type_hints

from pydantic import BaseModel
from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError

from ..contract import DurabatchError, InvalidInput, ProviderError, ProviderUnavailable, StoreError, WorkerBusy
from ..contract.steps import CREATE

if TYPE_CHECKING:
    from .resources import Resources

#: A provider's Retry-After up to this is waited out inside the activity's own retries.
SHORT_WAIT = timedelta(seconds=30)
#: The package's folder: of a fault's frames, the last one in it is named.
_ROOT = Path(__file__).resolve().parent.parent
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class _Step(Protocol):
    """What holds steps."""

    @property
    def _resources(self) -> Resources: ...


Self = TypeVar("Self", bound=_Step)
Request = TypeVar("Request", bound=BaseModel)
Answer = TypeVar("Answer", bound=BaseModel | None)
T = TypeVar("T")


@dataclass
class Pulse:
    """What a long step tells: how far it is. Written by its thread, read by the heartbeat."""

    rows: int = 0
    bytes: int = 0
    #: Where the step could go on if this worker died; at first, where that of the attempt before could. Temporal keeps
    #: it in the clear, so it holds numbers and digests only.
    place: dict[str, int | str] = field(default_factory=dict)
    stopped: bool = False  #: Set when nobody wants the step's outcome any more.
    lease: float | None = None  #: Seconds of silence after which Temporal gives the step to another worker.
    beaten_at: float = field(default_factory=time.monotonic)  #: When the last heartbeat went out.
    lost: bool = False  #: Whether the lease may have run out, because the process or its event loop stood still.
    over: bool = False  #: Whether it has run out.

    def beat(self) -> None:
        """Note a heartbeat."""
        self.lost, self.over = not self.alive(), self.gone()
        self.beaten_at = time.monotonic()

    def gone(self) -> bool:
        """Return whether the lease has run out, so that Temporal has given the step to another worker by now."""
        return self.over or (self.lease is not None and time.monotonic() - self.beaten_at >= self.lease)

    def alive(self) -> bool:
        """Return whether this process surely still has the step; a paused one finds out here that it has not."""
        # Half the lease: a heartbeat takes its time to the server, and what the caller does next takes time as well.
        return not self.lost and (self.lease is None or time.monotonic() - self.beaten_at < self.lease / 2)

    async def confirm(self) -> bool:
        """Ask Temporal whether this process still has the step.

        `alive` cannot tell when the process stood still before the step began: then no heartbeat was due yet.
        """
        if self.lease is None or not self.alive():
            return self.lease is None
        try:
            client = activity.client()
        except RuntimeError:  # outside of a worker there is nobody to ask, and nobody who would take it over
            return True
        asked_at = time.monotonic()
        try:
            # With the same facts as every heartbeat: the next attempt is told those of the last one only.
            await client.get_async_activity_handle(task_token=activity.info().task_token).heartbeat(self.told())
        except AsyncActivityCancelledError:
            pass  # it is ours, and the cancel reaches it by its own way
        except RPCError:
            return False
        self.beaten_at = max(self.beaten_at, asked_at)
        return self.alive()

    def told(self) -> dict[str, Any]:
        """Return what a heartbeat tells."""
        return {"rows": self.rows, "bytes": self.bytes, **({"place": self.place} if self.place else {})}

    def check(self) -> None:
        """Let the thread end here if the step was cancelled, or is another worker's by now.

        Raises:
            ProviderUnavailable: it is another's; worth another try, by whoever has the step.
        """
        if self.stopped:
            raise _Stopped
        if self.gone():
            raise _gone()

    async def hold(self) -> None:
        """Let the step end here unless Temporal says that this process still has it.

        Raises:
            ProviderUnavailable: it does not say so.
        """
        if not await self.confirm():
            raise _gone()


class _Stopped(Exception):
    """The step was cancelled."""


def _gone() -> ProviderUnavailable:
    return ProviderUnavailable("The worker stood still, and another one may be doing this step by now.")


def step(
    name: str, *, long: bool | Callable[[Any], bool] = False
) -> Callable[[Callable[[Self, Request, Pulse], Awaitable[Answer]]], Callable[[Self, Request], Awaitable[Answer]]]:
    """Make a method an activity: it heartbeats by itself, and its errors carry the contract's codes.

    A heartbeat goes out only once a third of the heartbeat timeout has passed, so a short step costs no extra action.

    Args:
        name: the activity type.
        long: whether it may take minutes or hours, so that it holds one of the places for such (see `LongSteps`); or
            what tells that of a request.
    """

    def wrap(
        method: Callable[[Self, Request, Pulse], Awaitable[Answer]],
    ) -> Callable[[Self, Request], Awaitable[Answer]]:
        async def run(self: Self, request: Request) -> Answer:
            pulse = Pulse(place=_last_place())
            try:
                holds = long(request) if callable(long) else long
                with self._resources.long_steps.one() if holds else contextlib.nullcontext():
                    async with _beating(pulse):
                        return await method(self, request, pulse)
            except DurabatchError as error:
                # Without its cause: a storage service's own words, for one, quote the access key's id.
                raise failure(error) from None
            except (asyncio.CancelledError, ApplicationError):
                raise
            except OSError as error:
                # Not of a create: a store's error there says that nothing was sent, and this one does not know.
                full = error.errno in _NO_SPACE and name != CREATE
                raise (failure(_full()) if full else _defect(name, error)) from None
            except Exception as error:
                raise _defect(name, error) from None

        functools.update_wrapper(run, method)
        # Temporal reads the step's models from the signature, where the pulse has no place.
        del run.__wrapped__  # type: ignore[attr-defined]
        hints = get_type_hints(method)
        run.__annotations__ = {"request": hints["request"], "return": hints["return"]}
        return activity.defn(name=name)(run)

    return wrap


def failure(error: DurabatchError) -> ApplicationError:
    """Return an error of the contract as Temporal takes it: the code as its type, the facts as its details."""
    details: list[Any] = []
    if isinstance(error, InvalidInput):
        details.append({"problems": list(error.problems), "total": error.total})
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
        # An outage is expected: it is told in the batch's progress, not counted as a fault of the worker's.
        category=ApplicationErrorCategory.BENIGN if error.retryable else ApplicationErrorCategory.UNSPECIFIED,
    )


def _room_delay() -> timedelta:
    """Return when a step is offered again for which a worker had no room: after 2, 4 and 8 s."""
    attempt = activity.info().attempt if activity.in_activity() else 1
    return timedelta(seconds=2 ** min(attempt, 5))


def _full() -> StoreError:
    # The store's own errors are told by the store; what is left are the files that a step keeps beside it.
    return StoreError(
        f"The worker's disk is full where it keeps temporary files ({tempfile.gettempdir()}): free some space there, "
        "or set TMPDIR to a folder that has some."
    )


def _defect(name: str, error: Exception) -> ApplicationError:
    """Return a fault of our own without its words, which may quote a row (promise G8); it tells the place instead."""
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


def _last_place() -> dict[str, int | str]:
    """Return the place that the attempt before this one told last; empty if there is none."""
    told = next(iter(activity.info().heartbeat_details), None)
    place = told.get("place") if isinstance(told, dict) else None
    return place if isinstance(place, dict) else {}


@contextlib.asynccontextmanager
async def _beating(pulse: Pulse) -> AsyncIterator[None]:
    timeout = activity.info().heartbeat_timeout
    if timeout is None:
        yield
        return
    pulse.lease = timeout.total_seconds()

    async def beat() -> None:
        while True:
            await asyncio.sleep(timeout.total_seconds() / 3)
            pulse.beat()
            activity.heartbeat(pulse.told())

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        pulse.stopped = True
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def in_thread(pulse: Pulse, work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own, and wait for its end even when cancelled.

    The work calls `pulse.check()` now and then, so that a cancel reaches it, and the loss of the step.
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
        pulse.stopped = True
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
