"""A batch of the gateway's: what was asked for, how it looks, and what passes between its workflow and its steps.

`BatchObject` and its parts are OpenAI's, name by name (the openai package, `types/batch.py`); what is beyond them says
that it is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from pydantic import ConfigDict, ValidationError

from ._base import LenientModel, Word
from .gateway_layout import is_batch, is_tenant
from .gateway_limits import TenantLimits
from .layout import brought_folder, short_digest
from .result import BatchResult
from .status import BatchStatus
from .step import Step

#: The workflow type that Temporal knows.
GATEWAY_WORKFLOW = "DurabatchGatewayBatch"
#: Errors of an input file that are listed; the others are counted.
MAX_ERRORS = 100
#: The code of a batch whose results cannot be written, before an operator has seen to it.
OUTPUT_FAILED = "output_failed"


def workflow_id(tenant: str, batch_id: str) -> str:
    """Return the id of the workflow of a batch of the gateway's."""
    return f"gateway/{tenant}/{batch_id}"


def inner_id(tenant: str, batch_id: str) -> str:
    """Return the id of the batch that carries it out: of its `BatchWorkflow`, and of its folder in the store."""
    return f"{tenant}.{batch_id}"


def message_rows_path(tenant: str, batch_id: str) -> str:
    """Return where the rows of a message batch are, which come with its create."""
    return f"{brought_folder(inner_id(tenant, batch_id), short_digest(batch_id))}.jsonl"


class Shape(Word):
    """Whose API a batch came by, and so how its results are written."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"

    @classmethod
    def unknown(cls) -> Shape:
        return cls.OPENAI


def outer_id(batch_id: str) -> str | None:
    """Return the id of the workflow of the gateway's whose rows a batch runs; None for any other batch."""
    tenant, _, id = batch_id.partition(".")
    return workflow_id(tenant, id) if is_tenant(tenant) and is_batch(id) else None


class GatewayStatus(Word):
    """OpenAI's states of a batch."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @classmethod
    def unknown(cls) -> GatewayStatus:
        return cls.IN_PROGRESS

    @property
    def ended(self) -> bool:
        """Whether it will change no more."""
        return self in _ENDED


_ENDED = {GatewayStatus.FAILED, GatewayStatus.COMPLETED, GatewayStatus.EXPIRED, GatewayStatus.CANCELLED}


class LineError(LenientModel):
    """Why a batch failed, or one of the lines of its input that it failed for."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None  #: From 1; null where it is about the file or the batch as a whole.


def _total_may_lack(schema: dict[str, Any]) -> None:
    schema["required"] = [name for name in schema.get("required", ()) if name != "total"]


class ErrorList(LenientModel):
    """What is wrong with a batch, in the order of its lines."""

    model_config = ConfigDict(json_schema_extra=_total_may_lack)

    object: str = "list"
    data: tuple[LineError, ...] = ()
    total: int | None = None  #: Ours: how many there are in all, where not all are listed.


class RequestCounts(LenientModel):
    """Rows. Once the batch has ended: total = completed + failed."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class CachedTokens(LenientModel):
    """Input tokens that the provider had in a cache."""

    cached_tokens: int = 0


class ReasoningTokens(LenientModel):
    """Output tokens that are in no answer."""

    reasoning_tokens: int = 0


class TokenUsage(LenientModel):
    """Tokens of a whole batch."""

    input_tokens: int = 0
    input_tokens_details: CachedTokens = CachedTokens()
    output_tokens: int = 0
    output_tokens_details: ReasoningTokens = ReasoningTokens()
    total_tokens: int = 0


def _retry_of_may_lack(schema: dict[str, Any]) -> None:
    schema["required"] = [name for name in schema.get("required", ()) if name != "retry_of"]


class BatchObject(LenientModel):
    """A batch as OpenAI shows it; instants are seconds since 1970."""

    model_config = ConfigDict(json_schema_extra=_retry_of_may_lack)

    id: str
    object: str = "batch"
    endpoint: str
    model: str | None = None
    errors: ErrorList | None = None
    input_file_id: str
    completion_window: str
    status: GatewayStatus = GatewayStatus.VALIDATING
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    usage: TokenUsage | None = None
    metadata: dict[str, str] | None = None
    retry_of: str | None = None  #: Ours: the batch whose rows that did not succeed it runs once more.

    @property
    def ended_at(self) -> int | None:
        """When it ended, whatever it ended as; None while it has not."""
        return self.completed_at or self.failed_at or self.expired_at or self.cancelled_at

    def as_failed(self) -> BatchObject:
        """Return a batch that looked completed, and of which no row ran."""
        if self.status is not GatewayStatus.COMPLETED:
            return self
        failed = {"status": GatewayStatus.FAILED, "failed_at": self.completed_at, "completed_at": None}
        return self.model_copy(update=failed)


class GatewayBatch(LenientModel):
    """What a tenant asked for: the input of the workflow."""

    tenant: str
    id: str
    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    window_seconds: int = 24 * 3600  #: The same as a length of time.
    metadata: dict[str, str] | None = None
    output_expires_seconds: int | None = None  #: How long output and error file are kept; null for ever.
    provider: str | None = None  #: Which provider runs it; null to route each row by its model.
    models: tuple[str, ...] = ()  #: Patterns of the models that the caller's key may use; none for all.
    retry_of: str | None = None  #: The batch that it is a retry of.
    left_by: str | None = None  #: Whose rows it takes: those that this one, or its retry before, has left over.
    limits: TenantLimits = TenantLimits()  #: Of the caller's key.
    idempotency: str | None = None  #: Digest of the key that it was created with, as in the path of what notes it.
    created_at: int  #: Seconds since 1970.
    shape: Shape = Shape.OPENAI
    rows: int = 0  #: Of Anthropic's shape, where they are counted before the batch is made.

    def beginning(self) -> BatchObject:
        """Return the batch as it looks before anything of it is known."""
        return BatchObject(
            id=self.id,
            endpoint=self.endpoint,
            input_file_id=self.input_file_id,
            completion_window=self.completion_window,
            created_at=self.created_at,
            expires_at=self.created_at + self.window_seconds,
            metadata=self.metadata,
            retry_of=self.retry_of,
            request_counts=RequestCounts(total=self.rows),
        )


class IntakeRequest(LenientModel):
    batch: GatewayBatch


class Intake(LenientModel):
    """What a reading of the whole input found."""

    errors: tuple[LineError, ...] = ()  #: The first in the order of the lines; if there are any, nothing is run.
    total_errors: int = 0
    rows: int = 0
    input: str = ""  #: URI of the rows in the store.
    provider: str = ""
    model: str | None = None  #: The one that every row names; null where they differ, or name none.
    store: str = ""  #: The store's identity.
    translated: bool = False  #: Whether the provider answers in another shape than the batch's.
    endpoint: str = ""  #: Which the rows are sent to; "" for the batch's own.
    result: BatchResult | None = None  #: How the batch has ended already: an earlier workflow of it came so far.
    final: BatchObject | None = None  #: The batch as it stays: an earlier workflow of it came to its end.


class MessageCounts(LenientModel):
    """Rows of a message batch as Anthropic counts them (the anthropic package, `MessageBatchRequestCounts`)."""

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class BatchEntry(LenientModel):
    """What a tenant's index holds of a batch."""

    request: GatewayBatch
    intake: Intake | None = None  #: What is known of its input, once that was read and found right.
    final: BatchObject | None = None  #: The batch, once it will change no more.
    published: bool = False  #: Whether its workflow wrote that, at its end; else the gateway did, which gave it up.
    outcomes: MessageCounts | None = None  #: Of a message batch: what became of its rows, once it has ended.


class Ended(LenientModel):
    """How the batch that carries it out has ended."""

    result: BatchResult
    cause: dict[str, Any] = {}  #: What failed, as the batch's failure says: its code, and rows that are wrong.

    @classmethod
    def of_failure(cls, kind: str | None, message: str, details: Sequence[Any]) -> Ended:
        """Return how a batch ended whose workflow failed.

        Args:
            kind: the failure's type. With "BatchFailed" its first detail is the BatchResult, its second what failed.
            message: its sentence.
            details: its details.
        """
        with suppress(ValidationError, IndexError):
            result = BatchResult.model_validate(details[0])
            cause = details[1] if len(details) > 1 and isinstance(details[1], dict) else {}
            return cls(result=result, cause=cause)
        return cls(result=BatchResult(batch_id="", status=BatchStatus.FAILED, error=message), cause={"code": kind})


class JoinRequest(LenientModel):
    """Asks how the batch is that an earlier run of the workflow started."""

    batch_id: str  #: As `inner_id`.


class Joined(LenientModel):
    running: bool = False
    ended: Ended | None = None  #: How it ended, where it left accounts.
    #: It was started, and terminated before it left accounts: to start it again goes on with what it bought.
    broken_off: bool = False


class PublishRequest(LenientModel):
    """Writes the files of a batch that has ended, and what its index says of it."""

    batch: GatewayBatch
    object: BatchObject  #: As it looks so far.
    result: BatchResult | None = None  #: None where it never ran.
    translated: bool = False  #: As in Intake.
    now: datetime  #: The workflow's time, UTC: the files get their ids by it, so that a repeated step makes the same.


class Published(LenientModel):
    object: BatchObject  #: As it stays.


INTAKE = Step("durabatch.gateway_intake", IntakeRequest, Intake)
JOIN = Step("durabatch.gateway_join", JoinRequest, Joined)
PUBLISH = Step("durabatch.gateway_publish", PublishRequest, Published)
