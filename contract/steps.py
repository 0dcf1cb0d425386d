"""What passes between workflows and activities: the steps, at the end of this module, and their models.

Workflows run activities by these, so that they never import the code that does I/O. All of it is written to Temporal's
history: references and small records only, never a row (promises G6, G8). Running workflows hold older versions of
these models, so add fields with defaults only.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Self

from ._base import LenientModel, Word
from .layout import attempt_folder
from .names import marker, scoped
from .result import BatchResult, Counts, DirectShare, ModelShare, Strays, Unpriced, Usage
from .spec import PassedRetry, PassedSpec
from .status import ErrorClass, Mode, ProviderStatus, RowStatus
from .step import Step


class Search(Word):
    """How a provider batch can be found again after its answer was lost."""

    MARKER = "marker"  #: Its listing shows the marker, so a find is exact.
    PROVISIONAL = "provisional"  #: Only time and row count can be compared; the ids in its results decide.

    @classmethod
    def unknown(cls) -> Self:
        return cls.PROVISIONAL


class ProviderFacts(LenientModel):
    """What the worker's configuration and the adapter say about a provider, kept in history so that it replays."""

    name: str  #: Its name in the configuration.
    kind: str  #: The adapter: "openai", "anthropic".
    account: str  #: Digest of kind, base URL and key; a provider batch is only ever asked for at its own account.
    search: Search
    uploads: bool  #: Whether rows go up as a file first, or inline with the create.
    listing_lag: timedelta  #: After a lost answer, the longest time until a listing shows the batch.
    heartbeat: timedelta  #: How long a silent worker is believed to be alive.
    max_parallel_shards: int  #: Shards of one batch under way at a time.
    max_enqueued_tokens: int | None = None  #: What the account may have enqueued for one model; null: no ledger.
    webhook_poll: timedelta | None = None  #: The longest pause between two polls, where it sends webhooks; else null.
    mode: Mode = Mode.BATCH  #: How the first attempt of each shard is run: as the spec says, or the configuration.


class PlanRequest(LenientModel):
    batch_id: str
    spec: PassedSpec
    now: datetime  #: The workflow's time, UTC.
    execution: str  #: The run that the workflow was started as: a reset keeps it, a new start of the id does not.
    store: str = ""  #: The identity of the store that the client used; "" if unknown.
    reset: bool = False  #: Whether this run goes on after a reset, so that something of it should be in the store.


class PlanSummary(LenientModel):
    root: str  #: URI of the batch's folder, without a slash at the end.
    rows: int  #: Rows of the input, invalid ones included.
    invalid_rows: int
    shards: int
    planned_at: datetime  #: When this batch id was first planned; no provider batch of it is older.
    provider: ProviderFacts
    store: str  #: The identity of the store that it was planned in (`contract.names.scoped`).
    bought: bool = False  #: A run before this one may have bought something by the plan.
    direct_affordable: bool = True  #: Whether the input of all rows at the list price is within max_cost_usd.

    def attempt(self, batch_id: str, shard: int, number: int) -> Attempt:
        """Return an attempt of one of its shards."""
        return Attempt(
            scoped_id=scoped(batch_id, self.store),
            provider=self.provider.name,
            root=self.root,
            shard=shard,
            number=number,
            store=self.store,
        )


class Recalled(LenientModel):
    plan: PlanSummary | None  #: The plan of an earlier run of this batch, with which it may have bought something.


class Attempt(LenientModel):
    """One submission of one shard: enough for any step to find its place in the store and at the provider."""

    scoped_id: str  #: The batch's name at providers (`contract.names.scoped`).
    provider: str
    root: str  #: URI of the batch's folder.
    shard: int
    number: int  #: From 1.
    store: str  #: The identity of the store, as in the plan.

    @property
    def marker(self) -> str:
        return marker(self.scoped_id, self.shard, self.number)

    @property
    def folder(self) -> str:
        """Folder of the attempt, relative to the root."""
        return attempt_folder(self.shard, self.number)


class UploadRequest(LenientModel):
    attempt: Attempt
    account: str
    generation: int  #: Counts the files of one attempt: a lost create is fenced off by deleting the file it names.
    since: datetime  #: Nothing older can be ours.
    spec: PassedSpec
    fence: bool = False  #: Make a newer file than any that is there, and delete those.


class Uploaded(LenientModel):
    file_id: str | None  #: None where the rows go inline.
    generation: int = 0  #: The file's; 0 where there is none.
    rows: int
    bytes: int


class FindRequest(LenientModel):
    attempt: Attempt
    account: str
    since: datetime  #: Nothing older can be ours.
    rows: int
    strangers: tuple[str, ...] = ()  #: Candidates that turned out to be somebody else's.
    sent: bool = True  #: Whether this run may have sent a create already.


class Snapshot(LenientModel):
    """A provider batch as the provider showed it last."""

    id: str
    status: ProviderStatus
    raw_status: str
    known: bool = True  #: Whether it is known what raw_status means.
    total: int = 0
    completed: int = 0
    failed: int = 0
    output: str | None = None  #: Reference to the results: a file id, or "results" where the batch id is enough.
    errors: str | None = None  #: Reference to the file of failed rows, where there is one of its own.
    error: str | None = None  #: Why the batch failed as a whole: the provider's codes and words.
    error_code: str | None = None
    queue_full: bool = False  #: It failed unrun because the account's queue at the provider had no room for it.
    created_at: datetime | None = None
    usage: Usage | None = None  #: Tokens, where the provider counts them for the batch.


class Found(LenientModel):
    batch: Snapshot | None
    provisional: bool = False  #: The batch may be a stranger's until its results are seen.
    #: Number of the newest create of this attempt that any run had noted before the provider was asked; 0: none.
    noted: int
    standing: int = 0  #: The same of those that the provider did not refuse, and that may have bought something.
    direct: bool = False  #: An earlier run sent its rows one by one, so that is how it goes on.


class CreateAnswer(Word):
    CREATED = "created"
    REFUSED = "refused"  #: The provider will never take it; nothing exists.
    DEFERRED = "deferred"  #: The provider will not take it now; nothing exists.
    LOST = "lost"  #: It may or may not exist.

    @classmethod
    def unknown(cls) -> Self:
        return cls.LOST


class CreateRequest(LenientModel):
    attempt: Attempt
    account: str
    file_id: str | None
    rows: int
    spec: PassedSpec
    noted: int  #: As the look before it reported; with a newer one the create is not sent.


class Created(LenientModel):
    answer: CreateAnswer
    batch: Snapshot | None = None
    reason: str | None = None  #: The provider's words, or what happened to the connection.
    code: str | None = None
    retry_after: timedelta | None = None


class BatchRequest(LenientModel):
    """Asks about, cancels or fetches one provider batch."""

    attempt: Attempt
    account: str
    provider_batch_id: str


class FetchRequest(LenientModel):
    attempt: Attempt
    account: str
    batch: Snapshot
    provisional: bool = False
    lenient: bool = False  #: Results that are not found are left out, and named in the answer.


class Fetched(LenientModel):
    rows: int  #: Lines downloaded, of both files.
    bytes: int
    gone: tuple[str, ...] = ()  #: Results that were not found, in words.
    stranger: bool = False  #: The candidate's results hold ids that were never ours: it is somebody else's batch.


class RunRequest(LenientModel):
    """Sends an attempt's rows to the provider's ordinary endpoint, one by one (direct mode)."""

    attempt: Attempt
    account: str
    spec: PassedSpec
    at_once: bool = False  #: An operator asked for it, so a pause that the provider asked for is over.


class Ran(LenientModel):
    """How far the rows of an attempt have come in direct mode."""

    rows: int  #: Rows that the attempt sends.
    kept: int  #: Of those, the ones whose answers, good or bad, are in the store.
    reason: str | None = None  #: Why it stopped before it had an answer for each row; null once it has.
    waits: bool = False  #: Whether that is only that its share of the rate cannot be had, which is no error.
    retry_after: timedelta | None = None  #: When to go on, as far as the provider says.


class CollectRequest(LenientModel):
    """Joins what an attempt in direct mode has kept into its output, as a provider's batch would have left it."""

    attempt: Attempt
    account: str


class Collected(LenientModel):
    lines: int  #: Lines of the output: one for each row that was answered.
    succeeded: int = 0  #: Of those, the ones with a 2xx.
    repeated: int = 0  #: Calls that were sent again because their worker was gone before it had kept an answer.


class AttemptRecord(LenientModel):
    """What became of one attempt, for settling its shard."""

    number: int
    sent: bool = True  #: Whether its rows were sent; if not, there is nothing to read of it.
    provider_batch_id: str | None = None
    absent: ErrorClass = ErrorClass.MISSING  #: What is the matter with rows that it did not return.
    message: str = ""  #: The same in words.
    lines: int | None = None  #: Lines of its results that were fetched; null where none were.
    fetched: bool = True  #: Whether there are results of it; anything else in its folder is of another run.
    #: Rows that the provider says it answered, and so bills. If fewer came back, no row that did not is tried again.
    answered: int = 0
    counted: bool = True  #: Whether its rows had a chance to run, and so used up one of their attempts.
    mode: Mode = Mode.BATCH  #: How it was run. In direct mode its answers cost the list price.
    repeated: int = 0  #: Calls of it that were sent again after a worker was lost (direct mode).


class SettleRequest(LenientModel):
    attempt: Attempt  #: The newest attempt.
    attempts: tuple[AttemptRecord, ...]
    retry: PassedRetry
    max_cost_usd: str | None = None  #: What direct mode must keep to where it finishes what a provider batch left over.
    #: Null while another attempt may follow; else what becomes of rows that no attempt has finished.
    unfinished: RowStatus | None = None
    message: str | None = None  #: The same in words, where the batch itself could not run.
    kind: ErrorClass = ErrorClass.OTHER  #: The class of rows that were not sent for that reason.


class Settled(LenientModel):
    """What became of a shard's rows. Kept in the store too, as shards/…/settled.json."""

    counts: Counts = Counts()
    usage: Usage = Usage()
    cost_usd: str | None = None
    list_cost_usd: str | None = None
    unpriced: Unpriced = Unpriced()
    strays: Strays = Strays()
    repeated: int = 0  #: Calls that were sent again after a worker was lost (direct mode).
    direct: DirectShare | None = None  #: What direct mode answered; null where no row was sent so.
    retry_rows: int = 0  #: Rows that the next attempt takes; when 0, the shard's results are written.
    only_if_bought: bool = False  #: Whether that attempt counts only where another run has bought it already.
    mode: Mode | None = None  #: How that attempt is run; null: as the one before it.
    too_dear: str | None = None  #: Why rows are left over that direct mode would have finished, in a sentence.
    classes: dict[str, int] = {}  #: Rows that did not succeed, by error class.


class TidyRequest(LenientModel):
    """Removes what an attempt left at the provider."""

    attempt: Attempt
    account: str
    since: datetime
    file_id: str | None = None  #: A file of it that is known; a listing may show it too late.
    provider_batch_id: str | None = None  #: Its provider batch, where that is known.


class ApplyRequest(LenientModel):
    batch_id: str
    root: str
    shards: int
    rows: int
    store: str  #: As in Attempt.


class Applied(LenientModel):
    results: str
    errors: str
    counts: Counts
    usage: Usage
    cost_usd: str | None = None
    list_cost_usd: str | None = None
    unpriced: Unpriced = Unpriced()
    strays: Strays = Strays()
    repeated: int = 0  #: As in Settled.
    direct: DirectShare | None = None  #: As in Settled.
    classes: dict[str, int] = {}  #: Rows that did not succeed, by error class.
    models: dict[str, ModelShare] = {}  #: What each model answered.


class FinishRequest(LenientModel):
    root: str
    result: BatchResult
    store: str  #: As in Attempt.


PLAN = Step("durabatch.plan", PlanRequest, PlanSummary)
RECALL = Step("durabatch.recall", PlanRequest, Recalled)
UPLOAD = Step("durabatch.upload", UploadRequest, Uploaded)
FIND = Step("durabatch.find", FindRequest, Found)
CREATE = Step("durabatch.create", CreateRequest, Created)
POLL = Step("durabatch.poll", BatchRequest, Snapshot)
CANCEL = Step("durabatch.cancel", BatchRequest, Snapshot)
FETCH = Step("durabatch.fetch", FetchRequest, Fetched)
RUN_ROWS = Step("durabatch.run_rows", RunRequest, Ran)
COLLECT = Step("durabatch.collect", CollectRequest, Collected)
SETTLE = Step("durabatch.settle", SettleRequest, Settled)
TIDY = Step("durabatch.tidy", TidyRequest, type(None))
APPLY = Step("durabatch.apply", ApplyRequest, Applied)
FINISH = Step("durabatch.finish", FinishRequest, type(None))
