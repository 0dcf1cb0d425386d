"""What the workflows of a batch and of its shards share: signals, progress, and how they go on in a new run."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

from temporalio import workflow

from ..contract import BatchProgress, BatchResult, Counts, Phase, ShardCounts
from ..contract.steps import PlanSummary
from .describe import details
from .signals import read_cancel, run_cancellable
from .state import Carried
from .steering import Steering, history_is_long

T = TypeVar("T")


class _LongHistory(Exception):
    """The history has grown long: go on in a new run."""


class SteeredWorkflow(ABC):
    """A workflow that people steer and watch, and that outlives its history.

    Whatever it knows is in `Carried`, which a new run begins with.

    Args:
        carried: what the run before left, or a fresh one.
        phase: where it is.
        plan: the plan that it goes by, where there is one already.
    """

    def __init__(self, carried: Carried, phase: Phase, plan: PlanSummary | None) -> None:
        self._carried = carried
        self._phase = phase
        self._result: BatchResult | None = None  #: Set once nothing more will happen.
        self._steering = Steering(carried.steering, self._show)
        self._steering.checkpoint = self._checkpoint
        if carried.shard.bought:
            self._steering.mark_paid()
        if plan is not None:
            self._steering.heartbeat = plan.provider.heartbeat

    # A signal with an argument too many would leave the workflow stuck, so each takes any number of them.
    @workflow.signal(description="Stop: cancel what is at the provider, and keep the finished rows")
    def cancel(self, request: Any = None, *ignored: Any) -> None:
        self._steering.request_cancel(read_cancel(request))

    @workflow.signal(description="Ask the provider now instead of at the next poll")
    def poll_now(self, *ignored: Any) -> None:
        self._steering.nudge()

    @workflow.signal(description="Sent by the account's ledger: the turn of an attempt has come")
    def granted(self, holder: Any = None, *ignored: Any) -> None:
        self._steering.grant(str(holder))

    @workflow.query(description="Where it is, and why nothing moves")
    def progress(self) -> BatchProgress:
        steering, attempt = self._steering, self._carried.shard.attempt
        standing = attempt.standing
        return BatchProgress(
            batch_id=workflow.info().workflow_id,
            phase=self._phase,
            counts=self._counts(),
            shards=self._shard_counts(),
            attempt=attempt.number if self._planned() else 0,
            provider=self._provider(),
            provider_status=standing.status,
            provider_status_raw=standing.raw_status,
            provider_batch_id=standing.provider_batch_id,
            next_poll_at=steering.next_poll_at,
            waiting_for=steering.waiting_for or self._shards_wait_for(),
            last_error=steering.last_error,
            cost_usd=self._result.cost_usd if self._result else None,
            started_at=self._carried.started_at,
            deadline_at=steering.last_deadline_at,
            cancel_requested=steering.cancel is not None,
            result=self._result,
        )

    @abstractmethod
    def _provider(self) -> str:
        """Return the provider's name in the configuration."""

    def _planned(self) -> bool:
        """Return whether there is a plan."""
        return True

    @abstractmethod
    def _counts(self) -> Counts:
        """Return the rows: as settled, or as the provider counts them until then."""

    @abstractmethod
    def _shard_counts(self) -> ShardCounts:
        """Return the shards by phase."""

    def _shards_wait_for(self) -> str | None:
        """Return what workflows wait for that this one has started."""
        return None

    @abstractmethod
    def _successor(self) -> list[Any]:
        """Return the arguments of the run that follows this one."""

    async def _follow(self, life: Coroutine[Any, Any, T]) -> T:
        """Live to the end; where the history grows long before it, go on in a new run."""
        try:
            return await run_cancellable(asyncio.create_task(life), self._steering.request_cancel)
        except _LongHistory:
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(args=self._successor())

    async def _checkpoint(self) -> None:
        """End this run of the workflow, if its history has grown long."""
        if history_is_long():
            raise _LongHistory

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._show()

    def _show(self) -> None:
        """Show the progress in the Web UI."""
        workflow.set_current_details(details(self.progress()))
