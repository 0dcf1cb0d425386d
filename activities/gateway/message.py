"""OpenAI's chat completion as Anthropic's message. Pure.

Sources: openai.types.chat.ChatCompletion and anthropic.types.Message. Of several choices the first is taken; reasoning
that a server shows is left out, as Anthropic's is signed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..json_shape import has_many_values

#: Why an answer ended, in Anthropic's words.
_STOP = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def message(completion: msgspec.Raw, request_id: str) -> msgspec.Raw | None:
    """Return a chat completion as a message; None for what is no chat completion, or has too many values to be one.

    Args:
        request_id: makes the message's id where the completion has none.
    """
    if has_many_values(completion):
        return None
    try:
        found = _decode(completion)
    except (msgspec.DecodeError, RecursionError):
        return None
    choices = found.get("choices") if isinstance(found, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    said = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(said, dict):
        return None
    refusal = said.get("refusal")
    blocks = [{"type": "text", "text": text} for text in (_text(said.get("content")), _text(refusal)) if text]
    calls = said.get("tool_calls")
    blocks += [_call(call, number) for number, call in enumerate(calls if isinstance(calls, list) else ())]
    stop = _STOP.get(str(choice.get("finish_reason")), "end_turn")
    answer = {
        "id": str(found.get("id") or f"msg_{request_id}"),
        "type": "message",
        "role": "assistant",
        "model": str(found.get("model") or ""),
        "content": blocks,
        "stop_reason": "refusal" if refusal else stop,
        "stop_sequence": None,
        "usage": _usage(found.get("usage")),
    }
    return msgspec.Raw(_encode(answer))


def _text(content: Any) -> str:
    if isinstance(content, list):  # some servers answer in parts
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _call(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    function = function if isinstance(function, dict) else {}
    given = function.get("arguments")
    try:
        arguments = _decoded(given) if isinstance(given, str) else given
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        # What a model wrote is kept, though it is not what it should be.
        arguments = {"arguments": given} if given else {}
    call_id = call.get("id") if isinstance(call, dict) else None
    return {
        "type": "tool_use",
        "id": str(call_id or f"toolu_{number}"),
        "name": str(function.get("name") or ""),
        "input": arguments,
    }


def _decoded(text: str) -> Any:
    data = text.encode()
    return None if has_many_values(data) else _decode(data)


def _usage(usage: Any) -> dict[str, Any]:
    found = usage if isinstance(usage, dict) else {}
    # OpenAI counts the whole prompt; Anthropic counts what was read from the cache apart.
    cached = min(_number(found.get("prompt_tokens_details"), "cached_tokens"), _number(found, "prompt_tokens"))
    counted: dict[str, Any] = {
        "input_tokens": _number(found, "prompt_tokens") - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": _number(found, "completion_tokens"),
    }
    if thought := _number(found.get("completion_tokens_details"), "reasoning_tokens"):
        counted["output_tokens_details"] = {"thinking_tokens": thought}
    return counted


def _number(fields: Any, name: str) -> int:
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0
