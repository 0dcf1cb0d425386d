"""What operators and the deadline ask of a batch, and how it waits: every pause and every step goes through here.

A step that fails is not the end. Temporal retries it a few times by itself; after that the batch waits on a timer that
the progress query and the Web UI explain, and tries again, for hours if need be.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from ..contract import CancelRequest, RowStatus
from ..contract.step import Answer, Request, Step
from .decisions import BUSY, BUSY_FAILURES, outage_delay, waits_out
from .failures import StepFailed, Stopped, Trouble
from .state import SteeringState

#: Quick retries of a step before the batch itself waits, visibly.
_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=4,
)
_ONCE = RetryPolicy(maximum_attempts=1)
#: A call to the provider or the store; a step that moves a shard's bytes.
SHORT = timedelta(minutes=5)
LONG = timedelta(hours=6)
#: How long past the deadline a batch waits for what only the provider knows: whether something is paid for, the end of
#: a batch that was cancelled, results that a broken key keeps from us. Providers keep results for four weeks.
PATIENCE = timedelta(days=7)
_WAY_OUT = "Another cancel ends this wait; what was paid for stays in the store."

#: A run of a workflow ends at this many events and goes on as a new one (promise G6 allows 4,000), or when the server
#: suggests it. It ends at no fewer than these: a new run has to get something done first, or it would never.
_MAX_EVENTS = 3_000
_MIN_EVENTS = 9


def history_is_long() -> bool:
    """Return whether this run should end at the next opportunity and go on as a new one."""
    info = workflow.info()
    events = info.get_current_history_length()
    return events >= _MAX_EVENTS or (events >= _MIN_EVENTS and info.is_continue_as_new_suggested())


async def go_on() -> None:
    """Go on in the same run, where a new one could not continue."""


class Steering:
    """What operators and the deadline ask of one workflow, and how it waits.

    Args:
        state: what of this is carried; changed here and nowhere else.
        changed: called when something that the progress shows has changed.
    """

    def __init__(self, state: SteeringState, changed: Callable[[], None]) -> None:
        #: Awaited after a wait: the place where a long history ends and the workflow continues as new.
        self.checkpoint: Callable[[], Awaitable[None]] = go_on
        #: Awaited when something of the batch is bought for the first time.
        self.announce: Callable[[], Awaitable[None]] = go_on
        #: How often a cancel was requested: one that is repeated also ends waits on our own store.
        self.cancels = int(state.cancel is not None)
        self.nudges = 0  #: How often an operator asked for the next poll at once.
        self.granted: str | None = None  #: The attempt whose turn in the account's queue has come.
        self.heartbeat = timedelta(seconds=20)
        #: Whose turn it is where workers have more steps than room. A worker sees only what a step itself says of it.
        self.priority = Priority.default
        self.waiting_for: str | None = None
        self.next_poll_at: datetime | None = None
        self._state = state
        self._changed = changed
        self._ahead = timedelta(0)

    @property
    def deadline_at(self) -> datetime:
        """When what is under way is ended whatever it does."""
        return self._state.deadline_at - self._ahead

    @property
    def last_deadline_at(self) -> datetime:
        """When the batch is ended whatever it does."""
        return self._state.deadline_at

    def end_early(self, ahead: timedelta) -> None:
        """Have what is under way end so long before the deadline, because something else is to follow it."""
        self._ahead = ahead

    @property
    def cancel(self) -> CancelRequest | None:
        """The first cancel, if there was one."""
        return self._state.cancel

    @property
    def paid(self) -> bool:
        """Whether anything of the batch may be bought. Then whatever an operator can fix is waited out, everywhere."""
        return self._state.paid

    @property
    def last_error(self) -> str | None:
        """What went wrong last, in a sentence."""
        return self._state.last_error

    def stop(self) -> RowStatus | None:
        """Return what unfinished rows become if the batch has to end now, None if it goes on."""
        if self.cancel is not None:
            return RowStatus.CANCELED
        return RowStatus.EXPIRED if workflow.now() >= self.deadline_at else None

    def request_cancel(self, request: CancelRequest) -> None:
        """Note that the batch was asked to stop; the first reason is kept."""
        self._state.cancel = self._state.cancel or request
        self.cancels += 1
        self._changed()

    def insisted(self, seen: int) -> bool:
        """Return whether a cancel was repeated since there were `seen` of them."""
        return self.cancels > max(seen, 1)

    def nudge(self) -> None:
        """Have the wait under way end now, or else the next one."""
        self._state.poll_now = True
        self.nudges += 1

    def grant(self, holder: str) -> None:
        """Note that the turn of an attempt has come in the account's queue."""
        self.granted = holder

    def await_grant(self) -> None:
        """Forget what was granted before."""
        self.granted = None

    def renew_deadline(self, length: timedelta) -> None:
        """Give the batch so much time from now."""
        self._state.deadline_at = workflow.now() + length

    def report(self, error: str | None) -> None:
        """Note what went wrong, for the progress."""
        self._state.last_error = error

    def say(self, why: str | None) -> None:
        """Say what is waited for, or that the wait is over."""
        self.waiting_for = why
        self._changed()

    def mark_paid(self) -> None:
        """Note that something of the batch is bought, or may be."""
        self._state.paid = True

    async def bought(self) -> None:
        """Note that something of the batch is bought; announce it where that is news."""
        if not self.paid:
            self.mark_paid()
            await self.announce()

    async def pause(
        self,
        delay: timedelta,
        why: str,
        *,
        until_stop: bool = True,
        until_nudged: bool = True,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wait on a durable timer.

        Args:
            delay: how long at most.
            why: what the progress and the Web UI say meanwhile.
            until_stop: a cancel and the deadline end the wait.
            until_nudged: the `poll_now` signal ends the wait.
            until: something else that does.
        """
        now = workflow.now()
        if until_stop:
            delay = min(delay, self.deadline_at - now)
        if delay <= timedelta(0):
            return
        self.waiting_for, self.next_poll_at = why, now + delay
        self._changed()
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: (until_nudged and self._state.poll_now) or (until_stop and self.cancel is not None) or until(),
                timeout=delay,
                timeout_summary=why[:200],
            )
        self._state.poll_now = False
        self.waiting_for = self.next_poll_at = None

    async def call(
        self,
        step: Step[Request, Answer],
        request: Request,
        *,
        summary: str,
        timeout: timedelta = SHORT,
        submitted: bool = False,
        stops: bool = False,
        interrupts: bool = False,
        passes: frozenset[str] = frozenset(),
        give_up_at: datetime | None = None,
    ) -> Answer:
        """Run a step until it succeeds.

        A step with neither `stops` nor `give_up_at` works on what is in our own store, and nothing of it is lost by
        waiting. So it is tried until it succeeds, or until an operator ends it: by a cancel, `PATIENCE` past the
        deadline; by one that is repeated while the step waits, after one more try.

        Args:
            submitted: something paid for is at stake, even if `paid` does not say so, so errors that an operator can
                fix are waited out.
            stops: a cancel or the deadline ends the tries.
            interrupts: the same also ends a try that is under way.
            passes: codes that are the caller's to deal with.
            give_up_at: when no further try is made.

        Raises:
            Stopped: `stops` or `interrupts`, and a cancel or the deadline came.
            StepFailed: it will not succeed, or its error is one of `passes`.
        """
        failures, seen = 0, self.cancels
        endless = give_up_at is None and not stops
        while True:
            try:
                return await self._run(step, request, summary, timeout, interrupts)
            except (ActivityError, asyncio.CancelledError) as error:
                # Only an interrupt of ours cancels a step: `run_cancellable` keeps Temporal's own cancel from it.
                if not isinstance(error, ActivityError) or (interrupts and is_cancelled_exception(error)):
                    raise Stopped from None
                trouble = Trouble(error)
            if endless and self.cancel is not None:
                give_up_at = self.deadline_at + PATIENCE
            hopeless = trouble.code in passes or not waits_out(trouble.code, submitted=submitted or self.paid)
            over = give_up_at is not None and workflow.now() >= give_up_at
            if hopeless or over or (endless and self.insisted(seen)):
                raise StepFailed(trouble.code, trouble.message, trouble.details)
            if trouble.code == BUSY:
                failures = min(failures + 1, BUSY_FAILURES)
            else:
                failures += 1
                self.report(trouble.message)
            # A stop ends this wait only if it comes during it: the step is tried once more, and then waits again.
            news = stops or self.stop() is None
            await self.pause(
                outage_delay(failures, trouble.retry_after),
                f"{trouble.message} {_WAY_OUT}" if endless and self.cancel is not None else trouble.message,
                until_stop=news,
                until=self._another_cancel(endless),
            )
            if stops and self.stop():
                raise Stopped
            if not (endless and self.insisted(seen)):  # one more try, which a new run would not know to be the last
                await self.checkpoint()

    def _another_cancel(self, counts: bool) -> Callable[[], bool]:
        seen = self.cancels
        return lambda: counts and self.cancels != seen

    async def call_once(
        self, step: Step[Request, Answer], request: Request, *, summary: str, timeout: timedelta
    ) -> Answer:
        """Run a step that must not be repeated: Temporal starts it once, whatever becomes of it.

        Raises:
            ActivityError: it failed, or its worker stopped sending heartbeats.
        """
        answered: Answer = await workflow.execute_activity(
            step.name,
            request,
            result_type=step.answer,
            start_to_close_timeout=timeout,
            heartbeat_timeout=self.heartbeat,
            retry_policy=_ONCE,
            summary=summary,
            priority=self.priority,
        )
        return answered

    async def _run(
        self,
        step: Step[Request, Answer],
        request: Request,
        summary: str,
        timeout: timedelta,
        interrupts: bool,
    ) -> Answer:
        handle = workflow.start_activity(
            step.name,
            request,
            result_type=step.answer,
            start_to_close_timeout=timeout,
            heartbeat_timeout=self.heartbeat,
            retry_policy=_RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=summary,
            priority=self.priority,
        )
        if interrupts:
            remaining = self.deadline_at - workflow.now()
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self.cancel is not None or handle.done(),
                    timeout=max(remaining, timedelta(milliseconds=1)),
                    timeout_summary="deadline",
                )
            if not handle.done():
                handle.cancel()
        answered: Answer = await handle
        return answered
