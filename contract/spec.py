"""What a user asks for: BatchSpec, and CancelRequest."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from ._base import Duration, StrictModel, passed
from .status import RETRYABLE_CLASSES, ErrorClass, Mode

#: Rows given inline travel in Temporal's history, so they are for a handful started by hand (promise G6).
MAX_INLINE_ROWS = 100
MAX_INLINE_BYTES = 48 * 1024
#: The params travel with every shard and every upload, and no payload may have more than 64 KiB (promise G6).
MAX_PARAMS_BYTES = 32 * 1024


class OnInvalidRow(StrEnum):
    """What a row that cannot be sent does to its batch."""

    FAIL_BATCH = "fail_batch"  #: Nothing is submitted; the error lists the rows.
    FAIL_ROW = "fail_row"  #: The row fails alone, the others are sent.


class PollPolicy(StrictModel):
    """How often the provider is asked."""

    first: Annotated[Duration, Field(description="Wait before the first poll.")] = timedelta(seconds=15)
    factor: Annotated[float, Field(ge=1, le=10, description="Each wait is this times the one before it.")] = 1.5
    maximum: Annotated[Duration, Field(description="The longest wait between two polls.")] = timedelta(minutes=10)
    jitter: Annotated[
        float, Field(ge=0, le=0.5, description="Each wait is changed by up to this share of it, either way.")
    ] = 0.1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not timedelta(milliseconds=100) <= self.first <= self.maximum:
            raise ValueError("poll.first must be at least 0.1 s and at most poll.maximum")
        if self.maximum > timedelta(days=1):
            raise ValueError("poll.maximum must be at most 1 day")
        return self


class RetryPolicy(StrictModel):
    """Which rows are tried again, and how often."""

    max_attempts: Annotated[
        int, Field(ge=1, le=20, description="Submissions of a row at most, the first one included.")
    ] = 2
    classes: Annotated[
        tuple[ErrorClass, ...], Field(description="Rows that failed with one of these are tried again.")
    ] = RETRYABLE_CLASSES
    after_deadline: Annotated[
        bool,
        Field(description="Whether rows that the deadline left over go into another attempt, with a new deadline."),
    ] = False

    on_expired: Annotated[
        Mode,
        Field(
            description="What runs the rows that an expired provider batch has left over, and those that are not done "
            "when the deadline comes near: another provider batch, or direct mode, at the list price and within "
            "max_cost_usd."
        ),
    ] = Mode.BATCH

    @field_validator("classes", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        # Elsewhere a word that is not known reads as "other"; here it is a typing mistake.
        words = value if isinstance(value, list | tuple | set | frozenset) else ()
        if any(isinstance(word, str) and word not in list(ErrorClass) for word in words):
            raise ValueError(f"takes these classes only: {', '.join(ErrorClass)}")
        return value


class Limits(StrictModel):
    """Tighter limits than the provider's own; a shard is cut where the first one is reached."""

    max_rows: Annotated[int | None, Field(ge=1, description="Rows a shard holds at most.")] = None
    max_bytes: Annotated[int | None, Field(ge=1024, description="Bytes a shard's file has at most.")] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="Estimated input tokens a shard has at most.")] = None


class OnComplete(StrictModel):
    """Whom to call when the batch has ended: an activity or a workflow of the user's, with the BatchResult.

    An activity that fails, or whose worker dies, is tried again for up to 24 hours, so it should be idempotent. A
    workflow is only started.
    """

    # Temporal refuses an empty name, and one of more than 1,000 characters, over and over.
    activity: Annotated[str | None, Field(min_length=1, max_length=1000, description="Name of an activity type.")] = (
        None
    )
    workflow: Annotated[str | None, Field(min_length=1, max_length=1000, description="Name of a workflow type.")] = None
    task_queue: Annotated[
        str | None,
        Field(min_length=1, max_length=1000, description="Task queue to call it on; the batch's own by default."),
    ] = None
    timeout: Annotated[
        Duration,
        Field(
            description="How long one try of the activity may take. Without a heartbeat, a worker that died is noticed "
            "only then."
        ),
    ] = timedelta(hours=1)
    heartbeat: Annotated[
        Duration | None,
        Field(
            description="The longest time between two heartbeats of the activity; then its worker is taken for dead, "
            "and the activity is tried again. Without it none are expected."
        ),
    ] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.activity is None) == (self.workflow is None):
            raise ValueError("on_complete names either an activity or a workflow")
        if not timedelta(seconds=1) <= self.timeout <= timedelta(days=1):
            raise ValueError("on_complete.timeout must be between 1 second and 1 day")
        if self.heartbeat is not None and not timedelta(seconds=1) <= self.heartbeat <= self.timeout:
            raise ValueError("on_complete.heartbeat must be between 1 second and on_complete.timeout")
        return self


class BatchSpec(StrictModel):
    """One batch: the input of a BatchWorkflow, whose workflow id is the batch's id.

    Add fields with defaults only, and never change a default: workflows that are running hold older specs, and clients
    leave out what is at its default.
    """

    provider: Annotated[
        str,
        Field(min_length=1, max_length=100, description="Name of a provider in the worker's configuration."),
    ]
    input: Annotated[
        str | None,
        Field(
            description="URI of the requests in the worker's store: a JSONL file, a folder of them (ending in /), or a "
            "pattern such as …/day-*.jsonl; gzip and zstd files are read too."
        ),
    ] = None
    requests: Annotated[
        tuple[dict[str, JsonValue], ...] | None,
        Field(
            description=f"Rows given inline instead of input, {MAX_INLINE_ROWS} and 48 KiB at most; "
            "they are in Temporal's history."
        ),
    ] = None
    endpoint: Annotated[
        str, Field(pattern=r"^/v1/[a-z/_]+$", description="The provider's path that every row asks.")
    ] = "/v1/chat/completions"
    model: Annotated[str | None, Field(min_length=1, description="The model of rows that name none.")] = None
    params: Annotated[
        dict[str, JsonValue],
        Field(description="Defaults for every row's body; a row's own values win. They are in Temporal's history."),
    ] = {}
    output: Annotated[
        str | None,
        Field(description="URI of a folder in the store for this batch; <store>/<batch id>/ by default."),
    ] = None
    mode: Annotated[
        Mode | None,
        Field(
            description="How rows are run: by the provider's batch API, or by its ordinary endpoint, row by row and at "
            "the list price; as the worker's configuration says by default."
        ),
    ] = None
    completion_window: Annotated[
        str,
        Field(pattern=r"^\d+[hd]$", description="How long the provider may take, as the provider spells it."),
    ] = "24h"
    deadline: Annotated[
        Duration,
        Field(description="How long the batch may take; then it is cancelled and keeps what is finished."),
    ] = timedelta(hours=26)
    poll: Annotated[PollPolicy, Field(description="How often the provider is asked.")] = PollPolicy()
    retry: Annotated[RetryPolicy, Field(description="Which rows are tried again, and how often.")] = RetryPolicy()
    on_invalid_row: Annotated[OnInvalidRow, Field(description="What a row that cannot be sent does to its batch.")] = (
        OnInvalidRow.FAIL_BATCH
    )
    limits: Annotated[Limits, Field(description="Tighter limits than the provider's.")] = Limits()
    max_cost_usd: Annotated[
        Decimal | None,
        Field(
            gt=0,
            description="The batch is refused, before it costs, if its estimated input alone costs more (USD).",
        ),
    ] = None
    priority: Annotated[
        int, Field(ge=1, le=5, description="Whose turn is first where an account's queue is full: 1 first, 5 last.")
    ] = 3
    fairness_key: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            description="Batches with one key (a tenant, a team) share one turn among all keys of their priority.",
        ),
    ] = None
    on_complete: Annotated[OnComplete | None, Field(description="Whom to call when the batch has ended.")] = None
    metadata: Annotated[
        dict[str, str],
        Field(description="Labels of the user's, 16 at most; kept in the result, not sent on."),
    ] = {}

    @field_validator("deadline")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if not timedelta(seconds=1) <= value <= timedelta(days=28):
            raise ValueError("must be between 1 second and 28 days")
        return value

    @field_validator("params")
    @classmethod
    def _bounded(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if len(json.dumps(value)) > MAX_PARAMS_BYTES:
            raise ValueError("takes 32 KiB at most; put what is larger into the rows")
        return value

    @field_validator("metadata")
    @classmethod
    def _small(cls, value: dict[str, str]) -> dict[str, str]:
        if len(value) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in value.items()):
            raise ValueError("takes 16 labels at most, with names of 64 and values of 512 characters at most")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.input is None) == (self.requests is None):
            raise ValueError("give either input (the URI of a file) or requests (rows inline)")
        if self.requests is not None:
            if not 1 <= len(self.requests) <= MAX_INLINE_ROWS:
                raise ValueError(f"requests takes 1 to {MAX_INLINE_ROWS} rows; put more into a file and give its URI")
            if len(self.model_dump_json(include={"requests", "params"}).encode()) > MAX_INLINE_BYTES:
                raise ValueError(
                    "requests takes 48 KiB at most, params included; put more into a file and give its URI"
                )
        return self

    def settings(self) -> dict[str, Any]:
        """Return what two starts of one id must agree on, as plain JSON values."""
        return self.model_dump(mode="json")


class CancelRequest(StrictModel):
    """The one optional argument of the `cancel` signal."""

    reason: Annotated[str | None, Field(max_length=500, description="Why, for the result and the UI.")] = None
    requested_by: Annotated[str | None, Field(max_length=200, description="Who.")] = None


#: Models of the user's as workflows and steps pass them on, where the other side may be of another version.
PassedSpec = Annotated[BatchSpec, passed(BatchSpec)]
PassedRetry = Annotated[RetryPolicy, passed(RetryPolicy)]
PassedCancel = Annotated[CancelRequest, passed(CancelRequest)]
