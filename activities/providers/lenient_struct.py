"""JSON that is right in a shape that is not quite: each field that does not fit is left out, and costs only itself."""

from __future__ import annotations

from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from ..json_shape import MAX_VALUES, has_many_values, has_more_elements, has_more_fields

#: Bytes of JSON that are better read so, whatever they are, as this takes little memory. Nearly all answers have fewer.
LONG = 1 << 20

Shape = TypeVar("Shape", bound=msgspec.Struct)

# Made once, here: two threads that decode a type for the first time at once crash msgspec 0.22.
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_any = msgspec.json.Decoder().decode


class _Misfit(Exception):
    """A value is nothing that its field could hold."""


def lenient(data: bytes | msgspec.Raw, shape: type[Shape]) -> Shape:
    """Return an object as a struct, with the default for each field whose value does not fit.

    A number goes for a text, and a text that is a number, or a number with a fraction, for a whole number. A struct
    with a true `__whole__` is left out as a whole where one of its numbers does not fit. What has too many values to be
    made into objects does not fit, so that this takes little memory whatever the length.

    Raises:
        msgspec.DecodeError: it is not an object, or a field without a default does not fit.
    """
    try:
        return _struct(msgspec.Raw(data), shape)
    except _Misfit:
        raise msgspec.ValidationError(f"no {shape.__name__.strip('_').lower()}") from None


def parsed(data: msgspec.Raw) -> Any:
    """Return JSON as Python has it; None where that cannot be, or it has too many values."""
    if has_many_values(data):
        return None
    try:
        return _any(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _struct(data: msgspec.Raw, shape: type[Shape]) -> Shape:
    if has_more_fields(data, MAX_VALUES):
        raise _Misfit
    try:
        given = _fields(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _Misfit from None
    found: dict[str, Any] = {}
    for name, kinds in _plan(shape):
        if name not in given:
            continue
        try:
            found[name] = _value(given[name], kinds)
        except _Misfit:
            if int in kinds and getattr(shape, "__whole__", False):
                raise
    try:
        return shape(**found)
    except TypeError:  # a field without a default
        raise _Misfit from None


@lru_cache
def _plan(shape: type[msgspec.Struct]) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the fields of a struct, and what each may be."""
    return [
        (field.encode_name, get_args(field.type) if get_origin(field.type) in (Union, UnionType) else (field.type,))
        for field in msgspec.structs.fields(shape)
    ]


def _value(data: msgspec.Raw, kinds: tuple[Any, ...]) -> Any:
    if msgspec.Raw in kinds:
        return data
    first = bytes(memoryview(data)[:1])
    for kind in kinds:
        if get_origin(kind) is list and first == b"[":
            if has_more_elements(data, MAX_VALUES):
                raise _Misfit
            (item,) = get_args(kind)
            return [_struct(one, item) for one in _items(data) if bytes(memoryview(one)[:1]) == b"{"]
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and first == b"{":
            return _struct(data, kind)
    if (Any not in kinds and first in (b"[", b"{")) or has_many_values(data):
        raise _Misfit
    try:
        value = _any(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _Misfit from None
    if Any in kinds:
        return value
    if value is None and NoneType in kinds:
        return None
    if str in kinds and not isinstance(value, list | dict | bool | NoneType):
        return value if isinstance(value, str) else str(value)
    if int in kinds:
        return _whole(value)
    raise _Misfit


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Misfit
    try:
        return int(value) if isinstance(value, int) else int(float(value))
    except (ValueError, OverflowError):
        raise _Misfit from None
