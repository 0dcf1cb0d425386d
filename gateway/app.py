"""The application: routes, and what holds for all of them."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from ..contract import DurabatchError
from . import about, analytics, batches, deliveries, files, hooks, messages, models, openapi, results, retries
from .auth import Authentication
from .body import Pace, Paced
from .context import Context
from .errors import ApiError, on_error, on_http_exception
from .observed import Observed
from .tenants import Tenants


def routes() -> list[BaseRoute]:
    """Return all routes. Each says at its endpoint what it takes and answers with: see described.py."""
    modules = (
        about,
        files,
        batches,
        messages,
        retries,
        results,
        analytics,
        models,
        hooks,
        deliveries,
        openapi,
    )
    return [route for module in modules for route in module.routes()]


def create_app(context: Context, pace: Pace | None = None) -> Starlette:
    """Return the gateway as an ASGI application.

    Args:
        pace: how slowly a body may arrive.
    """
    app = Starlette(
        routes=routes(),
        middleware=[
            Middleware(Observed, metrics=context.metrics),
            Middleware(Authentication, tenants=Tenants(context.settings.gateway)),
            Middleware(Paced, pace=pace or Pace()),
        ],
        exception_handlers={HTTPException: on_http_exception, ApiError: on_error, DurabatchError: on_error},
    )
    # A redirect would repeat whatever host the request names.
    app.router.redirect_slashes = False
    app.state.context = context
    return app
