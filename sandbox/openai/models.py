"""OpenAI's list of models."""

from __future__ import annotations

from aiohttp import web

from ..prompt import check_model
from ..provider import answer

_MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1-mini", "o4-mini", "text-embedding-3-small", "omni-moderation-latest")
_RELEASED = 1_735_689_600  # Unix seconds: 2025-01-01, for every model


async def listing(request: web.Request) -> web.Response:
    """GET /v1/models."""
    return answer({"object": "list", "data": [_wire(model) for model in _MODELS]})


async def retrieve(request: web.Request) -> web.Response:
    """GET /v1/models/{model}: any model exists, except those named `no-such-…`."""
    model = request.match_info["model"]
    check_model(model)
    return answer(_wire(model))


def _wire(model: str) -> dict[str, object]:
    return {"id": model, "object": "model", "created": _RELEASED, "owned_by": "sandbox"}
