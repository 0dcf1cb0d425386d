"""Everything that can go wrong, as one tree.

::

    DurabatchError
    ├── InvalidSpec            the spec itself is wrong
    ├── InvalidInput           rows of the input are wrong; carries them
    ├── ConfigurationError     durabatch.toml or the environment is wrong
    │   ├── UnknownProvider
    │   └── MissingKey
    ├── BatchNotFound
    ├── BatchConflict          the id belongs to a batch with another spec
    ├── BatchNotFinished       results were asked for too early
    ├── NotRetryable           a batch has no rows that could be retried
    ├── StoreError             the object store failed or refused
    │   ├── ObjectNotFound
    │   └── StoreMismatch      another store than the batch was planned in, or its folder is not there
    ├── WorkerBusy             the worker has enough long steps under way: worth another try, on any worker
    ├── AccountingError        rows do not add up (promise G2): a bug, never hidden
    └── ProviderError          the provider, or the way to it
        ├── ProviderUnavailable      no answer, or a 5xx: worth another try
        ├── RateLimited              429: worth another try, later
        ├── QueueFull                too many tokens or batches enqueued: wait for room
        ├── AnswerLost               a create may or may not have happened
        ├── AuthenticationFailed     401, 403
        ├── QuotaExhausted           402, or words that say the same: the account has no credit left
        ├── ProviderNotFound         404
        ├── ProviderRefused          any other 4xx
        └── AccountMismatch          the batch belongs to another account than the worker's

Each class's docstring is its default message; `code` is stable and travels through Temporal as the failure's type;
`retryable` says whether the same call may succeed later. No message ever holds a key, a prompt or a completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar


class DurabatchError(Exception):
    """Durabatch failed."""

    code: ClassVar[str] = "durabatch_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])

    @property
    def message(self) -> str:
        """One sentence: what, where, what to do."""
        return str(self.args[0])


class InvalidSpec(DurabatchError):
    """The spec is wrong."""

    code = "invalid_spec"


@dataclass(frozen=True, kw_only=True)
class RowProblem:
    """Why a row cannot be sent."""

    message: str  #: "line 7, custom_id: is missing"; never a row's text.
    #: What is wrong, in a word for programs (`activities/rows.py` lists them), in OpenAI's words where it has one.
    code: str = "invalid_row"
    line: int | None = None  #: The row's line, from 1, as an editor counts in its file.
    field: str | None = None  #: The field, dotted; None where it is the line as a whole.
    file: str | None = None  #: The file's name, where the input has several.

    def __str__(self) -> str:
        return self.message

    def facts(self) -> dict[str, str | int]:
        """Return what is known, by name, as it travels through Temporal and is printed for programs."""
        return {name: value for name, value in vars(self).items() if value is not None}


class InvalidInput(DurabatchError):
    """The input is wrong; nothing was submitted."""

    code = "invalid_input"

    def __init__(
        self, message: str | None = None, problems: Sequence[RowProblem] = (), total: int | None = None
    ) -> None:
        super().__init__(message)
        #: The first of them.
        self.problems: tuple[RowProblem, ...] = tuple(problems)
        #: How many there are in all.
        self.total: int = len(self.problems) if total is None else total


class ConfigurationError(DurabatchError):
    """The configuration is wrong."""

    code = "configuration_error"


class UnknownProvider(ConfigurationError):
    """The configuration has no such provider."""

    code = "unknown_provider"


class MissingKey(ConfigurationError):
    """The environment variable that should hold the provider's key is empty."""

    code = "missing_key"


class BatchNotFound(DurabatchError):
    """There is no such batch."""

    code = "batch_not_found"


class BatchConflict(DurabatchError):
    """The id belongs to a batch with another spec."""

    code = "batch_conflict"


class BatchNotFinished(DurabatchError):
    """The batch has not ended yet."""

    code = "batch_not_finished"


class NotRetryable(DurabatchError):
    """The batch has no rows that could be retried."""

    code = "not_retryable"


class StoreError(DurabatchError):
    """The object store failed."""

    code = "store_error"
    retryable = True


class ObjectNotFound(StoreError):
    """The store has no such object."""

    code = "object_not_found"
    retryable = False


class StoreMismatch(StoreError):
    """The store is not the one that this batch was planned in."""

    code = "store_mismatch"


class WorkerBusy(DurabatchError):
    """The worker has as many long steps under way as it may, and this one waits for room."""

    code = "worker_busy"
    retryable = True


class AccountingError(DurabatchError):
    """The rows do not add up."""

    code = "accounting_error"


class ProviderError(DurabatchError):
    """The provider failed."""

    code = "provider_error"

    def __init__(
        self, message: str | None = None, *, retry_after: timedelta | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        #: The HTTP status that it answered with, if it answered.
        self.status = status
        #: How long the provider asks to be left alone.
        self.retry_after = retry_after


class ProviderUnavailable(ProviderError):
    """The provider cannot be reached, or has a fault of its own."""

    code = "provider_unavailable"
    retryable = True


class RateLimited(ProviderError):
    """The provider asks for fewer requests."""

    code = "rate_limited"
    retryable = True


class QueueFull(ProviderError):
    """The provider's queue has no room for this batch now."""

    code = "queue_full"
    retryable = True


class AnswerLost(ProviderError):
    """The provider's answer was lost, so the batch may or may not exist there."""

    code = "answer_lost"


class AuthenticationFailed(ProviderError):
    """The provider does not accept the key."""

    code = "authentication_failed"


class QuotaExhausted(ProviderError):
    """The provider account has no credit left."""

    code = "quota_exhausted"


class ProviderNotFound(ProviderError):
    """The provider does not know this object."""

    code = "provider_not_found"


class ProviderRefused(ProviderError):
    """The provider refuses the request."""

    code = "provider_refused"


class AccountMismatch(ProviderError):
    """The batch belongs to another account than the one this worker is configured for."""

    code = "account_mismatch"


def error_classes() -> dict[str, type[DurabatchError]]:
    """Return every class of the tree by its code, to turn a failure's type back into a class."""
    found: dict[str, type[DurabatchError]] = {}
    waiting: list[type[DurabatchError]] = [DurabatchError]
    while waiting:
        cls = waiting.pop()
        found[cls.code] = cls
        waiting.extend(cls.__subclasses__())
    return found
