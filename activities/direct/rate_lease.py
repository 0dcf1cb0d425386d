"""A worker's side of the rate ledger: asks by Update, which starts a ledger that does not run."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from ...contract.rates import RATES_WORKFLOW, RateAsk, RateLease, RatesStart, rates_id
from ..task_queues import end_abandoned

#: How long an answer is waited for, as a share of the lease, so that several asks fit in before it is over; and seconds
#: that it may take in any case.
_PATIENCE, _LEAST_PATIENCE = 1 / 6, 2.0
#: Seconds that a clean stop takes for giving its share back; otherwise it comes back when the lease is over.
_GOODBYE = 1.0
#: Ends that a ledger does not choose by itself: what it had leased may still be in use.
_FROM_OUTSIDE = frozenset(
    {
        WorkflowExecutionStatus.TERMINATED,
        WorkflowExecutionStatus.CANCELED,
        WorkflowExecutionStatus.FAILED,
        WorkflowExecutionStatus.TIMED_OUT,
    }
)


class NoLease(Exception):
    """The ledger has not answered; the message says why, in a sentence."""


def patience(ask: RateAsk) -> float:
    """Return how many seconds an answer is waited for."""
    return max(_LEAST_PATIENCE, ask.ttl * _PATIENCE)


class RateLedger(Protocol):
    """Who leases the rate."""

    @property
    def label(self) -> str:
        """What people know this process by."""
        ...

    async def lease(self, ask: RateAsk) -> RateLease:
        """Ask what may be used.

        Raises:
            NoLease: there is no answer.
        """
        ...

    async def release(self, worker: str) -> None:
        """Give everything back; what cannot be reported comes back by itself when the lease is over."""
        ...


class TemporalLedger:
    """The rate ledger as a workflow.

    Args:
        client: the worker's own.
        task_queue: where a ledger that is started here runs.
        of: account, provider and model.
    """

    def __init__(self, client: Client, task_queue: str, of: RatesStart) -> None:
        self.id = rates_id(of.account, of.model)
        self.label = client.identity
        self._client = client
        self._task_queue = task_queue
        self._of = of

    async def lease(self, ask: RateAsk) -> RateLease:
        try:
            async with asyncio.timeout(patience(ask)):
                return await self._lease(ask)
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
            # The SDK says the same of a cancel of ours. It must not be lost: who closes the governor waits for its end.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError from None
            raise NoLease(await self._silent()) from None
        except WorkflowUpdateFailedError as error:
            raise NoLease(f"the rate ledger {self.id} refused to answer: {error.cause}") from None
        except RPCError as error:
            raise NoLease(f"Temporal does not answer: {error.message}") from None

    async def release(self, worker: str) -> None:
        # A signal, which needs no worker to be taken: this one may be the last, and is about to stop.
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._client.get_workflow_handle(self.id).signal("release", worker)
        except (TimeoutError, RPCError):
            pass

    async def _silent(self) -> str:
        """Say why the ledger does not answer. One that workers have left is ended: the next ask starts another."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAST_PATIENCE):
                if await end_abandoned(self._client, self.id, self._task_queue):
                    return f"the rate ledger {self.id} was on a task queue that no worker polls; it is started again"
        return f"the rate ledger {self.id} has not answered: is a worker running on task queue {self._task_queue!r}?"

    async def _lease(self, ask: RateAsk) -> RateLease:
        try:
            lease: RateLease = await self._client.get_workflow_handle(self.id).execute_update(
                "lease", ask, result_type=RateLease
            )
            return lease
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
        begun: RateLease = await self._client.execute_update_with_start_workflow(
            "lease",
            ask,
            start_workflow_operation=WithStartWorkflowOperation(
                RATES_WORKFLOW,
                await self._start(),
                id=self.id,
                task_queue=self._task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                static_summary=f"rate of {self._of.provider}, {self._of.model}",
            ),
            result_type=RateLease,
        )
        return begun

    async def _start(self) -> RatesStart:
        """Return how a ledger is started: with the end of the one before it, if that was ended from outside."""
        try:
            before = await self._client.get_workflow_handle(self.id).describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return self._of
        except ValueError:  # a status that this SDK does not know
            return self._of
        if before.status not in _FROM_OUTSIDE:
            return self._of
        return self._of.model_copy(update={"ended_at": before.close_time})
