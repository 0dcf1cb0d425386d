"""Values of JSON that are passed on undecoded: what they are is seen by their first byte. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

_decode = msgspec.json.decode
#: Bytes of a value that is looked at: a name, a number, a switch.
_MOST = 1 << 16


class _Unread:
    """A placeholder for a value that is not looked at: true, and equal to nothing."""


UNREAD = _Unread()


def first_byte(value: msgspec.Raw) -> bytes:
    """Return the first byte of a JSON value, which shows its type."""
    return bytes(memoryview(value)[:1])


def is_null(fields: dict[str, msgspec.Raw], name: str) -> bool:
    """Return whether a field that is there is null."""
    return first_byte(fields[name]) == b"n"


def value_of(fields: dict[str, msgspec.Raw], name: str) -> Any:
    """Return a field's value as `short_value` does, None where it is not there."""
    return short_value(fields[name]) if name in fields else None


def short_value(value: msgspec.Raw) -> Any:
    """Return a value; `UNREAD` for one that is longer than any that is looked for, or has too many digits."""
    if len(memoryview(value)) > _MOST:
        return UNREAD
    try:
        return _decode(value)
    except msgspec.DecodeError:
        return UNREAD
