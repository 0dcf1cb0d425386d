"""Plausible answers, each a pure function of the request."""

from __future__ import annotations

from typing import Any, NamedTuple

from .directives import Directives, without_directives
from .prompt import Body, Prompt

_MAX_EXTRACT = 160  # characters of the user's first sentence that come back


class Reply(NamedTuple):
    """A successful answer and the tokens it costs; output tokens include the reasoning ones."""

    body: dict[str, Any]
    input_tokens: int
    output_tokens: int = 0
    reasoning_tokens: int = 0


class Call(NamedTuple):
    """A request that is to be answered."""

    body: Body
    prompt: Prompt
    directives: Directives  #: What the prompt's directives ask for.
    created: int  #: Unix seconds to put into the answer.
    tier: str  #: The service tier to put into the answer.


class Text(NamedTuple):
    """What a model says."""

    text: str
    tokens: int
    reasoning: int
    cut: bool
    filtered: bool


def text_of(call: Call) -> Text:
    """What a model says to a request: something about its first sentence, or what its directives ask for."""
    body, prompt, directives, digest = call.body, call.prompt, call.directives, call.prompt.digest
    reasoning = 64 + int(digest[:2], 16) % 64 if prompt.model.startswith("o") else 0
    filtered = directives.misbehaviour == "content_filtered"
    if filtered or directives.misbehaviour == "empty":
        return Text("", max(1, reasoning), reasoning, False, filtered)
    said = without_directives(prompt.text)
    first = said[: _MAX_EXTRACT + 1].split("\n", 1)[0].split(". ", 1)[0][:_MAX_EXTRACT].rstrip(". ")
    text = f"You said: {first}. [{digest[:8]}]"
    if directives.characters is not None:
        text = (text * (directives.characters // len(text) + 1))[: directives.characters]
    tokens = max(1, len(text) // 4) if directives.output_tokens is None else directives.output_tokens
    tokens += reasoning
    limit = output_cap(body)
    if 0 < limit < tokens:
        return Text(text[: max(0, limit - reasoning) * 4], limit, min(reasoning, limit), True, False)
    return Text(text, tokens, reasoning, False, False)


def output_cap(body: Body) -> int:
    """The most output tokens that a request asks for; 0: it does not say."""
    limit = body.get("max_completion_tokens") or body.get("max_output_tokens") or body.get("max_tokens")
    return limit if isinstance(limit, int) and limit > 0 else 0


def stop(text: Text, normal: str, cut: str, filtered: str) -> str:
    """The word for why an answer ended."""
    return filtered if text.filtered else cut if text.cut else normal
