"""Takes secrets out of a provider's words before they are logged, raised or kept in Temporal's history. Pure."""

from __future__ import annotations

import re

from . import parsing

#: A provider's own words are kept to this length in errors and in Temporal's history.
MAX_CHARS = 300
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


def redacted(words: str, key: str, most: int = MAX_CHARS) -> str:
    """Return words in one line of bounded length, without the key, parts of it, and whatever looks like one."""
    line = " ".join(_without(parsing.encodable(words), key).split())
    return shortened(_LOOKS_LIKE_KEY.sub("[key]", line), most)


def shortened(words: str, most: int = MAX_CHARS) -> str:
    """Return words of bounded length."""
    return words if len(words) <= most else words[: most - 1] + "…"


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
