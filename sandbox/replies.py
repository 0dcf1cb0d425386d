"""Plausible answers, each a pure function of the request."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping
from hashlib import shake_128
from math import sqrt
from typing import Any, NamedTuple

from .directives import Directions, without_directives
from .prompt import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, MODERATIONS, RESPONSES, Prompt

#: What a vector has when the request does not say; the real models' 1,536 would only make test files large.
DEFAULT_DIMENSIONS = 8
_MAX_EXTRACT = 160  # characters of the user's first sentence that come back
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


class Reply(NamedTuple):
    """A successful answer and the tokens it costs; output tokens include the reasoning ones."""

    body: dict[str, Any]
    input_tokens: int
    output_tokens: int = 0
    reasoning_tokens: int = 0


class _Text(NamedTuple):
    text: str
    tokens: int
    reasoning: int
    cut: bool
    filtered: bool


def reply(
    endpoint: str, body: Mapping[str, Any], prompt: Prompt, directions: Directions, *, created: int, tier: str
) -> Reply:
    """The model's answer to a request.

    Args:
        endpoint: One of the endpoints' paths.
        body: The request's body.
        prompt: What `read_prompt` found in it.
        directions: What the prompt's markers ask for.
        created: Unix seconds to put into the answer.
        tier: The service tier to put into the answer.
    """
    if endpoint == EMBEDDINGS:
        return _embeddings(body, prompt, directions)
    if endpoint == MODERATIONS:
        return _moderations(prompt, directions)
    digest = prompt.digest
    text = _text(body, prompt, directions, digest)
    return _TEXTUAL[endpoint](body, prompt, text, digest, created, tier)


def _text(body: Mapping[str, Any], prompt: Prompt, directions: Directions, digest: str) -> _Text:
    reasoning = 64 + int(digest[:2], 16) % 64 if prompt.model.startswith("o") else 0
    filtered = directions.misbehaviour == "content_filtered"
    if filtered or directions.misbehaviour == "empty":
        return _Text("", max(1, reasoning), reasoning, False, filtered)
    said = without_directives(prompt.text)
    first = said[: _MAX_EXTRACT + 1].split("\n", 1)[0].split(". ", 1)[0][:_MAX_EXTRACT].rstrip(". ")
    text = f"You said: {first}. [{digest[:8]}]"
    tokens = max(1, len(text) // 4) if directions.output_tokens is None else directions.output_tokens
    tokens += reasoning
    limit = body.get("max_completion_tokens") or body.get("max_output_tokens") or body.get("max_tokens")
    if isinstance(limit, int) and 0 < limit < tokens:
        return _Text(text[: max(0, limit - reasoning) * 4], limit, min(reasoning, limit), True, False)
    return _Text(text, tokens, reasoning, False, False)


def _stop(text: _Text, normal: str, cut: str, filtered: str) -> str:
    return filtered if text.filtered else cut if text.cut else normal


def _openai_usage(prompt: Prompt, text: _Text) -> dict[str, Any]:
    tokens = prompt.tokens
    return {
        "prompt_tokens": tokens,
        "completion_tokens": text.tokens,
        "total_tokens": tokens + text.tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": text.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _chat(body: Mapping[str, Any], prompt: Prompt, text: _Text, digest: str, created: int, tier: str) -> Reply:
    message: dict[str, Any] = {"role": "assistant", "content": text.text, "refusal": None, "annotations": []}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _stop(text, "stop", "length", "content_filter"),
    }
    answer = {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": created,
        "model": prompt.model,
        "choices": [choice],
        "usage": _openai_usage(prompt, text),
        "service_tier": tier,
        "system_fingerprint": "fp_sandbox",
    }
    return Reply(answer, prompt.tokens, text.tokens, text.reasoning)


def _completions(body: Mapping[str, Any], prompt: Prompt, text: _Text, digest: str, created: int, tier: str) -> Reply:
    choices = [
        {
            "index": index,
            "text": text.text,
            "logprobs": None,
            "finish_reason": _stop(text, "stop", "length", "content_filter"),
        }
        for index in range(len(prompt.texts))
    ]
    answer = {
        "id": f"cmpl-{digest}",
        "object": "text_completion",
        "created": created,
        "model": prompt.model,
        "choices": choices,
        "usage": _openai_usage(prompt, text),
        "system_fingerprint": "fp_sandbox",
    }
    return Reply(answer, prompt.tokens, text.tokens, text.reasoning)


def _responses(body: Mapping[str, Any], prompt: Prompt, text: _Text, digest: str, created: int, tier: str) -> Reply:
    output: list[dict[str, Any]] = []
    if text.reasoning:
        output.append({"id": f"rs_{digest}", "type": "reasoning", "summary": []})
    whole = not (text.cut or text.filtered)
    output.append(
        {
            "id": f"msg_{digest}",
            "type": "message",
            "role": "assistant",
            "status": "completed" if whole else "incomplete",
            "content": [{"type": "output_text", "text": text.text, "annotations": [], "logprobs": []}],
        }
    )
    reason = _stop(text, "", "max_output_tokens", "content_filter")
    answer = {
        "id": f"resp_{digest}",
        "object": "response",
        "created_at": created,
        "status": "completed" if whole else "incomplete",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": prompt.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": tier,
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": prompt.tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": text.tokens,
            "output_tokens_details": {"reasoning_tokens": text.reasoning},
            "total_tokens": prompt.tokens + text.tokens,
        },
        "user": None,
        "metadata": body.get("metadata") or {},
    }
    return Reply(answer, prompt.tokens, text.tokens, text.reasoning)


def _messages(body: Mapping[str, Any], prompt: Prompt, text: _Text, digest: str, created: int, tier: str) -> Reply:
    answer = {
        "id": f"msg_{digest}",
        "type": "message",
        "role": "assistant",
        "model": prompt.model,
        "content": [{"type": "text", "text": text.text}] if text.text else [],
        "stop_reason": _stop(text, "end_turn", "max_tokens", "refusal"),
        "stop_sequence": None,
        "usage": {
            "input_tokens": prompt.tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": text.tokens,
            "service_tier": tier,
        },
    }
    return Reply(answer, prompt.tokens, text.tokens)


_TEXTUAL = {CHAT: _chat, COMPLETIONS: _completions, RESPONSES: _responses, MESSAGES: _messages}


def _embeddings(body: Mapping[str, Any], prompt: Prompt, directions: Directions) -> Reply:
    given = body.get("dimensions")
    dimensions = given if isinstance(given, int) and given > 0 else DEFAULT_DIMENSIONS
    texts = [] if directions.misbehaviour == "empty" else prompt.texts
    vectors = [_vector(text, dimensions) for text in texts]
    encoded = body.get("encoding_format") == "base64"  # the openai client's default
    answer = {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector).decode() if encoded else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ],
        "model": prompt.model,
        "usage": {"prompt_tokens": prompt.tokens, "total_tokens": prompt.tokens},
    }
    return Reply(answer, prompt.tokens)


def _vector(text: str, dimensions: int) -> array[float]:
    """A unit vector that is always the same for the same text."""
    noise = array("h", shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions))
    length = sqrt(sum(value * value for value in noise)) or 1.0
    return array("f", (value / length for value in noise))


def _moderations(prompt: Prompt, directions: Directions) -> Reply:
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0001),
        "category_applied_input_types": {category: ["text"] for category in _CATEGORIES},
    }
    texts = [] if directions.misbehaviour == "empty" else prompt.texts
    answer = {"id": f"modr-{prompt.digest}", "model": prompt.model, "results": [result for _ in texts]}
    return Reply(answer, 0)  # the moderation endpoint is free
