"""The body of an ordinary endpoint's answer as a value in a line of results: whatever it is, it keeps its row. Pure."""

from __future__ import annotations

import msgspec

from ..repair import MAX_DIGITS, long_number, repaired

_value = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode


def json_or_text(body: bytes) -> msgspec.Raw:
    """Return a body as JSON on one line: repaired where that takes no guess, and as a string of its text otherwise."""
    try:
        if not body.isascii():
            body.decode()  # which msgspec leaves to whoever reads the text
        if len(body) <= MAX_DIGITS or not long_number(body):
            return _value(_one_line(body))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        pass
    try:
        if body.lstrip(b"\xef\xbb\xbf \t\r\n\0").startswith(b"{"):
            return _value(_one_line(repaired(body)))
    except (ValueError, RecursionError):
        pass
    return msgspec.Raw(_encode(body.decode(errors="replace")))


def _one_line(body: bytes) -> bytes:
    """Return JSON without line breaks, which it has between its values only."""
    return body.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in body or b"\r" in body else body
