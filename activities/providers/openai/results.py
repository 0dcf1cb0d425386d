"""OpenAI's results: rows on their way out. Pure, and fast, because every row passes here."""

from __future__ import annotations

from typing import Any

import msgspec

from ....contract import ErrorClass, RowStatus
from ...json_shape import has_many_values
from ..error_details import NO_DETAILS, error_details, no_reason
from ..lenient_struct import LONG, lenient, parsed
from ..outcome import Outcome, RowFailure, RowResponse, RowTokens
from .errors import error_class, failure, filtered

_NULL = msgspec.Raw(b"null")
_QUOTE, _N = b'"n'  # the first byte of a JSON value tells its type
_EMPTY = "The provider reports success, and its answer is empty."
#: A number above it is no HTTP status.
_MAX_STATUS = 999


class _Response(msgspec.Struct):
    status_code: int | None = None
    request_id: str | None = None
    body: msgspec.Raw = _NULL  # (msgspec takes no union with Raw)


class _Result(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: Any = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    __whole__ = True  # without one of its counts the rest would look like the whole

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
    error: Any = None


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
    data: msgspec.Raw = _NULL
    results: msgspec.Raw = _NULL
    status: str | None = None
    incomplete_details: _Incomplete | None = None
    error: Any = None


_result = msgspec.json.Decoder(_Result).decode
_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode
_any = msgspec.json.Decoder().decode
_decode_text = msgspec.json.Decoder(str).decode


def outcome(line: bytes) -> Outcome:
    """Return what a line of an output or error file says; a field of an odd type costs only itself.

    Raises:
        ValueError: the line is not a result (msgspec's errors are ValueErrors).
    """
    try:
        found = _result(line) if len(line) <= LONG else lenient(line, _Result)
    except msgspec.ValidationError:
        found = lenient(line, _Result)
    except RecursionError:
        raise ValueError("nested too deep") from None
    response = found.response
    if response is None:
        if not found.error:
            raise ValueError("neither response nor error")
        return _failed(found.custom_id, None, None, found.error)
    body = response.body
    # A few servers send the body as a string of JSON.
    if (first := memoryview(body)[0]) == _QUOTE:
        body = _unwrapped(body)
        first = memoryview(body)[0]
    if first == _N:
        return _failed(found.custom_id, response.status_code, response, found.error)
    status = response.status_code
    if status is None or status > _MAX_STATUS:
        status = 200
    if not 200 <= status < 300:
        return _failed(found.custom_id, status, response, found.error or parsed(body))
    try:
        answer = _answer(body) if len(memoryview(body)) <= LONG else lenient(body, _Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        answer = _odd(body)
    choices = answer.choices
    if choices and answer.error is None and choices[0].finish_reason in _ENDS and choices[0].error is None:
        hidden = None  # nearly every row, so it is asked first
    else:
        hidden = _hidden(answer, body, found.error)
    return Outcome(
        custom_id=found.custom_id,
        status=RowStatus.FAILED if hidden else RowStatus.SUCCEEDED,
        text=_text(answer),
        model=answer.model,
        tokens=_tokens(answer.usage),
        response=RowResponse(status_code=status, request_id=response.request_id, body=body),
        failure=hidden,
    )


def _odd(body: msgspec.Raw) -> _Answer:
    """Return what can be read of a body that is not quite what it should be; it is kept whole in any case."""
    try:
        return lenient(body, _Answer)
    except msgspec.DecodeError:
        return _Answer()


def _unwrapped(text: msgspec.Raw) -> msgspec.Raw:
    """Return the JSON that a string holds, on one line as results must be; the string itself where it holds none."""
    try:
        held = _decode_text(text).encode()
        return text if has_many_values(held) else msgspec.Raw(_encode(_any(held)))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return text


def _failed(custom_id: str, status: int | None, response: _Response | None, error: Any) -> Outcome:
    said = error_details(error)
    message = said.message or no_reason(status)
    if not error and (status is None or 200 <= status < 300):
        # A success without an answer: nobody knows whether it was paid, so it is not bought again by itself.
        kind, code, message = ErrorClass.OTHER, "empty_response", _EMPTY
    else:
        kind = error_class(said.http_status if status is None else status, said)
        code = said.code or said.type or (f"http_{status}" if status else "")
    return Outcome(
        custom_id=custom_id,
        status=RowStatus.FAILED,
        response=RowResponse(status_code=status, request_id=response.request_id, body=response.body)
        if response and status is not None
        else None,
        failure=RowFailure(type=kind, code=code or None, message=message),
    )


# --- failures within a 2xx ---

#: How an answer ends by itself; any other word is looked at once more.
_ENDS = {None, "stop", "length", "tool_calls", "function_call"}
#: How one breaks off: OpenRouter's and Mistral's `error`, vLLM's and SGLang's `abort`, DeepSeek's want of resources.
_BREAKS = {"error", "abort", "aborted", "cancelled", "canceled", "failed", "insufficient_system_resource"}
#: The fields that hold an answer, by endpoint.
_ANSWERS = ("choices", "output", "data", "results")
#: A JSON value of no more bytes holds nothing: null, [], {}.
_NOTHING = 4


def _hidden(answer: _Answer, body: msgspec.Raw, error: Any) -> RowFailure | None:
    """Return the failure hidden in a 2xx.

    Args:
        error: what the line itself says of one, beside the response.
    """
    if answer.error and (said := error_details(answer.error)) != NO_DETAILS:
        return failure(said, ErrorClass.SERVER_ERROR if answer.status == "failed" else ErrorClass.OTHER)
    if answer.choices:
        return _broken(answer.choices[0])
    if answer.status not in (None, "completed") and (found := _unfinished(answer)):
        return found
    # The numbers of embeddings and moderations are not read.
    if answer.output or len(memoryview(answer.data)) > _NOTHING or len(memoryview(answer.results)) > _NOTHING:
        return None
    return _unanswered(parsed(body), error)


def _broken(choice: _Choice) -> RowFailure | None:
    reason = choice.finish_reason or ""
    if reason.startswith("content_filter"):
        return filtered()
    if reason not in _BREAKS and not choice.error:
        return None
    message = f'The provider broke the answer off with finish_reason "{reason[:50]}" and gave no reason.'
    return failure(error_details(choice.error), ErrorClass.SERVER_ERROR, reason or "error", message)


def _unfinished(answer: _Answer) -> RowFailure | None:
    """Return why a Responses body is not a completed one; None where it holds all that there is."""
    status = (answer.status or "").lower()
    reason = answer.incomplete_details.reason if answer.incomplete_details else None
    if reason == "content_filter":
        return filtered()
    if status == "incomplete":
        if any(item.type != "reasoning" and (item.type != "message" or item.content) for item in answer.output or ()):
            return None
        message = f"The answer ended before it had any output ({(reason or 'no reason given')[:100]})."
        return RowFailure(type=ErrorClass.OTHER, code=reason or status, message=message)
    if status in ("queued", "in_progress"):
        message = f"The batch ended while this answer was {status.replace('_', ' ')}."
        return RowFailure(type=ErrorClass.TIMEOUT, code=status, message=message)
    if status in ("failed", "cancelled", "canceled"):
        message = f"The response's status is {status}, and the provider gave no reason."
        return failure(NO_DETAILS, ErrorClass.SERVER_ERROR, status, message)
    return None


def _unanswered(body: Any, error: Any) -> RowFailure | None:
    """Return the failure of a 2xx that has no answer in it; None where it may be an answer of another shape."""
    if (said := error_details(error)) != NO_DETAILS:
        return failure(said, ErrorClass.OTHER)
    if isinstance(body, str):
        empty = "The provider's answer is an empty text."
        return failure(error_details(body), ErrorClass.OTHER, "unexpected_response", empty)
    if not isinstance(body, dict) or any(body.get(name) for name in _ANSWERS):
        return None
    marked = "error" in (body.get("object"), body.get("type"))
    if marked or isinstance(body.get("message"), str) or body.get("detail") or body.get("errors"):
        return failure(error_details(body), ErrorClass.OTHER)
    if not body or any(name in body for name in _ANSWERS):
        return RowFailure(type=ErrorClass.OTHER, code="empty_response", message=_EMPTY)
    return None


# --- what an answer says ---


def _text(answer: _Answer) -> str | None:
    if answer.choices:
        choice = answer.choices[0]
        if choice.message is None:
            return choice.text
        content = choice.message.content
        if isinstance(content, list):
            texts = [part.get("text") for part in content if isinstance(part, dict)]
            return "".join(text for text in texts if isinstance(text, str))
        return content if isinstance(content, str) else choice.message.refusal
    if answer.output is not None:
        parts = [part for item in answer.output for part in item.content or () if item.type == "message"]
        texts = [part.text if isinstance(part.text, str) else part.refusal for part in parts]
        return "".join(text for text in texts if text) if parts else None
    return None


def _tokens(usage: _Usage | None) -> RowTokens | None:
    if usage is None:
        return None
    into = usage.prompt_tokens or usage.input_tokens
    out = usage.completion_tokens or usage.output_tokens
    if not into and not out and usage.prompt_tokens is None and usage.input_tokens is None:
        return None
    read = usage.prompt_tokens_details or usage.input_tokens_details
    written = usage.completion_tokens_details or usage.output_tokens_details
    return RowTokens(
        input_tokens=into or 0,
        cached_input_tokens=(read.cached_tokens or 0) if read else 0,
        output_tokens=out or 0,
        reasoning_tokens=(written.reasoning_tokens or 0) if written else 0,
    )
