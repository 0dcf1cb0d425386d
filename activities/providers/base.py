"""What an adapter is: what a provider can do, mapping functions, and a few calls. No retry and no loop lives here.

Calls raise the ProviderErrors of the contract. A call that creates something raises AnswerLost where the provider may
have done it without our hearing so; every other failure of it means that nothing was created.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec

from ...contract import BatchSpec, ErrorClass, RowStatus
from ...contract.steps import Search, Snapshot
from ..rows import Row


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a provider takes, and how a batch of it can be found again."""

    search: Search
    uploads: bool  #: Rows go up as a file first; else inline with the create.
    endpoints: frozenset[str]  #: The paths that a batch may ask.
    max_rows: int  #: Rows of one provider batch.
    max_bytes: int  #: Bytes of one provider batch's rows.
    max_tokens: int | None = field(default=None, kw_only=True)  #: Estimated input tokens of one provider batch.
    #: Inputs of one provider batch at an endpoint where a row may hold many; endpoints without such a limit are absent.
    max_inputs: Mapping[str, int] = field(default_factory=dict, kw_only=True)
    keeps_ids: bool  #: Whether the provider sees the user's own ids, or others that are mapped back.
    one_model: bool  #: Whether all rows of a provider batch must name the same model.


class RowTokens(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one row, in the words of the contract's Usage."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class CacheWrites(msgspec.Struct, frozen=True, kw_only=True):
    """Of a row's input tokens, those written to the provider's cache: for the price only, which is higher for them."""

    tokens: int = 0
    hour_tokens: int = 0  #: Of those, the ones kept for an hour, at a price of their own.


class RowFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a row did not succeed, in the words of the contract's RowError."""

    type: ErrorClass
    code: str | None
    message: str


class RowResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider answered for one row; the body as it came, unparsed."""

    status_code: int
    request_id: str | None
    body: msgspec.Raw | None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one line of a provider's results says about one row."""

    custom_id: str  #: As it was sent, so possibly not the user's own.
    status: RowStatus
    text: str | None = None
    model: str | None = None
    tokens: RowTokens | None = None
    cache_writes: CacheWrites | None = None
    response: RowResponse | None = None
    failure: RowFailure | None = None


@dataclass(frozen=True, kw_only=True)
class Download:
    """One of the files a provider batch ended with."""

    reference: str  #: What `Provider.download` takes.
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
    """All that a create call says."""

    marker: str
    digest: str  #: Of the rows, so that a batch with the same marker and other rows is not taken for ours.
    endpoint: str
    completion_window: str
    file_id: str | None = None
    content: Content | None = None  #: Where rows go inline.

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
    strangers: Sequence[str] = field(default=())  #: Batches that are known to be somebody else's.
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


class Provider(Protocol):
    """One adapter, bound to one account."""

    @property
    def capabilities(self) -> Capabilities: ...

    def prepare(self, row: Row, spec: BatchSpec) -> bytes:
        """Return the row as the provider takes it, without a line break and under the user's own id.

        Raises:
            RowRefused: the row cannot be sent; says which field and why.
        """
        ...

    def wire(self, prepared: bytes, custom_id: str) -> bytes:
        """Return a prepared row under another id."""
        ...

    def join(self, row: bytes | None, first: bool) -> bytes:
        """Return a row as it stands among the others, or, for None, what comes after the last one."""
        ...

    def wire_id(self, custom_id: str, seal: str, row: int) -> str:
        """Return the id under which the provider sees row number `row` (from 0) of the shard."""
        ...

    def owns(self, line: bytes, seal: str) -> bool | None:
        """Return whether a line of results comes from the provider batch with this marker, None if it does not tell."""
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
            ValueError: the line is no result.
        """
        ...

    async def upload(self, content: Content) -> str:
        """Upload rows; return the file's id."""
        ...

    async def find_files(self, prefix: str, since: datetime, whole: bool = False) -> list[tuple[str, str]]:
        """Return (id, name) of the account's files whose names begin so, the newest first; none older than since.

        Raises:
            ProviderUnavailable: all of them are wanted (`whole`), and the listing cannot be read to its end.
        """
        ...

    async def list_files(self, prefix: str, since: datetime, whole: bool = False) -> list[StoredFile]:
        """Return what `find_files` does, with sizes."""
        ...

    async def delete_file(self, file_id: str) -> None:
        """Delete a file; an absent one is fine."""
        ...

    async def find(self, wanted: Wanted) -> Snapshot | None:
        """Return the provider batch with this marker; where there are no markers, the likeliest candidate."""
        ...

    async def list_batches(self, since: datetime) -> list[MarkedBatch]:
        """Return the account's batches that carry a marker, whoever's; none where there are no markers, or older."""
        ...

    async def create(self, creation: Creation) -> Snapshot:
        """Create a provider batch: the one call that costs money. It is sent once."""
        ...

    async def retrieve(self, batch_id: str) -> Snapshot:
        """Return a provider batch as it is now."""
        ...

    async def cancel(self, batch_id: str) -> Snapshot:
        """Ask for a provider batch's end; one that has ended already is returned as it is."""
        ...

    async def downloads(self, batch: Snapshot) -> list[Download]:
        """Return the files that a provider batch ended with."""
        ...

    def download(self, download: Download, start: int) -> AsyncGenerator[bytes, None]:
        """Stream a file's bytes from `start` on.

        Raises:
            ProviderUnavailable: the stream broke off; what came before is good. A stream that ends otherwise is whole.
        """
        ...

    async def probe(self) -> datetime | None:
        """Make the cheapest call that needs the key; return the provider's clock, where it tells."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
