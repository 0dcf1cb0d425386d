"""What JSON would become in memory, seen without reading it: how deep it is, and how many values it has. Pure.

A few bytes of JSON may be hundreds in Python: `[],` becomes 64 and `{"a":1},` more than 200. So what may be as long
as a row or an answer is looked at here, a piece at a time, before anything is made of all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

#: Values of a text of JSON that is made into objects: some 20 MB. A context of a million tokens holds hardly as many.
MAX_VALUES = 100_000
#: A text of so many bytes has no more of them, as each takes two at least.
_SURELY_FEW = 2 * MAX_VALUES

_PIECE = 1 << 16
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_MARKS = (b",", b":", b"[", b"{")
_TOKEN = re.compile(rb'["\[\]{}]')
#: The rest of a string, or some of its escapes: so that what can be gone back to takes little memory.
_REST = re.compile(rb'[^"\\]*(?:\\.[^"\\]*){0,1000}', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*:")


def has_many_values(data: bytes | msgspec.Raw) -> bool:
    """Return whether JSON has more values, names of fields included, than are made into objects."""
    if len(memoryview(data)) <= _SURELY_FEW:
        return False
    text = bytes(data)
    if sum(map(text.count, _MARKS)) < MAX_VALUES:  # those within strings included
        return False
    found = 0
    for piece in _outside_strings(text):
        found += sum(map(piece.count, _MARKS))
        if found >= MAX_VALUES:
            return True
    return False


def has_more_fields(data: bytes | msgspec.Raw, most: int) -> bool:
    """Return whether an object has more fields of its own."""
    return _has_more(bytes(data), b":", most)


def has_more_elements(data: bytes | msgspec.Raw, most: int) -> bool:
    """Return whether an array has more elements."""
    return _has_more(bytes(data), b",", most - 1)


def _has_more(data: bytes, mark: bytes, most: int) -> bool:
    if data.count(mark) <= most:
        return False
    if sum(piece.count(mark) for piece in _outside_strings(data)) <= most:  # those of inner values included
        return False
    return _count(data, mark, most) > most


def elements(data: bytes) -> int:
    """Return how many elements an array has that is not empty. Slow."""
    return _count(data, b",", len(data)) + 1


def _count(data: bytes, mark: bytes, most: int) -> int:
    """Count a mark on the outermost level, up to `most` + 1."""
    depth = found = 0
    others, own = bytes(set(range(256)) - set(b"[]{}" + mark)), mark[0]
    for piece in _outside_strings(data):
        for byte in piece.translate(None, others):
            if byte != own:
                depth += 1 if byte in b"[{" else -1
            elif depth == 1:
                found += 1
                if found > most:
                    return found
    return found


def is_deeper(data: bytes, most: int) -> bool:
    """Return whether brackets nest deeper, those within strings left out."""
    depth = 0
    for piece in _outside_strings(data):
        brackets = piece.translate(None, _ALL_BUT_BRACKETS)
        if depth + brackets.count(b"[") + brackets.count(b"{") <= most:
            depth += 2 * (brackets.count(b"[") + brackets.count(b"{")) - len(brackets)
            continue
        for byte in brackets:
            depth += 1 if byte in b"[{" else -1
            if depth > most:
                return True
    return False


def names(data: bytes) -> Iterator[str]:
    """Yield the names of an object's own fields, also one that is there twice. Slow: for what has few values.

    Raises:
        msgspec.DecodeError: a name is no text.
    """
    depth = at = 0
    while (found := _TOKEN.search(data, at)) is not None:
        at = found.end()
        if found[0] != b'"':
            depth += 1 if found[0] in b"[{" else -1
            continue
        start = found.start()
        while (at := _REST.match(data, at).end()) < len(data) and data[at : at + 1] != b'"':  # type: ignore[union-attr]
            pass
        at += 1
        if depth == 1 and _COLON.match(data, at):
            yield msgspec.json.decode(data[start:at], type=str)


def _outside_strings(data: bytes) -> Iterator[bytes]:
    """Yield JSON without its strings, some at a time."""
    start = inside = 0
    while start < len(data):
        piece = data[start : start + _PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # an escape is not cut in two
            piece = data[start : start + _PIECE + 1]
        start += len(piece)
        parts = piece.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
        yield b"".join(parts[inside::2])
        inside = (inside + len(parts) - 1) % 2
