"""Why a provider refuses a call, or failed a batch: its own words, bounded, and never with a key in them."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

from . import parsing
from .error_details import words

#: A provider's own words are kept to this length in errors and in Temporal's history.
MAX_WORDS = 300
#: Of several errors, this many are reported in words.
_MOST = 3

#: Part of a key that is at least this long is taken out of a provider's words.
_PART = 8
#: A key at least this long is random, so that shorter parts of it are its own as well.
_LONG = 20
_LOOKS_LIKE_KEY = re.compile(
    r"""
    \b[Bb]earer\s+[^\s"',;]+
    | \b(?:sk|pk|rk|gsk|xai|fw|hf|nvapi|pplx|tgp|whsec)[-_][\w*•….-]{2,}[\w*•]
    | \bAIza[\w-]{6,}
    | [\w-]*[*•]{3,}[\w-]*[0-9A-Za-z]{3}  # masked: ab****cd
    | (?=\S*\d)[\w-]+(?:…|\.{3})[\w-]*[0-9A-Za-z]{3}\b
    """,
    re.VERBOSE,
)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"\s*(?:<!doctype|<html|<\?xml|<head|<body|<!--)", re.IGNORECASE)


@dataclass(frozen=True)
class Complaint:
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


def explain(content: bytes) -> Complaint:
    """Return the code and the words of a refusal's body: JSON of any shape, plain text, or a web page."""
    if (shown := page(content)) is not None:
        return Complaint(words=shown)
    try:
        found = words(parsing.decode(content))
    except parsing.Unreadable:
        found = words(_text(content))
    return Complaint(code=found.code or found.type, words=found.message)


def _text(content: bytes) -> str:
    """Return a body that is no JSON as text; empty if it is no text either."""
    text = content[: 100 * MAX_WORDS].decode("utf-8", "replace")
    return "" if "\ufffd" in text or any(char < " " and char not in "\r\n\t" for char in text) else text


def complaints(value: Any) -> list[Complaint]:
    """Return the errors that a batch failed with, in whatever shape they are; those that say nothing are left out."""
    listed = value.get("data") if isinstance(value, dict) else value
    found = []
    for one in listed if isinstance(listed, list) else [value]:
        said, place = words(one), parsing.mapping(one)
        complaint = Complaint(
            code=parsing.word(said.code or said.type),
            words=said.message,
            param=parsing.word(place.get("param")),
            line=parsing.count(place.get("line")) or None,
        )
        if complaint.code or complaint.words or complaint.param:
            found.append(complaint)
    return found


def sentence(found: list[Complaint]) -> str | None:
    """Return several errors in a sentence of bounded length; None if none of them says anything."""
    said = list(dict.fromkeys(text for one in found if (text := str(one))))
    if not said:
        return None
    more = f" (and {len(said) - _MOST} more)" if len(said) > _MOST else ""
    return "; ".join(short(text, 200) for text in said[:_MOST]) + more


def page(content: bytes) -> str | None:
    """Return what a web page is about, None if it is something else."""
    text = content[: 100 * MAX_WORDS].decode("utf-8", "replace")
    if not _MARKUP.match(text):
        return None
    title = _TITLE.search(text)
    said = " ".join(html.unescape(title[1]).split()) if title else ""
    return f'a web page, "{said}"' if said else "a web page"


def scrub(said: str, key: str, most: int = MAX_WORDS) -> str:
    """Return words in one line of bounded length, without the key, parts of it, and whatever looks like one."""
    said = " ".join(_without(parsing.clean(said), key).split())
    return short(_LOOKS_LIKE_KEY.sub("[key]", said), most)


def short(said: str, most: int = MAX_WORDS) -> str:
    """Return words of bounded length."""
    return said if len(said) <= most else said[: most - 1] + "…"


def _without(said: str, key: str) -> str:
    """Take out every run of characters that the key has as well, from 8 on; of a long key its ends, from 4 on."""
    if len(key) < _PART:
        return said.replace(key, "[key]") if len(key) >= 4 else said
    parts = {key[at : at + _PART] for at in range(len(key) - _PART + 1)}
    hidden = bytearray(len(said))
    for at in range(len(said) - _PART + 1):
        if said[at : at + _PART] in parts:
            hidden[at : at + _PART] = b"\1" * _PART
    if len(key) >= _LONG:
        for end in (key[:4], key[-4:]):
            for found in re.finditer(rf"(?<!\w){re.escape(end)}(?!\w)", said):
                hidden[found.start() : found.end()] = b"\1" * 4
    kept, was = [], False
    for char, hides in zip(said, hidden, strict=True):
        if not hides:
            kept.append(char)
        elif not was:
            kept.append("[key]")
        was = bool(hides)
    return "".join(kept)
