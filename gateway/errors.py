"""Errors, in the envelope of whose routes were asked.

OpenAI's is `{"error": {"message", "type", "param", "code"}}`, Anthropic's `{"type": "error", "error": {"type",
"message"}, "request_id"}` (https://platform.claude.com/docs/en/api/errors).
"""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from ..clients.connection import TemporalUnavailable
from ..contract import DurabatchError, InvalidSpec, StoreError

logger = logging.getLogger("durabatch.gateway")

INVALID = "invalid_request_error"
SERVER = "server_error"
#: What Anthropic calls errors, by their status.
_ANTHROPIC = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: one sentence; never a key, nor what a row says.
        param: the field that is wrong.
        code: a word for programs.
        type: OpenAI's kind of error.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str = INVALID,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.type = type
        self.headers = headers


def not_found(what: str, id: str, param: str) -> ApiError:
    """Return the error of an id that names nothing of the caller's: "No such File object: file-abc"."""
    return ApiError(404, f"No such {what} object: {id[:100]}", param=param)


def speaks_anthropic(scope: Scope) -> bool:
    """Return whether a request is to be answered in Anthropic's shape: by its path or its header."""
    path = scope["path"]
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return True
    both = path == "/v1/models" or path.startswith("/v1/models/")
    return both and any(name == b"anthropic-version" for name, _ in scope["headers"])


def answer(error: ApiError, scope: Scope) -> Response:
    """Return an error as the answer to a request."""
    if speaks_anthropic(scope):
        kind = _ANTHROPIC.get(error.status, "api_error" if error.status >= 500 else INVALID)
        said = {"type": kind, "message": error.message}
        request_id = scope.get("state", {}).get("request_id")
        return JSONResponse({"type": "error", "error": said, "request_id": request_id}, error.status, error.headers)
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return JSONResponse({"error": body}, error.status, error.headers)


def as_api_error(error: Exception) -> ApiError:
    """Return an error as its caller sees it; what the caller cannot fix goes into the log instead."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InvalidSpec):
        return ApiError(400, error.message)
    if isinstance(error, StoreError | TemporalUnavailable):
        logger.error("%s", error.message)
        where = "store" if isinstance(error, StoreError) else "Temporal"
        return ApiError(
            503, f"The gateway's {where} does not answer: try again.", type=SERVER, headers={"Retry-After": "5"}
        )
    if isinstance(error, DurabatchError):
        logger.error("%s", error.message)
    else:
        logger.error("A request failed: %s.", type(error).__name__, exc_info=error)
    return ApiError(500, "The gateway had an error while it worked on the request.", type=SERVER)


def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what Starlette itself refuses: a path that is none, a method that a path has not."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    asked = f"{request.method} {request.url.path[:200]}"
    if status == 404:
        found = ApiError(404, f"Unknown request URL: {asked}. Please check the URL for typos.", code="unknown_url")
    elif status == 405:
        found = ApiError(
            405,
            f"Not allowed to {request.method} on {request.url.path[:200]}.",
            code="method_not_supported",
            headers={"Allow": _allowed(request)},
        )
    else:
        found = ApiError(status, str(getattr(error, "detail", "The request cannot be read.")))
    return answer(found, request.scope)


def _allowed(request: Request) -> str:
    """Return the methods that a path has. Starlette names those of one route, and a path may have several."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    found = [route.methods or set() for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted(set().union(*found)))


def on_error(request: Request, error: Exception) -> Response:
    """Answer what a route raised."""
    return answer(as_api_error(error), request.scope)
