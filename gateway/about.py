"""What a gateway reports of itself: alive, ready, measured."""

from __future__ import annotations

from datetime import timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from temporalio.service import RPCError

from ..activities.store import IDENTITY
from ..contract import StoreError
from .context import Context, context_of
from .described import Described
from .shapes import Alive, Readiness

#: A Temporal in reach answers in milliseconds.
_PATIENCE = timedelta(seconds=2)


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


@Described(answer=Alive, keyless=True)
async def healthz(request: Request) -> Response:
    """Answer that the process is alive."""
    return JSONResponse({"status": "ok"})


@Described(
    answer=Readiness,
    statuses={200: "Requests are served.", 503: "The store or Temporal does not answer."},
    keyless=True,
)
async def readyz(request: Request) -> Response:
    """Answer whether requests can be served: whether the store and Temporal answer."""
    context = context_of(request)
    checks = {"store": await _store(context), "temporal": await _temporal(context)}
    ready = all(checks.values())
    shown = {name: "ok" if works else "does not answer" for name, works in checks.items()}
    return JSONResponse({"status": "ok" if ready else "not ready", **shown}, 200 if ready else 503)


async def _store(context: Context) -> bool:
    try:
        await context.store.entry(IDENTITY)
    except StoreError:
        return False
    return True


async def _temporal(context: Context) -> bool:
    try:
        return await context.client.temporal.service_client.check_health(timeout=_PATIENCE)
    except (RPCError, RuntimeError):  # the latter of a client that has never been connected
        return False


@Described(media="text/plain", keyless=True)
async def metrics(request: Request) -> Response:
    """Answer with what this process has done, for Prometheus."""
    context = context_of(request)
    gauges = {
        "uploads": context.uploads.active,  # under way or waiting
        "downloads": context.downloads.active,
        "upkeep_failures": context.upkeep.failures,
        "upkeep_last_success_timestamp_seconds": context.upkeep.succeeded_at or 0,
    }
    return PlainTextResponse(context.metrics.text(gauges), media_type="text/plain; version=0.0.4")
