"""The end of a batch: its result is written down, the user's handler is called, and the provider is cleared up."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import FailureError, is_cancelled_exception

from ..contract import BatchResult, BatchSpec, OnComplete
from ..contract.steps import FINISH, TIDY, FinishRequest, PlanSummary, TidyRequest
from .failures import StepFailed
from .state import Carried, Untidy
from .steering import Steering

#: How long a user's completion handler may take, tries included, before the batch ends without it.
HANDLER_PATIENCE = timedelta(hours=24)
_HANDLER_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))
#: How long files are tried to be deleted at a provider that is away when the batch ends; they expire there anyway.
TIDY_PATIENCE = timedelta(minutes=30)


class Completion:
    """What is left to do when a batch's result is known.

    Every part is noted in the state when it is done, so that a new run of the workflow goes on with the next.
    """

    def __init__(self, spec: BatchSpec, state: Carried, steering: Steering) -> None:
        self._spec = spec
        self._state = state
        self._steering = steering

    async def run(self, result: BatchResult) -> BatchResult:
        """Bring the batch to its end; return its result."""
        state, plan = self._state, self._state.plan
        if plan is not None and not state.written:
            result = state.wrote(await self._write(plan, result))
        if self._spec.on_complete is not None and not state.handled:
            await self._call_handler(self._spec.on_complete, result)
            state.called_handler()
        while plan is not None and state.untidy:
            await self._tidy(plan, state.untidy[0])
            state.tidied()
        return result

    async def _write(self, plan: PlanSummary, result: BatchResult) -> BatchResult:
        """Write result.json; where it cannot be written, say so in the result, which Temporal has as well."""
        request = FinishRequest(root=plan.root, result=result, store=plan.store)
        try:
            await self._steering.call(FINISH, request, summary="write result.json")
        except StepFailed as failed:
            self._steering.report(failed.message)
            words = f"result.json could not be written: {failed.message}"
            return result.model_copy(update={"error": f"{result.error} {words}" if result.error else words})
        return result

    async def _call_handler(self, handler: OnComplete, result: BatchResult) -> None:
        """Call the user's handler; one that fails does not take the results with it."""
        queue = handler.task_queue or workflow.info().task_queue
        self._steering.say(
            f"Waiting for on_complete, the {'activity' if handler.activity else 'workflow'} "
            f"{handler.activity or handler.workflow} on the task queue {queue}. A cancel ends this wait."
        )
        try:
            if handler.activity is not None:
                await self._call_activity(handler.activity, handler, queue, result)
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
            why = "a cancel came first" if is_cancelled_exception(error) else error.cause or error
            self._steering.report(f"on_complete failed: {why}"[:500])
        self._steering.say(None)

    async def _call_activity(self, name: str, handler: OnComplete, queue: str, result: BatchResult) -> None:
        seen = self._steering.cancels
        handle = workflow.start_activity(
            name,
            result,
            task_queue=queue,
            schedule_to_close_timeout=HANDLER_PATIENCE,
            start_to_close_timeout=handler.timeout,
            heartbeat_timeout=handler.heartbeat,
            retry_policy=_HANDLER_RETRY,
            summary="on_complete",
        )
        await workflow.wait_condition(lambda: handle.done() or self._steering.cancels != seen)
        if not handle.done():
            handle.cancel()
        await handle

    async def _tidy(self, plan: PlanSummary, left: Untidy) -> None:
        until = self._state.give_up_tidying_at(workflow.now() + TIDY_PATIENCE)
        attempt = plan.attempt(workflow.info().workflow_id, left.shard, left.number)
        request = TidyRequest(attempt=attempt, account=plan.provider.account, since=plan.planned_at)
        try:
            await self._steering.call(TIDY, request, summary="tidy up", give_up_at=until)
        except StepFailed as error:
            self._steering.report(error.message)
