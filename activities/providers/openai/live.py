"""OpenAI's ordinary endpoints, and those of every server that speaks them. Pure, and fast: every row passes here.

Protocol: https://platform.openai.com/docs/api-reference and the types of the `openai` package (2026). Rate limits:
https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from ...output_limits import at_most, output_limit
from ..answer_body import json_or_text
from ..base import CHECK, CHECK_TOKENS, LimitNews
from ..live_headers import call_headers, per_minute, wait_asked
from ..settings import ProviderSettings
from .rows import REQUIRED


class _Line(msgspec.Struct):
    body: msgspec.Raw


class _Response(msgspec.Struct):
    status_code: int
    request_id: str | None
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str
    message: str
    type: str


class _Result(msgspec.Struct):
    custom_id: str
    response: _Response | None
    error: _Error | None = None


class _Model(msgspec.Struct):
    """What a check call takes from a row."""

    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    max_completion_tokens: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    max_tokens: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    max_output_tokens: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Usage(msgspec.Struct):
    total_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


_line = msgspec.json.Decoder(_Line).decode
_answer = msgspec.json.Decoder(_Answer).decode
_model = msgspec.json.Decoder(_Model).decode
_encode = msgspec.json.Encoder().encode

#: The type of the error of a row that nobody answered, by its code: its class follows from it (`errors`).
_TYPES = {
    "timeout": "timeout_error",
    "connection_error": "api_error",
    "answer_too_long": "answer_too_long",
    "never_answered": "never_answered",
}
_OTHERWISE = "invalid_request_error"


class OpenAILive:
    """The ordinary endpoints of one account."""

    endpoints = frozenset(REQUIRED)

    def __init__(self, settings: ProviderSettings) -> None:
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        self.headers: Mapping[str, str] = call_headers(settings, {"authorization": f"Bearer {key}"})
        self._root = settings.url
        self._query = urlsplit(settings.base_url).query

    def url(self, endpoint: str) -> str:
        # The base URL ends with /v1 at OpenAI, and with a deployment's path at Azure; the endpoint follows either.
        path = f"{self._root}{endpoint.removeprefix('/v1')}"
        return f"{path}?{self._query}" if self._query else path

    def body(self, prepared: bytes) -> bytes:
        return bytes(_line(prepared).body)

    def check(self, endpoint: str, body: bytes) -> bytes:
        field = REQUIRED[endpoint]
        content = [{"role": "user", "content": CHECK}] if field == "messages" else CHECK
        taken = {
            name: value if name == "model" else at_most(value, CHECK_TOKENS)
            for name, value in msgspec.structs.asdict(_model(body)).items()
            if value is not msgspec.UNSET
        }
        return _encode({**taken, field: content})

    def line(self, sent_id: str, status: int, request_id: str | None, body: bytes) -> bytes:
        return _encode(_Result(sent_id, _Response(status, request_id, json_or_text(body))))

    def failed_line(self, sent_id: str, code: str, message: str) -> bytes:
        return _encode(_Result(sent_id, None, _Error(code, message, _TYPES.get(code, _OTHERWISE))))

    def output_cap(self, body: bytes) -> int | None:
        return output_limit(body)

    def used_tokens(self, body: bytes) -> int | None:
        try:
            usage = _answer(body).usage
        except (ValueError, RecursionError):
            return None
        if usage is None:
            return None
        if usage.total_tokens is not None:
            return usage.total_tokens
        parts = (usage.prompt_tokens, usage.completion_tokens, usage.input_tokens, usage.output_tokens)
        found = [part for part in parts if part is not None]
        return sum(found) if found else None

    def limit_news(self, status: int, headers: Mapping[str, str]) -> LimitNews:
        get = headers.get
        requests, tokens = get("x-ratelimit-limit-requests"), get("x-ratelimit-limit-tokens")
        if requests is None and tokens is None and status < 400:
            return _NO_NEWS
        left = get("x-ratelimit-remaining-requests"), get("x-ratelimit-remaining-tokens")
        return LimitNews(
            retry_after=wait_asked(status, headers),
            requests_per_minute=per_minute(requests, left[0], get("x-ratelimit-reset-requests")),
            tokens_per_minute=per_minute(tokens, left[1], get("x-ratelimit-reset-tokens")),
        )


_NO_NEWS = LimitNews()
