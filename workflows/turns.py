"""TurnsWorkflow: which batches of the gateway's are under way, and whose turn is next; a ledger of batches."""

from __future__ import annotations

from pydantic import ValidationError
from temporalio import workflow

from ..contract.gateway_limits import TURNS_WORKFLOW
from ..contract.ledger import LedgerStart, Reservation
from .ledger import LedgerWorkflow


# A wrong start by hand fails instead of being stuck.
@workflow.defn(name=TURNS_WORKFLOW, failure_exception_types=[ValidationError])
class TurnsWorkflow(LedgerWorkflow):
    """The batches of one tenant, or of all of them."""

    # Not inherited: Temporal wants a class's own `run`, and `versioned.py` its own `__init__` as well.
    @workflow.init
    def __init__(
        self,
        start: LedgerStart | None = None,
        holding: list[Reservation] | None = None,
        waiting: list[Reservation] | None = None,
    ) -> None:
        super().__init__(start, holding, waiting)

    @workflow.run
    async def run(
        self,
        start: LedgerStart | None = None,
        holding: list[Reservation] | None = None,
        waiting: list[Reservation] | None = None,
    ) -> None:
        await super().run(start, holding, waiting)

    def _details(self) -> str:
        queue = self._queue
        return (
            f"Batches of the gateway's: `{self._start.account}`\n\n"
            f"- {queue.in_use:,} of {queue.limit:,} are under way\n- {queue.waiters:,} wait for their turn"
        )
