"""Anthropic's Messages, one by one. Pure, and fast: every row passes here.

Protocol: https://platform.claude.com/docs/en/api/messages and the types of the `anthropic` package (2026). Rate limits:
https://platform.claude.com/docs/en/api/rate-limits#response-headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ...output_limits import at_most, output_limit
from ..answer_body import json_or_text
from ..base import CHECK, CHECK_TOKENS, LimitNews
from ..live_headers import call_headers, wait_asked
from ..parsing import number
from ..raw_json import first_byte, short_value
from ..settings import ProviderSettings
from .rows import CHAT, MESSAGES

_NULL = msgspec.Raw(b"null")


class _Line(msgspec.Struct):
    params: msgspec.Raw


class _Result(msgspec.Struct, omit_defaults=True):
    type: str
    message: Any = None
    error: Any = None
    status_code: int | None = None
    request_id: str | None = None


class _ResultLine(msgspec.Struct):
    custom_id: str
    result: _Result


class _Model(msgspec.Struct):
    """What a check call takes from a row."""

    model: msgspec.Raw = _NULL
    max_tokens: msgspec.Raw = msgspec.Raw(b"1")


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens: int | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


class _Inner(msgspec.Struct):
    type: str


class _Error(msgspec.Struct):
    error: _Inner


_line = msgspec.json.Decoder(_Line).decode
_answer = msgspec.json.Decoder(_Answer).decode
_model = msgspec.json.Decoder(_Model).decode
_error = msgspec.json.Decoder(_Error).decode
_encode = msgspec.json.Encoder().encode

#: The type of an error that names none, by its status (https://platform.claude.com/docs/en/api/errors).
_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
#: The same of a row that nobody answered, by its code.
_CODES = {
    "timeout": "timeout_error",
    "connection_error": "api_error",
    "answer_too_long": "answer_too_long",
    "never_answered": "never_answered",
}


class AnthropicLive:
    """The Messages of one workspace.

    Args:
        settings: the provider's settings, key included.
        headers: what its protocol asks of every call.
    """

    endpoints = frozenset({CHAT, MESSAGES})

    def __init__(self, settings: ProviderSettings, headers: Mapping[str, str]) -> None:
        self.headers: Mapping[str, str] = call_headers(settings, headers)
        query = urlsplit(settings.base_url).query
        self._url = f"{settings.url}{MESSAGES}" + (f"?{query}" if query else "")

    def url(self, endpoint: str) -> str:
        return self._url  # chat rows are translated when they are prepared

    def body(self, prepared: bytes) -> bytes:
        return bytes(_line(prepared).params)

    def check(self, endpoint: str, body: bytes) -> bytes:
        taken = _model(body)
        messages = [{"role": "user", "content": CHECK}]
        limit = at_most(taken.max_tokens, CHECK_TOKENS)
        return _encode({"model": taken.model, "max_tokens": limit, "messages": messages})

    def line(self, sent_id: str, status: int, request_id: str | None, body: bytes) -> bytes:
        found = json_or_text(body)
        if 200 <= status < 300 and first_byte(found) == b"{":
            result = _Result("succeeded", message=found, request_id=request_id)
        else:
            result = _Result("errored", error=_error_of(status, found), status_code=status, request_id=request_id)
        return _encode(_ResultLine(sent_id, result))

    def failed_line(self, sent_id: str, code: str, message: str) -> bytes:
        said = {"type": _CODES.get(code, "invalid_request_error"), "code": code, "message": message}
        return _encode(_ResultLine(sent_id, _Result("errored", error={"type": "error", "error": said})))

    def output_cap(self, body: bytes) -> int | None:
        return output_limit(body)

    def used_tokens(self, body: bytes) -> int | None:
        try:
            usage = _answer(body).usage
        except (ValueError, RecursionError):
            return None
        if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
            return None
        # What is read from the cache does not count against the limit.
        return (usage.input_tokens or 0) + (usage.cache_creation_input_tokens or 0) + (usage.output_tokens or 0)

    def limit_news(self, status: int, headers: Mapping[str, str]) -> LimitNews:
        get = headers.get
        requests, tokens = get(f"{_LIMITS}requests-limit"), get(f"{_LIMITS}tokens-limit")
        if requests is None and tokens is None and status < 400:
            return _NO_NEWS
        return LimitNews(
            retry_after=wait_asked(status, headers),
            requests_per_minute=number(requests),
            tokens_per_minute=number(tokens),
        )


_LIMITS = "anthropic-ratelimit-"
_NO_NEWS = LimitNews()


def _error_of(status: int, body: msgspec.Raw) -> Any:
    """Return an answer without a message as an error whose type says its class, in Anthropic's shape."""
    try:
        _error(body)
    except msgspec.DecodeError:
        pass
    else:
        return body
    if 200 <= status < 300:
        kind = "unexpected_response"
    else:
        kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    value = short_value(body)
    said = value if isinstance(value, dict) else {"message": value if isinstance(value, str) and value else None}
    return {"type": "error", "error": {**said, "type": kind}}
