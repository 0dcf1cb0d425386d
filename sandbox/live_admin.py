"""The admin routes that show the books of live calls. They need no key."""

from __future__ import annotations

import asyncio
from math import inf

from aiohttp import web

from .errors import SandboxError
from .measure import measured
from .provider import answer, int_param, provider_of

_DEFAULT_PAGE = 1_000
_MAX_PAGE = 10_000


async def summary(request: web.Request) -> web.Response:
    """GET /admin/live: totals, the ids that were called more than once, and how many calls are open."""
    return answer(provider_of(request).calls.summary())


async def calls(request: web.Request) -> web.Response:
    """GET /admin/live/calls?after=&limit=&id=&how=: calls as they arrived; `next` is the next page's `after`."""
    after, limit = _page(request)
    query = request.query
    found, next = provider_of(request).calls.page(after, limit, id=query.get("id"), how=query.get("how"))
    return answer({"calls": found, "next": next})


async def ids(request: web.Request) -> web.Response:
    """GET /admin/live/ids?after=&limit=: ids in the order of their first call, with how often they were called."""
    found, next = provider_of(request).calls.id_page(*_page(request))
    return answer({"ids": found, "next": next})


async def rates(request: web.Request) -> web.Response:
    """GET /admin/live/rates?period=&since=&until=: what was measured, for each account and model."""
    provider = provider_of(request)
    period = _seconds(request, "period", provider.rates.period)
    since, until = _seconds(request, "since", 0.0), _seconds(request, "until", inf)
    if period <= 0:
        raise SandboxError("A period must be longer than 0 seconds.")
    found = [call for call in provider.calls.all if since <= call.arrived < until]
    groups = await asyncio.to_thread(measured, found, period)
    for group in groups:
        meter = provider.meter(group["account"], group["model"])
        group["in_flight"], group["most_in_flight"] = meter.in_flight, meter.most_in_flight
    return answer({"rates": groups})


def _page(request: web.Request) -> tuple[int, int]:
    after = int_param(request, "after", 0, 0, 10**9)
    return after, int_param(request, "limit", _DEFAULT_PAGE, 1, _MAX_PAGE)


def _seconds(request: web.Request, name: str, default: float) -> float:
    try:
        return float(request.query.get(name, default))
    except ValueError:
        raise SandboxError(f"{name} must be a number of seconds.") from None
