"""The fields of a BatchSpec as keywords of the client's methods, so that editors complete them and mypy checks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal, TypedDict

from pydantic import ValidationError

from ..contract import (
    BatchSpec,
    ErrorClass,
    InvalidSpec,
    Limits,
    Mode,
    OnComplete,
    OnInvalidRow,
    PollPolicy,
    RetryPolicy,
)
from ..contract.names import check_batch_id
from ..workers.settings import problem_words

#: A length of time: a timedelta, seconds, or text such as "90s", "10m" or "26h".
DurationLike = timedelta | float | str


class PollFields(TypedDict, total=False):
    """`PollPolicy` as a dict."""

    first: DurationLike
    factor: float
    maximum: DurationLike
    jitter: float


class RetryFields(TypedDict, total=False):
    """`RetryPolicy` as a dict."""

    max_attempts: int
    classes: Sequence[ErrorClass | str]
    after_deadline: bool
    on_expired: Mode | Literal["batch", "direct"]


class LimitsFields(TypedDict, total=False):
    """`Limits` as a dict."""

    max_rows: int | None
    max_bytes: int | None
    max_tokens: int | None


class OnCompleteFields(TypedDict, total=False):
    """`OnComplete` as a dict."""

    activity: str | None
    workflow: str | None
    task_queue: str | None
    timeout: DurationLike
    heartbeat: DurationLike | None


class SpecFields(TypedDict, total=False):
    """What a caller may say of a batch beside its requests and its provider. `BatchSpec` describes each field."""

    endpoint: str
    model: str | None
    params: Mapping[str, Any]
    output: str | None
    mode: Mode | Literal["batch", "direct"] | None
    completion_window: str
    deadline: DurationLike
    poll: PollPolicy | PollFields
    retry: RetryPolicy | RetryFields
    on_invalid_row: OnInvalidRow | Literal["fail_batch", "fail_row"]
    limits: Limits | LimitsFields
    max_cost_usd: Decimal | str | float | None
    priority: int
    fairness_key: str | None
    on_complete: OnComplete | OnCompleteFields | None
    metadata: Mapping[str, str]


def spec_from(fields: Mapping[str, Any]) -> BatchSpec:
    """Return the spec that these fields make.

    Raises:
        InvalidSpec: one of them is missing or wrong.
    """
    try:
        return BatchSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(f"{where or 'The spec'}: {problem_words(first)}.") from None


def check_fields(fields: Mapping[str, Any], batch_id: str | None) -> None:
    """See that a spec and an id can be used, before anything is started for them.

    Raises:
        InvalidSpec: they cannot.
    """
    spec_from({**fields, "input": "not read yet"})
    if batch_id is not None:
        check_batch_id(batch_id)
