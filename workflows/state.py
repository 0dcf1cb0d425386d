"""What a running batch knows. All of it is carried when a workflow continues as new."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from ..contract import ProviderBatch, RowStatus
from ..contract.steps import AttemptRecord, PassedCancel, PlanSummary, Settled, Snapshot


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore")


class AttemptState(_State):
    """One submission of one shard, as far as it has come."""

    number: int = 1
    rows: int = 0  #: Rows sent.
    generation: int = 1  #: Which upload of its rows a create may name.
    upload_begun: bool = False  #: There may be a file at the provider.
    uploaded: bool = False
    file_id: str | None = None
    doubt: bool = False  #: A create may be on its way whose answer is lost.
    #: Whatever creates were intended are known to this run: its own, or others that were waited for.
    sure: bool = False
    batch: Snapshot | None = None  #: The provider batch, once there is one.
    adopted: bool = False
    provisional: bool = False  #: The batch may be a stranger's until its results are seen.
    strangers: tuple[str, ...] = ()
    submitted_at: datetime | None = None
    stopped: RowStatus | None = None  #: Why the provider was asked to end it, if it was.
    lost: bool = False  #: The provider has forgotten it.
    polls: int = 0
    asked_at: datetime | None = None  #: When it asked for room in the account's queue.
    ledger: str | None = None  #: The ledger that has its claim.
    room: bool = False  #: Whether its turn has come.
    fetched: bool = False
    lines: int | None = None  #: Lines of results fetched.


class ShardState(_State):
    """One shard, as far as it has come."""

    shard: int = 0
    attempt: AttemptState = AttemptState()
    tries: int = 1  #: Attempts that count against the retry policy.
    waits: int = 0  #: Attempts that the provider's queue had no room for.
    losses: int = 0  #: Provider batches that the provider lost.
    refused: str | None = None  #: Why no further attempt may follow.
    records: tuple[AttemptRecord, ...] = ()
    batches: tuple[ProviderBatch, ...] = ()
    untidy: tuple[int, ...] = ()  #: Attempts whose files could not be deleted at the provider yet.


class Carried(_State):
    """A whole batch, as far as it has come."""

    started_at: datetime
    deadline_at: datetime
    plan: PlanSummary | None = None
    shard: ShardState = ShardState()
    cancel: PassedCancel | None = None
    last_error: str | None = None
    poll_now: bool = False


class Untidy(_State):
    """An attempt that left a file at the provider."""

    shard: int
    number: int


class ShardOutcome(_State):
    """What became of a shard, or of several."""

    settled: Settled
    batches: tuple[ProviderBatch, ...] = ()
    error: str | None = None
    untidy: tuple[Untidy, ...] = ()
