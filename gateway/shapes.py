"""The shapes of answers and bodies that are no models: what `/openapi.json` says of them.

Source: the openai package's types of the same names; what is beyond them says that it is ours.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from ..activities.gateway.checks import REQUIRED
from ..contract.gateway_batch import BatchObject

#: Source: the openai package, FileCreateParams.purpose.
Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
#: Seconds that a file may live. Source: the openai package, FileCreateParams.ExpiresAfter.
SHORTEST_LIFE, LONGEST_LIFE = 3_600, 2_592_000


class ErrorBody(TypedDict):
    """What is wrong."""

    message: Annotated[str, Field(description="A sentence for people.")]
    type: Annotated[str, Field(description="The kind of error.")]
    param: Annotated[str | None, Field(description="The parameter that is wrong.")]
    code: Annotated[str | None, Field(description="A word for programs.")]


class ErrorEnvelope(TypedDict):
    """An error, as OpenAI's API has it."""

    error: ErrorBody


class FileObject(TypedDict):
    """A file."""

    object: Literal["file"]
    id: str
    purpose: str
    filename: str
    bytes: int
    created_at: Annotated[int, Field(description="Seconds since 1970.")]
    expires_at: Annotated[int | None, Field(description="Seconds since 1970; null for never.")]
    status: Literal["processed"]
    status_details: None


class FilePage(TypedDict):
    """Some files of a list."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: Annotated[str | None, Field(description="What `after` of the next page is to be.")]
    has_more: bool


class FileDeleted(TypedDict):
    """A file that is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


FileUpload = TypedDict(
    "FileUpload",
    {
        "file": Annotated[bytes, Field(description="Its bytes. For batches: JSONL in UTF-8, a request a line.")],
        "purpose": Purpose,
        "expires_after[anchor]": NotRequired[Literal["created_at"]],
        "expires_after[seconds]": NotRequired[Annotated[int, Field(ge=SHORTEST_LIFE, le=LONGEST_LIFE)]],
    },
)
FileUpload.__doc__ = "The form of an upload."


class ExpiresAfter(TypedDict):
    """How long a file is kept."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=SHORTEST_LIFE, le=LONGEST_LIFE)]


class BatchOrder(TypedDict):
    """What a create of a batch asks for."""

    input_file_id: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,100}$")]
    endpoint: Annotated[str, Field(json_schema_extra={"enum": list(REQUIRED)})]
    completion_window: Annotated[str, Field(description="24h, or another one that the gateway is configured for.")]
    metadata: NotRequired[Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] | None]
    output_expires_after: NotRequired[ExpiresAfter | None]
    provider: NotRequired[Annotated[str | None, Field(description="Ours: which provider is to run it.")]]
    idempotency_key: NotRequired[
        Annotated[
            Annotated[str, Field(min_length=1, max_length=255)] | None,
            Field(description="Ours: the same create with the same key is the same batch. The header does the same."),
        ]
    ]


class BatchRetry(TypedDict):
    """What a retry of a batch may say; all else is as the batch has it."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    completion_window: NotRequired[Annotated[str | None, Field(description="The batch's own by default.")]]
    provider: NotRequired[Annotated[str | None, Field(description="Which provider is to run it; as the batch said.")]]
    idempotency_key: NotRequired[
        Annotated[
            Annotated[str, Field(min_length=1, max_length=255)] | None,
            Field(description="The same retry with the same key is the same batch. The header does the same."),
        ]
    ]


class BatchPage(TypedDict):
    """Some batches of a list, newest first."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: Annotated[str | None, Field(description="What `after` of the next page is to be.")]
    has_more: bool


class RowResponse(TypedDict):
    """What the provider answered to a request."""

    status_code: int
    request_id: str | None
    body: Annotated[Any, Field(description="The answer, as in the output file.")]


class RowError(TypedDict):
    """Why a request has no answer."""

    code: str
    message: str


class BatchRow(TypedDict):
    """A request of a batch, and what became of it."""

    id: Annotated[
        str, Field(description="What `after` of the next page is to be; the same row may have another one later.")
    ]
    custom_id: str
    status: Literal["succeeded", "failed", "expired", "cancelled", "pending"]
    response: RowResponse | None
    error: RowError | None


class BatchRows(TypedDict):
    """Some requests of a batch, in the order of its input."""

    object: Literal["list"]
    data: list[BatchRow]
    first_id: str | None
    last_id: Annotated[str | None, Field(description="What `after` of the next page is to be.")]
    has_more: bool


class ModelObject(TypedDict):
    """A model that may be asked for."""

    id: str
    object: Literal["model"]
    created: Annotated[int, Field(description="Not known here: 0.")]
    owned_by: Annotated[str, Field(description="The provider that runs it.")]


class ModelPage(TypedDict):
    """All models that the configuration names."""

    object: Literal["list"]
    data: list[ModelObject]


class Alive(TypedDict):
    """The process is alive."""

    status: Literal["ok"]


class Readiness(TypedDict):
    """Whether requests can be served."""

    status: Literal["ok", "not ready"]
    store: Literal["ok", "does not answer"]
    temporal: Literal["ok", "does not answer"]


class WebhookObject(TypedDict):
    """A webhook of the caller's."""

    object: Literal["webhook"]
    name: str
    events: list[str]
    status: Annotated[
        Literal["enabled", "failing", "disabled"],
        Field(description="`failing`: tried with one event at a time; `disabled`: it answered 410."),
    ]


class WebhookPage(TypedDict):
    """All webhooks of the caller's."""

    object: Literal["list"]
    data: list[WebhookObject]


class DeliveryObject(TypedDict):
    """An event, and what became of it."""

    id: Annotated[str, Field(description="Also the `webhook-id` of every attempt.")]
    object: Literal["webhook.delivery"]
    webhook: Annotated[str, Field(description="The name of the webhook.")]
    type: Annotated[str, Field(description="Such as `batch.completed`.")]
    batch_id: str
    created_at: Annotated[int, Field(description="When the batch ended, in seconds since 1970.")]
    status: Literal["pending", "delivered", "failed"]
    attempts: Annotated[int, Field(description="Since it was queued, or last sent again by hand.")]
    next_attempt_at: Annotated[int | None, Field(description="Seconds since 1970; null unless it is pending.")]
    delivered_at: Annotated[int | None, Field(description="Seconds since 1970.")]
    response_status: Annotated[int | None, Field(description="Of the last answer; null where there was none.")]
    error: Annotated[str | None, Field(description="Why the last attempt failed.")]


class DeliveryPage(TypedDict):
    """Some of the caller's events."""

    object: Literal["list"]
    data: list[DeliveryObject]
    first_id: str | None
    last_id: Annotated[str | None, Field(description="What `after` of the next page is to be.")]
    has_more: bool


class Received(TypedDict):
    """That an event was accepted."""

    received: Literal[True]


#: A JSON object of any fields.
AnyObject = dict[str, Any]
