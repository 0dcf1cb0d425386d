"""`/v1/models`: the models that the configuration names, in the shape of whose client asks."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..activities.gateway.routing import Route as Routed
from ..activities.gateway.routing import Router
from .context import Context, context_of, tenant_of
from .described import Described
from .errors import ApiError, speaks_anthropic
from .params import limit_of
from .shapes import ModelObject, ModelPage
from .tenants import Tenant

#: Models of a page of Anthropic's: usually, and at most.
_LIMITS = 20, 1000


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [Route("/v1/models", listing, methods=["GET"]), Route("/v1/models/{model:path}", retrieve, methods=["GET"])]


@Described(answer=ModelPage)
async def listing(request: Request) -> Response:
    """List the models that routes name; a pattern names none.

    A request with an `anthropic-version` is answered in Anthropic's shape, a page at a time.
    """
    context, tenant = context_of(request), tenant_of(request)
    named = dict.fromkeys(route.model for route in context.settings.gateway.routes if not set(route.model) & set("*?["))
    data = [found for model in named if (found := _model(context, tenant, model))]
    if speaks_anthropic(request.scope):
        return JSONResponse(_page(request, data))
    return JSONResponse({"object": "list", "data": data})


@Described(answer=ModelObject, errors={404: "The caller may use no such model, or no provider runs it."})
async def retrieve(request: Request) -> Response:
    """Retrieve a model that the caller may use, with the provider that runs it."""
    model = request.path_params["model"]
    found = _model(context_of(request), tenant_of(request), model)
    if found is None:
        raise ApiError(
            404,
            f"The model '{model[:100]}' does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )
    return JSONResponse(_anthropic(found) if speaks_anthropic(request.scope) else found)


def _model(context: Context, tenant: Tenant, model: str) -> dict[str, Any] | None:
    routes = [Routed(route.model, route.provider) for route in context.settings.gateway.routes]
    provider = Router(routes, context.provider, tenant.models).provider_of(model)
    if provider is None:
        return None
    # The gateway does not know when a provider made its models.
    return {"id": model, "object": "model", "created": 0, "owned_by": provider}


def _page(request: Request, models: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the page of models that is asked for, in Anthropic's shape.

    Raises:
        ApiError: it is not one.
    """
    limit, ids = limit_of(request, *_LIMITS), [model["id"] for model in models]
    after, before = (request.query_params.get(name) for name in ("after_id", "before_id"))
    if after and before:
        raise ApiError(400, "after_id, before_id: only one of them may be given")
    for cursor in (after, before):
        if cursor and cursor not in ids:
            raise ApiError(400, f"There is no model {cursor[:100]}.")
    if before:
        end = ids.index(before)
        start = max(0, end - limit)
        more = start > 0
    else:
        start = ids.index(after) + 1 if after else 0
        end = start + limit
        more = end < len(ids)
    data = [_anthropic(model) for model in models[start:end]]
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": more, "first_id": ends[0], "last_id": ends[1]}


def _anthropic(model: dict[str, Any]) -> dict[str, Any]:
    """Return a model in Anthropic's shape, in which an unknown day is that of the epoch."""
    return {
        "type": "model",
        "id": model["id"],
        "display_name": model["id"],
        "created_at": "1970-01-01T00:00:00+00:00",
        "lifecycle": "active",
    }
