"""Turns: ask an account's ledger for room, give it back, and tell the ledger which of its holders are gone.

The ledger is a workflow (see `contract.ledger`), and these steps speak to it through the worker's own client: only a
client can start a workflow with a signal, and so nobody has to start a ledger beforehand.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowQueryFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from ..contract.ledger import LEDGER_WORKFLOW, MIXED, Claim, LedgerStart, Place, ledger_id
from ..contract.steps import (
    CENSUS,
    RELEASE,
    RESERVE,
    Attempt,
    Census,
    CensusRequest,
    ReleaseRequest,
    Reserved,
    ReserveRequest,
)
from ._boundary import Pulse, in_thread, step
from .estimate import estimate_tokens
from .records import ShardRecord, index_path, read_index, read_picked, read_shard
from .resources import Resources
from .store import Store

#: The ledger answers at once where a worker is free; without an answer the claim stands, and a signal tells its turn.
_ASK = timedelta(seconds=5)
#: Workflows that are looked at at a time.
_PARALLEL = 16


class Turns:
    """The steps between a shard and its account's ledger."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(RESERVE)
    async def reserve(self, request: ReserveRequest, pulse: Pulse) -> Reserved:
        """Ask for room for one attempt; asked again, it keeps its place. Return where it stands."""
        limit = self._resources.settings(request.attempt.provider).max_enqueued_tokens
        record = await read_shard(self._resources.store, request.attempt)
        picked = await read_picked(self._resources.store, request.attempt)
        tokens = record.tokens
        if picked is not None:
            count = partial(_tokens, self._resources.store, request.attempt, record, set(picked))
            tokens = await in_thread(pulse, count)
        claim = Claim(
            holder=request.attempt.marker,
            workflow_id=request.workflow_id,
            tokens=tokens,
            since=request.since,
            priority=request.priority,
            fairness_key=request.fairness_key,
            held=request.held,
        )
        ledger = ledger_id(request.account, record.model)
        if limit is None:  # it was taken out of the configuration since the plan was made
            return Reserved(ledger=ledger, place=Place(granted=True))
        start = LedgerStart(
            account=request.account,
            provider=request.attempt.provider,
            model=record.model or MIXED,
            limit=limit,
        )
        handle = await activity.client().start_workflow(
            LEDGER_WORKFLOW,
            args=[start, [], []],
            id=ledger,
            task_queue=activity.info().task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="reserve",
            start_signal_args=[claim, limit],
            static_summary=f"queue of {request.attempt.provider}, {start.model}",
        )
        try:
            place: Place | None = await handle.query("place", claim.holder, result_type=Place, rpc_timeout=_ASK)
        except (RPCError, WorkflowQueryFailedError):
            place = None
        return Reserved(ledger=ledger, place=place)

    @step(RELEASE)
    async def release(self, request: ReleaseRequest, pulse: Pulse) -> None:
        """Give room back, or a place in the queue; a ledger that has ended needs none."""
        ledger = request.ledger
        if ledger is None:  # the answer to the claim is lost, and the claim may stand
            ledger = ledger_id(request.account, (await read_shard(self._resources.store, request.attempt)).model)
        try:
            await activity.client().get_workflow_handle(ledger).signal("release", request.attempt.marker)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise

    @step(CENSUS)
    async def census(self, request: CensusRequest, pulse: Pulse) -> Census:
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


def _tokens(store: Store, attempt: Attempt, record: ShardRecord, picked: set[int]) -> int:
    """Return the estimated tokens of some rows of a shard. Blocks.

    A row's bytes are those of the input; as sent it may be longer, by as much as the shard is on the whole.
    """
    lengths = [row.length for row in read_index(store, index_path(store.path(attempt.root), attempt.shard))]
    grown = max(1.0, record.bytes / max(1, sum(lengths)))
    return sum(estimate_tokens(int(length * grown)) for number, length in enumerate(lengths) if number in picked)
