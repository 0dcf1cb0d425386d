"""Values of JSON that are passed on undecoded: what they are is seen by their first byte. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

_decode = msgspec.json.decode


def first_byte(value: msgspec.Raw) -> bytes:
    """Return the first byte of a JSON value, which shows its type."""
    return bytes(memoryview(value)[:1])


def is_null(fields: dict[str, msgspec.Raw], name: str) -> bool:
    """Return whether a field that is there is null."""
    return first_byte(fields[name]) == b"n"


def value_of(fields: dict[str, msgspec.Raw], name: str) -> Any:
    """Return a field's value, None where it is not there."""
    return _decode(fields[name]) if name in fields else None
