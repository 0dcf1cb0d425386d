"""ShardWorkflow: one of several shards, or a range of them, as a child workflow with a history of its own."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from ..contract import Counts, Phase, ShardCounts
from ..contract._base import LenientModel
from ..contract.names import SHARD_WORKFLOW
from ..contract.spec import PassedCancel, PassedSpec
from ..contract.steps import PlanSummary, Settled
from .failures import StepFailed, Stopped
from .shard import Shard
from .state import Carried, ShardOutcome, ShardState, SteeringState
from .watched import WatchedWorkflow


class ShardRequest(LenientModel):
    """What a range of shards needs to know."""

    batch_id: str
    spec: PassedSpec
    plan: PlanSummary
    shard: int  #: The first one.
    last: int | None = None  #: The last one; null where there is one only.
    deadline_at: datetime
    cancel: PassedCancel | None = None
    paid: bool = False  #: Something of the batch may be bought, by whichever shard of it.
    carried: Carried | None = None  #: How far the run before came, where this one goes on from it.

    @property
    def shards(self) -> int:
        """How many they are."""
        return 1 if self.last is None else self.last - self.shard + 1


class _Retired(Exception):
    """The batch was reset, and another workflow goes on with the shards."""


# A wrong start by hand fails instead of being stuck.
@workflow.defn(name=SHARD_WORKFLOW, failure_exception_types=[ValidationError])
class ShardWorkflow(WatchedWorkflow):
    """Shards through the provider, one after another. BatchWorkflow starts it; nobody else needs to."""

    @workflow.init
    def __init__(self, request: ShardRequest) -> None:
        fresh = Carried(
            started_at=workflow.now(),
            steering=SteeringState(deadline_at=request.deadline_at, cancel=request.cancel, paid=request.paid),
            shard=ShardState(shard=request.shard),
        )
        super().__init__(request.carried or fresh, Phase.UPLOADING, request.plan, request.spec)
        self._request = request
        self._retired = False
        self._steering.announce = self._announce

    @workflow.signal(description="Sent by a batch that was reset: leave the shards as they are, and end")
    def retire(self, *ignored: Any) -> None:
        self._retired = True
        self._steering.nudge()

    @workflow.run
    async def run(self, request: ShardRequest) -> ShardOutcome:
        try:
            return await self._follow(self._live())
        except _Retired:
            return self._outcome().model_copy(update={"retired": True})
        except (StepFailed, Stopped) as failed:
            # Of ours, on purpose: it fails this workflow, and the batch reports it. Anything else is a bug, and fails
            # the workflow's task, so that the workflow goes on once a worker has the correction.
            code = failed.code if isinstance(failed, StepFailed) else "stopped"
            raise ApplicationError(str(failed) or "The step was stopped.", type=code, non_retryable=True) from None

    async def _live(self) -> ShardOutcome:
        """Bring one shard after another to its end."""
        request, carried = self._request, self._carried
        while True:
            outcome = await Shard(
                request.batch_id, self._steering, request.spec, request.plan, carried.shard, self._enter
            ).run()
            carried.end_shards([outcome])
            if carried.ended == request.shards:
                self._enter(Phase.ENDED)
                return self._outcome()
            following = ShardState(shard=carried.shard.shard + 1)
            if outcome.blocked and not self._steering.paid:
                # It would be refused as well. If the batch finds that something was bought, it starts them again.
                following.attempt.refuse(outcome.error or "", code=outcome.error_code, blocked=True)
            carried.begin_shard(following)
            await self._checkpoint()

    def _outcome(self) -> ShardOutcome:
        """Return what became of the shards that have ended."""
        return self._carried.outcome or ShardOutcome(settled=Settled())

    async def _checkpoint(self) -> None:
        if self._retired:
            raise _Retired
        await super()._checkpoint()

    async def _announce(self) -> None:
        """Report the first purchase to the batch, whose other shards are waited for from now on."""
        batch = workflow.info().parent
        if batch is not None:
            with suppress(FailureError):  # it has ended
                await workflow.get_external_workflow_handle(batch.workflow_id).signal("bought")

    def _successor(self) -> list[Any]:
        return [self._request.model_copy(update={"carried": self._carried})]

    def _provider(self) -> str:
        return self._request.spec.provider

    def _counts(self) -> Counts:
        standing, counts = self._carried.shard.attempt.standing, self._outcome().settled.counts
        if self._running():
            counts += Counts(total=standing.total, succeeded=standing.completed, failed=standing.failed)
        return counts

    def _shard_counts(self) -> ShardCounts:
        total, ended, running = self._request.shards, self._carried.ended, self._running()
        return ShardCounts(total=total, waiting=total - ended - running, running=running, ended=ended)

    def _running(self) -> int:
        return min(1, self._request.shards - self._carried.ended)
