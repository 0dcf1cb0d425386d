"""Several shards of one batch: a child workflow each, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import FailureError

from ..contract import BatchSpec, Counts, Phase, ShardCounts
from ..contract.steps import PlanSummary
from .shard import Shard
from .shard_workflow import SHARD_WORKFLOW, ShardRequest
from .state import ShardOutcome, ShardState
from .steering import Steering


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
        self._outcomes: dict[int, ShardOutcome] = {}

    @property
    def counts(self) -> ShardCounts:
        """Shards by phase."""
        total, ended = self._plan.shards, len(self._outcomes)
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
        """Where to look why nothing moves: each shard has a workflow of its own, which says so."""
        if not self._running:
            return None
        return (
            f"{self._running:,} of {self._plan.shards:,} shards are under way and {self.counts.waiting:,} wait for "
            f"their turn; the workflows {self._batch_id}/shards/… say what each is waiting for."
        )

    def nudge(self) -> None:
        """Have every shard that is under way ask its provider now."""
        self._nudges += 1

    async def run(self) -> list[ShardOutcome]:
        """Bring every shard to its end; return them in order."""
        slots = asyncio.Semaphore(self._plan.provider.max_parallel_shards)
        await asyncio.gather(*(self._one(number, slots) for number in range(self._plan.shards)))
        return [self._outcomes[number] for number in range(self._plan.shards)]

    async def _one(self, number: int, slots: asyncio.Semaphore) -> None:
        async with slots:
            self._running += 1
            # A shard that is not begun when the batch is to stop needs little more than its accounts.
            outcome = await self._here(number) if self._steering.stop() else await self._child(number)
            self._running -= 1
            self._outcomes[number] = outcome
            self._changed()

    async def _child(self, number: int) -> ShardOutcome:
        request = ShardRequest(
            batch_id=self._batch_id,
            spec=self._spec,
            plan=self._plan,
            shard=number,
            deadline_at=self._steering.deadline_at,
        )
        try:
            child = await workflow.start_child_workflow(
                SHARD_WORKFLOW,
                request,
                id=f"{self._batch_id}/shards/{number:05d}",
                result_type=ShardOutcome,
                # A parent that closes has its shards cancel at the provider; to terminate them orphans what is paid.
                parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
                static_summary=f"shard {number} of {self._batch_id}",
            )
            while not child.done() and self._steering.cancel is None:
                await self._nudged_or_over(child)
                if not child.done() and self._steering.cancel is None:
                    await child.signal("poll_now")
            if not child.done():
                await child.signal("cancel", self._steering.cancel)
            outcome: ShardOutcome = await child
            return outcome
        except FailureError:
            # Somebody terminated the child, or one of an earlier run is still closing. The shard is not lost with it.
            return await self._here(number)

    async def _nudged_or_over(self, child: asyncio.Task[ShardOutcome]) -> None:
        seen = self._nudges
        await workflow.wait_condition(lambda: child.done() or self._steering.cancel is not None or self._nudges != seen)

    async def _here(self, number: int) -> ShardOutcome:
        """Bring a shard to its end in the batch's own workflow; a provider batch of it is found by its marker."""

        def quiet(phase: Phase) -> None:
            return

        state = ShardState(shard=number)
        return await Shard(self._batch_id, self._steering, self._spec, self._plan, state, quiet).run()
