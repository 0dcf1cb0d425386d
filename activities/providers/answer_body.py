"""The body of an ordinary endpoint's answer as a value in a line of results: whatever it is, it keeps its row. Pure."""

from __future__ import annotations

import msgspec

from ..repair import MAX_DIGITS, long_number, repaired

_value = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode


def json_or_text(body: bytes) -> msgspec.Raw:
    """Return a body as JSON on one line: repaired where that takes no guess, and as a string of its text otherwise."""
    found = _strict(body)
    if found is None:
        try:
            found = _strict(repaired(body)) if body.lstrip(b"\xef\xbb\xbf \t\r\n\0")[:1] == b"{" else None
        except ValueError:
            found = None
    return msgspec.Raw(_encode(body.decode(errors="replace"))) if found is None else found


def _strict(body: bytes) -> msgspec.Raw | None:
    """Return a body that is JSON, without line breaks; None where it is not, or few can read it."""
    try:
        if not body.isascii():
            body.decode()  # which msgspec leaves to whoever reads the text
        if len(body) > MAX_DIGITS and long_number(body):
            return None
        if b"\n" in body or b"\r" in body:  # JSON has them between its values only
            body = body.replace(b"\r", b" ").replace(b"\n", b" ")
        return _value(body)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
