"""BatchWorkflow: the life of a batch, phase by phase."""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from ..contract import BATCH_WORKFLOW, BatchResult, BatchSpec, BatchStatus, Counts, Mode, Phase, ShardCounts
from ..contract.layout import inline_path
from ..contract.steps import APPLY, Applied, ApplyRequest, PlanSummary
from .completion import Completion
from .failures import StepFailed, Stopped, cause_of
from .fleet import Fleet
from .planning import Planning
from .result import batch_result
from .shard import Shard
from .signals import read_carried, read_spec
from .state import Carried, ShardOutcome, ShardState, SteeringState
from .steering import LONG, go_on
from .watched import WatchedWorkflow


@workflow.defn(name=BATCH_WORKFLOW)
class BatchWorkflow(WatchedWorkflow):
    """One batch: plan, then every shard through the provider, then apply and finish.

    Its workflow id is the batch's id. It returns a BatchResult, or fails with a BatchFailed that holds one.
    """

    # Temporal decodes arguments by their types only where the caller gives all of them, and callers give the spec
    # alone: so either may come as the plain JSON that it was, and is read here. Both always do: what another version
    # wrote, or somebody by hand, must not fail before it can be looked at.
    @workflow.init
    def __init__(self, spec: Any = None, carried: Any = None) -> None:
        now = workflow.now()
        # A wrong spec must not raise before run() does: the workflow would be stuck instead of failed.
        self._spec, self._refusal = read_spec(spec, passed_on=carried is not None)
        fresh = Carried(
            started_at=now,
            steering=SteeringState(deadline_at=now + self._spec.deadline if self._spec else now),
            execution=workflow.info().original_execution_run_id,  # a reset keeps it
        )
        state, odd = read_carried(carried, fresh)
        self._refusal = self._refusal or odd
        self._fleet: Fleet | None = None
        super().__init__(state, Phase.PLANNING, state.plan, self._spec)

    @workflow.signal(description="Sent by a shard: it has bought something, so the batch waits for what can be fixed")
    def bought(self, *ignored: Any) -> None:
        self._steering.mark_paid()

    @workflow.run
    async def run(self, spec: Any = None, carried: Any = None) -> BatchResult:
        if self._spec is None or self._refusal:
            raise ApplicationError(self._refusal or "", type="invalid_spec", non_retryable=True)
        result = await self._follow(self._live(self._spec))
        if result.status is BatchStatus.FAILED:
            raise ApplicationError(
                result.error or "The batch failed.",
                result.model_dump(mode="json"),
                self._carried.cause,
                type="BatchFailed",
                non_retryable=True,
            )
        return result

    async def _live(self, spec: BatchSpec) -> BatchResult:
        """The life of a batch. What is done is carried, so a new run of the workflow passes it over."""
        result = self._carried.result or await self._come_to_a_result(spec)
        self._enter(Phase.FINISHING)
        self._result = await Completion(spec, self._carried, self._steering).run(result)
        self._enter(Phase.ENDED)
        return self._result

    async def _come_to_a_result(self, spec: BatchSpec) -> BatchResult:
        applied: Applied | None = None
        error: str | None = None
        try:
            plan = await self._plan(spec)
            await self._run_shards(spec, plan)
            applied = await self._apply(plan)
        except Stopped:
            pass  # a cancel or the deadline came before there was a plan, so before there was anything to lose
        except StepFailed as failed:
            error = failed.message
            self._carried.fail({**cause_of(failed), "submitted": self._may_have_submitted()})
            if self._fleet is not None and self._carried.outcome is None:
                self._carried.end_shards(self._fleet.outcomes)
        return self._carried.conclude(
            batch_result(
                workflow.info().workflow_id,
                self._carried,
                applied=applied,
                error=error,
                now=workflow.now(),
                metadata=spec.metadata,
            )
        )

    async def _plan(self, spec: BatchSpec) -> PlanSummary:
        """Read and check the input, once, and cut it into shards."""
        self._enter(Phase.PLANNING)
        return await Planning(spec, self._carried, self._steering).run()

    async def _run_shards(self, spec: BatchSpec, plan: PlanSummary) -> None:
        """Take every shard through the provider: a single one here, several as child workflows."""
        if self._carried.outcome is not None:
            return
        planning, slim = Planning(spec, self._carried, self._steering), _slim(spec, plan)
        if plan.shards == 1:
            outcomes = [await self._run_shard(slim, plan, planning)]
        else:
            outcomes = await self._run_fleet(slim, plan, planning)
        self._carried.end_shards(outcomes)
        # What else it knows is in the outcome; the attempt stays for the progress.
        self._carried.begin_shard(ShardState(attempt=self._carried.shard.attempt))

    async def _run_shard(self, spec: BatchSpec, plan: PlanSummary, planning: Planning) -> ShardOutcome:
        batch_id = workflow.info().workflow_id
        while True:
            outcome = await Shard(batch_id, self._steering, spec, plan, self._carried.shard, self._enter).run()
            if not outcome.blocked or self._steering.paid or not await planning.bought_before():
                return outcome
            self._steering.mark_paid()
            self._carried.begin_shard(ShardState())  # nothing was bought, and nothing is left of it

    async def _run_fleet(self, spec: BatchSpec, plan: PlanSummary, planning: Planning) -> list[ShardOutcome]:
        self._enter(Phase.RUNNING if plan.provider.mode is Mode.DIRECT else Phase.POLLING)
        batch_id = workflow.info().workflow_id
        self._fleet = Fleet(batch_id, self._steering, spec, plan, self._show, planning.bought_before)
        self._steering.checkpoint = go_on  # a new run would not have the children
        try:
            return await self._fleet.run()
        finally:
            self._steering.checkpoint = self._checkpoint

    async def _apply(self, plan: PlanSummary) -> Applied:
        """Merge the shards' results in input order."""
        self._enter(Phase.APPLYING)
        request = ApplyRequest(
            batch_id=workflow.info().workflow_id,
            root=plan.root,
            shards=plan.shards,
            rows=plan.rows,
            store=plan.store,
        )
        return await self._steering.call(APPLY, request, summary="merge the shards in input order", timeout=LONG)

    def _may_have_submitted(self) -> bool:
        """Return whether anything may have been bought, for clients that would start another batch under this id."""
        begun = self._carried.outcome is not None or self._fleet is not None or self._carried.shard.begun
        return begun or self._steering.paid

    def _successor(self) -> list[Any]:
        return [self._spec, self._carried]

    def _provider(self) -> str:
        return self._spec.provider if self._spec else ""

    def _planned(self) -> bool:
        return self._carried.plan is not None

    def _counts(self) -> Counts:
        carried, plan = self._carried, self._carried.plan
        if carried.result is not None:
            return carried.result.counts
        if plan is None:
            return Counts()
        if carried.outcome is not None:
            return carried.outcome.settled.counts.model_copy(update={"total": plan.rows})
        if self._fleet is not None:
            return self._fleet.settled.model_copy(update={"total": plan.rows})
        standing = carried.shard.attempt.standing
        return Counts(total=plan.rows, succeeded=standing.completed, failed=plan.invalid_rows + standing.failed)

    def _shard_counts(self) -> ShardCounts:
        carried, plan = self._carried, self._carried.plan
        if self._fleet is not None:
            return self._fleet.counts
        if plan is not None and (carried.outcome is not None or carried.result is not None):
            return ShardCounts(total=plan.shards, ended=plan.shards)
        return ShardCounts(total=1, running=1)

    def _shards_wait_for(self) -> str | None:
        return self._fleet.waiting_for if self._fleet else None


def _slim(spec: BatchSpec, plan: PlanSummary) -> BatchSpec:
    """Return the spec as shards and their steps need it: rows that came inline are in the store by now."""
    if spec.requests is None:
        return spec
    return spec.model_copy(update={"requests": None, "input": inline_path(plan.root)})
