"""GatewayBatchWorkflow: a batch that came through the gateway, from its input file to its output files.

It has the file checked as OpenAI's server does, has a `BatchWorkflow` run the rows, and has the files written that the
tenant downloads. That batch has a life of its own: it outlives this workflow, and another run of this one joins it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from itertools import count
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import Priority, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, ChildWorkflowError, FailureError, WorkflowAlreadyStartedError

from ..contract import BATCH_WORKFLOW, BatchResult, BatchSpec, OnInvalidRow, PollPolicy
from ..contract.gateway_batch import (
    GATEWAY_WORKFLOW,
    INTAKE,
    JOIN,
    PUBLISH,
    BatchObject,
    Ended,
    Intake,
    IntakeRequest,
    JoinRequest,
    LineError,
    PublishRequest,
    inner_id,
)
from ..contract.names import STORE_MEMO
from .decisions import OUTAGE_FIRST, RESTARTS_SELDOM, restart_delay
from .failures import StepFailed, Stopped
from .gateway_object import cancelling, concluded, finalizing, in_progress, refused, stopped
from .gateway_state import GatewayStart, GatewayState
from .signals import read_cancel, run_cancellable
from .state import SteeringState
from .steering import LONG, Steering, history_is_long

#: A provider's own window begins with its batch, which is later than ours; what it finishes just in time is waited for.
LEEWAY = timedelta(hours=2)
#: Small batches of a server nearby are done in seconds, and whoever calls a gateway waits for them. Over a day it makes
#: five polls more than our own rhythm.
POLL = PollPolicy(first=timedelta(seconds=2))
#: The longest wait between two looks at a batch that an earlier run started.
LOOKS = timedelta(minutes=5)


class _LongHistory(Exception):
    """The history has grown long: go on in a new run."""


class _Gone(Exception):
    """The batch that runs the rows has ended without accounts."""


# A wrong start by hand fails instead of being stuck.
@workflow.defn(name=GATEWAY_WORKFLOW, failure_exception_types=[ValidationError])
class GatewayBatchWorkflow:
    """One batch of a tenant's. The gateway starts it; nobody else needs to."""

    @workflow.init
    def __init__(self, start: GatewayStart) -> None:
        self._batch = start.batch
        self._inner = inner_id(start.batch.tenant, start.batch.id)
        window = timedelta(seconds=start.batch.window_seconds) + LEEWAY
        self._state = start.state or GatewayState(
            object=start.batch.beginning(), steering=SteeringState(deadline_at=workflow.now() + window)
        )
        self._steering = Steering(self._state.steering, self._changed)
        self._steering.checkpoint = self._checkpoint
        self._over = False
        self._cancel_sent = False  #: Whether the batch that runs the rows was sent the cancel.
        self._nudges = 0  #: How many of the nudges it was sent.

    # A signal with an argument too many would leave the workflow stuck, so each takes any number of them.
    @workflow.signal(description="Stop: cancel what is at the provider, and keep the finished rows")
    def cancel(self, request: Any = None, *ignored: Any) -> None:
        self._steering.request_cancel(read_cancel(request))

    @workflow.signal(description="Ask the provider now instead of at the next poll")
    def poll_now(self, *ignored: Any) -> None:
        self._steering.nudge()

    @workflow.query(description="The batch as OpenAI shows it; how many rows are done, the batch that runs them says")
    def batch(self) -> BatchObject:
        return self._state.object

    @workflow.run
    async def run(self, start: GatewayStart) -> BatchObject:
        try:
            return await run_cancellable(asyncio.create_task(self._live()), self._steering.request_cancel)
        except _LongHistory:
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(GatewayStart(batch=self._batch, state=self._state))
        except StepFailed as failed:
            # Its files could not be written, and an operator has ended the wait. Whoever asks for the batch next starts
            # it again, and what it bought is found.
            raise ApplicationError(failed.message, type=failed.code, non_retryable=True) from None

    async def _live(self) -> BatchObject:
        """The life of a batch. What is done is carried, so a new run of the workflow passes it over."""
        state = self._state
        final = await self._take_in()
        if final is None:
            if state.ended is None:
                assert state.intake is not None  # without one there is a final object
                state.ended = (
                    Ended(result=state.intake.result) if state.intake.result else await self._run(state.intake)
                )
            self._show(finalizing(state.object, workflow.now()))
            final = concluded(state.object, state.ended, workflow.now())
        request = PublishRequest(
            batch=self._batch,
            object=final,
            result=state.ended.result if state.ended else None,
            translated=state.intake is not None and state.intake.translated,
            now=workflow.now(),
        )
        published = await self._steering.call(PUBLISH, request, summary="write the output files", timeout=LONG)
        self._over = True
        self._show(published.object)
        return published.object

    async def _take_in(self) -> BatchObject | None:
        """Have the input read and checked, once; return the batch as it stays, if nothing of it is to run."""
        state = self._state
        if state.intake is None:
            try:
                state.intake = await self._steering.call(
                    INTAKE,
                    IntakeRequest(batch=self._batch),
                    summary="read and check the input",
                    timeout=LONG,
                    stops=True,
                    interrupts=True,
                )
            except Stopped:
                return stopped(state.object, canceled=self._steering.cancel is not None, now=workflow.now())
            except StepFailed as failed:
                why = LineError(code=failed.code, message=failed.message)
                return refused(state.object, (why,), 1, workflow.now())
            if not state.intake.errors:
                self._show(in_progress(state.object, state.intake, workflow.now()))
        if state.intake.errors:
            return refused(state.object, state.intake.errors, state.intake.total_errors, workflow.now())
        return None

    async def _run(self, intake: Intake) -> Ended:
        """Have a batch run the rows; return how it ended.

        One that is terminated is started again: it finds what it bought, and nothing is bought twice.
        """
        reuse = WorkflowIDReusePolicy.REJECT_DUPLICATE
        for number in count(1):
            try:
                return await (self._join() if self._state.begun else self._child(intake, reuse))
            except WorkflowAlreadyStartedError:
                # An earlier run of this workflow started it, before it was reset or terminated.
                self._state.begun = True
                continue
            except _Gone:
                self._state.begun = False
                reuse = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
            why = f"The batch {self._inner}, which runs the rows, was ended before they had. It is started again."
            self._steering.report(why)
            delay = restart_delay(number, workflow.info().get_current_history_length()) or RESTARTS_SELDOM
            await self._steering.pause(delay, why, until_stop=False)
        raise AssertionError("there is always another number")

    async def _child(self, intake: Intake, reuse: WorkflowIDReusePolicy) -> Ended:
        """Start the batch, and follow it to its end.

        Raises:
            WorkflowAlreadyStartedError: it was started before.
            _Gone: it has ended without accounts.
        """
        batch = self._batch
        spec = BatchSpec(
            provider=intake.provider,
            input=intake.input,
            endpoint=batch.endpoint,
            deadline=max(self._steering.deadline_at - workflow.now(), timedelta(seconds=1)),
            poll=POLL,
            on_invalid_row=OnInvalidRow.FAIL_ROW,
            fairness_key=batch.tenant,
            metadata=batch.metadata or {},
        )
        child = await workflow.start_child_workflow(
            BATCH_WORKFLOW,
            # Without what is left at its default, so that workers of an older version take it as well.
            spec.model_dump(mode="json", exclude_defaults=True),
            id=self._inner,
            result_type=BatchResult,
            id_reuse_policy=reuse,
            # What it has bought is worth more than this workflow: whoever is next joins it.
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            memo={"durabatch_provider": intake.provider, STORE_MEMO: intake.store},
            priority=Priority(priority_key=spec.priority, fairness_key=spec.fairness_key),
            static_summary=f"{intake.rows:,} row{'s' * (intake.rows != 1)} → {intake.provider}",
        )
        self._state.begun = True
        self._cancel_sent, self._nudges = False, self._steering.nudges
        while not child.done():
            await workflow.wait_condition(lambda: child.done() or self._news)
            if not child.done():
                await self._pass_on()
        try:
            return Ended(result=await child)
        except ChildWorkflowError as error:
            return _ending(error)

    async def _join(self) -> Ended:
        """Follow a batch that this run did not start itself.

        Raises:
            _Gone: it has ended without accounts.
        """
        self._cancel_sent, self._nudges = False, self._steering.nudges
        for number in count(1):
            await self._pass_on()
            joined = await self._steering.call(JOIN, JoinRequest(batch_id=self._inner), summary="how is the batch?")
            if joined.ended is not None:
                return joined.ended
            if not joined.running:
                raise _Gone
            await self._steering.pause(
                min(OUTAGE_FIRST * number, LOOKS),
                f"The batch {self._inner}, which an earlier run of this workflow started, is under way.",
                until_stop=False,
                until=lambda: self._news,
            )
            await self._checkpoint()
        raise AssertionError("there is always another number")

    @property
    def _news(self) -> bool:
        """Whether there is a signal that the batch was not sent yet."""
        return (self._canceled and not self._cancel_sent) or self._steering.nudges != self._nudges

    async def _pass_on(self) -> None:
        """Send the batch what it was not sent yet."""
        # By its workflow id: a reset makes it another run's, and loses what is sent to it as a child.
        inner = workflow.get_external_workflow_handle(self._inner)
        with suppress(FailureError):  # it ends at this very moment, and needs no signal
            if self._canceled and not self._cancel_sent:
                self._cancel_sent = True
                await inner.signal("cancel", self._steering.cancel)
            if self._steering.nudges != self._nudges:
                self._nudges = self._steering.nudges
                await inner.signal("poll_now")

    @property
    def _canceled(self) -> bool:
        return self._steering.cancel is not None

    async def _checkpoint(self) -> None:
        """End this run of the workflow, if its history has grown long."""
        if history_is_long():
            raise _LongHistory

    def _changed(self) -> None:
        if self._canceled and not self._over:
            self._state.object = cancelling(self._state.object, workflow.now())
        self._show(self._state.object)

    def _show(self, shown: BatchObject) -> None:
        """Take what the batch looks like by now; show it in the Web UI as well."""
        self._state.object = shown
        lines = [f"**{shown.status}**", f"rows: `{self._inner}`"]
        lines += [text for text in (self._steering.waiting_for, self._steering.last_error) if text]
        workflow.set_current_details("\n\n".join(lines))


def _ending(error: ChildWorkflowError) -> Ended:
    """Return how a batch ended that failed.

    Raises:
        _Gone: it left no accounts.
    """
    cause = error.cause
    if not isinstance(cause, ApplicationError):  # terminated, for example
        raise _Gone from None
    return Ended.of_failure(cause.type, cause.message, cause.details)
