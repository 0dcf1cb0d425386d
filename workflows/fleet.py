"""Several shards of one batch, as child workflows: a bounded number of them, and a bounded number at a time.

A history can hold a few hundred children. So where a batch has more shards than that, each child takes a run of shards,
one after another, and continues as new when its own history grows long, which the batch's never notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from itertools import count

from temporalio import workflow
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError

from ..contract import BatchSpec, Counts, ShardCounts
from ..contract.names import SHARD_WORKFLOW
from ..contract.steps import PlanSummary
from .decisions import Run, outage_delay, runs_of
from .shard_workflow import ShardRequest
from .state import ShardOutcome
from .steering import PATIENCE, Steering, StepFailed

#: Events of the batch's own history after which a nudge is not passed on to every child any more.
_ROOM = 1_000
#: Children whose start is asked for at a time: each brings its spec along, and a server takes 4 MB in one message.
_STARTS = 20
#: How often one child is started anew before the pauses in between grow to an hour.
_OFTEN = 20
_SELDOM = timedelta(hours=1)


class Fleet:
    """The shards of a batch that has more than one.

    A shard that fails does not fail its siblings: its rows say what became of them.
    """

    def __init__(
        self, batch_id: str, steering: Steering, spec: BatchSpec, plan: PlanSummary, changed: Callable[[], None]
    ) -> None:
        self._batch_id = batch_id
        self._steering = steering
        self._spec = spec
        self._plan = plan
        self._changed = changed
        self._running = 0
        self._nudges = 0
        self._starts = asyncio.Semaphore(_STARTS)
        self._outcomes: dict[Run, ShardOutcome] = {}

    @property
    def counts(self) -> ShardCounts:
        """Shards by phase, as far as it is known here: a child tells of its shards when all of them have ended."""
        total, ended = self._plan.shards, sum(run.length for run in self._outcomes)
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
        """Where to look why nothing moves: each child has a progress of its own, which says so."""
        if not self._running:
            return None
        return (
            f"{self._running:,} of {self._plan.shards:,} shards are under way and {self.counts.waiting:,} wait for "
            f"their turn; the workflows {self._batch_id}/shards/… say what each is waiting for."
        )

    @property
    def outcomes(self) -> list[ShardOutcome]:
        """What became of the shards that have ended, in order."""
        return [self._outcomes[run] for run in sorted(self._outcomes, key=lambda run: run.first)]

    def nudge(self) -> None:
        """Have every shard that is under way ask its provider now."""
        if workflow.info().get_current_history_length() < _ROOM:
            self._nudges += 1

    async def run(self) -> list[ShardOutcome]:
        """Bring every shard to its end; return what became of them, in order.

        Raises:
            StepFailed: a child was terminated again and again.
        """
        slots = asyncio.Semaphore(self._plan.provider.max_parallel_shards)
        runs = runs_of(self._plan.shards)
        ends = await asyncio.gather(*(self._one(run, slots) for run in runs), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end  # only now: the others have come to their end
        return self.outcomes

    async def _one(self, run: Run, slots: asyncio.Semaphore) -> None:
        async with slots:
            self._running += 1
            self._outcomes[run] = await self._followed(run)
            self._running -= 1
            self._changed()

    async def _followed(self, run: Run) -> ShardOutcome:
        """Have a child bring the run to its end, and another one if somebody terminates it.

        What the first one bought is found again by its marker, so nothing is bought twice.
        """
        for number in count(1):
            try:
                return await self._child(run)
            except WorkflowAlreadyStartedError:
                why = await self._retire(run)
            except FailureError as error:
                why = f"The workflow of shard {run.name} ended before its rows had ({error.cause or error})."[:300]
            if workflow.now() >= self._steering.deadline_at + PATIENCE:
                raise StepFailed("unknown", why) from None
            delay = outage_delay(number, None) if number <= _OFTEN else _SELDOM
            await self._steering.pause(delay, f"{why} Another one goes on with it.", until_stop=False)
        raise AssertionError("there is always another number")

    async def _retire(self, run: Run) -> str:
        """Have a child of an earlier run of this batch, which was reset, leave its shards as they are.

        Two that work on one shard would take each other's steps for mishaps.
        """
        handle = workflow.get_external_workflow_handle(self._id(run))
        with suppress(FailureError):  # it has ended just now
            await handle.signal("retire")
        return f"The workflow of shard {run.name} still works for an earlier run of this batch."

    def _id(self, run: Run) -> str:
        return f"{self._batch_id}/shards/{run.name}"

    async def _child(self, run: Run) -> ShardOutcome:
        request = ShardRequest(
            batch_id=self._batch_id,
            spec=self._spec,
            plan=self._plan,
            shard=run.first,
            last=run.last,
            deadline_at=self._steering.deadline_at,
            cancel=self._steering.cancel,
        )
        async with self._starts:
            child = await workflow.start_child_workflow(
                SHARD_WORKFLOW,
                request,
                id=self._id(run),
                result_type=ShardOutcome,
                # A parent that closes has its shards cancel at the provider; to terminate them orphans what is paid.
                parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
                static_summary=f"{'shard' if run.length == 1 else 'shards'} {run.name} of {self._batch_id}",
            )
        told = request.cancel is not None
        while not child.done():
            await self._news(child, told)
            # A child that ends at this very moment hears no signal, and needs none.
            with suppress(FailureError):
                if not child.done() and self._steering.cancel is not None and not told:
                    told = True
                    await child.signal("cancel", self._steering.cancel)
                elif not child.done():
                    await child.signal("poll_now")
        outcome: ShardOutcome = await child
        return outcome

    async def _news(self, child: asyncio.Task[ShardOutcome], told: bool) -> None:
        """Wait for the child's end, a cancel that it was not told of, or a nudge."""
        seen = self._nudges
        await workflow.wait_condition(
            lambda: child.done() or (self._steering.cancel is not None and not told) or self._nudges != seen
        )
