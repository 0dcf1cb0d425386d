"""Rows on their way in: bytes to lines, lines to requests. Pure, and fast, because every row passes here.

Three shapes are taken: OpenAI's batch line `{custom_id, method, url, body}`, Anthropic's `{custom_id, params}`, and the
short form `{custom_id, input}`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import msgspec

from .json_shape import has_many_values, has_more_fields, is_deeper, names

#: A row's own id: what a user may reasonably use, and what a line of any report can hold.
MAX_ID_CHARACTERS = 256
#: Deeper nesting than this is refused by JSON parsers on the way (Python's own gives up near 1,000).
MAX_DEPTH = 200
#: Fields of a row, and of its body. No request has a hundred, and each takes hundreds of bytes while it is looked at.
MAX_FIELDS = 10_000

_BOM = b"\xef\xbb\xbf"
_QUOTE, _N = b'"n'  # the first byte of a JSON value tells its type


class Problem(StrEnum):
    """Why a row cannot be sent, in a word for programs."""

    JSON = "invalid_json_line"  #: The line is not a JSON object that can be passed on.
    ROW = "invalid_row"  #: It is a JSON object, and not a request.
    FIELD = "invalid_field"  #: A field is missing, or has a value that it cannot have.
    DUPLICATE_ID = "duplicate_custom_id"
    DUPLICATE_FIELD = "duplicate_field"
    TOO_LARGE = "row_too_large"  #: More bytes, or inputs, than a batch may have.
    MODEL = "mismatched_model"  #: The provider takes one model a batch.


class RowRefused(Exception):
    """A row cannot be sent.

    Args:
        field: which field, dotted; None for the line as a whole.
        reason: why, without the row's own text.
        custom_id: the row's id, where it has one.
        code: the same in a word; that of a field, or of the row, unless it is said more exactly.
    """

    def __init__(
        self, field: str | None, reason: str, custom_id: str | None = None, code: Problem | None = None
    ) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason
        self.custom_id = custom_id
        self.code = code or (Problem.FIELD if field else Problem.ROW)


class Line(NamedTuple):
    """One line of the input that is not blank."""

    number: int  #: From 1, as an editor counts in its file.
    offset: int  #: Bytes from the beginning of the input.
    length: int  #: Bytes, without the line break.
    data: bytes  #: Empty where the line is longer than the limit.
    file: str | None = None  #: The file's name, where the input has several.

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return place(self.number, self.file)


class Row(NamedTuple):
    """One request."""

    custom_id: str
    shape: Literal["openai", "anthropic", "short"]
    body: msgspec.Raw  #: The body, the params, or the input.
    url: str | None
    data: bytes  #: The whole line.
    plain: bool = True  #: Whether the line may go on as it is: it has no field beside the request that says null.
    model: bytes | None = None  #: The model it names, as JSON; None where it names none.


class _Usual(msgspec.Struct):
    """A row whose fields are of the types that they should be."""

    custom_id: str | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType | None = msgspec.UNSET
    url: str | msgspec.UnsetType | None = msgspec.UNSET
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Odd(msgspec.Struct):
    """Any other row, its fields as they were written: one of a wrong type may be as large as a row."""

    custom_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    url: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Body(msgspec.Struct):
    """The model, and the fields of which one is nearly all of a body."""

    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    prompt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Usual).decode
_decode_odd = msgspec.json.Decoder(_Odd).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_HALF_PAIR = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]")
#: Unicode's category Cc, which never grows: what an id may hold must not depend on Python's tables.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
#: A field's name may be reported only if it looks like one: it may be somebody's text.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

#: What is left of clean lines without their ids and long values, the same for all rows that one program wrote.
_clean_frames: set[bytes] = set()
_MAX_FRAMES = 256
_MAX_FRAME_BYTES = 4096


def place(number: int, file: str | None) -> str:
    """Return where a line is, in words."""
    return f"{file} line {number}" if file else f"line {number}"


def lines(
    chunks: Iterable[bytes], limit: int, file: str | None = None, offset: int = 0, number: int = 0
) -> Iterator[Line]:
    """Cut a file into lines, keeping at most one of them in memory.

    Takes LF and CRLF, a byte-order mark at the beginning, blank lines anywhere and a last line without a break. A
    line of more than `limit` bytes comes without its data.

    Args:
        chunks: the file's bytes.
        limit: bytes of a line that is kept.
        file: its name, where the input has several.
        offset: where in the input these bytes begin.
        number: how many line breaks of the file come before them.
    """
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
            if line := _line(number, offset, length, piece, limit, file):
                yield line
            offset += length + 1
            held = 0
        held += len(pieces[-1])
        if held <= limit:
            if pieces[-1]:
                pending.append(pieces[-1])
        else:
            pending[:] = [b""]
    if held and (line := _line(number + 1, offset, held, b"".join(pending), limit, file)):
        yield line


def _line(number: int, offset: int, length: int, data: bytes, limit: int, file: str | None) -> Line | None:
    if length > limit:
        return Line(number, offset, length, b"", file)
    if number == 1 and data.startswith(_BOM):
        data, offset, length = data[3:], offset + 3, length - 3
    stripped = data.strip()
    if not stripped:
        return None
    if len(stripped) != length:
        offset += len(data) - len(data.lstrip())
    return Line(number, offset, len(stripped), stripped, file)


def parse(data: bytes) -> Row:
    """Return the request on a line.

    Raises:
        RowRefused: there is none; says which field and why.
    """
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise RowRefused(None, f"is not UTF-8 (byte {error.start + 1})", code=Problem.JSON) from None
    if len(data) > MAX_DEPTH and data.count(b"[") + data.count(b"{") > MAX_DEPTH and is_deeper(data, MAX_DEPTH):
        raise RowRefused(None, f"is nested more than {MAX_DEPTH} levels deep", code=Problem.JSON)
    try:
        try:
            found = _decode(data)
        except msgspec.ValidationError:
            found = _usual(_decode_odd(data))
    except msgspec.ValidationError:
        raise RowRefused(None, "is not a JSON object", code=Problem.JSON) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RowRefused(None, _cause(error, data), code=Problem.JSON) from None
    custom_id = _check_id(found.custom_id)
    name, value, plain = _content(found, custom_id)
    if found.method != "POST" and found.method is not None and not isinstance(found.method, msgspec.UnsetType):
        raise RowRefused("method", "must be POST", custom_id)
    url = None if isinstance(found.url, msgspec.UnsetType) else found.url
    if url is not None and not isinstance(url, str):
        raise RowRefused("url", "must be a string", custom_id)
    model = _check_names(data, custom_id, name, value)
    return Row(custom_id, _SHAPES[name], value, url, data, plain, model)


def _usual(odd: _Odd) -> _Usual:
    """Return a row with something that is no text for each field of a wrong type."""
    return _Usual(_text(odd.custom_id), _text(odd.method), _text(odd.url), odd.body, odd.params, odd.input)


def _text(value: msgspec.Raw | msgspec.UnsetType) -> Any:
    if not isinstance(value, msgspec.Raw):
        return value
    first = memoryview(value)[0]
    return None if first == _N else _decode_text(value) if first == _QUOTE else ...


_SHAPES: dict[str, Literal["openai", "anthropic", "short"]] = {
    "body": "openai",
    "params": "anthropic",
    "input": "short",
}


def _content(found: _Usual, custom_id: str) -> tuple[str, msgspec.Raw, bool]:
    """Return the one field of three that holds the request: its name, its value, and whether the others are absent.

    A null is as good as absent: programs that write tables have a column for each of the three.
    """
    body, params, short = found.body, found.params, found.input
    if isinstance(body, msgspec.Raw) and params is short is msgspec.UNSET:
        return "body", body, True
    values = (("body", body), ("params", params), ("input", short))
    given = [(name, value) for name, value in values if isinstance(value, msgspec.Raw)]
    have = [(name, value) for name, value in given if bytes(value) != b"null"]
    if len(have) != 1:
        names = " and ".join(name for name, _ in have) or "none of them"
        raise RowRefused(None, f"needs exactly one of body, params or input, and has {names}", custom_id)
    return *have[0], len(given) == 1


def _check_id(custom_id: Any) -> str:
    if isinstance(custom_id, msgspec.UnsetType):
        raise RowRefused("custom_id", "is missing")
    if not isinstance(custom_id, str) or not custom_id.strip():
        raise RowRefused("custom_id", "must be a string that is not empty")
    if len(custom_id) > MAX_ID_CHARACTERS:
        raise RowRefused("custom_id", f"has more than {MAX_ID_CHARACTERS} characters", _shown(custom_id))
    # isprintable is the quick look: it knows all of them, and many characters more that are fine.
    if not custom_id.isprintable() and _CONTROL.search(custom_id):
        raise RowRefused("custom_id", "holds a control character", _shown(custom_id))
    return custom_id


def _shown(custom_id: str) -> str:
    """Return an id that cannot be used as one that can."""
    shown = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], custom_id[:40])
    return shown if len(custom_id) <= 40 else shown + "…"


def _check_names(data: bytes, custom_id: str, name: str, content: msgspec.Raw) -> bytes | None:
    """Refuse a duplicate name, which JSON allows, in the row or in its body; return the model, as JSON.

    Every parser keeps one of the two and silently drops the other. To look for them costs more than everything else
    here, so it is done once for rows that differ only in their ids and in one long value each.
    """
    model, field, longest = None, b'"input"', content
    if name != "input":
        try:
            body = _decode_body(content)
        except msgspec.ValidationError:
            return None  # no object at all, and the adapter says so
        model = None if isinstance(body.model, msgspec.UnsetType) else bytes(body.model)
        if isinstance(body.messages, msgspec.Raw):
            field, longest = b'"messages"', body.messages
        elif isinstance(body.input, msgspec.Raw):
            longest = body.input
        elif isinstance(body.prompt, msgspec.Raw):
            field, longest = b'"prompt"', body.prompt
    frame = _frame(data, custom_id, field, bytes(longest))
    if frame is None or frame not in _clean_frames:
        _refuse_repeated(data, "", custom_id)
        if name != "input":
            _refuse_repeated(bytes(content), f"{name}.", custom_id)
        if frame is not None and len(frame) <= _MAX_FRAME_BYTES:
            if len(_clean_frames) >= _MAX_FRAMES:
                _clean_frames.clear()
            _clean_frames.add(frame)
    return model


def _frame(data: bytes, custom_id: str, field: bytes, value: bytes) -> bytes | None:
    """Return a line without its id and without the value of a field; None where that is not easy."""
    colon = data.find(field) + len(field)
    start = colon + 1 if data[colon + 1] == value[0] else colon + 2
    if value[0] not in b'"[{' or data[colon:start] not in (b":", b": ") or not data.startswith(value, start):
        return None
    return (data[:start] + data[start + len(value) :]).replace(b'"%b"' % custom_id.encode(), b"", 1)


def _refuse_repeated(text: bytes, where: str, custom_id: str) -> None:
    if has_more_fields(text, MAX_FIELDS):
        raise RowRefused(where.rstrip(".") or None, f"has more than {MAX_FIELDS:,} fields", custom_id)
    fields = _decode_fields(text)
    # Each name has two quotes, so with a name that is dropped there are more of them in the text than in what is left.
    quotes = sum(bytes(value).count(b'"') for value in fields.values()) + 2 * len(fields)
    if text.count(b'"') == quotes:
        return
    if has_many_values(text):  # it would take long to find out which
        reason = "has a field twice, or one with a quote in its name"
        raise RowRefused(where.rstrip(".") or None, reason, custom_id, Problem.DUPLICATE_FIELD)
    for name, times in Counter(names(text)).items():
        if times > 1 and _NAME.fullmatch(name):
            raise RowRefused(where + name, "occurs twice", custom_id, Problem.DUPLICATE_FIELD)
        if times > 1:
            raise RowRefused(where.rstrip(".") or None, "has a field twice", custom_id, Problem.DUPLICATE_FIELD)


def _cause(error: Exception, data: bytes) -> str:
    """Return what a parser disliked, without the text it disliked."""
    if isinstance(error, RecursionError):
        return "is not JSON (too deep)"
    if _HALF_PAIR.search(data):
        return "holds half of a surrogate pair (an escape such as \\ud800 alone), which is no character"
    return f"is not JSON ({str(error).removeprefix('JSON is malformed: ')})"
