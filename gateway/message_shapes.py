"""The shapes of Anthropic's answers and bodies: what `/openapi.json` says of them.

Source: the anthropic package's types of the same names; what is beyond them says that it is ours.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from ..contract.gateway_batch import MessageCounts

_Instant = Annotated[str, Field(description="An instant (RFC 3339).", json_schema_extra={"format": "date-time"})]


class MessageErrorBody(TypedDict):
    """What is wrong, as Anthropic's API has it."""

    type: Annotated[str, Field(description="The kind of error.")]
    message: Annotated[str, Field(description="A sentence for people.")]


class MessageError(TypedDict):
    """An error, as Anthropic's API has it."""

    type: Literal["error"]
    error: MessageErrorBody
    request_id: Annotated[str | None, Field(description="Identifies the request.")]


class MessageBatch(TypedDict):
    """A batch of Anthropic's Messages."""

    id: str
    type: Literal["message_batch"]
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: MessageCounts
    created_at: _Instant
    expires_at: _Instant
    ended_at: _Instant | None
    cancel_initiated_at: _Instant | None
    archived_at: None
    results_url: Annotated[str | None, Field(description="Where its results are, once it has ended.")]


class MessageBatchPage(TypedDict):
    """Some batches of a list, newest first."""

    data: list[MessageBatch]
    has_more: bool
    first_id: Annotated[str | None, Field(description="What `before_id` of the page before is to be.")]
    last_id: Annotated[str | None, Field(description="What `after_id` of the next page is to be.")]


class MessageBatchDeleted(TypedDict):
    """A batch that is gone."""

    id: str
    type: Literal["message_batch_deleted"]


class MessageRequest(TypedDict):
    """One request of a batch."""

    custom_id: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    params: Annotated[dict[str, Any], Field(description="The body of `POST /v1/messages`.")]


class MessageBatchOrder(TypedDict):
    """The body of a create."""

    requests: Annotated[list[MessageRequest], Field(min_length=1, max_length=100_000)]
    provider: NotRequired[
        Annotated[str, Field(description="Ours: which provider runs it, of those that are routed to.")]
    ]
    idempotency_key: NotRequired[
        Annotated[str, Field(min_length=1, max_length=255, description="Ours: as the header of that name.")]
    ]
