"""What a ledger held that was ended from outside, read from its history, for the one that is started in its place.

A ledger that ends by itself holds nothing. One that was terminated, cancelled or failed had holders, who do not ask
again: without them the next ledger would give the same room out a second time. Its history says all that is needed,
even if the ledger was stuck and cannot be queried: who asked, who was granted room, and who gave it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from ..contract.ledger import LedgerStart, Reservation, page

#: Ends that a ledger does not choose by itself.
_FROM_OUTSIDE = frozenset(
    {
        WorkflowExecutionStatus.TERMINATED,
        WorkflowExecutionStatus.CANCELED,
        WorkflowExecutionStatus.FAILED,
        WorkflowExecutionStatus.TIMED_OUT,
    }
)


async def read_ledger_history(client: Client, ledger: str) -> LedgerHistory:
    """Return what a ledger held at its end: nothing if it runs, if it ended by itself, or if Temporal has forgotten it.

    Raises:
        RPCError: Temporal does not answer.
    """
    history = LedgerHistory(client.data_converter)
    try:
        found = await client.get_workflow_handle(ledger).describe()
        if found.status in _FROM_OUTSIDE:
            async for event in client.get_workflow_handle(ledger, run_id=found.run_id).fetch_history_events():
                await history.read(event)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
    return history


class LedgerHistory:
    """A ledger's reservations, read from its history event by event."""

    def __init__(self, converter: DataConverter) -> None:
        self.start = LedgerStart()
        self._converter = converter
        self._reservations: dict[str, Reservation] = {}  # by workflow: each has one attempt under way
        self._workflows: dict[str, str] = {}  # by holder
        self._room: set[str] = set()
        self._grants: dict[int, str] = {}  # holders, by the event that grants them room

    @property
    def holding(self) -> list[Reservation]:
        """Those that had room, as many as may be carried."""
        return page(reservation for reservation in self._reservations.values() if reservation.holder in self._room)

    @property
    def waiting(self) -> list[Reservation]:
        """Those that waited, as many as may be carried; the new ledger puts them in the order of their turns."""
        waiting = (reservation for reservation in self._reservations.values() if reservation.holder not in self._room)
        return page(sorted(waiting, key=lambda reservation: (reservation.priority, reservation.since)))

    async def read(self, event: HistoryEvent) -> None:
        """Take one event into account."""
        if event.HasField("workflow_execution_started_event_attributes"):
            started = event.workflow_execution_started_event_attributes
            self._begin(*await self._arguments(started.input.payloads, 3))
        elif event.HasField("workflow_execution_signaled_event_attributes"):
            signal = event.workflow_execution_signaled_event_attributes
            (argument,) = await self._arguments(signal.input.payloads, 1)
            if signal.signal_name == "reserve":
                self._reserve(argument)
            elif signal.signal_name == "release":
                self._release(str(argument))
        elif event.HasField("signal_external_workflow_execution_initiated_event_attributes"):
            sent = event.signal_external_workflow_execution_initiated_event_attributes
            (argument,) = await self._arguments(sent.input.payloads, 1)
            self._grants[event.event_id] = str(argument)
            self._grant(str(argument))
        elif event.HasField("signal_external_workflow_execution_failed_event_attributes"):
            failed = event.signal_external_workflow_execution_failed_event_attributes
            self._release(self._grants.get(failed.initiated_event_id, ""))

    async def _arguments(self, payloads: Sequence[Payload], count: int) -> list[Any]:
        # What was sent by hand may be anything; the ledger passed over what it could not read.
        try:
            found = await self._converter.decode(payloads[:count])
        except (ValueError, TypeError, KeyError, RuntimeError):
            found = []
        return [*found, *[None] * (count - len(found))]

    def _begin(self, start: Any, holding: Any, waiting: Any) -> None:
        with suppress(ValidationError):
            self.start = LedgerStart.model_validate(start or {})
        if not self.start.account:
            return  # started by hand, and failed
        for reservation in waiting if isinstance(waiting, list) else ():
            self._reserve(reservation)
        for reservation in holding if isinstance(holding, list) else ():
            self._grant(self._reserve(reservation))

    def _reserve(self, argument: Any) -> str:
        try:
            reservation = Reservation.model_validate(argument)
        except ValidationError:
            return ""
        before = self._reservations.get(reservation.workflow_id)
        room = reservation.held or reservation.holder in self._room
        for holder in (reservation.holder, before.holder if before else ""):
            self._release(holder)
        self._reservations[reservation.workflow_id] = reservation
        self._workflows[reservation.holder] = reservation.workflow_id
        if room:
            self._room.add(reservation.holder)
        return reservation.holder

    def _grant(self, holder: str) -> None:
        if holder in self._workflows:
            self._room.add(holder)

    def _release(self, holder: str) -> None:
        workflow_id = self._workflows.pop(holder, None)
        if workflow_id is not None:
            del self._reservations[workflow_id]
            self._room.discard(holder)
