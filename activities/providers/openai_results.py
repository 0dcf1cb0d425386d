"""OpenAI's results: rows on their way out. Pure, and fast, because every row passes here."""

from __future__ import annotations

from typing import Any

import msgspec

from ...contract import ErrorClass, RowStatus
from .base import Outcome, RowFailure, RowResponse, RowTokens
from .openai_rows import first_byte

_NULL = msgspec.Raw(b"null")


class _Response(msgspec.Struct):
    status_code: int | None = None
    request_id: str | None = None
    body: msgspec.Raw = _NULL  # (msgspec takes no union with Raw)


class _Error(msgspec.Struct):
    code: str | int | None = None
    type: str | None = None
    message: str | None = None


class _Result(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    # Chat completions and embeddings say prompt/completion, Responses says input/output.
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Message(msgspec.Struct):
    content: Any = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Part(msgspec.Struct):
    type: str | None = None
    text: Any = None
    refusal: str | None = None


class _Item(msgspec.Struct):
    type: str | None = None
    content: list[_Part] | None = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Answer(msgspec.Struct):
    model: str | None = None
    usage: _Usage | None = None
    choices: list[_Choice] | None = None
    output: list[_Item] | None = None
    status: str | None = None
    incomplete_details: _Incomplete | None = None
    error: _Error | str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error | str | None = None
    message: str | None = None


_result = msgspec.json.Decoder(_Result).decode
_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode
_error_body = msgspec.json.Decoder(_ErrorBody).decode


def outcome(line: bytes) -> Outcome:
    """Return what a line of an output or error file says.

    Raises:
        ValueError: the line is no result (msgspec's errors are ValueErrors).
    """
    found = _result(line)
    response = found.response
    first = first_byte(response.body) if response else b""
    if response is None or first == b"n":
        error = found.error
        if error is None and response is None:
            raise ValueError("neither response nor error")
        status = response.status_code if response else None
        return _failed(found.custom_id, status, response, error)
    # A few servers send the body as a string of JSON.
    body = _unwrapped(response.body) if first == b'"' else response.body
    status = 200 if response.status_code is None else response.status_code
    if not 200 <= status < 300:
        return _failed(found.custom_id, status, response, found.error or _body_error(body))
    try:
        answer = _answer(body)
    except msgspec.DecodeError:
        # The provider's 2xx stands even where its body has a shape that is new to us: it is kept whole, without text.
        answer = _Answer()
    failure = _filtered(answer)
    return Outcome(
        custom_id=found.custom_id,
        status=RowStatus.FAILED if failure else RowStatus.SUCCEEDED,
        text=_text(answer),
        model=answer.model,
        tokens=_tokens(answer.usage),
        response=RowResponse(status_code=status, request_id=response.request_id, body=body),
        failure=failure,
    )


def _unwrapped(text: msgspec.Raw) -> msgspec.Raw:
    """Return the JSON that a string holds, on one line as results must be; the string itself where it holds none."""
    try:
        return msgspec.Raw(_encode(msgspec.json.decode(msgspec.json.decode(text))))
    except msgspec.DecodeError:
        return text


def _body_error(body: msgspec.Raw) -> _Error | str | None:
    try:
        parsed = _error_body(body)
    except msgspec.DecodeError:
        return None
    return parsed.error or parsed.message


def _failed(custom_id: str, status: int | None, response: _Response | None, error: _Error | str | None) -> Outcome:
    told = error if isinstance(error, _Error) else _Error(message=error)
    code = str(told.code) if told.code is not None else told.type
    return Outcome(
        custom_id=custom_id,
        status=RowStatus.FAILED,
        response=RowResponse(status_code=status, request_id=response.request_id, body=response.body)
        if response and status is not None
        else None,
        failure=RowFailure(
            type=error_class(status, code, told.message),
            code=code or (f"http_{status}" if status else None),
            message=told.message or "",
        ),
    )


#: Codes that OpenAI and servers like it send; more telling than the HTTP status, so looked at first.
_CODES = {
    "batch_expired": ErrorClass.EXPIRED,
    "batch_cancelled": ErrorClass.CANCELED,
    "request_timeout": ErrorClass.TIMEOUT,
    "timeout": ErrorClass.TIMEOUT,
    "rate_limit_exceeded": ErrorClass.RATE_LIMITED,
    "insufficient_quota": ErrorClass.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": ErrorClass.QUOTA_EXHAUSTED,
    "context_length_exceeded": ErrorClass.CONTEXT_LENGTH,
    "string_above_max_length": ErrorClass.CONTEXT_LENGTH,
    "content_filter": ErrorClass.CONTENT_FILTERED,
    "content_policy_violation": ErrorClass.CONTENT_FILTERED,
    "model_not_found": ErrorClass.NOT_FOUND,
    "invalid_api_key": ErrorClass.AUTHENTICATION,
    "server_error": ErrorClass.SERVER_ERROR,
    "internal_error": ErrorClass.SERVER_ERROR,
    "overloaded": ErrorClass.SERVER_ERROR,
}


def error_class(status: int | None, code: str | None, message: str | None) -> ErrorClass:
    """Return the class of a row's error from its HTTP status, code and words."""
    if code in _CODES:
        return _CODES[code]
    if status is None:
        return ErrorClass.OTHER
    if status == 429:
        return ErrorClass.RATE_LIMITED
    if status in (408, 504):
        return ErrorClass.TIMEOUT
    # A row answered with no HTTP status (0) never reached the model.
    if status == 0 or status >= 500:
        return ErrorClass.SERVER_ERROR
    if status in (401, 403):
        return ErrorClass.AUTHENTICATION
    if status == 404:
        return ErrorClass.NOT_FOUND
    if "maximum context length" in (message or ""):
        return ErrorClass.CONTEXT_LENGTH
    return ErrorClass.INVALID_REQUEST


def _filtered(answer: _Answer) -> RowFailure | None:
    """Return the failure hidden in a 2xx: the content filter's, or a failed response."""
    finish = answer.choices[0].finish_reason if answer.choices else None
    reason = answer.incomplete_details.reason if answer.incomplete_details else None
    if "content_filter" in (finish, reason):
        return RowFailure(
            type=ErrorClass.CONTENT_FILTERED,
            code="content_filter",
            message="The provider's content filter ended it.",
        )
    if answer.status == "failed":
        told = answer.error if isinstance(answer.error, _Error) else _Error(message=answer.error)
        code = str(told.code) if told.code is not None else None
        return RowFailure(type=error_class(500, code, told.message), code=code, message=told.message or "")
    return None


def _text(answer: _Answer) -> str | None:
    if answer.choices:
        choice = answer.choices[0]
        if choice.message is None:
            return choice.text
        content = choice.message.content
        if isinstance(content, list):
            return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
        return content if isinstance(content, str) else choice.message.refusal
    if answer.output is not None:
        parts = [part for item in answer.output for part in item.content or () if item.type == "message"]
        texts = [part.text if isinstance(part.text, str) else part.refusal for part in parts]
        return "".join(text for text in texts if text) if parts else None
    return None


def _tokens(usage: _Usage | None) -> RowTokens | None:
    if usage is None:
        return None
    into = usage.prompt_tokens_details or usage.input_tokens_details
    out = usage.completion_tokens_details or usage.output_tokens_details
    return RowTokens(
        input_tokens=usage.prompt_tokens or usage.input_tokens or 0,
        cached_input_tokens=(into.cached_tokens or 0) if into else 0,
        output_tokens=usage.completion_tokens or usage.output_tokens or 0,
        reasoning_tokens=(out.reasoning_tokens or 0) if out else 0,
    )
