"""What a running batch knows. All of it is carried when a workflow continues as new.

Each model is changed by its own methods only; `Carried`, which holds the others, is the same for a batch and a shard.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..contract import BatchResult, Mode, ProviderBatch
from ..contract.spec import PassedCancel
from ..contract.steps import AttemptRecord, PlanSummary, Settled
from .attempt_state import AttemptEnd, AttemptState, CarriedModel, Fate

#: Provider batches of a batch, of a shard or of a range of shards, that are listed; the store has the others.
MAX_LISTED = 100


class ShardState(CarriedModel):
    """One shard, as far as it has come."""

    shard: int = 0
    attempt: AttemptState = AttemptState()
    end: AttemptEnd | None = None  #: What became of that attempt, once it has ended.
    tries: int = 1  #: Attempts that count against the retry policy.
    waits: int = 0  #: Attempts that the provider's queue had no room for.
    vanished: int = 0  #: Provider batches that the provider lost.
    refused: str | None = None  #: Why no further attempt may follow.
    refused_code: str | None = None  #: Code of the error that it was.
    #: What refused it is for an operator to fix, and nothing of the batch was known to be bought.
    blocked: bool = False
    records: tuple[AttemptRecord, ...] = ()
    batches: tuple[ProviderBatch, ...] = ()
    untidy: tuple[int, ...] = ()  #: Attempts whose files could not be deleted at the provider yet.

    @property
    def begun(self) -> bool:
        """Whether there is, or was, anything of it at the provider."""
        return self.attempt.begun or bool(self.records)

    @property
    def bought(self) -> bool:
        """Whether the provider took any of its rows."""
        return self.attempt.sent or any(record.sent for record in self.records)

    def refuse(self, why: str | None, *, code: str | None = None, blocked: bool) -> None:
        """Note why no further attempt may follow."""
        self.refused, self.refused_code, self.blocked = why, code, blocked

    def close(self, end: AttemptEnd) -> None:
        """Note what became of the attempt under way."""
        self.end = end
        if end.refused is not None:
            self.refuse(end.refused, code=end.refused_code, blocked=end.blocked)
        if end.record.sent:
            self.tries += self.attempt.only_if_bought
        before = self.records
        if end.record.sent and before and not before[-1].counted:
            # It took just the rows that the queue had no room for, so its record says all that theirs did. There may be
            # hundreds of such records in a row.
            before = before[:-1]
        self.records = (*before, end.record)
        if end.batch is not None:
            self.batches = (*self.batches, end.batch)[:MAX_LISTED]

    def leave_untidy(self) -> None:
        """Note that the attempt left something at the provider that could not be deleted."""
        self.untidy = (*self.untidy, self.attempt.number)

    def try_once_more(self) -> None:
        """Count another try of the attempt under way, which was not sent."""
        self.tries += 1

    def begin_attempt(self, rows: int, *, only_if_bought: bool, mode: Mode | None = None) -> None:
        """Begin another attempt, for the rows that are worth it.

        Args:
            mode: how it is run; as the one before it where it is None.
        """
        fate = self.end.fate if self.end else Fate.RAN
        if fate is Fate.NO_ROOM:
            self.waits += 1
        elif fate is Fate.VANISHED:
            self.vanished += 1
        else:
            self.tries += not only_if_bought  # that one is a try when it is found
            self.waits = 0
        number = self.attempt.number + 1
        self.attempt = AttemptState(
            number=number, mode=mode or self.attempt.mode, rows=rows, only_if_bought=only_if_bought
        )
        self.end = None


class Untidy(CarriedModel):
    """An attempt that left a file at the provider."""

    shard: int
    number: int


class ShardOutcome(CarriedModel):
    """What became of a shard, or of several."""

    settled: Settled
    batches: tuple[ProviderBatch, ...] = ()
    error: str | None = None
    error_code: str | None = None
    untidy: tuple[Untidy, ...] = ()
    #: An operator can fix why these shards, or some of them, were refused, and nothing of the batch was known to be
    #: bought. Where something is, they are worth another start.
    blocked: bool = False
    bought: bool = False  #: The provider took any of their rows.
    retired: bool = False  #: They were left to another workflow before all of their rows had ended.

    def and_one_more(self, other: ShardOutcome) -> ShardOutcome:
        """Return what became of these shards and of others: their rows by status; usage and cost are in the store."""
        return ShardOutcome(
            settled=Settled(counts=self.settled.counts + other.settled.counts),
            batches=(*self.batches, *other.batches)[:MAX_LISTED],
            error=self.error or other.error,
            error_code=self.error_code if self.error else other.error_code,
            untidy=(*self.untidy, *other.untidy)[:MAX_LISTED],
            blocked=self.blocked or other.blocked,
            bought=self.bought or other.bought,
        )


class SteeringState(CarriedModel):
    """What operators and the deadline ask of a workflow, and what went wrong last. `Steering` owns it."""

    deadline_at: datetime  #: When it is ended whatever it does.
    cancel: PassedCancel | None = None  #: The first cancel.
    poll_now: bool = False  #: An operator asked for the next poll at once.
    paid: bool = False  #: Something of the batch may be bought, by whichever shard of it.
    last_error: str | None = None


class Carried(CarriedModel):
    """A whole batch, or a range of its shards in a child workflow, as far as it has come."""

    started_at: datetime
    steering: SteeringState
    shard: ShardState = ShardState()  #: The shard under way.
    ended: int = 0  #: Shards that have ended.
    outcome: ShardOutcome | None = None  #: What became of those.

    # What follows is a batch's alone.
    execution: str = ""  #: The run that the batch was started as.
    plan: PlanSummary | None = None
    cause: dict[str, Any] | None = None  #: What failed, for clients that want more than a sentence.
    result: BatchResult | None = None  #: What the batch ends with, once that is known.
    written: bool = False  #: Whether the result is in the store, or given up there.
    handled: bool = False  #: Whether the user's handler was called.
    untidy: tuple[Untidy, ...] = ()  #: Attempts whose files are to be deleted at the provider before the batch ends.
    tidy_until: datetime | None = None  #: When that is given up.

    def begin_shard(self, shard: ShardState) -> ShardState:
        """Take up a shard; return it."""
        self.shard = shard
        return shard

    def end_shards(self, outcomes: list[ShardOutcome]) -> None:
        """Note what became of shards."""
        self.ended += len(outcomes)
        for outcome in outcomes:
            self.outcome = (self.outcome or ShardOutcome(settled=Settled())).and_one_more(outcome)

    def keep_plan(self, plan: PlanSummary) -> PlanSummary:
        """Note the plan that the batch goes by; return it."""
        self.plan = plan
        return plan

    def fail(self, cause: dict[str, Any]) -> None:
        """Note what failed for good."""
        self.cause = cause

    def conclude(self, result: BatchResult) -> BatchResult:
        """Note what the batch ends with; what became of its shards is in it, but for what is still to be deleted."""
        left = tuple(Untidy(shard=self.shard.shard, number=number) for number in self.shard.untidy)
        self.result, self.untidy = result, self.outcome.untidy if self.outcome else left
        self.outcome = None
        return result

    def wrote(self, result: BatchResult) -> BatchResult:
        """Note that the result is in the store, or given up there; return it as it is by now."""
        self.result, self.written = result, True
        return result

    def called_handler(self) -> None:
        """Note that the user's handler was called."""
        self.handled = True

    def give_up_tidying_at(self, until: datetime) -> datetime:
        """Return when files are given up that cannot be deleted at the provider: one time for all of them."""
        self.tidy_until = self.tidy_until or until
        return self.tidy_until

    def tidied(self) -> None:
        """Note that the first of the untidy attempts is seen to."""
        self.untidy = self.untidy[1:]
