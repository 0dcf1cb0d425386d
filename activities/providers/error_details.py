"""A provider's own words about a failure, wherever its answer keeps them. Pure."""

from __future__ import annotations

import contextlib
import html
import re
from typing import Any, NamedTuple

import msgspec

from ..json_shape import has_many_values

#: Fields that hold words, the most telling first: OpenAI's and Anthropic's, FastAPI's (`detail`, `msg`), OAuth's, those
#: of problem details (RFC 9457), and what proxies write.
_FIELDS = (
    "message",
    "error",
    "detail",
    "details",
    "msg",
    "error_message",
    "error_description",
    "errors",
    "title",
    "reason",
)
#: Characters of an answer that is plain text or a page; the words of a field are kept as they are.
_MAX_TEXT = 1000
_MAX_PAGE = 20_000  #: Characters of a page that are looked at.
#: Items of a list that are quoted, and levels that are looked into.
_MAX_ITEMS = 5
_MAX_LEVELS = 6

_TAG = re.compile(r"<(?:(script|style)\b.*?</\1|!--.*?--|[^>]*)>", re.DOTALL | re.IGNORECASE)
_decode = msgspec.json.Decoder().decode


class ErrorDetails(NamedTuple):
    """What a provider says of a failure; None for what it leaves out."""

    type: str | None = None
    code: str | None = None
    message: str | None = None

    @property
    def http_status(self) -> int | None:
        """The HTTP status that the code is, where it is one."""
        return int(self.code) if self.code and re.fullmatch(r"[45]\d\d", self.code) else None


NO_DETAILS = ErrorDetails()


def no_reason(status: int | None) -> str:
    """Return the sentence for a failure of which the provider says nothing."""
    return "The provider gave no reason." if status is None else f"HTTP status {status}; the provider gave no reason."


def error_details(value: Any) -> ErrorDetails:
    """Return what the body of a failure, or its `error`, says: an object, a list of them, plain text or a page."""
    return _details(value, 0)


def _details(value: Any, level: int) -> ErrorDetails:
    if isinstance(value, str):
        return _of_text(value, level)
    if level > _MAX_LEVELS:
        return NO_DETAILS
    if isinstance(value, list):
        found = [_details(item, level + 1) for item in value[:_MAX_ITEMS]]
        first = next((words for words in found if words.type or words.code), NO_DETAILS)
        return first._replace(message="; ".join(words.message for words in found if words.message) or None)
    if not isinstance(value, dict):
        return NO_DETAILS
    # `{"error": {…}}` and Anthropic's `{"type": "error", "error": {…}}` are envelopes.
    error = value.get("error")
    inner = _details(error, level + 1) if error else NO_DETAILS
    kind, details = value.get("type"), value.get("details")
    if not kind or not isinstance(kind, str):
        kind = value.get("status") if isinstance(value.get("status"), str) else None
    code = _name(value.get("code")) or (_name(details.get("error_code")) if isinstance(details, dict) else None)
    return ErrorDetails(
        inner.type or (None if kind == "error" else kind),
        inner.code or code,
        inner.message or _message(value, level),
    )


def _message(value: dict[str, Any], level: int) -> str | None:
    message = None
    for name in _FIELDS:
        given = value.get(name)
        if given and (message := _details(given, level + 1).message):
            break
    place = value.get("loc")
    if message and isinstance(place, list):  # FastAPI's: which field, and what is wrong with it
        message = f"{'.'.join(str(part) for part in place)}: {message}"
    metadata = value.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if isinstance(raw, str) and raw.strip():  # OpenRouter's: what the server behind it said
        message = f"{message} ({raw.strip()})" if message else raw.strip()
    return message


def _of_text(text: str, level: int) -> ErrorDetails:
    bare = text.strip()
    if level:
        return ErrorDetails(message=text if bare else None)
    if bare[:1] in ("{", "["):
        with contextlib.suppress(msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            held = bare.encode()
            if not has_many_values(held) and (found := _details(_decode(held), 1)).message:
                return found
    if bare[:1] == "<":
        bare = " ".join(html.unescape(_TAG.sub(" ", bare[:_MAX_PAGE])).split())
    return ErrorDetails(message=(bare if len(bare) <= _MAX_TEXT else f"{bare[:_MAX_TEXT]}…") or None)


def _name(value: Any) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9 else None
