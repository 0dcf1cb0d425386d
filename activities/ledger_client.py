"""How steps speak to a ledger: only a client can start a workflow with a signal, and so nobody has to start one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowHandle, WorkflowQueryFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from ..contract.ledger import LedgerStart, Place, Reservation
from .ledger_history import read_ledger_history
from .task_queues import end_abandoned

#: The ledger answers at once if a worker is free. Without an answer the reservation counts, and a signal grants it.
_ASK = timedelta(seconds=5)


class LedgerClient:
    """Speaks to the ledgers of one workflow type, through the worker's own client.

    Args:
        workflow_type: its signals and queries are those of `contract.ledger`.
    """

    def __init__(self, workflow_type: str) -> None:
        self._workflow_type = workflow_type
        self._beginning = asyncio.Lock()

    async def reserve(self, ledger: str, start: LedgerStart, reservation: Reservation) -> Place | None:
        """Ask a ledger for room, and return the holder's place; None where it does not answer in time.

        Args:
            ledger: its workflow id.
            start: what it is started with if it does not run.
        """
        place = await self._ask(ledger, start, reservation)
        if place is None and await end_abandoned(activity.client(), ledger, activity.info().task_queue):
            place = await self._ask(ledger, start, reservation)  # of the one that is started in its place
        return place

    async def release(self, ledger: str, holder: str) -> None:
        """Give room back, or a place in the queue; a ledger that has ended by itself needs none."""
        handle = activity.client().get_workflow_handle(ledger)
        if not await _signalled(handle, "release", holder):
            await self._begin(handle, None, "release", holder)

    async def _ask(self, ledger: str, start: LedgerStart, reservation: Reservation) -> Place | None:
        handle = activity.client().get_workflow_handle(ledger)
        if not await _signalled(handle, "reserve", reservation, start.limit):
            await self._begin(handle, start, "reserve", reservation, start.limit)
        try:
            place: Place = await handle.query("place", reservation.holder, result_type=Place, rpc_timeout=_ASK)
        except (RPCError, WorkflowQueryFailedError):
            return None
        return place

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
                self._workflow_type,
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
