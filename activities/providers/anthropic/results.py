"""Anthropic's results: rows on their way out. Pure, and fast, because every row passes here.

Protocol: https://platform.claude.com/docs/en/api/messages/batches and the types of the `anthropic` package (2026).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ....contract import ErrorClass, RowStatus
from ..error_details import error_details, no_reason
from ..lenient_struct import LONG, lenient, parsed
from ..outcome import CacheWrites, Outcome, RowFailure, RowResponse, RowTokens
from ..raw_json import first_byte

_NULL = msgspec.Raw(b"null")


class _Result(msgspec.Struct):
    type: str | None = None
    message: msgspec.Raw = _NULL
    error: Any = None
    request_id: str | None = None  # in direct mode only


class _ResultLine(msgspec.Struct):
    custom_id: str
    result: _Result


class _Thinking(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    __whole__ = True  # without one of its counts the rest would look like the whole

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
    type: str | None = None
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
    """Return what a line of the results says; a field of an odd type costs only itself.

    Raises:
        ValueError: the line is not a result (msgspec's errors are ValueErrors).
    """
    try:
        found = _result(line) if len(line) <= LONG else lenient(line, _ResultLine)
    except msgspec.ValidationError:
        found = lenient(line, _ResultLine)
    except RecursionError:
        raise ValueError("nested too deep") from None
    result = found.result
    if result.type == "succeeded" or (result.type is None and first_byte(result.message) == b"{"):
        return _succeeded(found.custom_id, result.message, result.request_id)
    if result.type in _UNANSWERED:
        status, kind, message = _UNANSWERED[result.type]
        failure = RowFailure(type=kind, code=result.type, message=message)
        return Outcome(custom_id=found.custom_id, status=status, failure=failure)
    if result.type is None and not result.error:
        raise ValueError("neither message nor error")
    return Outcome(custom_id=found.custom_id, status=RowStatus.FAILED, failure=_failure(result.error, result.type))


def _failure(error: Any, otherwise: str | None) -> RowFailure:
    """Return a failure in Anthropic's words.

    Args:
        otherwise: its code where there is none.
    """
    kind, code, message = error_details(error)
    return RowFailure(
        type=error_class(kind, code, message), code=code or kind or otherwise, message=message or no_reason(None)
    )


def _succeeded(custom_id: str, body: msgspec.Raw, request_id: str | None) -> Outcome:
    try:
        answer = _answer(body) if len(memoryview(body)) <= LONG else lenient(body, _Message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = _odd(body)
    blocks = answer.content or []
    texts = [block.text for block in blocks if block.type == "text" and isinstance(block.text, str)]
    failure = None
    if answer.stop_reason == "refusal":
        message = "Anthropic's safety classifiers ended it."
        failure = RowFailure(type=ErrorClass.CONTENT_FILTERED, code="refusal", message=message)
    elif answer.content is None:
        failure = _unanswered(answer, body)
    return Outcome(
        custom_id=custom_id,
        status=RowStatus.FAILED if failure else RowStatus.SUCCEEDED,
        # No block at all is an empty answer; other blocks without text (a tool's call) are none.
        text="".join(texts) if texts or answer.content == [] else None,
        model=answer.model,
        tokens=_tokens(answer.usage),
        cache_writes=_cache_writes(answer.usage),
        response=RowResponse(status_code=200, request_id=request_id, body=body),
        failure=failure,
    )


def _odd(body: msgspec.Raw) -> _Message:
    """Return what can be read of a message that is not quite what it should be; it is kept whole in any case."""
    try:
        return lenient(body, _Message)
    except msgspec.DecodeError:
        return _Message()


def _unanswered(answer: _Message, body: msgspec.Raw) -> RowFailure | None:
    """Return the failure of a success that holds no answer; None where it may hold one of another shape."""
    message = parsed(body)
    if answer.type == "error":
        return _failure(message, "error")
    if message in (None, {}):
        # Whether it was paid, nobody knows, so it is not bought again by itself.
        return RowFailure(
            type=ErrorClass.OTHER, code="empty_response", message="Anthropic reports success, and gives no message."
        )
    return None


def _tokens(usage: _Usage | None) -> RowTokens | None:
    if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
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
