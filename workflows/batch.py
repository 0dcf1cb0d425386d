"""BatchWorkflow: the life of a batch, phase by phase."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from ..contract import (
    BATCH_WORKFLOW,
    BatchProgress,
    BatchResult,
    BatchSpec,
    BatchStatus,
    CancelRequest,
    Counts,
    OnComplete,
    Phase,
    ShardCounts,
)
from ..contract.steps import (
    APPLY,
    FINISH,
    PLAN,
    RECALL,
    TIDY,
    Applied,
    ApplyRequest,
    Attempt,
    FinishRequest,
    PlanRequest,
    PlanSummary,
    Recalled,
    TidyRequest,
)
from .decisions import MENDABLE
from .ending import batch_result
from .fleet import Fleet
from .shard import Shard
from .state import Carried, ShardOutcome, Untidy
from .steering import LONG, PATIENCE, Steering, StepFailed, Stopped, cause_of, go_on, history_is_long
from .telling import details
from .wishes import heed, read_cancel, read_spec

#: How long a user's completion handler may take, tries included, before the batch ends without it.
HANDLER_PATIENCE = timedelta(hours=24)
#: Attempts whose files are tried once more to be deleted when the batch ends; beyond them files only expire.
MAX_UNTIDY = 100
#: How long files are tried to be deleted at a provider that is away when the batch ends; they expire there anyway.
TIDY_PATIENCE = timedelta(minutes=30)


class _Continue(Exception):
    """The history has grown long: go on in a new run."""


@workflow.defn(name=BATCH_WORKFLOW)
class BatchWorkflow:
    """One batch: plan, then every shard through the provider, then apply and finish.

    Its workflow id is the batch's id. It returns a BatchResult, or fails with a BatchFailed that holds one.
    """

    # Temporal decodes arguments by their types only where the caller gives all of them, and callers give the spec
    # alone: so either may come as the plain JSON that it was, and is read here. The spec always does: what another
    # version wrote must not fail before it can be looked at.
    @workflow.init
    def __init__(self, spec: Any = None, carried: Carried | None = None) -> None:
        now = workflow.now()
        # A wrong spec must not raise before run() does: the workflow would be stuck instead of failed.
        self._spec, self._refusal = read_spec(spec, passed_on=carried is not None)
        deadline = now + self._spec.deadline if self._spec else now
        self._state = Carried.model_validate(carried or {"started_at": now, "deadline_at": deadline})
        self._steering = Steering(self._state.deadline_at, self._tell)
        self._steering.cancel = self._state.cancel
        self._steering.last_error = self._state.last_error
        self._steering.poll_now = self._state.poll_now
        self._phase = Phase.PLANNING
        self._counts = Counts()
        self._fleet: Fleet | None = None
        self._result: BatchResult | None = None
        self._cause: dict[str, Any] | None = None  # what failed, for clients that want more than a sentence

    # A signal with an argument too many would leave the workflow stuck, so each takes any number of them.
    @workflow.signal(description="Stop the batch: cancel it at the provider and keep the finished rows")
    def cancel(self, request: Any = None, *ignored: Any) -> None:
        self._want_cancel(read_cancel(request))

    @workflow.signal(description="Ask the provider now instead of at the next poll")
    def poll_now(self, *ignored: Any) -> None:
        self._steering.poll_now = True
        if self._fleet is not None:
            self._fleet.nudge()

    @workflow.signal(description="Sent by the account's ledger: the turn of an attempt has come")
    def granted(self, holder: Any = None, *ignored: Any) -> None:
        self._steering.granted = str(holder)

    @workflow.query(description="Where the batch is, and why nothing moves")
    def progress(self) -> BatchProgress:
        attempt = self._state.shard.attempt
        batch = attempt.batch
        return BatchProgress(
            batch_id=workflow.info().workflow_id,
            phase=self._phase,
            counts=self._counts_so_far(),
            shards=self._fleet.counts if self._fleet else ShardCounts(total=1, running=1),
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
    async def run(self, spec: Any = None, carried: Carried | None = None) -> BatchResult:
        wanted = self._spec
        if wanted is None:
            raise ApplicationError(self._refusal or "", type="invalid_spec", non_retryable=True)
        try:
            result = await heed(asyncio.create_task(self._live(wanted)), self._want_cancel)
        except _Continue:
            await workflow.wait_condition(workflow.all_handlers_finished)
            self._state.cancel = self._steering.cancel
            self._state.deadline_at = self._steering.deadline_at
            self._state.last_error = self._steering.last_error
            self._state.poll_now = self._steering.poll_now
            workflow.continue_as_new(args=[wanted, self._state])
        if result.status is BatchStatus.FAILED:
            raise ApplicationError(
                result.error or "The batch failed.",
                result.model_dump(mode="json"),
                self._cause,
                type="BatchFailed",
                non_retryable=True,
            )
        return result

    async def _live(self, spec: BatchSpec) -> BatchResult:
        """The life of a batch."""
        outcomes: list[ShardOutcome] = []
        applied: Applied | None = None
        error: str | None = None
        try:
            plan = await self._plan(spec)
            outcomes = await self._shards(_slim(spec, plan), plan)
            applied = await self._apply(plan)
        except Stopped:
            pass  # a cancel or the deadline came before there was a plan, so before there was anything to lose
        except StepFailed as failed:
            error = failed.message
            outcomes = self._fleet.outcomes if self._fleet else outcomes
            self._cause = {**cause_of(failed), "submitted": self._submitted()}
        result = batch_result(
            workflow.info().workflow_id,
            self._state,
            cancel=self._steering.cancel,
            outcomes=outcomes,
            applied=applied,
            error=error,
            now=workflow.now(),
            metadata=spec.metadata,
        )
        self._counts = result.counts
        await self._finish(spec, result, outcomes)
        return result

    async def _plan(self, spec: BatchSpec) -> PlanSummary:
        self._enter(Phase.PLANNING)
        if self._state.plan is None:
            info = workflow.info()
            request = PlanRequest(
                batch_id=info.workflow_id,
                spec=spec,
                now=self._state.started_at,
                execution=info.original_execution_run_id,
            )
            try:
                self._state.plan = await self._make_plan(request)
            except (Stopped, StepFailed) as stop:
                if isinstance(stop, StepFailed) and stop.code not in MENDABLE:
                    raise
                # A run before this one (it was reset, or terminated) may have bought something with its plan. Then
                # what an operator can mend is waited out, as it always is once something is bought.
                recalled = await self._steering.call(
                    RECALL,
                    request,
                    Recalled,
                    summary="was there a plan before?",
                    submitted=True,
                    give_up_at=self._steering.deadline_at + PATIENCE,
                )
                if recalled.plan is None:
                    raise
                self._state.plan = recalled.plan
        self._steering.heartbeat = self._state.plan.provider.heartbeat
        return self._state.plan

    async def _make_plan(self, request: PlanRequest) -> PlanSummary:
        if self._steering.stop():
            raise Stopped
        return await self._steering.call(
            PLAN,
            request,
            PlanSummary,
            summary="read and check the input",
            timeout=LONG,
            stops=True,
            interrupts=True,
        )

    async def _shards(self, spec: BatchSpec, plan: PlanSummary) -> list[ShardOutcome]:
        """Take every shard through the provider: a single one here, several as child workflows."""
        batch_id = workflow.info().workflow_id
        if plan.shards == 1:
            shard = Shard(batch_id, self._steering, spec, plan, self._state.shard, self._enter)
            # Only a shard's own steps are taken up again by a new run without being done twice.
            self._steering.breathe = self._breathe
            outcome = await shard.run()
            self._steering.breathe = go_on
            return [outcome]
        self._enter(Phase.POLLING)
        self._fleet = Fleet(batch_id, self._steering, spec, plan, self._tell)
        return await self._fleet.run()

    async def _breathe(self) -> None:
        """End this run of the workflow after a wait, when its history has grown long."""
        if history_is_long():
            raise _Continue

    async def _apply(self, plan: PlanSummary) -> Applied:
        self._enter(Phase.APPLYING)
        request = ApplyRequest(batch_id=workflow.info().workflow_id, root=plan.root, shards=plan.shards, rows=plan.rows)
        return await self._steering.call(
            APPLY, request, Applied, summary="merge the shards in input order", timeout=LONG, submitted=True
        )

    async def _finish(self, spec: BatchSpec, result: BatchResult, outcomes: list[ShardOutcome]) -> None:
        """Write the result down, tell whom the spec names, and clear up what is left at the provider."""
        self._enter(Phase.FINISHING)
        plan = self._state.plan
        if plan is not None:
            request = FinishRequest(root=plan.root, result=result)
            await self._steering.call(FINISH, request, type(None), summary="write result.json", submitted=True)
        if spec.on_complete is not None:
            await self._call_handler(spec.on_complete, result)
        if plan is not None:
            left = [one for outcome in outcomes for one in outcome.untidy]
            for one in left[:MAX_UNTIDY]:
                await self._tidy(spec, plan, one)
        self._result = result
        self._enter(Phase.ENDED)

    async def _call_handler(self, handler: OnComplete, result: BatchResult) -> None:
        """Call the user's handler; one that fails does not take the results with it."""
        queue = handler.task_queue or workflow.info().task_queue
        try:
            if handler.activity is not None:
                await workflow.execute_activity(
                    handler.activity,
                    result,
                    task_queue=queue,
                    schedule_to_close_timeout=HANDLER_PATIENCE,
                    start_to_close_timeout=HANDLER_PATIENCE,
                    summary="on_complete",
                )
            elif handler.workflow is not None:
                # The handler has a life of its own: it may outlast the batch.
                await workflow.start_child_workflow(
                    handler.workflow,
                    result,
                    id=f"{result.batch_id}/on_complete",
                    task_queue=queue,
                    parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                )
        except FailureError as error:
            self._steering.last_error = f"on_complete failed: {error.cause or error}"[:500]

    async def _tidy(self, spec: BatchSpec, plan: PlanSummary, left: Untidy) -> None:
        attempt = Attempt(
            batch_id=workflow.info().workflow_id,
            provider=spec.provider,
            root=plan.root,
            shard=left.shard,
            number=left.number,
        )
        request = TidyRequest(attempt=attempt, account=plan.provider.account, since=plan.planned_at)
        try:
            await self._steering.call(
                TIDY,
                request,
                type(None),
                summary="tidy up",
                submitted=True,
                give_up_at=workflow.now() + TIDY_PATIENCE,
            )
        except StepFailed as error:
            self._steering.last_error = error.message

    def _want_cancel(self, request: CancelRequest) -> None:
        if self._steering.cancel is None:  # the first one's reason stands
            self._steering.cancel = request
            self._tell()

    def _counts_so_far(self) -> Counts:
        """Return what is settled, or what the provider says until then."""
        if self._counts.total:
            return self._counts
        plan, batch = self._state.plan, self._state.shard.attempt.batch
        if plan is None:
            return Counts()
        if self._fleet is not None:
            return Counts(total=plan.rows) + self._fleet.settled
        return Counts(
            total=plan.rows,
            succeeded=batch.completed if batch else 0,
            failed=plan.invalid_rows + (batch.failed if batch else 0),
        )

    def _submitted(self) -> bool:
        """Return whether anything may have been bought, for clients that would start another batch under this id."""
        shard = self._state.shard
        return self._fleet is not None or shard.attempt.upload_begun or bool(shard.records)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._tell()

    def _tell(self) -> None:
        workflow.set_current_details(details(self.progress()))


def _slim(spec: BatchSpec, plan: PlanSummary) -> BatchSpec:
    """Return the spec as shards and their steps need it: rows that came inline are in the store by now."""
    if spec.requests is None:
        return spec
    return spec.model_copy(update={"requests": None, "input": f"{plan.root}/input.jsonl"})
