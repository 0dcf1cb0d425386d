"""Rows on their way in: bytes to lines, lines to requests. Pure, and fast, because every row passes here.

Three shapes are taken: OpenAI's batch line `{custom_id, method, url, body}`, Anthropic's `{custom_id, params}`, and the
short form `{custom_id, input}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec

#: A row's own id: what a user may reasonably use, and what a line of any report can hold.
MAX_ID_CHARACTERS = 256
#: Deeper nesting than this is refused by JSON parsers on the way (Python's own gives up near 1,000).
MAX_DEPTH = 200

_BOM = b"\xef\xbb\xbf"


class RowRefused(Exception):
    """A row cannot be sent."""

    def __init__(self, field: str | None, reason: str, custom_id: str | None = None) -> None:
        super().__init__(reason)
        self.field = field  #: Which field, dotted; None for the line as a whole.
        self.reason = reason  #: Why, without the row's own text.
        self.custom_id = custom_id  #: The row's id, where it has one.


class Line(NamedTuple):
    """One line of the input that is not blank."""

    number: int  #: From 1, as an editor counts.
    offset: int  #: Bytes from the beginning of the input.
    length: int  #: Bytes, without the line break.
    data: bytes  #: Empty where the line is longer than the limit.


class Row(NamedTuple):
    """One request."""

    custom_id: str
    shape: Literal["openai", "anthropic", "short"]
    body: msgspec.Raw  #: The body, the params, or the input.
    url: str | None
    data: bytes  #: The whole line.


class _Any(msgspec.Struct):
    custom_id: Any = msgspec.UNSET
    method: Any = msgspec.UNSET
    url: Any = msgspec.UNSET
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Any).decode


def lines(chunks: Iterable[bytes], limit: int) -> Iterator[Line]:
    """Cut a stream into lines, keeping at most one of them in memory.

    Takes LF and CRLF, a byte-order mark at the beginning, blank lines anywhere and a last line without a break. A
    line of more than `limit` bytes comes without its data.
    """
    number = offset = 0
    pending: list[bytes] = []
    held = 0  # bytes of the unfinished line, also those that are not kept
    for chunk in chunks:
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            number += 1
            length = held + len(piece)
            if pending:
                pending.append(piece)
                piece = b"".join(pending)
                pending.clear()
            if line := _line(number, offset, length, piece, limit):
                yield line
            offset += length + 1
            held = 0
        held += len(pieces[-1])
        if held <= limit:
            if pieces[-1]:
                pending.append(pieces[-1])
        else:
            pending[:] = [b""]
    if held and (line := _line(number + 1, offset, held, b"".join(pending), limit)):
        yield line


def _line(number: int, offset: int, length: int, data: bytes, limit: int) -> Line | None:
    if length > limit:
        return Line(number, offset, length, b"")
    if number == 1 and data.startswith(_BOM):
        data, offset, length = data[3:], offset + 3, length - 3
    stripped = data.strip()
    if not stripped:
        return None
    if len(stripped) != length:
        offset += len(data) - len(data.lstrip())
    return Line(number, offset, len(stripped), stripped)


def parse(data: bytes) -> Row:
    """Return the request on a line.

    Raises:
        RowRefused: it is none; says which field and why.
    """
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise RowRefused(None, f"is not UTF-8 (byte {error.start + 1})") from None
    if max(data.count(b"["), data.count(b"{")) > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise RowRefused(None, f"is nested more than {MAX_DEPTH} levels deep")
    try:
        found = _decode(data)
    except msgspec.ValidationError:
        raise RowRefused(None, "is not a JSON object") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RowRefused(None, f"is not JSON ({_cause(error)})") from None
    custom_id = _check_id(found.custom_id)
    shapes = [
        (name, value)
        for name, value in (("body", found.body), ("params", found.params), ("input", found.input))
        if not isinstance(value, msgspec.UnsetType)
    ]
    if len(shapes) != 1:
        have = "none of them" if not shapes else " and ".join(name for name, _ in shapes)
        raise RowRefused(None, f"needs exactly one of body, params or input, and has {have}", custom_id)
    name, value = shapes[0]
    shape: Literal["openai", "anthropic", "short"] = (
        "openai" if name == "body" else "anthropic" if name == "params" else "short"
    )
    if not isinstance(found.method, msgspec.UnsetType) and found.method != "POST":
        raise RowRefused("method", "must be POST", custom_id)
    url = None if isinstance(found.url, msgspec.UnsetType) else found.url
    if url is not None and not isinstance(url, str):
        raise RowRefused("url", "must be a string", custom_id)
    return Row(custom_id, shape, value, url, data)


def _check_id(custom_id: Any) -> str:
    if isinstance(custom_id, msgspec.UnsetType):
        raise RowRefused("custom_id", "is missing")
    if not isinstance(custom_id, str) or not custom_id.strip():
        raise RowRefused("custom_id", "must be a string that is not empty")
    if len(custom_id) > MAX_ID_CHARACTERS:
        raise RowRefused("custom_id", f"has more than {MAX_ID_CHARACTERS} characters", custom_id[:40] + "…")
    if not custom_id.isprintable():
        raise RowRefused("custom_id", "holds a control character", ascii(custom_id)[1:41])
    return custom_id


def _depth(data: bytes) -> int:
    """Return how deep brackets nest, those within strings left out."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _cause(error: Exception) -> str:
    """Return what a parser disliked, without the text it disliked."""
    text = str(error)
    return "too deep" if isinstance(error, RecursionError) else text.removeprefix("JSON is malformed: ")
