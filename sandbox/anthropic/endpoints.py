"""Anthropic's Messages: what a request says, and what is answered. The answer is a pure function of it."""

from __future__ import annotations

from ..prompt import Body, content_text, conversation
from ..protocol import Endpoint
from ..replies import Call, Reply, stop, text_of
from .requests import check

#: Of the protocol, in what the sandbox remembers.
NAME = "anthropic"
MESSAGES = "/v1/messages"


def _messages_texts(body: Body) -> list[str]:
    texts = conversation(body, "messages")
    system = content_text(body.get("system"))
    return [system, *texts] if system else texts


def _messages(call: Call) -> Reply:
    text, prompt = text_of(call), call.prompt
    answer = {
        "id": f"msg_{prompt.digest}",
        "type": "message",
        "role": "assistant",
        "model": prompt.model,
        "content": [{"type": "text", "text": text.text}] if text.text else [],
        "stop_reason": stop(text, "end_turn", "max_tokens", "refusal"),
        "stop_sequence": None,
        "usage": {
            "input_tokens": prompt.tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": text.tokens,
            "service_tier": call.tier,
        },
    }
    return Reply(answer, prompt.tokens, text.tokens)


ENDPOINTS = {MESSAGES: Endpoint("messages", _messages_texts, _messages, required=("max_tokens",), check=check)}
