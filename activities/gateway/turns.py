"""The steps between a batch of the gateway's and the ledgers in which it waits for its turn."""

from __future__ import annotations

from ...contract.gateway_limits import LEAVE, TURN, TURNS_WORKFLOW, LeaveRequest, Turned, TurnRequest
from ...contract.ledger import LedgerStart, Reservation
from ..lease import Lease
from ..ledger_client import LedgerClient
from ..resources import Resources
from ..step import step


class GatewayTurns:
    """Takes and gives back turns: one reservation of one token a batch."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._ledgers = LedgerClient(TURNS_WORKFLOW)

    @step(TURN)
    async def turn(self, request: TurnRequest, lease: Lease) -> Turned:
        """Ask whether it is a batch's turn; asked again, it keeps its place."""
        ledger = request.ledger
        start = LedgerStart(account=ledger.name, provider="the gateway", model="batches", limit=ledger.limit)
        reservation = Reservation(
            holder=request.holder,
            workflow_id=request.workflow_id,
            tokens=1,
            since=request.since,
            fairness_key=request.tenant,
            held=request.held,
        )
        return Turned(place=await self._ledgers.reserve(ledger.id, start, reservation))

    @step(LEAVE)
    async def leave(self, request: LeaveRequest, lease: Lease) -> None:
        """Give a turn back, or a place in the queue."""
        await self._ledgers.release(request.ledger.id, request.holder)
