"""Several shards of one batch, as child workflows: a bounded number of them, and a bounded number at a time.

A history can hold a few hundred children. So where a batch has more shards than that, each child takes a range of
shards, one after another, and continues as new when its own history grows long, which the batch's never notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, WorkflowAlreadyStartedError

from ..contract import BatchSpec, Counts, ShardCounts
from ..contract.names import SHARD_WORKFLOW, shard_workflow_id
from ..contract.steps import PlanSummary
from .decisions import ShardRange, restart_delay, shard_ranges, waits_out
from .failures import StepFailed
from .shard_workflow import ShardRequest
from .state import ShardOutcome
from .steering import PATIENCE, Steering

#: Events of the batch's own history after which a nudge is not passed on to every child any more.
_ROOM = 1_000
#: Children whose start is asked for at a time: each brings its spec along, and a server takes 4 MB in one message.
_STARTS = 20
#: Events of the batch's own history after which not even `poll_now` restarts a child, so that those which keep ending
#: cannot fill the history.
_OVERFULL = 10_000
#: How often a child is restarted that fails with something which never gets better by itself, such as a bug.
_HOPELESS_STARTS = 5

Child = workflow.ChildWorkflowHandle[Any, ShardOutcome]


class Fleet:
    """The shards of a batch that has more than one.

    A shard that fails does not fail its siblings: its rows say what became of them.
    """

    def __init__(
        self,
        batch_id: str,
        steering: Steering,
        spec: BatchSpec,
        plan: PlanSummary,
        changed: Callable[[], None],
        bought_before: Callable[[], Awaitable[bool]],
    ) -> None:
        self._batch_id = batch_id
        self._steering = steering
        self._spec = spec
        self._plan = plan
        self._changed = changed
        self._bought_before = bought_before
        self._running = 0
        self._starts = asyncio.Semaphore(_STARTS)
        self._asking = asyncio.Lock()
        self._asked = False
        self._ranges = shard_ranges(plan.shards)
        self._open = len(self._ranges)  #: Ranges that may still buy something by themselves.
        self._blocked: dict[ShardRange, ShardOutcome] = {}
        self._failing: dict[ShardRange, str] = {}  #: What became of a child that another one is about to follow.
        self._outcomes: dict[ShardRange, ShardOutcome] = {}

    @property
    def counts(self) -> ShardCounts:
        """Shards by phase, as far as the batch knows: a child reports its shards when all of them have ended."""
        total, ended = self._plan.shards, sum(one.length for one in self._outcomes)
        return ShardCounts(total=total, waiting=total - ended - self._running, running=self._running, ended=ended)

    @property
    def settled(self) -> Counts:
        """The rows of shards that have ended, without their total."""
        found = Counts()
        for outcome in self._outcomes.values():
            found += outcome.settled.counts
        return found.model_copy(update={"total": 0})

    @property
    def waiting_for(self) -> str | None:
        """Where to find out why nothing moves: each child has a progress of its own."""
        words = []
        if self._running:
            words.append(
                f"{self._running:,} of {self._plan.shards:,} shards are under way and {self.counts.waiting:,} wait for "
                f"their turn; the workflows {shard_workflow_id(self._batch_id, '…')} say what each is waiting for."
            )
        if self._blocked:
            refused = next(iter(self._blocked.values())).error
            words.append(
                f"{len(self._blocked):,} ranges of shards were refused ({refused}); as soon as anything of the batch "
                "is bought they are tried again."
            )
        words += list(self._failing.values())[:1]
        return " ".join(words)[:1000] or None

    @property
    def outcomes(self) -> list[ShardOutcome]:
        """What became of the shards that have ended, in order."""
        return [self._outcomes[one] for one in sorted(self._outcomes, key=lambda one: one.first)]

    async def run(self) -> list[ShardOutcome]:
        """Bring every shard to its end; return what became of them, in order.

        Raises:
            StepFailed: a child was terminated, or failed, again and again.
        """
        slots = asyncio.Semaphore(self._plan.provider.max_parallel_shards)
        ends = await asyncio.gather(*(self._one(one, slots) for one in self._ranges), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end  # only now: the others have come to their end
        return self.outcomes

    async def _one(self, shards: ShardRange, slots: asyncio.Semaphore) -> None:
        again = True
        try:
            while again:
                async with slots:
                    self._running += 1
                    canceled = self._steering.cancel is not None
                    try:
                        outcome = await self._followed(shards)
                    finally:
                        self._running -= 1
                if outcome.bought:
                    self._steering.mark_paid()
                again = outcome.blocked and await self._unblocked(shards, outcome, canceled)
        finally:
            self._open -= 1
        self._outcomes[shards] = outcome
        self._changed()

    async def _unblocked(self, shards: ShardRange, outcome: ShardOutcome, canceled: bool) -> bool:
        """Wait until it is known whether anything of the batch is bought; return whether to start the range again.

        A range may be refused, for a wrong key for example, before it has bought anything. If another one has
        bought something, now or before a reset, it is started again, and its next child waits for an operator. If
        nothing of the batch is bought, the batch is refused, and fails at once.

        Args:
            outcome: what became of it; its rows are accounted for as refused.
            canceled: whether its child knew of a cancel.
        """
        self._steering.report(outcome.error)
        self._blocked[shards] = outcome
        self._open -= 1
        self._changed()
        await workflow.wait_condition(
            lambda: self._steering.paid or self._steering.cancel is not None or self._open == 0
        )
        async with self._asking:
            if not self._steering.paid and not self._asked:
                if await self._bought_before():
                    self._steering.mark_paid()
                self._asked = True
        self._open += 1
        del self._blocked[shards]
        # A child that has heard of the cancel counts its rows as canceled instead of refused.
        return self._steering.paid or (self._steering.cancel is not None and not canceled)

    async def _followed(self, shards: ShardRange) -> ShardOutcome:
        """Have a child bring the shards to their end, and another one if that is terminated or fails.

        The next child finds what the first one bought by its marker, so nothing is bought twice.

        Raises:
            StepFailed: the children failed for too long, or too often.
        """
        hopeless = 0
        for number in count(1):
            seen = self._steering.cancels
            code = "unknown"
            try:
                outcome = await self._child(shards)
                if not outcome.retired:
                    return outcome
                # By an earlier run of the batch, before a reset, whose signal came late; or by hand.
                why = f"The workflow of shard {shards.name} was told to leave its rows to another one."
            except WorkflowAlreadyStartedError:
                why = await self._retire(shards)
            except FailureError as error:
                why = f"The workflow of shard {shards.name} ended before its rows had ({error.cause or error})."[:300]
                if isinstance(error.cause, ApplicationError):
                    code = error.cause.type or code
            self._steering.report(why)
            # It may have failed by itself, for good, although everything that was paid for is in the store.
            hopeless += not waits_out(code, submitted=True)
            failed = code != "unknown"
            over = workflow.now() >= self._steering.deadline_at + PATIENCE
            if over or hopeless >= _HOPELESS_STARTS or (failed and self._steering.insisted(seen)):
                raise StepFailed(code, why) from None
            await self._rest(shards, number, why)
        raise AssertionError("there is always another number")

    async def _rest(self, shards: ShardRange, number: int, why: str) -> None:
        """Wait before another child follows one that has ended, ever longer."""
        events = workflow.info().get_current_history_length()
        delay = restart_delay(number, events)
        by_itself = delay is not None
        words = f"{why} Another one goes on with it."
        if delay is None:
            delay = self._steering.deadline_at + PATIENCE - workflow.now()
            words = f"{why} Send poll_now when the cause is fixed: then another one goes on with it."
        self._failing[shards] = words
        canceled = self._steering.cancel is not None
        try:
            await self._steering.pause(
                delay,
                words,
                until_stop=False,
                until_nudged=events < _OVERFULL,
                until=lambda: not by_itself and not canceled and self._steering.cancel is not None,
            )
        finally:
            del self._failing[shards]

    async def _retire(self, shards: ShardRange) -> str:
        """Have a child of an earlier run of this batch, which was reset, leave its shards as they are.

        Of two children at work on one shard, each would mistake the other's steps for failures.
        """
        with suppress(FailureError):  # it has ended just now
            await self._signal(shards, "retire")
        return f"The workflow of shard {shards.name} still works for an earlier run of this batch."

    def _id(self, shards: ShardRange) -> str:
        return shard_workflow_id(self._batch_id, shards.name)

    async def _child(self, shards: ShardRange) -> ShardOutcome:
        heard = self._steering.cancels
        request = ShardRequest(
            batch_id=self._batch_id,
            spec=self._spec,
            plan=self._plan,
            shard=shards.first,
            last=shards.last,
            deadline_at=self._steering.deadline_at,
            cancel=self._steering.cancel,
            paid=self._steering.paid,
        )
        async with self._starts:
            child = await workflow.start_child_workflow(
                SHARD_WORKFLOW,
                request,
                id=self._id(shards),
                result_type=ShardOutcome,
                # A parent that closes has its shards cancel at the provider; to terminate them orphans what is paid.
                parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
                static_summary=f"{'shard' if shards.length == 1 else 'shards'} {shards.name} of {self._batch_id}",
            )
        nudges = self._steering.nudges
        while not child.done():
            await self._news(child, heard, nudges)
            if child.done():
                break
            # A child that ends at this very moment hears no signal, and needs none.
            with suppress(FailureError):
                if self._steering.cancels != heard:
                    heard = self._steering.cancels
                    await self._signal(shards, "cancel", self._steering.cancel)
                elif self._steering.nudges != nudges:
                    nudges = self._steering.nudges
                    if workflow.info().get_current_history_length() < _ROOM:
                        await self._signal(shards, "poll_now")
        outcome: ShardOutcome = await child
        return outcome

    async def _signal(self, shards: ShardRange, name: str, *arguments: Any) -> None:
        # By its workflow id: a reset of the batch makes its children another run's, and loses what is sent to them as
        # children.
        await workflow.get_external_workflow_handle(self._id(shards)).signal(name, args=arguments)

    async def _news(self, child: Child, heard: int, nudges: int) -> None:
        """Wait for the child's end, or for a cancel or a nudge that it was not sent."""
        await workflow.wait_condition(
            lambda: child.done() or self._steering.cancels != heard or self._steering.nudges != nudges
        )
