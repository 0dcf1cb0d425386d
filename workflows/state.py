"""What a running batch knows. All of it is carried when a workflow continues as new."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..contract import BatchResult, ProviderBatch, RowStatus
from ..contract.spec import PassedCancel
from ..contract.steps import AttemptRecord, PlanSummary, Settled, Snapshot

#: Provider batches of a batch, of a shard or of a run of shards, that are listed; the store has the others.
MAX_LISTED = 100


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Streak(_State):
    """Answers of one kind, one after another, with nothing else between them."""

    since: datetime
    until: datetime

    @property
    def length(self) -> timedelta:
        return self.until - self.since


class AttemptState(_State):
    """One submission of one shard, as far as it has come."""

    number: int = 1
    rows: int = 0  #: Rows sent.
    #: Whether it is only looked for, as another run may have bought it: nobody would choose it, or its rows, now.
    only_if_bought: bool = False
    generation: int = 1  #: Which upload of its rows a create may name.
    upload_begun: bool = False  #: There may be a file at the provider.
    uploaded: bool = False
    file_id: str | None = None
    doubt: bool = False  #: A create may be on its way whose answer is lost.
    #: Number of the newest noted create for which, and for all before it, the provider's listing was waited for, and
    #: whose files were fenced off: nothing can come of them any more.
    cleared: int = 0
    batch: Snapshot | None = None  #: The provider batch, once there is one.
    adopted: bool = False
    provisional: bool = False  #: The batch may be a stranger's until its results are seen.
    strangers: tuple[str, ...] = ()
    submitted_at: datetime | None = None
    stopped: RowStatus | None = None  #: Why the provider was asked to end it, if it was.
    lost: bool = False  #: The provider has forgotten it.
    unknown: Streak | None = None  #: Answers of 404 to polls.
    uncancelled: Streak | None = None  #: Cancels that failed.
    short: Streak | None = None  #: Answers that it has ended, and less of its results than it counts.
    gone: Streak | None = None  #: Answers of 404 where its results should be.
    polls: int = 0
    asked_at: datetime | None = None  #: When it asked for room in the account's queue.
    ledger: str | None = None  #: The ledger that has its claim.
    room: bool = False  #: Whether its turn has come.
    fetched: bool = False
    lines: int | None = None  #: Lines of results fetched.
    answered: int = 0  #: Rows that the provider says it answered, and so bills.
    unreturned: str = ""  #: Why some of those rows did not come back, in words.


class ShardState(_State):
    """One shard, as far as it has come."""

    shard: int = 0
    attempt: AttemptState = AttemptState()
    tries: int = 1  #: Attempts that count against the retry policy.
    waits: int = 0  #: Attempts that the provider's queue had no room for.
    losses: int = 0  #: Provider batches that the provider lost.
    refused: str | None = None  #: Why no further attempt may follow.
    blocked: bool = (
        False  #: What refused it is for an operator to fix, and nothing of the batch was known to be bought.
    )
    records: tuple[AttemptRecord, ...] = ()
    batches: tuple[ProviderBatch, ...] = ()
    untidy: tuple[int, ...] = ()  #: Attempts whose files could not be deleted at the provider yet.

    @property
    def bought(self) -> bool:
        """Whether there is, or was, a provider batch of it."""
        return self.attempt.batch is not None or any(record.provider_batch_id for record in self.records)


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
    #: An operator can fix why these shards, or some of them, were refused, and nothing of the batch was known to be
    #: bought. Where something is, they are worth another start.
    blocked: bool = False
    retired: bool = False  #: They were left to another workflow before all of their rows had ended.

    def and_one_more(self, other: ShardOutcome) -> ShardOutcome:
        """Return what became of these shards and of others: their rows by status; usage and cost are in the store."""
        return ShardOutcome(
            settled=Settled(counts=self.settled.counts + other.settled.counts),
            batches=(*self.batches, *other.batches)[:MAX_LISTED],
            error=self.error or other.error,
            untidy=(*self.untidy, *other.untidy)[:MAX_LISTED],
            blocked=self.blocked or other.blocked,
        )


class Carried(_State):
    """A whole batch, as far as it has come."""

    started_at: datetime
    deadline_at: datetime
    plan: PlanSummary | None = None
    shard: ShardState = ShardState()
    cancel: PassedCancel | None = None
    last_error: str | None = None
    poll_now: bool = False
    paid: bool = False  #: Something of the batch may be bought.
    execution: str = ""  #: The run that the batch was started as, where this is not it.
    outcome: ShardOutcome | None = None  #: What became of all shards, once each has ended.
    result: BatchResult | None = None  #: What the batch ends with, once that is known.
    cause: dict[str, Any] | None = None  #: What failed, for clients that want more than a sentence.
    written: bool = False  #: Whether the result is in the store, or given up there.
    handled: bool = False  #: Whether the user's handler was called.
    untidy: tuple[Untidy, ...] = ()  #: Attempts whose files are to be deleted at the provider before the batch ends.
    tidy_until: datetime | None = None  #: When that is given up.
