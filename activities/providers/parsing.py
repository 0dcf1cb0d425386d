"""What a provider's answer says, read leniently: only an id and a status are needed, and anything else may be odd.

Servers that speak a provider's protocol differ in their secondary fields: times as text or in milliseconds, counts as
text, an error as a sentence. A field that cannot be read is left out; it never makes the rest of an answer unreadable.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

#: No provider's id or word is longer; what is would only fill Temporal's history.
MAX_WORD = 500
#: Counts beyond this are no counts.
_MAX_COUNT = 10**12
#: No batch API is older, so an earlier time is a mistake, and would end a search that stops at what is too old.
_FIRST = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
#: 9999-12-31; datetime knows none later.
_LAST = 253_402_300_799
#: A number from here on counts milliseconds, microseconds or nanoseconds: as seconds it would be after the year 5138.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))
#: Digits beyond which Python refuses to read a number, or takes long.
_MAX_DIGITS = 300


class Unreadable(ValueError):
    """A needed field of an answer cannot be read; the message says which field and why, and quotes no value."""


def decode(content: bytes) -> Any:
    """Return the JSON of an answer; a stray byte, half a surrogate pair or NaN in it costs itself only.

    Raises:
        Unreadable: it is not JSON.
    """
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError):  # msgspec's errors, and those of text that is not UTF-8
        pass
    try:
        return json.loads(
            content.decode("utf-8-sig", "replace"), strict=False, parse_int=_int, parse_constant=_no_number
        )
    except (ValueError, RecursionError):
        raise Unreadable("it is not JSON") from None


def _int(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MAX_DIGITS else None


def _no_number(name: str) -> None:
    return None  # NaN and the infinities


def fields(answer: Any) -> Mapping[str, Any]:
    """Return an answer that has to be an object.

    Raises:
        Unreadable: it is none.
    """
    if not isinstance(answer, dict):
        raise Unreadable(f"it is {_kind(answer)}, not an object")
    return answer


def answered(answer: Any) -> None:
    """Take any answer that is one.

    Raises:
        Unreadable: it is neither an object nor an array.
    """
    if not isinstance(answer, list):
        fields(answer)


def required(answer: Mapping[str, Any], name: str) -> str:
    """Return an id or a status, without which an answer says nothing.

    Raises:
        Unreadable: it is missing or no word.
    """
    found = text(answer.get(name))
    if found is None:
        missing = answer.get(name) in (None, "")
        raise Unreadable(f"field `{name}` is missing" if missing else f"field `{name}` is no word")
    return found


def text(value: Any) -> str | None:
    """Return an id, a status or a name; None if it is none of these."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value or len(value) > MAX_WORD:
        return None
    return encodable(value)


def encodable(words: str) -> str:
    """Return text that can be written as UTF-8."""
    return words.encode("utf-8", "replace").decode()


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """Return an array; an empty one for anything else."""
    return value if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """Return a finite number, also one that is written as text."""
    if isinstance(value, str) and len(value) <= _MAX_DIGITS:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def count(value: Any) -> int | None:
    """Return a number of rows, tokens or bytes."""
    found = number(value)
    return int(found) if found is not None and 0 <= found <= _MAX_COUNT else None


def flag(value: Any) -> bool | None:
    """Return a yes or no, also as text or as 0 or 1."""
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, bool) or value in (0, 1) else None


def instant(value: Any) -> datetime | None:
    """Return a time: seconds since 1970 or a finer unit, as a number or as text, or ISO 8601, UTC by default."""
    seconds = number(value)
    if seconds is None:
        return _iso(value) if isinstance(value, str) and len(value) <= 100 else None
    for limit, parts in _UNITS:
        if seconds < limit:
            return datetime.fromtimestamp(seconds / parts, UTC) if _FIRST <= seconds / parts <= _LAST else None
    return None


def _iso(value: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(value.strip())
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if found.timestamp() >= _FIRST else None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "an array"
    return "text" if isinstance(value, str) else "a number or a truth value"
