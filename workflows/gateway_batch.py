"""GatewayBatchWorkflow: a batch that came through the gateway, from its input file to its output files.

It has the file checked as OpenAI's server does, has a `BatchWorkflow` run the rows, and has the files written that the
tenant downloads. That batch has a life of its own: it outlives this workflow, and another run of this one joins it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import ApplicationError

from ..contract import BatchResult
from ..contract.gateway_batch import (
    GATEWAY_WORKFLOW,
    INTAKE,
    PUBLISH,
    BatchObject,
    Ended,
    Intake,
    IntakeRequest,
    LineError,
    PublishRequest,
)
from .decisions import waits_out
from .failures import StepFailed, Stopped
from .gateway_object import cancelling, concluded, finalizing, in_progress, refused, stopped, unwritten
from .gateway_state import GatewayStart, GatewayState
from .gateway_turn import Turn
from .inner_batch import InnerBatch
from .state import SteeringState
from .steered import SteeredWorkflow
from .steering import LONG

#: A provider's own window begins with its batch, which is later than ours; what it finishes just in time is waited for.
LEEWAY = timedelta(hours=2)


# A wrong start by hand fails instead of being stuck.
@workflow.defn(name=GATEWAY_WORKFLOW, failure_exception_types=[ValidationError])
class GatewayBatchWorkflow(SteeredWorkflow):
    """One batch of a tenant's. The gateway starts it; nobody else needs to."""

    @workflow.init
    def __init__(self, start: GatewayStart) -> None:
        self._batch = start.batch
        window = timedelta(seconds=start.batch.window_seconds) + LEEWAY
        self._state = start.state or GatewayState(
            object=start.batch.beginning(), steering=SteeringState(deadline_at=workflow.now() + window)
        )
        self._over = False
        super().__init__(self._state.steering)
        self._steering.priority = Priority(fairness_key=start.batch.tenant)
        self._rows = InnerBatch(self._batch, self._state, self._steering)
        self._turn = Turn(self._batch, self._state.turn, self._steering, self._rows.known)

    @workflow.query(description="The batch as OpenAI shows it; how many rows are done, the batch that runs them says")
    def batch(self) -> BatchObject:
        return self._state.object

    @workflow.run
    async def run(self, start: GatewayStart) -> BatchObject:
        try:
            return await self._follow(self._live())
        except StepFailed as failed:
            # Its files could not be written: an operator has ended the wait, or it is hopeless. In the first case
            # whoever asks for the batch next starts it again, and what it bought is found.
            raise ApplicationError(failed.message, type=failed.code, non_retryable=True) from None

    async def _live(self) -> BatchObject:
        """The life of a batch. What is done is carried, so a new run of the workflow passes it over."""
        state = self._state
        final = await self._take_in()
        if final is None:
            if state.ended is None and not state.unrun:
                state.ended = await self._run_rows()
                state.unrun = state.ended is None
            await self._turn.leave()
            if state.ended is None:
                final = stopped(state.object, canceled=self._steering.cancel is not None, now=workflow.now())
            else:
                self._show(finalizing(state.object, workflow.now()))
                final = concluded(state.object, state.ended, workflow.now())
        if state.intake is None or state.intake.final is None:  # else there is nothing to write any more
            final = await self._publish(final)
        self._over = True
        self._show(final)
        await self._turn.left()
        return final

    async def _take_in(self) -> BatchObject | None:
        """Have the input read and checked, once; return the batch as it stays, if nothing of it is to run."""
        state = self._state
        if state.intake is None:
            try:
                state.intake = await self._read_input()
            except Stopped:
                return stopped(state.object, canceled=self._steering.cancel is not None, now=workflow.now())
            except StepFailed as failed:
                why = LineError(code=failed.code, message=failed.message)
                return refused(state.object, (why,), 1, workflow.now())
            if not state.intake.errors:
                self._show(in_progress(state.object, state.intake, workflow.now()))
        if state.intake.final is not None:
            return state.intake.final
        if state.intake.errors:
            return refused(state.object, state.intake.errors, state.intake.total_errors, workflow.now())
        return None

    async def _read_input(self) -> Intake:
        """Have the input read and checked.

        Raises:
            Stopped, StepFailed: it was not, and nothing of the batch runs.
        """
        request, summary = IntakeRequest(batch=self._batch), "read and check the input"
        try:
            return await self._steering.call(
                INTAKE, request, summary=summary, timeout=LONG, stops=True, interrupts=True
            )
        except (Stopped, StepFailed):
            if not workflow.patched("rows-of-an-earlier-run") or not await self._rows.known():
                raise
        # An earlier run of this workflow has checked it all. What it bought is the tenant's, whatever comes now.
        self._steering.mark_paid()
        return await self._steering.call(INTAKE, request, summary=summary, timeout=LONG)

    async def _run_rows(self) -> Ended | None:
        """Have the rows run once it is the batch's turn; return how that ended, None if a stop came first."""
        intake = self._state.intake
        assert intake is not None  # without one there is a final object
        if intake.result is not None:
            return Ended(result=intake.result)
        try:
            await self._turn.take()
        except Stopped:
            if not workflow.patched("rows-of-an-earlier-run-without-a-turn") or not await self._rows.known():
                return None
            # An earlier run of this workflow has begun them. They hear of the stop, and what is done is the tenant's.
            self._steering.mark_paid()
        return await self._rows.run(intake)

    async def _publish(self, final: BatchObject) -> BatchObject:
        """Have the files written, and the index say how the batch has ended.

        Raises:
            StepFailed: the files cannot be written. If that is for good, the index says so.
        """
        ended, intake = self._state.ended, self._state.intake
        result = ended.result if ended else None
        try:
            return await self._write(final, result, translated=intake is not None and intake.translated)
        except StepFailed as failed:
            if waits_out(failed.code, submitted=True):
                raise
            # Noted, or everybody who asks for the batch would start it again. For tenants it has failed, and for the
            # operator as well, by this workflow's failure; a reset of it tries once more.
            self._show(await self._write(unwritten(self._state.object, workflow.now()), None))
            raise

    async def _write(self, final: BatchObject, result: BatchResult | None, *, translated: bool = False) -> BatchObject:
        # By the batch's own end, because files get their ids by it: whoever writes them again writes the same ones.
        now = (result.ended_at if result else None) or workflow.now()
        request = PublishRequest(batch=self._batch, object=final, result=result, translated=translated, now=now)
        published = await self._steering.call(PUBLISH, request, summary="write the output files", timeout=LONG)
        return published.object

    def _successor(self) -> list[Any]:
        return [GatewayStart(batch=self._batch, state=self._state)]

    def _changed(self) -> None:
        if self._steering.cancel is not None and not self._over:
            self._state.object = cancelling(self._state.object, workflow.now())
        self._show(self._state.object)

    def _show(self, shown: BatchObject) -> None:
        """Take what the batch looks like by now; show it in the Web UI as well."""
        self._state.object = shown
        lines = [f"**{shown.status}**", f"rows: `{self._rows.id}`"]
        lines += [text for text in (self._steering.waiting_for, self._steering.last_error) if text]
        workflow.set_current_details("\n\n".join(lines))
