"""`/v1/models`: the models that the configuration names."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..activities.gateway.routing import Route as Routed
from ..activities.gateway.routing import Router
from .context import Context, context_of, tenant_of
from .described import Described
from .errors import ApiError
from .shapes import ModelObject, ModelPage
from .tenants import Tenant


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [Route("/v1/models", listing, methods=["GET"]), Route("/v1/models/{model:path}", retrieve, methods=["GET"])]


@Described(answer=ModelPage)
async def listing(request: Request) -> Response:
    """List the models that routes name; a pattern names none."""
    context, tenant = context_of(request), tenant_of(request)
    named = dict.fromkeys(route.model for route in context.settings.gateway.routes if not set(route.model) & set("*?["))
    data = [found for model in named if (found := _model(context, tenant, model))]
    return JSONResponse({"object": "list", "data": data})


@Described(answer=ModelObject, errors={404: "The caller may use no such model, or no provider runs it."})
async def retrieve(request: Request) -> Response:
    """Tell whether a model may be used, and who runs it."""
    model = request.path_params["model"]
    found = _model(context_of(request), tenant_of(request), model)
    if found is None:
        raise ApiError(
            404,
            f"The model '{model[:100]}' does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )
    return JSONResponse(found)


def _model(context: Context, tenant: Tenant, model: str) -> dict[str, Any] | None:
    routes = [Routed(route.model, route.provider) for route in context.settings.gateway.routes]
    provider = Router(routes, context.provider, tenant.models).provider_of(model)
    if provider is None:
        return None
    # The gateway does not know when a provider made its models.
    return {"id": model, "object": "model", "created": 0, "owned_by": provider}
