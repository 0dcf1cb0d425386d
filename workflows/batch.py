"""BatchWorkflow: the life of a batch, phase by phase."""

from __future__ import annotations

import asyncio
from functools import reduce
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from ..contract import (
    BATCH_WORKFLOW,
    BatchProgress,
    BatchResult,
    BatchSpec,
    BatchStatus,
    Counts,
    Phase,
    ShardCounts,
)
from ..contract.layout import inline_path
from ..contract.steps import (
    APPLY,
    PLAN,
    RECALL,
    Applied,
    ApplyRequest,
    PlanRequest,
    PlanSummary,
    Settled,
)
from .completion import TIDY_PATIENCE, Completion
from .decisions import FIXABLE
from .describe import details
from .fleet import Fleet
from .planning import ANOTHER_STORE, plan_request
from .result import batch_result
from .shard import Shard
from .signals import read_cancel, read_carried, read_spec, run_cancellable
from .state import Carried, ShardOutcome, ShardState
from .steering import LONG, PATIENCE, Steering, StepFailed, Stopped, cause_of, go_on, history_is_long


class _Continue(Exception):
    """The history has grown long: go on in a new run."""


@workflow.defn(name=BATCH_WORKFLOW)
class BatchWorkflow:
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
        fresh = Carried(started_at=now, deadline_at=now + self._spec.deadline if self._spec else now)
        self._state, odd = read_carried(carried, fresh)
        self._refusal = self._refusal or odd
        state, plan = self._state, self._state.plan
        self._steering = Steering(state.deadline_at, self._tell)
        self._steering.cancel = state.cancel
        self._steering.cancels = int(state.cancel is not None)
        self._steering.last_error = state.last_error
        self._steering.poll_now = state.poll_now
        self._steering.paid = state.paid or state.shard.bought
        self._steering.checkpoint = self._breathe
        if plan is not None:
            self._steering.heartbeat = plan.provider.heartbeat
        self._phase = Phase.PLANNING
        self._fleet: Fleet | None = None
        self._result: BatchResult | None = None

    # A signal with an argument too many would leave the workflow stuck, so each takes any number of them.
    @workflow.signal(description="Stop the batch: cancel it at the provider and keep the finished rows")
    def cancel(self, request: Any = None, *ignored: Any) -> None:
        self._steering.request_cancel(read_cancel(request))

    @workflow.signal(description="Ask the provider now instead of at the next poll")
    def poll_now(self, *ignored: Any) -> None:
        self._steering.poll_now = True
        if self._fleet is not None:
            self._fleet.nudge()

    @workflow.signal(description="Sent by the account's ledger: the turn of an attempt has come")
    def granted(self, holder: Any = None, *ignored: Any) -> None:
        self._steering.granted = str(holder)

    @workflow.signal(description="Sent by a shard: it has bought something, so the batch waits for what can be fixed")
    def bought(self, *ignored: Any) -> None:
        self._steering.paid = True

    @workflow.query(description="Where the batch is, and why nothing moves")
    def progress(self) -> BatchProgress:
        attempt = self._state.shard.attempt
        batch = attempt.batch
        return BatchProgress(
            batch_id=workflow.info().workflow_id,
            phase=self._phase,
            counts=self._counts_so_far(),
            shards=self._shard_counts(),
            attempt=attempt.number if self._state.plan else 0,
            provider=self._spec.provider if self._spec else "",
            provider_status=batch.status if batch else None,
            provider_status_raw=batch.raw_status if batch else None,
            provider_batch_id=batch.id if batch else None,
            next_poll_at=self._steering.next_poll_at,
            waiting_for=self._steering.waiting_for or (self._fleet.waiting_for if self._fleet else None),
            last_error=self._steering.last_error,
            cost_usd=self._result.cost_usd if self._result else None,
            started_at=self._state.started_at,
            deadline_at=self._steering.deadline_at,
            cancel_requested=self._steering.cancel is not None,
            result=self._result,
        )

    @workflow.run
    async def run(self, spec: Any = None, carried: Any = None) -> BatchResult:
        wanted = self._spec
        if wanted is None or self._refusal:
            raise ApplicationError(self._refusal or "", type="invalid_spec", non_retryable=True)
        try:
            result = await run_cancellable(asyncio.create_task(self._live(wanted)), self._steering.request_cancel)
        except _Continue:
            await workflow.wait_condition(workflow.all_handlers_finished)
            self._state.cancel = self._steering.cancel
            self._state.deadline_at = self._steering.deadline_at
            self._state.last_error = self._steering.last_error
            self._state.poll_now = self._steering.poll_now
            self._state.paid = self._steering.paid
            self._state.execution = self._execution()
            workflow.continue_as_new(args=[wanted, self._state])
        if result.status is BatchStatus.FAILED:
            raise ApplicationError(
                result.error or "The batch failed.",
                result.model_dump(mode="json"),
                self._state.cause,
                type="BatchFailed",
                non_retryable=True,
            )
        return result

    async def _live(self, spec: BatchSpec) -> BatchResult:
        """The life of a batch. What is done is in the state, so a new run passes it over."""
        state = self._state
        if state.result is None:
            state.result = await self._come_to_a_result(spec)
        self._enter(Phase.FINISHING)
        self._result = await Completion(spec, state, self._steering).run(state.result)
        self._enter(Phase.ENDED)
        return self._result

    async def _come_to_a_result(self, spec: BatchSpec) -> BatchResult:
        state = self._state
        applied: Applied | None = None
        error: str | None = None
        try:
            plan = await self._plan(spec)
            if state.outcome is None:
                state.outcome = await self._shards(spec, plan)
                state.shard = ShardState(attempt=state.shard.attempt)  # what else it told is in the outcome
            applied = await self._apply(plan)
        except Stopped:
            pass  # a cancel or the deadline came before there was a plan, so before there was anything to lose
        except StepFailed as failed:
            error = failed.message
            state.cause = {**cause_of(failed), "submitted": self._submitted()}
            if self._fleet is not None and state.outcome is None:
                state.outcome = _together(self._fleet.outcomes)
        outcome, state.outcome = state.outcome, None
        state.untidy = outcome.untidy if outcome else ()
        return batch_result(
            workflow.info().workflow_id,
            state,
            cancel=self._steering.cancel,
            outcomes=[outcome] if outcome else [],
            applied=applied,
            error=error,
            now=workflow.now(),
            metadata=spec.metadata,
        )

    async def _plan(self, spec: BatchSpec) -> PlanSummary:
        self._enter(Phase.PLANNING)
        if self._state.plan is None:
            request = self._plan_request(spec)
            try:
                self._state.plan = await self._make_plan(request)
            except (Stopped, StepFailed) as stop:
                if isinstance(stop, StepFailed) and stop.code not in FIXABLE:
                    raise
                # A run before this one (it was reset, or terminated) may have bought something with its plan. Then
                # what an operator can fix is waited out, as it always is once something is bought.
                recalled = await self._steering.call(
                    RECALL,
                    request,
                    summary="was there a plan before?",
                    submitted=True,
                    give_up_at=self._steering.deadline_at + PATIENCE,
                )
                if recalled.plan is None:
                    raise
                self._state.plan = recalled.plan
            self._steering.paid = self._steering.paid or self._state.plan.bought
        self._steering.heartbeat = self._state.plan.provider.heartbeat
        return self._state.plan

    def _plan_request(self, spec: BatchSpec) -> PlanRequest:
        return plan_request(spec, self._state.started_at, self._execution())

    def _execution(self) -> str:
        """Return the run that the batch was started as; a reset keeps it."""
        return self._state.execution or workflow.info().original_execution_run_id

    async def _make_plan(self, request: PlanRequest) -> PlanSummary:
        if self._steering.stop():
            raise Stopped
        return await self._steering.call(
            PLAN,
            request,
            summary="read and check the input",
            timeout=LONG,
            stops=True,
            interrupts=True,
            passes=frozenset() if request.reset else ANOTHER_STORE,
        )

    async def _shards(self, spec: BatchSpec, plan: PlanSummary) -> ShardOutcome:
        """Take every shard through the provider: a single one here, several as child workflows."""
        batch_id, slim = workflow.info().workflow_id, _slim(spec, plan)
        if plan.shards > 1:
            self._enter(Phase.POLLING)
            self._fleet = Fleet(batch_id, self._steering, slim, plan, self._tell, self._bought_before)
            self._steering.checkpoint = go_on  # a new run would not have the children
            try:
                return _together(await self._fleet.run())
            finally:
                self._steering.checkpoint = self._breathe
        while True:
            outcome = await Shard(batch_id, self._steering, slim, plan, self._state.shard, self._enter).run()
            if not outcome.blocked or self._steering.paid or not await self._bought_before():
                return outcome
            self._steering.paid = True
            self._state.shard = ShardState()  # nothing was bought, and nothing is left of it

    async def _bought_before(self) -> bool:
        """Return whether a run before this one, which was reset or terminated, may have bought anything."""
        if self._spec is None:
            return False
        try:
            recalled = await self._steering.call(
                RECALL,
                self._plan_request(self._spec),
                summary="was anything bought before?",
                submitted=True,
                give_up_at=workflow.now() + TIDY_PATIENCE,
            )
        except StepFailed as failed:
            self._steering.last_error = failed.message
            return True  # nobody can tell, and to wait for an operator loses nothing
        return recalled.plan is not None and recalled.plan.bought

    async def _breathe(self) -> None:
        """End this run of the workflow after a wait, when its history has grown long."""
        if history_is_long():
            raise _Continue

    async def _apply(self, plan: PlanSummary) -> Applied:
        self._enter(Phase.APPLYING)
        request = ApplyRequest(
            batch_id=workflow.info().workflow_id,
            root=plan.root,
            shards=plan.shards,
            rows=plan.rows,
            store=plan.store,
        )
        return await self._steering.call(APPLY, request, summary="merge the shards in input order", timeout=LONG)

    def _counts_so_far(self) -> Counts:
        """Return what is settled, or what the provider says until then."""
        state, plan, batch = self._state, self._state.plan, self._state.shard.attempt.batch
        settled = self._fleet.settled if self._fleet else None
        if state.outcome is not None:
            settled = state.outcome.settled.counts.model_copy(update={"total": 0})
        if state.result is not None:
            return state.result.counts
        if plan is None:
            return Counts()
        if settled is not None:
            return Counts(total=plan.rows) + settled
        return Counts(
            total=plan.rows,
            succeeded=batch.completed if batch else 0,
            failed=plan.invalid_rows + (batch.failed if batch else 0),
        )

    def _shard_counts(self) -> ShardCounts:
        state, plan = self._state, self._state.plan
        if self._fleet is not None:
            return self._fleet.counts
        if plan is not None and (state.outcome is not None or state.result is not None):
            return ShardCounts(total=plan.shards, ended=plan.shards)
        return ShardCounts(total=1, running=1)

    def _submitted(self) -> bool:
        """Return whether anything may have been bought, for clients that would start another batch under this id."""
        shard, ended = self._state.shard, self._state.outcome is not None
        return (
            ended or self._steering.paid or self._fleet is not None or shard.attempt.upload_begun or bool(shard.records)
        )

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._tell()

    def _tell(self) -> None:
        workflow.set_current_details(details(self.progress()))


def _slim(spec: BatchSpec, plan: PlanSummary) -> BatchSpec:
    """Return the spec as shards and their steps need it: rows that came inline are in the store by now."""
    if spec.requests is None:
        return spec
    return spec.model_copy(update={"requests": None, "input": inline_path(plan.root)})


def _together(outcomes: list[ShardOutcome]) -> ShardOutcome:
    """Return what became of all shards together, small enough to be carried."""
    return reduce(ShardOutcome.and_one_more, outcomes, ShardOutcome(settled=Settled()))
