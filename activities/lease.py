"""A step's lease: for how long Temporal believes that this process has the step, and how far the step is.

A worker that stood still (paused, swapped out, its event loop blocked) may resume after Temporal has given its step to
another worker. Whatever may only be done once asks here first.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError, RPCStatusCode

from ..contract import ProviderUnavailable


@dataclass
class Lease:
    """How far a step is, and whether it is still this process's. Written by its thread, read by the heartbeat."""

    rows: int = 0
    bytes: int = 0
    waiting_for: str | None = None  #: What the step waits for by itself, as a sentence.
    #: Where the step could go on if this worker died; at first, where that of the attempt before could. Temporal keeps
    #: it in the clear, so it holds numbers and digests only.
    resume_from: dict[str, int | str] = field(default_factory=dict)
    canceled: bool = False  #: Set when nobody wants the step's outcome any more.
    timeout: float | None = None  #: Seconds of silence after which Temporal gives the step to another worker.
    renewed_at: float = field(default_factory=time.monotonic)  #: When the last heartbeat went out.
    lost: bool = False  #: Whether the lease may have run out, because the process or its event loop stood still.
    expired: bool = False  #: Whether it has run out.
    #: When Temporal last said that the step is this process's (see `confirm`).
    confirmed_at: float = field(default_factory=time.monotonic)
    taken: bool = False  #: Whether Temporal has said that it is not.
    unwanted: bool = False  #: Whether Temporal has said that the step is to end.
    held: bool = False  #: Whether that is because an operator paused or reset it, and it goes on later.

    def renew(self) -> None:
        """Note a heartbeat."""
        self.lost, self.expired = not self.alive(), self.has_expired()
        self.renewed_at = time.monotonic()

    def has_expired(self) -> bool:
        """Return whether the lease has run out, so that Temporal has given the step to another worker by now."""
        return self.expired or (self.timeout is not None and time.monotonic() - self.renewed_at >= self.timeout)

    def alive(self) -> bool:
        """Return whether this process surely still has the step; a paused one finds out here that it has not."""
        # Half the lease: a heartbeat takes its time to the server, and what the caller does next takes time as well.
        return not self.lost and (self.timeout is None or time.monotonic() - self.renewed_at < self.timeout / 2)

    def sure(self) -> bool:
        """Return whether Temporal has confirmed lately that the step is this process's.

        `alive` goes by the heartbeats that were sent, `sure` by those that Temporal has heard.
        """
        if self.timeout is None:
            return True
        return not self.taken and not self.lost and time.monotonic() - self.confirmed_at < self.timeout / 2

    async def confirm(self) -> bool:
        """Ask Temporal whether this process still has the step.

        `alive` cannot tell when the process stood still before the step began: then no heartbeat was due yet.
        """
        if self.timeout is None or not self.alive():
            return self.timeout is None
        try:
            client = activity.client()
        except RuntimeError:  # outside of a worker there is nobody to ask, and nobody who would take it over
            self.confirmed_at = time.monotonic()
            return True
        asked_at = time.monotonic()
        try:
            # With the same facts as every heartbeat: the next attempt gets those of the last one only.
            await client.get_async_activity_handle(task_token=activity.info().task_token).heartbeat(self._details())
        except AsyncActivityCancelledError as error:
            self.unwanted = True  # it is ours, and the cancel reaches it by its own way
            self.held = error.details is not None and not error.details.cancel_requested
        except RPCError as error:
            self.taken = self.taken or error.status is RPCStatusCode.NOT_FOUND
            return False
        self.renewed_at = max(self.renewed_at, asked_at)
        self.confirmed_at = max(self.confirmed_at, asked_at)
        return self.alive()

    def _details(self) -> dict[str, Any]:
        """Return what a heartbeat reports."""
        place = {"place": self.resume_from} if self.resume_from else {}
        waits = {"waiting_for": self.waiting_for} if self.waiting_for else {}
        return {"rows": self.rows, "bytes": self.bytes, **place, **waits}

    def check(self) -> None:
        """Let the thread end here if the step was cancelled, or is another worker's by now.

        Raises:
            ProviderUnavailable: it is another's; worth another try, by whoever has the step.
        """
        if self.canceled:
            raise StepCanceled
        if self.has_expired():
            raise lost_step()

    async def hold(self) -> None:
        """Let the step end here unless Temporal says that this process still has it.

        Raises:
            ProviderUnavailable: it does not say so.
        """
        if not await self.confirm():
            raise lost_step()


class StepCanceled(Exception):
    """The step was cancelled."""


def lost_step() -> ProviderUnavailable:
    return ProviderUnavailable("The worker stood still, and another one may be doing this step by now.")


def resume_point() -> dict[str, int | str]:
    """Return where the attempt before this one said last that the step can go on; empty if it did not."""
    place = _reported().get("place")
    return place if isinstance(place, dict) else {}


def rows_so_far() -> int:
    """Return how many rows the attempt before this one reported last; 0 if it did not."""
    rows = _reported().get("rows")
    return rows if isinstance(rows, int) else 0


def _reported() -> dict[str, Any]:
    reported = next(iter(activity.info().heartbeat_details), None)
    return reported if isinstance(reported, dict) else {}


@contextlib.asynccontextmanager
async def heartbeats(lease: Lease) -> AsyncIterator[None]:
    timeout = activity.info().heartbeat_timeout
    if timeout is None:
        yield
        return
    lease.timeout = timeout.total_seconds()

    async def beat() -> None:
        while True:
            await asyncio.sleep(timeout.total_seconds() / 3)
            lease.renew()
            activity.heartbeat(lease._details())

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        lease.canceled = True
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
