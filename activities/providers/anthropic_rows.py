"""Anthropic's rows: requests on their way in, results on their way out. Pure, and fast, because every row passes here.

Protocol: https://platform.claude.com/docs/en/api/messages/batches and the types of the `anthropic` package (2026).

- `{custom_id, params}`, and every row of a spec whose endpoint is `/v1/messages`, is Anthropic's own: it goes through
  as it is written, with the spec's model and params in its gaps.
- `{custom_id, method, url, body}` and `{custom_id, input}` under `/v1/chat/completions` are OpenAI's chat, and so are
  the spec's params for them: they are translated as far as Anthropic has the same thing (see anthropic_chat).
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

from ...contract import BatchSpec, ErrorClass, RowStatus
from ..rows import Row, RowRefused
from .anthropic_chat import first_byte, is_null, translate, value_of
from .base import CacheWrites, Outcome, RowFailure, RowResponse, RowTokens

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
#: Anthropic wants a max_tokens in every request, chat rows need none: this is the most that every Claude model takes
#: (Claude 3's is the lowest: https://platform.claude.com/docs/en/about-claude/models/overview).
DEFAULT_MAX_TOKENS = 4096
#: Bytes of the longest id that a row is sent under: 16 of the name, a hyphen, and 5 of 99,999.
MAX_WIRE_ID = 22

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Wire(msgspec.Struct):
    custom_id: str
    params: msgspec.Raw


class _Model(msgspec.Struct):
    model: str | None = None


class _Line(msgspec.Struct):
    params: _Model


_wire = msgspec.json.Decoder(_Wire).decode
_line = msgspec.json.Decoder(_Line).decode
_RAW_DEFAULT = msgspec.Raw(_encode(DEFAULT_MAX_TOKENS))
_FRAME = len(_encode(_Wire("", msgspec.Raw(b""))))

# --- ids ---

_ID = re.compile(rb'"custom_id"\s*:\s*"([^"\\]*)"')


@lru_cache(maxsize=1024)
def name_of(seal: str) -> str:
    """Return the name that all rows of one provider batch carry in their ids, the only place Anthropic has for it."""
    return sha256(seal.encode()).hexdigest()[:16]


def wire_id(seal: str, row: int) -> str:
    """Return a row's id at Anthropic, which takes 1 to 64 of `a-z A-Z 0-9 _ -`: its batch's name and its number."""
    return f"{name_of(seal)}-{row}"


def name_on(line: bytes) -> str | None:
    """Return the name on a result; "" for an id that was never Durabatch's, None where no id can be read."""
    found = _ID.search(line)
    return found[1].decode(errors="replace").rpartition("-")[0] if found else None


def owns(line: bytes, seal: str) -> bool | None:
    """Return whether a result belongs to the batch with this marker, None where it does not tell."""
    name = name_on(line)
    return None if name is None else name == name_of(seal)


# --- requests ---


def prepare(row: Row, spec: BatchSpec) -> bytes:
    """Return the row as one of a create's `requests`.

    Raises:
        RowRefused: it would be refused, or would mean something else than it says.
    """
    if row.url is not None and row.url != spec.endpoint:
        raise RowRefused("url", f"differs from the batch's endpoint {spec.endpoint}", row.custom_id)
    try:
        native = row.shape == "anthropic" or spec.endpoint == MESSAGES
        params = _native(row, spec) if native else _translated(row, spec)
    except RowRefused as refused:
        raise RowRefused(refused.field, refused.reason, row.custom_id) from None
    # As long as it can be under any id, so that the plan counts the bytes that are sent.
    return _encode(_Wire(row.custom_id, params)).ljust(_FRAME + MAX_WIRE_ID + len(memoryview(params)))


def wire(prepared: bytes, custom_id: str) -> bytes:
    """Return a prepared row under another id."""
    return _encode(_Wire(custom_id, _wire(prepared).params))


def model_of(prepared: bytes) -> str | None:
    """Return the model that a prepared row asks for."""
    return _line(prepared).params.model


def _native(row: Row, spec: BatchSpec) -> msgspec.Raw:
    place, own = _written(row)
    gaps = {name: value for name, value in _defaults(spec).items() if name not in own or is_null(own, name)}
    if row.shape == "short":
        gaps.setdefault("max_tokens", _RAW_DEFAULT)
    params = {**own, **gaps}
    if value_of(params, "stream"):
        raise RowRefused(f"{place}stream", "must not be true: a batch cannot stream")
    if "messages" in params and first_byte(params["messages"]) != b"[":
        raise RowRefused(f"{place}messages", "must be a list")
    _check(params, place)
    return msgspec.Raw(_encode(params)) if gaps or row.shape == "short" else row.body


def _translated(row: Row, spec: BatchSpec) -> msgspec.Raw:
    place, own = _written(row)
    params = {**translate(_defaults(spec), "spec.params."), **translate(own, place)}
    params.setdefault("max_tokens", _RAW_DEFAULT)
    _check(params, place)
    return msgspec.Raw(_encode(params))


def _written(row: Row) -> tuple[str, dict[str, msgspec.Raw]]:
    """Return the row's own fields, and how a report begins their names."""
    if row.shape == "short":
        first = first_byte(row.body)
        if first not in (b'"', b"["):
            raise RowRefused("input", "must be a string or a list of messages")
        content: Any = row.body if first == b"[" else [{"role": "user", "content": row.body}]
        return "", {"messages": msgspec.Raw(_encode(content))}
    place = "params" if row.shape == "anthropic" else "body"
    try:
        return f"{place}.", _fields(row.body)
    except msgspec.ValidationError:
        raise RowRefused(place, "must be an object") from None


def _defaults(spec: BatchSpec) -> dict[str, msgspec.Raw]:
    defaults = {**({} if spec.model is None else {"model": spec.model}), **spec.params}
    return {name: msgspec.Raw(_encode(value)) for name, value in defaults.items()}


def _check(params: dict[str, Any], place: str) -> None:
    """Refuse what cannot succeed, and a max_tokens for which Anthropic refuses the whole batch."""
    model = value_of(params, "model")
    if model is None:
        raise RowRefused(f"{place}model", "is missing, and the batch names none")
    if not isinstance(model, str) or not model:
        raise RowRefused(f"{place}model", "must be a model's name")
    most = value_of(params, "max_tokens")
    if most is None:
        raise RowRefused(f"{place}max_tokens", "is missing, and Anthropic needs it")
    if type(most) is not int or most < 1:
        raise RowRefused(f"{place}max_tokens", "must be a whole number from 1 on")
    if "messages" not in params:
        raise RowRefused(f"{place}messages", "is missing, and Anthropic needs it")


# --- results ---


_NULL = msgspec.Raw(b"null")


class _Result(msgspec.Struct):
    type: str
    message: msgspec.Raw = _NULL
    error: Any = None


class _ResultLine(msgspec.Struct):
    custom_id: str
    result: _Result


class _Thinking(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: Any = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _Thinking | None = None


class _Block(msgspec.Struct):
    type: str | None = None
    text: Any = None


class _Message(msgspec.Struct):
    model: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None


_result = msgspec.json.Decoder(_ResultLine).decode
_answer = msgspec.json.Decoder(_Message).decode

#: What became of a row that has no answer.
_UNANSWERED = {
    "canceled": (RowStatus.CANCELED, ErrorClass.CANCELED, "The batch was cancelled before this row was processed."),
    "expired": (RowStatus.EXPIRED, ErrorClass.EXPIRED, "The batch expired before this row was processed."),
}


def outcome(line: bytes) -> Outcome:
    """Return what a line of the results says.

    Raises:
        ValueError: the line is no result (msgspec's errors are ValueErrors).
    """
    found = _result(line)
    result = found.result
    if result.type == "succeeded":
        return _succeeded(found.custom_id, result.message)
    if result.type in _UNANSWERED:
        status, kind, message = _UNANSWERED[result.type]
        failure = RowFailure(type=kind, code=result.type, message=message)
        return Outcome(custom_id=found.custom_id, status=status, failure=failure)
    error, code, words = told(result.error)
    failure = RowFailure(type=error_class(error, code, words), code=code or error or result.type, message=words or "")
    return Outcome(custom_id=found.custom_id, status=RowStatus.FAILED, failure=failure)


def _succeeded(custom_id: str, body: msgspec.Raw) -> Outcome:
    try:
        answer = _answer(body)
    except msgspec.DecodeError:
        # The success stands even where its message has a shape that is new to us: it is kept whole, without text.
        answer = _Message()
    blocks = answer.content or []
    texts = [block.text for block in blocks if block.type == "text" and isinstance(block.text, str)]
    refused = answer.stop_reason == "refusal"
    return Outcome(
        custom_id=custom_id,
        status=RowStatus.FAILED if refused else RowStatus.SUCCEEDED,
        # No block at all is an empty answer; other blocks without text (a tool's call) are none.
        text="".join(texts) if texts or answer.content == [] else None,
        model=answer.model,
        tokens=_tokens(answer.usage),
        cache_writes=_cache_writes(answer.usage),
        response=RowResponse(status_code=200, request_id=None, body=body),
        failure=RowFailure(
            type=ErrorClass.CONTENT_FILTERED, code="refusal", message="Anthropic's safety classifiers ended it."
        )
        if refused
        else None,
    )


def _tokens(usage: _Usage | None) -> RowTokens | None:
    if usage is None:
        return None
    cached = usage.cache_read_input_tokens or 0
    details = usage.output_tokens_details
    return RowTokens(
        # Anthropic counts the three apart; their sum is the prompt (anthropic.types.Message.usage).
        input_tokens=(usage.input_tokens or 0) + (usage.cache_creation_input_tokens or 0) + cached,
        cached_input_tokens=cached,
        output_tokens=usage.output_tokens or 0,
        reasoning_tokens=(details.thinking_tokens or 0) if details else 0,
    )


def _cache_writes(usage: _Usage | None) -> CacheWrites | None:
    if usage is None or not usage.cache_creation_input_tokens:
        return None
    # Only the price hangs on it, so a shape that is new to us must not cost the row its text.
    kept = usage.cache_creation.get("ephemeral_1h_input_tokens") if isinstance(usage.cache_creation, dict) else None
    return CacheWrites(tokens=usage.cache_creation_input_tokens, hour_tokens=kept if isinstance(kept, int) else 0)


def told(error: Any) -> tuple[str | None, str | None, str | None]:
    """Return (type, code, message) of an error, in its envelope `{"type": "error", "error": {…}}` or without."""
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    if not isinstance(error, dict):
        return None, None, None
    details = error.get("details")
    words = (error.get("type"), details.get("error_code") if isinstance(details, dict) else None, error.get("message"))
    kind, code, message = (word if isinstance(word, str) else None for word in words)
    return kind, code, message


#: Anthropic's error types: https://platform.claude.com/docs/en/api/errors and anthropic.types.shared.ErrorType.
_TYPES = {
    "invalid_request_error": ErrorClass.INVALID_REQUEST,
    "request_too_large": ErrorClass.INVALID_REQUEST,
    "authentication_error": ErrorClass.AUTHENTICATION,
    "permission_error": ErrorClass.AUTHENTICATION,
    "not_found_error": ErrorClass.NOT_FOUND,
    "billing_error": ErrorClass.QUOTA_EXHAUSTED,
    "rate_limit_error": ErrorClass.RATE_LIMITED,
    "api_error": ErrorClass.SERVER_ERROR,
    "overloaded_error": ErrorClass.SERVER_ERROR,
    "timeout_error": ErrorClass.TIMEOUT,
}


def error_class(kind: str | None, code: str | None, message: str | None) -> ErrorClass:
    """Return the class of a row's error from its type, the code that some types have besides, and its words."""
    # A spent budget comes as a rate limit or a billing error, and is worth no other try before somebody pays.
    if code and code.endswith("spend_limit_reached"):
        return ErrorClass.QUOTA_EXHAUSTED
    found = _TYPES.get(kind or "", ErrorClass.OTHER)
    # Only words tell these from other invalid requests, and they cost no more than a class if Anthropic changes them.
    long = ("prompt is too long", "exceed context limit", "maximum context length")
    if found is ErrorClass.INVALID_REQUEST and any(words in (message or "") for words in long):
        return ErrorClass.CONTEXT_LENGTH
    return found
