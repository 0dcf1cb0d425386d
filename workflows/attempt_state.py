"""How far an attempt has come, and what became of it. Carried when a workflow continues as new."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Self

from pydantic import BaseModel, ConfigDict

from ..contract import Mode, ProviderBatch, ProviderStatus, RowStatus
from ..contract._base import Word
from ..contract.steps import AttemptRecord, Collected, Ran, Snapshot, Uploaded


class CarriedModel(BaseModel):
    """What one run of a workflow hands to the next.

    The next one may be run by a worker of another version: fields that this one lacks are ignored, and a field that a
    version adds has a default with which what an earlier one carried is read (`tests/unit/test_state.py`).
    """

    # hide_input_in_errors: a validation error reaches Temporal's history, where no prompt may be (promise G8).
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class Streak(CarriedModel):
    """Answers of one kind, one after another, with nothing else between them."""

    since: datetime
    until: datetime

    @property
    def length(self) -> timedelta:
        return self.until - self.since


class Stage(Word):
    """How far an attempt has come with its provider."""

    NEW = "new"  #: Nothing of it was ever sent.
    UPLOADING = "uploading"  #: There may be a file of it, whole or not.
    UPLOADED = "uploaded"  #: Its file is there, or its rows are known that go inline.
    SUBMITTED = "submitted"  #: There is a provider batch.
    VANISHED = "vanished"  #: There was one, and the provider does not know it any more.
    FETCHED = "fetched"  #: Whatever the provider batch answered is in the store.

    @classmethod
    def unknown(cls) -> Self:
        return cls.UPLOADING  # it is looked for before anything is sent


class SlotState(CarriedModel):
    """An attempt's place in its account's queue. `QueueSlot` owns it."""

    asked_at: datetime | None = None  #: When it asked for room first.
    ledger: str | None = None  #: The ledger that has its reservation.
    taken: bool = False  #: Whether its turn has come.


class DirectState(CarriedModel):
    """How far the rows of an attempt have come that Durabatch sends itself (direct mode)."""

    begun: bool = False  #: Rows of it may have been sent.
    rows: int = 0  #: Rows that it sends.
    kept: int = 0  #: Of those, the ones whose answers are in the store.
    answered: bool = False  #: Each of them has an answer.
    vain: int = 0  #: Runs, one after another, that stopped early and brought nothing.
    collected: Collected | None = None  #: What its output holds, once that is written.

    def begin(self) -> None:
        """Note that from now on rows of it may have been sent."""
        self.begun = True

    def note(self, ran: Ran) -> None:
        """Note how far a run of its rows came."""
        self.vain = 1 if ran.kept > self.kept else self.vain + 1
        self.rows, self.kept, self.answered = ran.rows, ran.kept, ran.reason is None

    def collect(self, collected: Collected) -> None:
        """Note what its output holds."""
        self.collected = collected


class Standing(CarriedModel):
    """Where an attempt is, as the progress shows it."""

    provider_batch_id: str | None = None
    status: ProviderStatus | None = None
    raw_status: str | None = None  #: The same in the provider's word.
    total: int = 0
    completed: int = 0
    failed: int = 0


class AttemptState(CarriedModel):
    """One attempt of one shard, as far as it has come: by the provider's batch API, but for its part `direct`."""

    number: int = 1
    mode: Mode | None = None  #: How it is run; as the plan says where it is null.
    stage: Stage = Stage.NEW
    rows: int = 0  #: Rows sent.
    #: Whether it is only looked for, because another run may have bought it: this run would not choose it.
    only_if_bought: bool = False
    generation: int = 1  #: Which upload of its rows a create may name.
    file_id: str | None = None
    doubt: bool = False  #: A create may be on its way whose answer is lost.
    #: Number of the newest noted create for which, and for all before it, the provider's listing was waited for, and
    #: whose files were fenced off: nothing can come of them any more.
    cleared: int = 0
    batch: Snapshot | None = None  #: The provider batch, once there is one.
    adopted: bool = False  #: It was found, and not created by us.
    provisional: bool = False  #: It may be a stranger's until its results are seen.
    strangers: tuple[str, ...] = ()
    stopped: RowStatus | None = None  #: Why the provider was asked to end it, if it was.
    polls: int = 0
    unknown: Streak | None = None  #: Answers of 404 to polls.
    uncancelled: Streak | None = None  #: Cancels that failed.
    short: Streak | None = None  #: Answers that it has ended, and less of its results than it counts.
    gone: Streak | None = None  #: Answers of 404 where its results should be.
    lines: int | None = None  #: Lines of results fetched.
    answered: int = 0  #: Rows that the provider says it answered, and so bills.
    unreturned: str = ""  #: Why some of those rows did not come back, in words.
    refused: str | None = None  #: Why it goes no further.
    refused_code: str | None = None  #: Code of the error that it was.
    blocked: bool = False  #: An operator can fix that, and nothing of the batch was known to be bought.
    slot: SlotState = SlotState()
    direct: DirectState = DirectState()

    @property
    def begun(self) -> bool:
        """Whether there is, or was, anything of it at the provider."""
        return self.stage is not Stage.NEW or self.direct.begun

    @property
    def sent(self) -> bool:
        """Whether the provider took its rows, or any of them in direct mode."""
        return self.batch is not None or self.direct.kept > 0

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do for it, but to give its place back and to clear up."""
        done = self.stage in (Stage.VANISHED, Stage.FETCHED) or self.direct.collected is not None
        return done or self.refused is not None

    @property
    def standing(self) -> Standing:
        """Where it is, for the progress."""
        batch, direct = self.batch, self.direct
        if direct.begun:
            done = direct.collected
            succeeded = done.succeeded if done else direct.kept
            return Standing(total=direct.rows, completed=succeeded, failed=done.lines - succeeded if done else 0)
        if batch is None:
            return Standing()
        return Standing(
            provider_batch_id=batch.id,
            status=batch.status,
            raw_status=batch.raw_status,
            total=batch.total,
            completed=batch.completed,
            failed=batch.failed,
        )

    def turn_direct(self) -> None:
        """Note that its rows, none of which was sent, are run directly now."""
        self.mode = Mode.DIRECT

    def begin_upload(self, *, another: bool = False) -> None:
        """Note that from now on there may be a file of it.

        Args:
            another: not the one that an earlier create may name.
        """
        self.stage = Stage.UPLOADING
        self.generation += another

    def end_upload(self, uploaded: Uploaded) -> None:
        """Note that its rows are where a create can use them."""
        self.stage = Stage.UPLOADED
        self.generation = uploaded.generation or self.generation
        self.file_id = uploaded.file_id
        self.rows = uploaded.rows

    def doubt_create(self) -> None:
        """Note that a create may be on its way, ours or an earlier run's."""
        self.doubt = True
        if self.stage is Stage.NEW:
            self.stage = Stage.UPLOADING  # that create names a file, and without it runs nothing

    def clear_doubt(self, newest: int) -> None:
        """Note that nothing can come any more of the creates up to this number."""
        self.doubt, self.cleared = False, newest

    def submit(self, batch: Snapshot) -> None:
        """Note the provider batch that was created."""
        self.batch, self.stage = batch, Stage.SUBMITTED

    def adopt(self, batch: Snapshot, *, provisional: bool) -> None:
        """Note a provider batch that was found: created earlier, perhaps by a run that is not there to clear up."""
        self.submit(batch)
        self.adopted, self.provisional = True, provisional
        self.rows = self.rows or batch.total

    def let_go(self) -> None:
        """Forget a provider batch that turned out to be somebody else's."""
        assert self.batch is not None
        self.strangers = (*self.strangers, self.batch.id)
        self.batch, self.stage, self.adopted, self.provisional, self.polls = None, Stage.UPLOADING, False, False, 0
        self.short = self.gone = self.lines = None
        self.answered, self.unreturned = 0, ""
        self.stopped = None  # nothing was cancelled, and what comes in its place is not being ended

    def vanish(self) -> None:
        """Note that the provider does not know its batch any more."""
        self.stage = Stage.VANISHED

    def end_fetch(self) -> None:
        """Note that whatever the provider batch answered is in the store."""
        self.stage = Stage.FETCHED

    def stop(self, why: RowStatus, *, asked: bool) -> None:
        """Note that it is to end, and whether the provider was asked to end it."""
        self.stopped = why
        if asked:
            self.polls = 0  # its end is near: ask often again

    def refuse(self, why: str, *, code: str | None = None, blocked: bool) -> None:
        """Note why it goes no further."""
        self.refused, self.refused_code, self.blocked = why, code, blocked


class Fate(Word):
    """What became of an attempt, as far as its shard asks before another one."""

    RAN = "ran"  #: Its rows had their chance.
    NO_ROOM = "no_room"  #: The provider's queue had no room for it, and none of its rows ran.
    VANISHED = "vanished"  #: The provider does not know any more what it took.
    UNSENT = "unsent"  #: A stop or an error came before its rows were sent.
    EMPTY = "empty"  #: It had no row to send: the plan refused all of them.

    @classmethod
    def unknown(cls) -> Self:
        return cls.RAN  # it counts as one of the attempts that may be made


class AttemptEnd(CarriedModel):
    """What became of an attempt."""

    fate: Fate
    record: AttemptRecord  #: The same for settling the shard.
    reason: str = ""  #: The provider's words, where it had no room.
    batch: ProviderBatch | None = None  #: What is listed of it in the result.
    refused: str | None = None  #: Why no further attempt may follow.
    refused_code: str | None = None  #: Code of the error that it was.
    blocked: bool = False  #: An operator can fix that, and nothing of the batch was known to be bought.
