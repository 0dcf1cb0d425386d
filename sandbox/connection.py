"""Connections that are cut: before an answer, or in its middle."""

from __future__ import annotations

import socket
import struct
from typing import cast

from aiohttp import web

_NO_LINGER = struct.pack("ii", 1, 0)
#: In a request whose connection the sandbox has reset.
_RESET = web.RequestKey("reset", bool)


def abort(request: web.Request) -> web.Response:
    """Reset the connection; the response is for aiohttp, nobody will see it."""
    request[_RESET] = True
    if request.transport is not None:
        connection = cast("socket.socket", request.transport.get_extra_info("socket"))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        request.transport.abort()
    return web.Response(status=500)


async def cut(request: web.Request, response: web.StreamResponse, fraction: float) -> web.StreamResponse:
    """Send an answer's head and this share of its body, and reset the connection."""
    body = response.body if isinstance(response, web.Response) and isinstance(response.body, bytes) else b""
    partial = web.StreamResponse(status=response.status, headers=response.headers)
    partial.content_length = max(1, len(body))
    await partial.prepare(request)
    await partial.write(body[: int(len(body) * fraction)])
    abort(request)
    return partial


def was_reset(request: web.Request) -> bool:
    """Whether the sandbox has reset a request's connection."""
    return _RESET in request


def is_gone(request: web.Request) -> bool:
    """Whether a request's connection is closed."""
    return request.transport is None or request.transport.is_closing()
