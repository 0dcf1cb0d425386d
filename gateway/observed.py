"""What every request gets: an id, a count, a line in the log where it failed, and an answer in any case."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import answer, as_api_error, speaks_anthropic
from .metrics import Metrics

logger = logging.getLogger("durabatch.gateway")

#: What nginx writes where a client went away before its answer.
_GONE = 499


class Observed:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status: int | None = None
        request_id = f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        names = (b"x-request-id", b"request-id") if speaks_anthropic(scope) else (b"x-request-id",)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *((name, request_id.encode()) for name in names)]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            status = status or _GONE
        except asyncio.CancelledError:  # the process ends, and uvicorn would log where in the code it was
            logger.warning("%s: the gateway ends, and an answer was broken off", request_id)
        except Exception as error:
            if status is not None:
                # The client must not take what it has for the whole. uvicorn closes the connection when a route ends
                # before its answer does.
                logger.error("%s: an answer was broken off: %s", request_id, error)
            else:
                await answer(as_api_error(error), scope)(scope, receive, watched)
        finally:
            self._metrics.answered(_route(scope), status or _GONE, time.monotonic() - began)


def _route(scope: Scope) -> str:
    """Return a route's name: one of a few, whatever is asked for."""
    endpoint: Any = scope.get("endpoint")
    if endpoint is None:
        return "none"
    return f"{endpoint.__module__.rpartition('.')[2]}.{endpoint.__name__}"
