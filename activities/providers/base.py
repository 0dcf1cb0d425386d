"""What an adapter is made of: narrow protocols, each for one thing that a provider may have. No retry and no loop here.

Calls raise the ProviderErrors of the contract. A call that creates something raises AnswerLost where the provider may
have done it although no answer arrived; every other failure of it means that nothing was created.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from ...contract import BatchSpec, ConfigurationError
from ...contract.steps import Search, Snapshot
from ..rows import Row
from .outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a provider batch may hold, and how one can be found again."""

    search: Search
    endpoints: frozenset[str]  #: The paths that a batch may call.
    max_rows: int  #: Rows of one provider batch.
    max_bytes: int  #: Bytes of one provider batch's rows.
    max_tokens: int | None = None  #: Estimated input tokens of one provider batch.
    #: Inputs of one provider batch at an endpoint where a row may hold many; endpoints without such a limit are absent.
    max_inputs: Mapping[str, int] = field(default_factory=dict)
    one_model: bool  #: Whether all rows of a provider batch must name the same model.


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """One of the files that a provider batch ended with."""

    reference: str  #: What `BatchApi.download` takes.
    name: str  #: What it is called in the store: "output" or "error".


@dataclass(frozen=True, kw_only=True)
class Content:
    """Rows on their way to the provider."""

    name: str  #: Deterministic, so that an upload can be found again.
    size: int  #: Bytes.
    chunks: AsyncIterator[bytes]


def sealed(marker: str, digest: str) -> str:
    """Return the name of one attempt with just these rows, for providers whose row ids have to carry it."""
    return f"{marker}#{digest}"


@dataclass(frozen=True, kw_only=True)
class Creation:
    """Everything that a create call says."""

    marker: str
    digest: str  #: Of the rows, so that a batch with the same marker and other rows is not taken for ours.
    endpoint: str
    completion_window: str
    model: str | None = None  #: The model that all rows ask for; None where they differ, or name none.
    file_id: str | None = None
    content: Content | None = None  #: The rows, where they go inline.

    @property
    def seal(self) -> str:
        return sealed(self.marker, self.digest)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The provider batch that a search looks for."""

    marker: str
    digest: str
    rows: int
    since: datetime
    strangers: Sequence[str] = ()  #: Batches that are known to be somebody else's.
    sent: bool = True  #: Whether a create of ours may have been sent; the search is as thorough as it can be then.

    @property
    def seal(self) -> str:
        return sealed(self.marker, self.digest)


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file of the account."""

    id: str
    name: str
    bytes: int
    created_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class MarkedBatch:
    """A provider batch that carries one of Durabatch's markers."""

    marker: str
    digest: str  #: Of the rows it was made of.
    batch: Snapshot


class RowFormat(Protocol):
    """How a provider writes requests and results: pure functions, and fast, because every row passes through them."""

    @property
    def keeps_ids(self) -> bool:
        """Whether the provider sees the user's own ids, rather than others that are mapped back."""
        ...

    def prepare(self, row: Row, spec: BatchSpec) -> bytes:
        """Return the row as the provider takes it, without a line break and under the user's own id.

        Raises:
            RowRefused: the row cannot be sent; says which field and why.
        """
        ...

    def sent_id(self, custom_id: str, seal: str, row: int) -> str:
        """Return the id under which the provider sees row number `row` (from 0) of the shard."""
        ...

    def with_id(self, prepared: bytes, custom_id: str) -> bytes:
        """Return a prepared row under another id."""
        ...

    def join(self, row: bytes | None, first: bool) -> bytes:
        """Return a row with what separates it from the one before, or, for None, what comes after the last one."""
        ...

    def model_of(self, prepared: bytes) -> str | None:
        """Return the model that a prepared row asks for."""
        ...

    def inputs_of(self, prepared: bytes) -> int:
        """Return how many inputs a prepared row holds, at an endpoint where they are limited."""
        ...

    def outcome(self, line: bytes) -> Outcome:
        """Return what a line of the provider's results says.

        Raises:
            ValueError: the line is not a result.
        """
        ...

    def owns(self, line: bytes, seal: str) -> bool | None:
        """Return whether a line of results comes from the provider batch with this seal; None if it does not say."""
        ...


class BatchApi(Protocol):
    """A provider's batches, from their create to their results."""

    async def find(self, wanted: Wanted) -> Snapshot | None:
        """Return the provider batch with this marker; where there are no markers, the likeliest candidate."""
        ...

    async def create(self, creation: Creation) -> Snapshot:
        """Create a provider batch: the one call that costs money. It is sent once."""
        ...

    async def retrieve(self, batch_id: str) -> Snapshot:
        """Return a provider batch as it is now."""
        ...

    async def cancel(self, batch_id: str) -> Snapshot:
        """Ask the provider to end a batch; one that has ended already is returned as it is."""
        ...

    async def result_files(self, batch: Snapshot) -> list[ResultFile]:
        """Return the files that a provider batch ended with."""
        ...

    def download(self, file: ResultFile, start: int) -> AsyncGenerator[bytes, None]:
        """Stream a file's bytes from `start` on.

        Raises:
            ProviderUnavailable: the stream broke off; what came before is good. A stream that ends otherwise is whole.
        """
        ...


class FileApi(Protocol):
    """Files of the account: for a provider that takes a batch's rows as a file, uploaded before the create."""

    async def upload(self, content: Content) -> str:
        """Upload rows; return the file's id."""
        ...

    async def find(self, prefix: str, since: datetime, whole: bool = False) -> list[StoredFile]:
        """Return the account's files whose names begin so, the newest first; none older than since.

        Raises:
            ProviderUnavailable: all of them are wanted (`whole`), and the listing cannot be read to its end.
        """
        ...

    async def delete(self, file_id: str) -> None:
        """Delete a file; an absent one is fine."""
        ...


class MarkerListing(Protocol):
    """A listing that shows which batches carry a marker."""

    async def marked(self, since: datetime) -> list[MarkedBatch]:
        """Return the account's batches that carry a marker, whoever's; none that are older.

        Raises:
            ProviderUnavailable: the listing cannot be read to its end.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LimitNews:
    """What the headers of an answer say about the account's rate limits; None where they do not say."""

    retry_after: float | None = None  #: Seconds until the next call may be sent.
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


#: What a check call asks a model (`LiveCalls.check`).
CHECK = "Reply with OK."
#: Tokens of output that it may have at most, where its row has a limit. A model that goes on to its limit, as one does
#: that follows no instructions, still answers in time; one that thinks first has done so by then.
CHECK_TOKENS = 512


class LiveCalls(Protocol):
    """A provider's ordinary endpoint, which answers one row at a time. Pure functions: who sends them is elsewhere."""

    @property
    def endpoints(self) -> frozenset[str]:
        """The paths that can be called, as specs name them."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """What every call carries, the key included."""
        ...

    def url(self, endpoint: str) -> str:
        """Return where the rows of a spec with this endpoint are posted, a query included."""
        ...

    def body(self, prepared: bytes) -> bytes:
        """Return what is posted for a prepared row (`RowFormat.prepare`)."""
        ...

    def check(self, endpoint: str, body: bytes) -> bytes:
        """Return what is posted to see whether the endpoint answers at all: as little as can be asked of a row's model.

        Args:
            endpoint: as the spec names it.
            body: of the row; its model and its limit of output are taken from it, the limit up to `CHECK_TOKENS`.
        """
        ...

    def line(self, sent_id: str, status: int, request_id: str | None, body: bytes) -> bytes:
        """Return an answer as the line of results that a provider batch would have had, without a line break."""
        ...

    def failed_line(self, sent_id: str, code: str, message: str) -> bytes:
        """Return the line of a row that nobody answered: a timeout, or a connection that broke each time."""
        ...

    def output_cap(self, body: bytes) -> int | None:
        """Return the output tokens that a call asks for at most; None where it does not say."""
        ...

    def used_tokens(self, body: bytes) -> int | None:
        """Return the tokens that an answer says it used and that count against the limit; None if it does not say."""
        ...

    def limit_news(self, status: int, headers: Mapping[str, str]) -> LimitNews:
        """Return what an answer's headers say about rate limits."""
        ...


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One adapter, bound to one account. What its provider does not have is None, so no adapter writes stubs."""

    name: str  #: In the configuration.
    capabilities: Capabilities
    rows: RowFormat
    batch_api: BatchApi | None = None
    files: FileApi | None = None  #: None: the rows of a batch go inline with its create.
    markers: MarkerListing | None = None
    live: LiveCalls | None = None  #: None: it answers batches only, and there is no direct mode.
    #: Makes the cheapest call that needs the key; returns the provider's clock, where the answer has it.
    probe: Callable[[], Awaitable[datetime | None]]
    close: Callable[[], Awaitable[None]]  #: Closes the connections.

    @property
    def batches(self) -> BatchApi:
        """The provider's batches.

        Raises:
            ConfigurationError: it has no batch API.
        """
        if self.batch_api is None:
            raise ConfigurationError(f"Provider {self.name} has no batch API.")
        return self.batch_api
