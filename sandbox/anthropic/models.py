"""Anthropic's list of models."""

from __future__ import annotations

from aiohttp import web

from ..prompt import check_model
from ..provider import answer

_MODELS = ("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5")


async def listing(request: web.Request) -> web.Response:
    """GET /v1/models with Anthropic's headers."""
    data = [_wire(model) for model in _MODELS]
    ends = {"first_id": _MODELS[0], "last_id": _MODELS[-1]}
    return answer({"data": data, "has_more": False, **ends})


async def retrieve(request: web.Request) -> web.Response:
    """GET /v1/models/{model} with Anthropic's headers."""
    model = request.match_info["model"]
    check_model(model)
    return answer(_wire(model))


def _wire(model: str) -> dict[str, object]:
    return {
        "id": model,
        "type": "model",
        "display_name": model,
        "created_at": "2025-01-01T00:00:00Z",
        "lifecycle": "active",
    }
