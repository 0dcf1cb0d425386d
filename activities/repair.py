"""Lines that are nearly JSON: repaired where that takes no guess; else the ids that can be read. Pure.

Only what JSON does not allow is changed, so what is right in a line keeps its bytes:

- a byte that is not UTF-8, and half of a surrogate pair, become U+FFFD;
- NaN and the infinities become null;
- control characters within a string, and backslashes that escape nothing, are escaped; outside strings, control
  characters become spaces;
- what is nested deeper than JSON's readers take, and integers longer than they take, become strings of their text;
- what comes before the first brace and after the last one, such as a byte-order mark, is dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

#: Levels that are kept: pydantic reads 200, of which a result row has two of its own.
MAX_DEPTH = 190
#: Digits of an integer that are kept: Python reads 4,300.
MAX_DIGITS = 4000
_STEP = MAX_DIGITS // 2

_TOKEN = re.compile(
    r'"(?:[^"\\]+|\\.)*+"'  # a string
    r"|[\[\]{}]"
    r"|[+-]?(?:nan|inf(?:inity)?)\b"
    rf"|(?<![0-9.eE+-])-?[0-9]{{{MAX_DIGITS},}}+(?![.eE])"
    r"|[\x00-\x1f]+",
    re.DOTALL | re.IGNORECASE,
)
#: What may not be in a string as it is, and every escape, so that none is entered in its middle.
_IN_STRING = re.compile(
    r"(?P<good>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|\\[\"\\/bfnrt])"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|(?P<bad>\\)"
    r"|(?P<control>[\x00-\x1f])"
)
_DECODER = json.JSONDecoder()
_STRING = re.compile(rb'"(?:[^"\\]+|\\.)*+"', re.DOTALL)
_ID = re.compile(rb'"custom_id"\s*:\s*(?:("(?:[^"\\]+|\\.)*+")|(\d+))', re.DOTALL)


def repaired(line: bytes) -> bytes:
    """Return a line as JSON in UTF-8, without a line break. Whether it is JSON now, its parser says.

    Raises:
        ValueError: there is no object in it.
    """
    text = line.decode(errors="replace")
    start, end = text.find("{"), text.rfind("}") + 1
    if start < 0 or end <= start:
        raise ValueError("no object")
    parts: list[str] = []
    done, depth, deep = start, 0, 0  # deep: where what is too deep begins
    for found in _TOKEN.finditer(text, start, end):
        token = found[0]
        if token in ("[", "{"):
            depth += 1
            if depth == MAX_DEPTH + 1:
                parts.append(text[done : found.start()])
                deep = len(parts)
                done = found.start()
            continue
        if token in ("]", "}"):
            depth -= 1
            if depth == MAX_DEPTH and deep:
                inner = "".join(parts[deep:]) + text[done : found.end()]
                parts[deep:] = [json.dumps(inner, ensure_ascii=False)]
                done, deep = found.end(), 0
            continue
        fixed = _fixed(token)
        if fixed != token:
            parts += [text[done : found.start()], fixed]
            done = found.end()
    parts.append(text[done:end])
    return "".join(parts).encode()


def objects(line: bytes) -> Iterator[bytes]:
    """Yield the objects on a line, repaired: one, or several without line breaks between them.

    Raises:
        ValueError: what follows is not an object.
    """
    text = repaired(line).decode()
    at = 0
    while at >= 0:
        _, end = _DECODER.raw_decode(text, at)
        yield text[at:end].encode()
        at = text.find("{", end)


def _fixed(token: str) -> str:
    if token[0] == '"':
        return _IN_STRING.sub(_escaped, token)
    if token[0] <= "\x1f":
        return " "
    return f'"{token}"' if token[-1].isdecimal() else "null"


def _escaped(found: re.Match[str]) -> str:
    if found["good"]:
        return found[0]
    if found["half"]:
        return "\\ufffd"
    return "\\\\" if found["bad"] else f"\\u{ord(found[0]):04x}"


def long_number(line: bytes) -> bool:
    """Return whether a line may hold an integer with more digits than JSON's readers take; never False if it does."""
    # A run of so many digits covers one of these places, and half as many bytes from there on.
    return any(line[at : at + _STEP].isdigit() for at in range(_STEP, len(line) - _STEP + 1, _STEP))


def is_open(line: bytes) -> bool:
    """Return whether a line ends within an object that it begins: what follows it may be the rest."""
    if not line.lstrip(b"\xef\xbb\xbf \t\r\0").startswith(b"{"):
        return False
    rest = _STRING.sub(b"", line)
    return b'"' in rest or rest.count(b"{") + rest.count(b"[") > rest.count(b"}") + rest.count(b"]")


def ids(line: bytes) -> list[str]:
    """Return the row ids that a line holds whole, also where the rest of it cannot be read.

    A `"custom_id"` in a text has its quotes escaped, and is not taken for one.
    """
    found = []
    for text, number in _ID.findall(line):
        try:
            found.append(json.loads(_fixed(text.decode(errors="replace"))) if text else number.decode())
        except ValueError:
            continue
    return found
