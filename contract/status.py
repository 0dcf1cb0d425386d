"""The states of batches, provider batches and rows, and the classes of row errors."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from ._base import Word


class BatchStatus(Word):
    """How a batch ended."""

    COMPLETED = "completed"  #: Every shard ran to its end; rows may have failed, the counts say so.
    FAILED = "failed"  #: The batch itself could not run, or not one row succeeded.
    EXPIRED = "expired"  #: The deadline ended it with rows left over; finished rows are kept.
    CANCELED = "canceled"  #: A cancel ended it with rows left over; finished rows are kept.

    @classmethod
    def unknown(cls) -> Self:
        return cls.FAILED


class RowStatus(StrEnum):
    """How a row ended: each row of the input has exactly one. No version adds to these four (promise G2)."""

    SUCCEEDED = "succeeded"  #: The provider answered it, with a 2xx that holds no error.
    FAILED = "failed"  #: The provider, or the plan, refused it, or the provider never returned it.
    CANCELED = "canceled"  #: A cancel came before the provider had finished it.
    EXPIRED = "expired"  #: The deadline came before the provider had finished it.


class Mode(StrEnum):
    """How a provider runs the rows of a batch. A word that is not one of these is refused: it decides what is paid."""

    BATCH = "batch"  #: By its batch API: at the batch price, within a day.
    DIRECT = "direct"  #: By its ordinary endpoint: row by row, at once, at the list price.


class ProviderStatus(Word):
    """The states of providers' batches, in one vocabulary; the provider's own word is kept beside it."""

    SUBMITTED = "submitted"  #: Accepted, not begun.
    IN_PROGRESS = "in_progress"  #: Rows are running. Also: any word that Durabatch does not know.
    FINALIZING = "finalizing"  #: All rows ran; the provider writes its files.
    COMPLETED = "completed"  #: Ended by itself; single rows may have failed.
    FAILED = "failed"  #: Ended without running (a refused file, for example).
    EXPIRED = "expired"  #: Ended by the provider's own window; may hold finished rows.
    CANCELING = "canceling"  #: A cancel is on its way.
    CANCELED = "canceled"  #: Ended by a cancel; may hold finished rows.

    @classmethod
    def unknown(cls) -> Self:
        return cls.IN_PROGRESS

    @property
    def ended(self) -> bool:
        """Whether the provider will change it no more."""
        return self in _ENDED


_ENDED = {ProviderStatus.COMPLETED, ProviderStatus.FAILED, ProviderStatus.EXPIRED, ProviderStatus.CANCELED}


class Phase(Word):
    """Where a batch, or one of its shards, is in its life."""

    PLANNING = "planning"  #: Reading and checking the input, cutting shards.
    UPLOADING = "uploading"  #: Sending a shard's rows to the provider.
    SUBMITTING = "submitting"  #: Looking for the marker, creating the provider batch.
    POLLING = "polling"  #: Waiting for the provider.
    RUNNING = "running"  #: Sending rows one by one to the provider's ordinary endpoint (direct mode).
    FETCHING = "fetching"  #: Downloading what the provider finished.
    SETTLING = "settling"  #: Accounting for every row of a shard.
    APPLYING = "applying"  #: Merging the shards into one results file in input order.
    FINISHING = "finishing"  #: Writing result.json, calling the completion handler.
    ENDED = "ended"  #: Nothing more will happen.

    @classmethod
    def unknown(cls) -> Self:
        return cls.POLLING


class ErrorClass(Word):
    """Why a row did not succeed, in one vocabulary for all providers."""

    RATE_LIMITED = "rate_limited"  #: Too many requests or tokens; worth another try.
    SERVER_ERROR = "server_error"  #: The provider's own fault; worth another try.
    TIMEOUT = "timeout"  #: The provider gave up on the row; worth another try.
    EXPIRED = "expired"  #: The provider's window closed first; worth another try.
    CANCELED = "canceled"  #: Cancelled at the provider before it ran; worth another try if nobody asked for it.
    MISSING = "missing"  #: The provider never returned it; worth another try, unless it counts it as answered.
    INVALID_REQUEST = "invalid_request"  #: The request is wrong and stays wrong.
    INVALID_ROW = "invalid_row"  #: The plan refused the row; it was never sent.
    AUTHENTICATION = "authentication"  #: The key may not do this.
    NOT_FOUND = "not_found"  #: No such model or resource.
    CONTEXT_LENGTH = "context_length"  #: More tokens than the model takes.
    CONTENT_FILTERED = "content_filtered"  #: Refused by the provider's content policy.
    QUOTA_EXHAUSTED = "quota_exhausted"  #: The account has no credit left.
    OTHER = "other"  #: Anything else the provider said, and results that cannot be read.

    @classmethod
    def unknown(cls) -> Self:
        return cls.OTHER


#: The classes that are tried again unless the spec says otherwise: those where the same request may succeed.
RETRYABLE_CLASSES: tuple[ErrorClass, ...] = (
    ErrorClass.RATE_LIMITED,
    ErrorClass.SERVER_ERROR,
    ErrorClass.TIMEOUT,
    ErrorClass.EXPIRED,
    ErrorClass.CANCELED,
    ErrorClass.MISSING,
)
