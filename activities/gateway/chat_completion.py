"""Anthropic's message as OpenAI's chat completion. Pure.

Sources: anthropic.types.Message and openai.types.chat.ChatCompletion.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..json_shape import has_many_values

#: Why an answer ended, in OpenAI's words.
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def chat_completion(message: msgspec.Raw, request_id: str, created_at: int) -> msgspec.Raw:
    """Return a message as a chat completion; what is not a message, or has too many values to be one, stays as it is.

    Args:
        request_id: makes the completion's id where the message has none.
        created_at: seconds since 1970; a message does not say when it was made.
    """
    if has_many_values(message):
        return message
    found = _decode(message)
    if not isinstance(found, dict) or not isinstance(found.get("content"), list):
        return message
    blocks = [block for block in found["content"] if isinstance(block, dict)]
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    calls = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    said: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(text for text in texts if isinstance(text, str)) if texts or not calls else None,
        "refusal": None,
    }
    if calls:
        said["tool_calls"] = calls
    choice = {
        "index": 0,
        "message": said,
        "logprobs": None,
        "finish_reason": _FINISH.get(str(found.get("stop_reason")), "stop"),
    }
    answer = {
        "id": str(found.get("id") or f"chatcmpl-{request_id}"),
        "object": "chat.completion",
        "created": created_at,
        "model": str(found.get("model") or ""),
        "choices": [choice],
        "usage": _usage(found.get("usage")),
    }
    return msgspec.Raw(_encode(answer))


def _call(block: dict[str, Any]) -> dict[str, Any]:
    arguments = _encode(block.get("input") or {}).decode()
    function = {"name": str(block.get("name") or ""), "arguments": arguments}
    return {"id": str(block.get("id") or ""), "type": "function", "function": function}


def _usage(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, dict):
        return None
    # Anthropic counts what was read from its cache, and written to it, apart; OpenAI counts the whole prompt.
    cached = _number(usage, "cache_read_input_tokens")
    prompt = _number(usage, "input_tokens") + cached + _number(usage, "cache_creation_input_tokens")
    completion = _number(usage, "output_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _number(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0
