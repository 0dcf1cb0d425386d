"""What a request brings, read as slowly and as much as is allowed, and no further."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError

#: Bytes of a body that is no upload, which is kept in memory. The largest create has 115 kB: all metadata that there
#: may be, each character of it written as two escapes.
MOST_JSON = 128 * 1024
#: Bytes of a multipart body beside those of its file, at most.
FORM_BYTES = 128 * 1024


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How slowly a body may arrive. Only the time that the gateway waits for its client counts.

    uvicorn has no such limits: a client that sends a byte a minute holds its connection, and a slot, for ever.
    """

    idle: float = 30.0  #: Seconds without a byte.
    least: int = 16 * 1024  #: Bytes a second, on the average.
    grace: float = 60.0  #: Seconds that it may be late by that measure; no more is saved up by having been faster.


class Paced:
    """Middleware that ends requests whose body comes too slowly."""

    def __init__(self, app: ASGIApp, pace: Pace) -> None:
        self._app = app
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            receive = _Clocked(receive, self._pace)
        await self._app(scope, receive, send)


class _Clocked:
    def __init__(self, receive: Receive, pace: Pace) -> None:
        self._receive = receive
        self._pace = pace
        self._left = pace.grace
        self._over = False

    async def __call__(self) -> Message:
        if self._over:  # the request is whole, and what is waited for now is the end of the connection
            return await self._receive()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(min(self._pace.idle, self._left)):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408,
                f"The request's body came too slowly: {self._pace.idle:g} seconds without a byte, or less than "
                f"{self._pace.least:,} bytes a second.",
                code="request_timeout",
                headers={"Connection": "close"},
            ) from None
        earned = len(message.get("body", b"")) / self._pace.least
        self._left = min(self._pace.grace, self._left - (loop.time() - began) + earned)
        self._over = not message.get("more_body", False)
        return message


async def pieces(request: Request, most: int) -> AsyncIterator[bytes]:
    """Yield a request's body as it arrives.

    Args:
        most: bytes that it may have, counted before anybody parses them.

    Raises:
        ApiError: 413 where it has more, or says that it will; 408 where it comes too slowly.
        ClientDisconnect: the client is gone.
    """
    if announced(request) > most:
        raise too_large(most)
    received = 0
    async for piece in request.stream():
        received += len(piece)
        if received > most:
            raise too_large(most)
        if piece:
            yield piece


def announced(request: Request) -> int:
    """Return how many bytes a request says that its body has; 0 if it does not say."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def too_large(most: int) -> ApiError:
    """Return the error of a body that has more bytes than it may have."""
    return ApiError(413, f"The request's body is too large: {most:,} bytes at most.", code="request_too_large")


async def read_json(request: Request, most: int = MOST_JSON, *, optional: bool = False) -> dict[str, Any]:
    """Return a request's body, a JSON object.

    Args:
        most: bytes that it may have.
        optional: whether no body is as good as an empty object.

    Raises:
        ApiError: it is none, or larger than it may be.
    """
    data = bytearray()
    async for piece in pieces(request, most):
        data += piece
    if optional and not data:
        return {}
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ApiError(
            400,
            "We could not parse the JSON body of your request: the body is expected to be a JSON object.",
        ) from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body of your request must be a JSON object.")
    return body
