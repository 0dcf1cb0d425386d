"""What the workflows of a batch and of its shards share: the progress that they show."""

from __future__ import annotations

from abc import abstractmethod

from temporalio import workflow
from temporalio.common import Priority

from ..contract import BatchProgress, BatchResult, BatchSpec, Counts, Phase, ShardCounts
from ..contract.steps import PlanSummary
from .describe import details
from .state import Carried
from .steered import SteeredWorkflow


class WatchedWorkflow(SteeredWorkflow):
    """A steered workflow that people watch by its progress.

    Whatever it knows is in `Carried`, which a new run begins with.

    Args:
        carried: what the run before left, or a fresh one.
        phase: where it is.
        plan: the plan that it goes by, where there is one already.
        spec: the batch's, None where it cannot be read.
    """

    def __init__(self, carried: Carried, phase: Phase, plan: PlanSummary | None, spec: BatchSpec | None) -> None:
        self._carried = carried
        self._phase = phase
        self._result: BatchResult | None = None  #: Set once nothing more will happen.
        super().__init__(carried.steering)
        if carried.shard.bought:
            self._steering.mark_paid()
        if plan is not None:
            self._steering.heartbeat = plan.provider.heartbeat
        if spec is not None:
            self._steering.priority = Priority(priority_key=spec.priority, fairness_key=spec.fairness_key)

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

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._show()

    def _changed(self) -> None:
        self._show()

    def _show(self) -> None:
        """Show the progress in the Web UI."""
        workflow.set_current_details(details(self.progress()))
