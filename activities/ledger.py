"""The steps of an account's queue: ask its ledger for room, give it back, and report which of its holders are gone.

The ledger is a workflow (see `contract.ledger`), and these steps speak to it through `LedgerClient`.
"""

from __future__ import annotations

import asyncio
from functools import partial

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
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
from .ledger_client import LedgerClient
from .records import read_shard
from .resources import Resources
from .step import in_thread, step

#: Workflows that are looked at at a time.
_PARALLEL = 16


class LedgerSteps:
    """The steps between a shard and its account's ledger."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._ledgers = LedgerClient(LEDGER_WORKFLOW)

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
        place = await self._ledgers.reserve(ledger, start, reservation)
        return Reserved(ledger=ledger, place=place)

    @step(RELEASE)
    async def release(self, request: ReleaseRequest, lease: Lease) -> None:
        """Give room back, or a place in the queue; a ledger that has ended by itself needs none."""
        ledger = request.ledger
        if ledger is None:  # the answer to the reservation is lost, and the ledger may have it
            await self._resources.batch_folder(request.attempt)
            ledger = ledger_id(request.account, (await read_shard(self._resources.store, request.attempt)).model)
        await self._ledgers.release(ledger, request.attempt.marker)

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
