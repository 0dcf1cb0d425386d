"""The ordinary endpoints, which answer at once."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from .directives import FAILURES, Directions, read_directives
from .errors import Protocol, Refusal, missing
from .prompt import MESSAGES, NO_SUCH_MODEL, Prompt, read_prompt
from .provider import LIVE, LIVE_ROWS, Handler, account_of, answer, json_body, new_id, provider_of
from .replies import reply

_MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1-mini", "o4-mini", "text-embedding-3-small", "omni-moderation-latest")
_ANTHROPIC_MODELS = ("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5")
_RELEASED = 1_735_689_600  # Unix seconds: 2025-01-01, for every model


def live(op: str, endpoint: str) -> Handler:
    """The handler of one endpoint.

    Args:
        op: The operation's name in the books.
        endpoint: The endpoint's path.
    """
    protocol = Protocol.ANTHROPIC if endpoint == MESSAGES else Protocol.OPENAI
    tier = "standard" if protocol is Protocol.ANTHROPIC else "default"

    async def call(request: web.Request) -> web.Response:
        provider, account = provider_of(request), account_of(request)
        body = await json_body(request)
        try:
            prompt = _prompt(endpoint, body)
        except Refusal as refusal:
            raise (refusal if protocol is Protocol.OPENAI else refusal.in_anthropic_words()) from None
        directions = read_directives(prompt.text)
        if directions.times is not None:
            submission = provider.state.submit(account, f"live {prompt.digest}", new_id("call_"))
            if submission > directions.times:
                directions = directions.without_misbehaviour()
        if directions.delay_seconds:
            await asyncio.sleep(directions.delay_seconds)
        if directions.misbehaviour in FAILURES:
            raise FAILURES[directions.misbehaviour].refusal(protocol)
        done = reply(endpoint, body, prompt, directions, created=int(time.time()), tier=tier)
        provider.counts.add(LIVE, op)
        provider.counts.add(LIVE, "input_tokens", done.input_tokens)
        provider.counts.add(LIVE, "output_tokens", done.output_tokens)
        provider.counts.add(LIVE_ROWS, f"{account}/{prompt.digest}")
        await provider.counts.written()
        return _spoilt(answer(done.body), directions)

    return call


def _prompt(endpoint: str, body: dict[str, object]) -> Prompt:
    if body.get("stream"):
        raise Refusal(400, "The sandbox does not stream.", code="unsupported_value", param="stream")
    if endpoint == MESSAGES and body.get("max_tokens") is None:
        raise missing("max_tokens")
    prompt = read_prompt(endpoint, body)
    _check_model(prompt.model)
    return prompt


def _check_model(model: str) -> None:
    if model.startswith(NO_SUCH_MODEL):
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise Refusal(404, message, code="model_not_found")


def _spoilt(response: web.Response, directions: Directions) -> web.Response:
    if directions.misbehaviour == "malformed" and isinstance(response.body, bytes):
        response.body = response.body[: len(response.body) // 2]
    return response


async def openai_models(request: web.Request) -> web.Response:
    """GET /v1/models."""
    return answer({"object": "list", "data": [_openai_model(model) for model in _MODELS]})


async def openai_model(request: web.Request) -> web.Response:
    """GET /v1/models/{model}: any model exists, except those named `no-such-…`."""
    model = request.match_info["model"]
    _check_model(model)
    return answer(_openai_model(model))


def _openai_model(model: str) -> dict[str, object]:
    return {"id": model, "object": "model", "created": _RELEASED, "owned_by": "sandbox"}


async def anthropic_models(request: web.Request) -> web.Response:
    """GET /v1/models with Anthropic's headers."""
    data = [_anthropic_model(model) for model in _ANTHROPIC_MODELS]
    ends = {"first_id": _ANTHROPIC_MODELS[0], "last_id": _ANTHROPIC_MODELS[-1]}
    return answer({"data": data, "has_more": False, **ends})


async def anthropic_model(request: web.Request) -> web.Response:
    """GET /v1/models/{model} with Anthropic's headers."""
    model = request.match_info["model"]
    _check_model(model)
    return answer(_anthropic_model(model))


def _anthropic_model(model: str) -> dict[str, object]:
    return {
        "id": model,
        "type": "model",
        "display_name": model,
        "created_at": "2025-01-01T00:00:00Z",
        "lifecycle": "active",
    }
