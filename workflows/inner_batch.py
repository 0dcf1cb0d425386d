"""The batch that runs the rows of one of the gateway's: started or joined, followed, and sent what it has to know."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from itertools import count

from temporalio import workflow
from temporalio.common import Priority, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, ChildWorkflowError, FailureError, WorkflowAlreadyStartedError

from ..contract import BATCH_WORKFLOW, BatchResult, BatchSpec, OnInvalidRow, PollPolicy
from ..contract.gateway_batch import JOIN, Ended, GatewayBatch, Intake, Joined, JoinRequest, inner_id
from ..contract.names import STORE_MEMO
from .decisions import OUTAGE_FIRST, RESTARTS_SELDOM, restart_delay
from .gateway_state import GatewayState
from .steering import Steering, history_is_long

#: Small batches of a server nearby are done in seconds, and whoever calls a gateway waits for them. Over a day it makes
#: five polls more than our own rhythm.
POLL = PollPolicy(first=timedelta(seconds=2))
#: The longest wait between two looks at a batch that an earlier run started.
LOOKS = timedelta(minutes=5)


class _Gone(Exception):
    """The batch that runs the rows has ended without accounts."""


class InnerBatch:
    """The `BatchWorkflow` of one of the gateway's batches. It outlives the workflow that has started it.

    Args:
        state: how far the gateway's batch has come; `begun` is changed here.
    """

    def __init__(self, batch: GatewayBatch, state: GatewayState, steering: Steering) -> None:
        self.id = inner_id(batch.tenant, batch.id)
        self._batch = batch
        self._state = state
        self._steering = steering
        self._cancel_sent = False  #: Whether it was sent the cancel.
        self._nudges = 0  #: How many of the nudges it was sent.

    async def run(self, intake: Intake) -> Ended:
        """Have it run the rows; return how it ended.

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
            why = f"The batch {self.id}, which runs the rows, was ended before they had. It is started again."
            self._steering.report(why)
            delay = restart_delay(number, workflow.info().get_current_history_length()) or RESTARTS_SELDOM
            await self._steering.pause(delay, why, until_stop=False)
        raise AssertionError("there is always another number")

    async def known(self) -> bool:
        """Return whether an earlier run of this workflow has started it, whatever became of it."""
        joined = await self._look()
        return joined.running or joined.broken_off or joined.ended is not None

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
            endpoint=intake.endpoint or batch.endpoint,
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
            id=self.id,
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
                # Signals without end: a new run joins the batch.
                if history_is_long() and workflow.patched("rows-joined-by-a-new-run"):
                    await self._steering.checkpoint()
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
            joined = await self._look()
            if joined.ended is not None:
                return joined.ended
            if not joined.running:
                raise _Gone
            await self._steering.pause(
                min(OUTAGE_FIRST * number, LOOKS),
                f"The batch {self.id}, which an earlier run of this workflow started, is under way.",
                until_stop=False,
                until=lambda: self._news,
            )
            await self._steering.checkpoint()
        raise AssertionError("there is always another number")

    async def _look(self) -> Joined:
        return await self._steering.call(JOIN, JoinRequest(batch_id=self.id), summary="how is the batch?")

    @property
    def _news(self) -> bool:
        """Whether there is a signal that the batch was not sent yet."""
        canceled = self._steering.cancel is not None
        return (canceled and not self._cancel_sent) or self._steering.nudges != self._nudges

    async def _pass_on(self) -> None:
        """Send the batch what it was not sent yet."""
        # By its workflow id: a reset makes it another run's, and loses what is sent to it as a child.
        inner = workflow.get_external_workflow_handle(self.id)
        with suppress(FailureError):  # it ends at this very moment, and needs no signal
            if self._steering.cancel is not None and not self._cancel_sent:
                self._cancel_sent = True
                await inner.signal("cancel", self._steering.cancel)
            if self._steering.nudges != self._nudges:
                self._nudges = self._steering.nudges
                await inner.signal("poll_now")


def _ending(error: ChildWorkflowError) -> Ended:
    """Return how a batch ended that failed.

    Raises:
        _Gone: it left no accounts.
    """
    cause = error.cause
    if not isinstance(cause, ApplicationError):  # terminated, for example
        raise _Gone from None
    return Ended.of_failure(cause.type, cause.message, cause.details)
