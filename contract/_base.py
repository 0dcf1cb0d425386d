"""What every model of the contract has in common."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

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


class Record(BaseModel):
    """Frozen, keyword-only; a field that nobody knows is an error, so that a typing mistake costs nothing."""

    # hide_input_in_errors: a validation error reaches Temporal's history, where no prompt may be (promise G8).
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_timedelta="iso8601", hide_input_in_errors=True)


class Reply(BaseModel):
    """Frozen; fields that a newer version added are passed over, so that old clients read new answers."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_timedelta="iso8601", hide_input_in_errors=True)
