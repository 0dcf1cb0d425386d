"""The application: routes, and what holds for all of them."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from . import batches
from .auth import Authentication
from .context import Context
from .errors import ApiError, on_error, on_http_exception
from .tenants import Tenants


def create_app(context: Context) -> Starlette:
    """Return the gateway as an ASGI application."""
    routes: list[BaseRoute] = [Route("/healthz", healthz), *batches.routes()]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Authentication, tenants=Tenants(context.settings.gateway.keys))],
        exception_handlers={HTTPException: on_http_exception, ApiError: on_error, Exception: on_error},
    )
    app.state.context = context
    return app


async def healthz(request: Request) -> Response:
    """Answer that the process is alive."""
    return JSONResponse({"status": "ok"})
