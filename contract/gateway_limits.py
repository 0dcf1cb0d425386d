"""What a tenant may use: its limits, the ledgers in which batches wait for their turn, and how long they are kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from ._base import LenientModel
from .ledger import Place
from .step import Step

#: The workflow type of such a ledger; its signals and queries are those of `contract.ledger`, with a token for a batch.
TURNS_WORKFLOW = "DurabatchTurns"
#: Batches that may be under way at a time: what a ledger holds is carried to a new run (promise G6 allows 64 KiB).
MAX_TURNS = 100

_ALL = "~all"


class Keep(NamedTuple):
    """How long after its end something of a batch is kept; None for ever."""

    rows: timedelta | None = None  #: The rows that it was run with, and its results as the workers wrote them.
    batches: timedelta | None = None  #: The batch in its tenant's list, with its output and error file.


FOR_EVER = Keep()


class TenantLimits(LenientModel):
    """Limits of a tenant, as its key had them when a batch was created; null for none."""

    max_rows: int | None = None  #: Of one batch.
    max_batches: int | None = None  #: Of the tenant, under way at a time.
    max_batches_in_all: int | None = None  #: Of all tenants.
    max_cost_usd_per_day: str | None = None  #: A decimal string.


class TurnLedger(LenientModel):
    """One of the ledgers in which a batch waits."""

    name: str  #: The tenant, or `~all` for all of them.
    limit: int  #: Batches that may be under way.

    @property
    def id(self) -> str:
        """Its workflow id. No batch id has a slash."""
        return f"durabatch-turns/{self.name}"

    def holder(self, batch_id: str) -> str:
        """Return what a batch is called there; its workflow distinguishes the ledgers' signals by it."""
        return f"{batch_id}/{self.name}"

    @property
    def whose(self) -> str:
        """Whose batches it counts, in words."""
        return "all tenants" if self.name == _ALL else f"the tenant {self.name}"


def turn_ledgers(tenant: str, limits: TenantLimits) -> list[TurnLedger]:
    """Return where a batch waits for its turn, in the order in which it does: its own tenant's ledger comes first.

    Whoever waits among all tenants so holds a place of its own tenant's, and never the other way round.
    """
    found = []
    if limits.max_batches is not None:
        found.append(TurnLedger(name=tenant, limit=limits.max_batches))
    if limits.max_batches_in_all is not None:
        found.append(TurnLedger(name=_ALL, limit=limits.max_batches_in_all))
    return found


class TurnRequest(LenientModel):
    """Asks a ledger whether it is a batch's turn; asked again, the batch keeps its place."""

    ledger: TurnLedger
    holder: str
    workflow_id: str  #: Who is sent the signal `granted`.
    tenant: str
    since: datetime  #: When it asked first, UTC.
    held: bool = False  #: It runs already: it is counted, whatever the limit.


class Turned(LenientModel):
    place: Place | None  #: Null where the ledger did not answer in time; it has the reservation.


class LeaveRequest(LenientModel):
    """Gives a turn back, or a place in the queue."""

    ledger: TurnLedger
    holder: str


TURN = Step("durabatch.gateway_turn", TurnRequest, Turned)
LEAVE = Step("durabatch.gateway_leave", LeaveRequest, type(None))
