"""What a path in a store may be, and how paths and URIs are shown and taken apart. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from ...contract import InvalidSpec
from ._backend import RESERVED

#: What no path may hold: control characters; the backslash, a separator elsewhere; and the percent sign, so that no
#: path can turn into another one wherever somebody decodes it once more.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\%]")
#: What file URIs may hold unquoted, beside letters, digits and _.-~ (RFC 3986, "pchar", and the slash).
_SAFE = "/:@!$&'()*+,;="


def problem(path: str) -> str | None:
    """Say what is wrong with a path, None if nothing is."""
    segments = path.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        return "has an empty, . or .. segment"
    if _FORBIDDEN.search(path):
        return "has a control character, a backslash or a percent sign"
    if is_temporary(path):
        return f"has a segment that begins with {RESERVED}"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "is not Unicode text"
    return None


def is_temporary(path: str) -> bool:
    return any(segment.startswith(RESERVED) for segment in path.split("/"))


def check(path: str) -> str:
    wrong = problem(path)
    if wrong:
        raise InvalidSpec(f"The path {shown(path)} cannot be in a store: it {wrong}.")
    return path


def shown(text: str) -> str:
    """Quote somebody's text for a message: bounded, and without whatever credentials a URL may carry."""
    return repr(re.sub(r"//[^/@]*@", "//…@", text.partition("?")[0])[:200])


def file_uri(path: str) -> str:
    """Return the URI of an absolute path."""
    return "file://" + quote(path, safe=_SAFE)


def file_path(uri: str) -> str | None:
    """Return the absolute path of a file URI, decoded once; None if it is not one, or names a host."""
    match = re.fullmatch(r"file://(?:localhost)?(/[^?#]*)", uri, re.IGNORECASE | re.DOTALL)
    if match is None:
        return None
    try:
        return unquote(match[1], errors="strict")
    except UnicodeDecodeError:
        return None
