"""ShardWorkflow: one of several shards, or a run of them, as a child workflow with a history of its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from ..contract import BatchProgress, Counts, Phase, ShardCounts
from ..contract._base import LenientModel
from ..contract.names import SHARD_WORKFLOW
from ..contract.spec import PassedCancel, PassedSpec
from ..contract.steps import PlanSummary, Settled
from .describe import details
from .shard import Shard
from .signals import read_cancel, run_cancellable
from .state import ShardOutcome, ShardState
from .steering import Steering, StepFailed, Stopped, history_is_long


class ShardRequest(LenientModel):
    """What a run of shards needs to know."""

    batch_id: str
    spec: PassedSpec
    plan: PlanSummary
    shard: int  #: The first one; when carried, the one under way.
    last: int | None = None  #: The last one; null where there is one only.
    deadline_at: datetime
    cancel: PassedCancel | None = None
    paid: bool = False  #: Something of the batch may be bought, by whichever shard or run of it.
    #: Carried when the workflow continues as new.
    state: ShardState | None = None
    ended: int = 0  #: Shards of the run that have ended.
    done: ShardOutcome | None = None  #: What became of those.
    last_error: str | None = None
    poll_now: bool = False


class _Continue(Exception):
    """The history has grown long: go on in a new run."""


class _Retired(Exception):
    """The batch was reset, and another workflow goes on with the shards."""


# A wrong start by hand is to fail, not to be stuck.
@workflow.defn(name=SHARD_WORKFLOW, failure_exception_types=[ValidationError])
class ShardWorkflow:
    """Shards through the provider, one after another. BatchWorkflow starts it; nobody else needs to."""

    @workflow.init
    def __init__(self, request: ShardRequest) -> None:
        self._request = request
        self._phase = Phase.UPLOADING
        self._retired = False
        self._ended = request.ended
        self._done = request.done or ShardOutcome(settled=Settled())
        self._steering = Steering(request.deadline_at, self._tell)
        self._steering.cancel = request.cancel
        self._steering.cancels = int(request.cancel is not None)
        self._steering.heartbeat = request.plan.provider.heartbeat
        self._steering.last_error = request.last_error
        self._steering.poll_now = request.poll_now
        state = request.state or ShardState(shard=request.shard)
        self._steering.paid = request.paid or state.bought
        self._steering.announce = self._announce
        self._steering.checkpoint = self._breathe
        self._shard = self._take(state)

    @workflow.signal(description="Stop the shard; the batch sends this to all of its shards")
    def cancel(self, request: Any = None, *ignored: Any) -> None:
        self._steering.request_cancel(read_cancel(request))

    @workflow.signal(description="Ask the provider now instead of at the next poll")
    def poll_now(self, *ignored: Any) -> None:
        self._steering.poll_now = True

    @workflow.signal(description="Sent by a batch that was reset: leave the shards as they are, and end")
    def retire(self, *ignored: Any) -> None:
        self._retired = self._steering.poll_now = True

    @workflow.signal(description="Sent by the account's ledger: the turn of an attempt has come")
    def granted(self, holder: Any = None, *ignored: Any) -> None:
        self._steering.granted = str(holder)

    @workflow.query(description="Where these shards are, and why nothing moves")
    def progress(self) -> BatchProgress:
        attempt = self._shard.state.attempt
        batch = attempt.batch
        total = (self._request.last or self._request.shard) - self._request.shard + 1 + self._request.ended
        running = min(1, total - self._ended)
        counts = self._done.settled.counts
        if batch is not None and running:
            counts += Counts(total=batch.total, succeeded=batch.completed, failed=batch.failed)
        return BatchProgress(
            batch_id=workflow.info().workflow_id,
            phase=self._phase,
            counts=counts,
            shards=ShardCounts(total=total, waiting=total - self._ended - running, running=running, ended=self._ended),
            attempt=attempt.number,
            provider=self._request.spec.provider,
            provider_status=batch.status if batch else None,
            provider_status_raw=batch.raw_status if batch else None,
            provider_batch_id=batch.id if batch else None,
            next_poll_at=self._steering.next_poll_at,
            waiting_for=self._steering.waiting_for,
            last_error=self._steering.last_error,
            started_at=workflow.info().start_time,
            deadline_at=self._steering.deadline_at,
            cancel_requested=self._steering.cancel is not None,
        )

    @workflow.run
    async def run(self, request: ShardRequest) -> ShardOutcome:
        try:
            return await run_cancellable(asyncio.create_task(self._live()), self._steering.request_cancel)
        except _Retired:
            return self._done.model_copy(update={"retired": True})
        except (StepFailed, Stopped) as failed:
            # Of ours, on purpose: it fails this workflow, and the batch reports it. Anything else is a bug, and fails
            # the workflow's task, so that the workflow goes on once a worker has the correction.
            code = failed.code if isinstance(failed, StepFailed) else "stopped"
            raise ApplicationError(str(failed) or "The step was stopped.", type=code, non_retryable=True) from None
        except _Continue:
            await workflow.wait_condition(workflow.all_handlers_finished)
            carried = request.model_copy(
                update={
                    "shard": self._shard.state.shard,
                    "state": self._shard.state,
                    "ended": self._ended,
                    "done": self._done,
                    "cancel": self._steering.cancel,
                    "paid": self._steering.paid,
                    "deadline_at": self._steering.deadline_at,
                    "last_error": self._steering.last_error,
                    "poll_now": self._steering.poll_now,
                }
            )
            workflow.continue_as_new(carried)

    async def _live(self) -> ShardOutcome:
        """Bring one shard after another to its end."""
        last = self._request.shard if self._request.last is None else self._request.last
        while True:
            outcome = await self._shard.run()
            self._done = self._done.and_one_more(outcome)
            self._ended += 1
            number = self._shard.state.shard
            if number == last:
                self._enter(Phase.ENDED)
                return self._done
            following = ShardState(shard=number + 1)
            if outcome.blocked and not self._steering.paid:
                # It would be refused as well. If the batch finds out that something was bought it starts this anew.
                following.refused, following.blocked = outcome.error, True
            self._shard = self._take(following)
            await self._breathe()

    def _take(self, state: ShardState) -> Shard:
        request = self._request
        return Shard(request.batch_id, self._steering, request.spec, request.plan, state, self._enter)

    async def _breathe(self) -> None:
        if self._retired:
            raise _Retired
        if history_is_long():
            raise _Continue

    async def _announce(self) -> None:
        """Report the first purchase to the batch, whose other shards are waited for from now on."""
        batch = workflow.info().parent
        if batch is not None:
            with suppress(FailureError):  # it has ended
                await workflow.get_external_workflow_handle(batch.workflow_id).signal("bought")

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._tell()

    def _tell(self) -> None:
        workflow.set_current_details(details(self.progress()))
