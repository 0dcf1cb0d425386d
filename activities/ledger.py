"""The steps of an account's queue: ask its ledger for room, give it back, and report which of its holders are gone.

The ledger is a workflow (see `contract.ledger`), and these steps speak to it through the worker's own client: only a
client can start a workflow with a signal, and so nobody has to start a ledger beforehand.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowQueryFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from ..contract.ledger import LEDGER_WORKFLOW, MIXED, LedgerStart, Place, Reservation, ledger_id
from ..contract.ledger_steps import (
    CENSUS,
    RELEASE,
    RESERVE,
    Census,
    CensusRequest,
    ReleaseRequest,
    Reserved,
    ReserveRequest,
)
from .attempt_rows import AttemptRows
from .lease import Lease
from .ledger_history import read_ledger_history
from .records import read_shard
from .resources import Resources
from .step import in_thread, step

#: The ledger answers at once if a worker is free. Without an answer the reservation counts, and a signal grants it.
_ASK = timedelta(seconds=5)
#: Workflows that are looked at at a time.
_PARALLEL = 16


class LedgerSteps:
    """The steps between a shard and its account's ledger."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._beginning = asyncio.Lock()

    @step(RESERVE)
    async def reserve(self, request: ReserveRequest, lease: Lease) -> Reserved:
        """Ask for room for one attempt; asked again, it keeps its place. Return its place in the queue."""
        limit = self._resources.settings(request.attempt.provider).max_enqueued_tokens
        await self._resources.batch_folder(request.attempt)
        rows = await AttemptRows.read(self._resources.store, request.attempt)
        tokens = await in_thread(lease, partial(rows.estimate_tokens, self._resources.store))
        reservation = Reservation(
            holder=request.attempt.marker,
            workflow_id=request.workflow_id,
            tokens=tokens,
            since=request.since,
            priority=request.priority,
            fairness_key=request.fairness_key,
            held=request.held,
        )
        ledger = ledger_id(request.account, rows.shard.model)
        if limit is None:  # it was taken out of the configuration since the plan was made
            return Reserved(ledger=ledger, place=Place(granted=True))
        start = LedgerStart(
            account=request.account,
            provider=request.attempt.provider,
            model=rows.shard.model or MIXED,
            limit=limit,
        )
        handle = activity.client().get_workflow_handle(ledger)
        if not await _signalled(handle, "reserve", reservation, limit):
            await self._begin(handle, start, "reserve", reservation, limit)
        try:
            place: Place | None = await handle.query("place", reservation.holder, result_type=Place, rpc_timeout=_ASK)
        except (RPCError, WorkflowQueryFailedError):
            place = None
        return Reserved(ledger=ledger, place=place)

    @step(RELEASE)
    async def release(self, request: ReleaseRequest, lease: Lease) -> None:
        """Give room back, or a place in the queue; a ledger that has ended by itself needs none."""
        ledger = request.ledger
        if ledger is None:  # the answer to the reservation is lost, and the ledger may have it
            await self._resources.batch_folder(request.attempt)
            ledger = ledger_id(request.account, (await read_shard(self._resources.store, request.attempt)).model)
        handle = activity.client().get_workflow_handle(ledger)
        if not await _signalled(handle, "release", request.attempt.marker):
            await self._begin(handle, None, "release", request.attempt.marker)

    @step(CENSUS)
    async def census(self, request: CensusRequest, lease: Lease) -> Census:
        """Return which of these workflows do not run any more."""
        free = asyncio.Semaphore(_PARALLEL)

        async def gone(workflow_id: str) -> bool:
            async with free:
                try:
                    found = await activity.client().get_workflow_handle(workflow_id).describe()
                except RPCError as error:
                    if error.status != RPCStatusCode.NOT_FOUND:
                        raise
                    return True
                except ValueError:
                    return False  # a status that this SDK does not know, such as paused: it has not ended
            return found.status is not WorkflowExecutionStatus.RUNNING

        ended = await asyncio.gather(*(gone(workflow_id) for workflow_id in request.workflow_ids))
        return Census(gone=tuple(name for name, is_gone in zip(request.workflow_ids, ended, strict=True) if is_gone))

    async def _begin(
        self, handle: WorkflowHandle[Any, Any], start: LedgerStart | None, signal: str, *arguments: Any
    ) -> None:
        """Start a ledger with a signal and with what the one before it held; without a start, only if it held any."""
        async with self._beginning:  # of many who find it gone, one reads what it held
            if await _signalled(handle, signal, *arguments):
                return
            before = await read_ledger_history(activity.client(), handle.id)
            if start is None:
                if not before.holding and not before.waiting:
                    return
                start = before.start
            await activity.client().start_workflow(
                LEDGER_WORKFLOW,
                args=[start, before.holding, before.waiting],
                id=handle.id,
                task_queue=activity.info().task_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                start_signal=signal,
                start_signal_args=arguments,
                static_summary=f"queue of {start.provider}, {start.model}",
            )


async def _signalled(handle: WorkflowHandle[Any, Any], signal: str, *arguments: Any) -> bool:
    """Send a signal to a ledger; return whether it runs."""
    try:
        await handle.signal(signal, args=arguments)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True
