"""The steps between a shard and its account's ledger, and what passes between them and the workflows (see `steps`)."""

from __future__ import annotations

from datetime import datetime

from ._base import LenientModel
from .ledger import Place
from .step import Step
from .steps import Attempt


class ReserveRequest(LenientModel):
    """Asks the account's ledger for room for one attempt."""

    attempt: Attempt
    account: str
    workflow_id: str  #: Who is sent the signal `granted`.
    since: datetime  #: When the attempt asked first.
    priority: int
    fairness_key: str
    held: bool = False  #: The provider has it already.


class Reserved(LenientModel):
    ledger: str  #: The workflow id of the ledger; where to give the room back.
    place: Place | None  #: Null where the ledger did not answer in time; it has the reservation.


class ReleaseRequest(LenientModel):
    """Gives an attempt's room back, or its place in the queue."""

    attempt: Attempt
    account: str
    ledger: str | None = None  #: The workflow id of the ledger, where it is known.


class CensusRequest(LenientModel):
    """Asks which of a ledger's holders are still there."""

    workflow_ids: tuple[str, ...]


class Census(LenientModel):
    gone: tuple[str, ...]  #: Workflows that have ended, or that Temporal does not know.


RESERVE = Step("durabatch.reserve", ReserveRequest, Reserved)
RELEASE = Step("durabatch.release", ReleaseRequest, type(None))
CENSUS = Step("durabatch.census", CensusRequest, Census)
