"""Which path is which operation."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from . import admin, live_admin
from .errors import Refusal
from .guard import guarded
from .live import live
from .protocol import Handler, Protocol
from .provider import answer

_ADMIN: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/admin/settings", admin.read_settings),
    ("POST", "/admin/settings", admin.change_settings),
    ("GET", "/admin/faults", admin.read_faults),
    ("POST", "/admin/faults", admin.add_fault),
    ("DELETE", "/admin/faults", admin.clear_faults),
    ("DELETE", r"/admin/faults/{fault_id:\d+}", admin.clear_faults),
    ("GET", "/admin/books", admin.books),
    ("GET", "/admin/live", live_admin.summary),
    ("GET", "/admin/live/calls", live_admin.calls),
    ("GET", "/admin/live/ids", live_admin.ids),
    ("GET", "/admin/live/rates", live_admin.rates),
    ("POST", "/admin/reset", admin.reset),
    ("POST", "/admin/keys", admin.change_key),
)


def add_routes(app: web.Application, protocols: Iterable[Protocol]) -> None:
    """Give an application every route of the sandbox."""
    speakers: dict[tuple[str, str], list[tuple[Protocol, Handler]]] = {}
    for protocol in protocols:
        handlers = {(route.method, route.path): guarded(route, protocol) for route in protocol.routes}
        for path, endpoint in protocol.endpoints.items():
            if endpoint.live:
                handlers["POST", path] = live(path, endpoint, protocol)
        for place, handler in handlers.items():
            speakers.setdefault(place, []).append((protocol, handler))
    for (method, path), found in speakers.items():
        app.router.add_route(method, path, found[0][1] if len(found) == 1 else _by_protocol(found))
    for method, path, handler in _ADMIN:
        app.router.add_route(method, path, admin.admin(handler))
    app.router.add_route("*", "/{tail:.*}", _unknown(protocol))


def _by_protocol(found: list[tuple[Protocol, Handler]]) -> Handler:
    """The handler of the first protocol that a request is in; the last one takes any."""

    async def choose(request: web.Request) -> web.StreamResponse:
        handler = next((handler for protocol, handler in found[:-1] if protocol.speaks(request)), found[-1][1])
        return await handler(request)

    return choose


def _unknown(protocol: Protocol) -> Handler:
    async def refuse(request: web.Request) -> web.StreamResponse:
        message = f"Unknown request URL: {request.method} {request.path}."
        return answer(protocol.envelope(Refusal(404, message, code="unknown_url"), ""), 404)

    return refuse
