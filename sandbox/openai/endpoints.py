"""OpenAI's ordinary endpoints: what their requests say, and what is answered. Each answer is a pure function of it."""

from __future__ import annotations

import base64
from array import array
from hashlib import shake_128
from math import sqrt
from typing import Any

from ..prompt import Body, Prompt, conversation, strings
from ..protocol import Endpoint
from ..replies import Call, Reply, Text, stop, text_of
from . import pictures, requests

#: Of the protocol, in what the sandbox remembers.
NAME = "openai"
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
COMPLETIONS = "/v1/completions"
MODERATIONS = "/v1/moderations"
IMAGES = "/v1/images/generations"
IMAGE_EDITS = "/v1/images/edits"
VIDEOS = "/v1/videos"

_DEFAULT_MODERATION_MODEL = "omni-moderation-latest"
#: What a vector has when the request does not say; the real models' 1,536 would only make test files large.
DEFAULT_DIMENSIONS = 8
#: What says the input of a response that has none. Source: the openai package, ResponseCreateParams.
_IN_PLACE_OF_INPUT = ("prompt", "previous_response_id", "conversation")
#: The snapshot that answers when a model is asked for by its short name. Source: OpenAI's list of models.
_SNAPSHOTS = {
    "gpt-3.5-turbo": "gpt-3.5-turbo-0125",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "o3": "o3-2025-04-16",
    "o3-mini": "o3-mini-2025-01-31",
    "o4-mini": "o4-mini-2025-04-16",
}
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


def _chat_texts(body: Body) -> list[str]:
    return conversation(body, "messages")


def _responses_texts(body: Body) -> list[str]:
    given = body.get("input")
    if given is None and any(body.get(name) is not None for name in _IN_PLACE_OF_INPUT):
        given = ""
    texts = [given] if isinstance(given, str) else conversation(body, "input")
    instructions = body.get("instructions")
    return [instructions, *texts] if isinstance(instructions, str) and instructions else texts


def _prompt_texts(body: Body) -> list[str]:
    return strings(body, "prompt")


def _input_texts(body: Body) -> list[str]:
    return strings(body, "input")


def _openai_usage(prompt: Prompt, text: Text, choices: int = 1) -> dict[str, Any]:
    tokens, said = prompt.tokens, text.tokens * choices
    return {
        "prompt_tokens": tokens,
        "completion_tokens": said,
        "total_tokens": tokens + said,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": text.reasoning * choices,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _chat(call: Call) -> Reply:
    text, prompt = text_of(call), call.prompt
    message: dict[str, Any] = {"role": "assistant", "content": text.text, "refusal": None, "annotations": []}
    choices = _choices(call)
    reason = stop(text, "stop", "length", "content_filter")
    answer = {
        "id": f"chatcmpl-{prompt.digest}",
        "object": "chat.completion",
        "created": call.created,
        "model": _snapshot(prompt.model),
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": reason} for index in range(choices)
        ],
        "usage": _openai_usage(prompt, text, choices),
        "service_tier": call.tier,
        "system_fingerprint": "fp_sandbox",
    }
    return Reply(answer, prompt.tokens, text.tokens * choices, text.reasoning * choices)


def _choices(call: Call) -> int:
    given = call.body.get("n")
    return given if isinstance(given, int) and given > 0 else 1


def _snapshot(model: str) -> str:
    return _SNAPSHOTS.get(model, model)


def _completions(call: Call) -> Reply:
    text, prompt = text_of(call), call.prompt
    choices = [
        {
            "index": index,
            "text": text.text,
            "logprobs": None,
            "finish_reason": stop(text, "stop", "length", "content_filter"),
        }
        for index in range(len(prompt.texts) * _choices(call))
    ]
    answer = {
        "id": f"cmpl-{prompt.digest}",
        "object": "text_completion",
        "created": call.created,
        "model": prompt.model,
        "choices": choices,
        "usage": _openai_usage(prompt, text),
        "system_fingerprint": "fp_sandbox",
    }
    return Reply(answer, prompt.tokens, text.tokens, text.reasoning)


def _responses(call: Call) -> Reply:
    text, prompt = text_of(call), call.prompt
    output: list[dict[str, Any]] = []
    if text.reasoning:
        output.append({"id": f"rs_{prompt.digest}", "type": "reasoning", "summary": []})
    whole = not (text.cut or text.filtered)
    output.append(
        {
            "id": f"msg_{prompt.digest}",
            "type": "message",
            "role": "assistant",
            "status": "completed" if whole else "incomplete",
            "content": [{"type": "output_text", "text": text.text, "annotations": [], "logprobs": []}],
        }
    )
    reason = stop(text, "", "max_output_tokens", "content_filter")
    answer = {
        "id": f"resp_{prompt.digest}",
        "object": "response",
        "created_at": call.created,
        "status": "completed" if whole else "incomplete",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": call.body.get("instructions"),
        "max_output_tokens": call.body.get("max_output_tokens"),
        "model": _snapshot(prompt.model),
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": call.tier,
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
        "metadata": call.body.get("metadata") or {},
    }
    return Reply(answer, prompt.tokens, text.tokens, text.reasoning)


def _embeddings(call: Call) -> Reply:
    body, prompt, directives = call.body, call.prompt, call.directives
    given = body.get("dimensions")
    dimensions = given if isinstance(given, int) and given > 0 else DEFAULT_DIMENSIONS
    texts = [] if directives.misbehaviour == "empty" else prompt.texts
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


def _moderations(call: Call) -> Reply:
    prompt, directives = call.prompt, call.directives
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0001),
        "category_applied_input_types": {category: ["text"] for category in _CATEGORIES},
    }
    texts = [] if directives.misbehaviour == "empty" else prompt.texts
    answer = {"id": f"modr-{prompt.digest}", "model": prompt.model, "results": [result for _ in texts]}
    return Reply(answer, 0)  # the moderation endpoint is free


ENDPOINTS = {
    RESPONSES: Endpoint("responses", _responses_texts, _responses, check=requests.check_response),
    CHAT: Endpoint("chat", _chat_texts, _chat, check=requests.check_chat),
    EMBEDDINGS: Endpoint("embeddings", _input_texts, _embeddings, check=requests.check_embedding),
    COMPLETIONS: Endpoint("completions", _prompt_texts, _completions, check=requests.check_completion),
    MODERATIONS: Endpoint(
        "moderations", _input_texts, _moderations, model=_DEFAULT_MODERATION_MODEL, check=requests.check_moderation
    ),
    IMAGES: Endpoint("images", pictures.texts, pictures.image, live=False),
    IMAGE_EDITS: Endpoint("image_edits", pictures.texts, pictures.image, live=False),
    VIDEOS: Endpoint("videos", pictures.texts, pictures.video, live=False),
}
