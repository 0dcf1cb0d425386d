"""Why a provider refuses a call, or failed a batch: the errors that it reports, in its own words. Pure."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

from . import parsing
from .error_details import error_details
from .redaction import MAX_CHARS, shortened

#: Of several errors, this many are reported in words.
_MOST = 3
#: Bytes of a body that may be JSON of a refusal; of a longer one the beginning is quoted.
_MOST_BYTES = 1 << 20

_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"\s*(?:<!doctype|<html|<\?xml|<head|<body|<!--)", re.IGNORECASE)


@dataclass(frozen=True)
class ReportedError:
    """One error that a provider reports."""

    code: str | None = None
    words: str | None = None
    param: str | None = None  #: The field that it is about.
    line: int | None = None  #: The line of an input file that it is about, from 1.

    def __str__(self) -> str:
        """The words, or else the code; empty if there is neither."""
        said = self.words or self.code or ""
        if self.line and said:
            return f"line {self.line}: {said}"
        return said


def refusal(content: bytes) -> ReportedError:
    """Return the code and the words of a refusal's body: JSON of any shape, plain text, or a web page."""
    if (shown := page(content)) is not None:
        return ReportedError(words=shown)
    try:
        found = error_details(_text(content) if len(content) > _MOST_BYTES else parsing.decode(content))
    except parsing.Unreadable:
        found = error_details(_text(content))
    return ReportedError(code=found.code or found.type, words=found.message)


def _text(content: bytes) -> str:
    """Return a body that is not JSON as text; empty if it is not text either."""
    text = content[: 100 * MAX_CHARS].decode("utf-8", "replace")
    return "" if "\ufffd" in text or any(char < " " and char not in "\r\n\t" for char in text) else text


def reported_errors(value: Any) -> list[ReportedError]:
    """Return the errors that a batch failed with, in whatever shape they are; those that say nothing are left out."""
    listed = value.get("data") if isinstance(value, dict) else value
    found = []
    for one in listed if isinstance(listed, list) else [value]:
        details, place = error_details(one), parsing.mapping(one)
        error = ReportedError(
            code=parsing.text(details.code or details.type),
            words=details.message,
            param=parsing.text(place.get("param")),
            line=parsing.count(place.get("line")) or None,
        )
        if error.code or error.words or error.param:
            found.append(error)
    return found


def sentence(found: list[ReportedError]) -> str | None:
    """Return several errors in a sentence of bounded length; None if none of them says anything."""
    said = list(dict.fromkeys(text for one in found if (text := str(one))))
    if not said:
        return None
    more = f" (and {len(said) - _MOST} more)" if len(said) > _MOST else ""
    return "; ".join(shortened(text, 200) for text in said[:_MOST]) + more


def page(content: bytes) -> str | None:
    """Return what a web page is about, None if it is something else."""
    text = content[: 100 * MAX_CHARS].decode("utf-8", "replace")
    if not _MARKUP.match(text):
        return None
    title = _TITLE.search(text)
    said = " ".join(html.unescape(title[1]).split()) if title else ""
    return f'a web page, "{said}"' if said else "a web page"
