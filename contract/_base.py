"""What every model of the contract has in common."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import Enum, StrEnum
from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", re.IGNORECASE)


def _duration(value: Any) -> Any:
    """Turn "24h", "1h30m" or "15s" into a timedelta; leave the rest (seconds, ISO 8601) to pydantic."""
    if not isinstance(value, str) or not value.strip() or value.strip()[0] in "Pp-+":
        return value
    position, seconds = 0, 0.0
    while match := _DURATION.match(value, position):
        seconds += float(match[1]) * _UNITS[match[2].lower()]
        position = match.end()
    if position != len(value):
        return value
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError("is longer than any time can be") from None


#: A length of time. In JSON: seconds as a number, "24h", "10m", "1h30m", or ISO 8601 ("PT24H").
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}], "description": 'e.g. "24h" or 86400'}),
]


class StrictModel(BaseModel):
    """Frozen, keyword-only; an unknown field is an error, so that a typing mistake costs nothing."""

    # hide_input_in_errors: a validation error reaches Temporal's history, where no prompt may be (promise G8).
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_timedelta="iso8601", hide_input_in_errors=True)


class LenientModel(BaseModel):
    """Frozen; fields that a newer version added are ignored, so that old clients read new answers."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_timedelta="iso8601", hide_input_in_errors=True)


class Word(StrEnum):
    """A vocabulary that newer versions may add to: a word that this version does not know reads as `unknown()`."""

    @classmethod
    def unknown(cls) -> Self:
        """Return the member with which no harm is done."""
        raise NotImplementedError

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls.unknown() if isinstance(value, str) else None


_UNKNOWN = object()


def passed(model: type[StrictModel]) -> BeforeValidator:
    """Return a validator for a record that another version may have passed on: it leaves out what this one lacks.

    A record is strict where a user gives it. Between workflow and steps it has been read once already, and the other
    side may be newer: whatever that has added has a default here.
    """
    return BeforeValidator(lambda value: _known(model, value))


def _known(kind: Any, value: Any) -> Any:
    """Return a value without fields and words that a type does not have."""
    if isinstance(kind, type) and issubclass(kind, StrictModel) and isinstance(value, dict):
        fields = kind.model_fields
        found = {name: _known(fields[name].annotation, item) for name, item in value.items() if name in fields}
        return {name: item for name, item in found.items() if item is not _UNKNOWN}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return value if value in kind.__members__.values() else _UNKNOWN
    if get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            value = _known(one, value) if isinstance(one, type) else value
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        found_items = (_known(get_args(kind)[0], item) for item in value)
        return tuple(item for item in found_items if item is not _UNKNOWN)
    return value
