"""OpenAI's protocol: Files, Batches and the ordinary endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from ..batch import Batch
from ..directives import FAILURES
from ..errors import Refusal
from ..limits import Shortage, Standing
from ..protocol import Check, Protocol, Route, RowOutcome, RowRef
from ..settings import Settings
from ..state import State
from . import batches, files, limits, models, validation, webhooks
from .endpoints import ENDPOINTS, NAME

#: Status, type and code of the failures that a row may ask for.
_FAILURES = {
    "rate_limited": (429, "rate_limit_error", "rate_limit_exceeded"),
    "server_error": (500, "server_error", None),
    "timeout": (504, "server_error", "request_timeout"),
    "invalid_request": (400, "invalid_request_error", "invalid_value"),
    "context_length": (400, "invalid_request_error", "context_length_exceeded"),
    "overloaded": (503, "server_error", "overloaded"),
}
#: Types of refusals by status; the type of the others follows from the status alone.
_TYPES = {429: "rate_limit_error"}
#: Code and message of rows that the batch's end overtook.
_OVERTAKEN = {
    RowOutcome.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    RowOutcome.CANCELED: ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}


class OpenAI(Protocol):
    """OpenAI's wire protocol."""

    name = NAME
    request_id_header = "x-request-id"
    request_field = "body"
    live_tier = batch_tier = "default"
    keeps_ids = True
    error_file = True
    endpoints = ENDPOINTS
    routes = (
        Route("POST", "/v1/files", "files.create", files.create, streamed=True),
        Route("GET", "/v1/files", "files.list", files.listing),
        Route("GET", "/v1/files/{file_id}", "files.retrieve", files.retrieve),
        Route("GET", "/v1/files/{file_id}/content", "files.content", files.content),
        Route("DELETE", "/v1/files/{file_id}", "files.delete", files.delete),
        Route("POST", "/v1/batches", "batches.create", batches.create),
        Route("GET", "/v1/batches", "batches.list", batches.listing),
        Route("GET", "/v1/batches/{batch_id}", "batches.retrieve", batches.retrieve),
        Route("POST", "/v1/batches/{batch_id}/cancel", "batches.cancel", batches.cancel),
        Route("GET", "/v1/models", "models", models.listing),
        Route("GET", "/v1/models/{model}", "models", models.retrieve),
    )

    def authenticate(self, request: web.Request, key: str, valid: bool) -> None:
        if not key:
            raise Refusal(
                401,
                "You didn't provide an API key. You need to provide your API key in an Authorization header "
                "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
            )
        if not valid:
            raise Refusal(401, "Incorrect API key provided.", code="invalid_api_key")

    def envelope(self, refusal: Refusal, request_id: str) -> dict[str, Any]:
        default = "server_error" if refusal.status >= 500 else "invalid_request_error"
        kind = refusal.type or _TYPES.get(refusal.status, default)
        return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code}}

    def failure(self, name: str) -> Refusal:
        status, kind, code = _FAILURES[name]
        return Refusal(status, FAILURES[name], code=code, type=kind)

    def limit_headers(self, standings: Mapping[str, Standing]) -> Mapping[str, str]:
        return limits.headers(standings)

    def over_limit(self, model: str, shortage: Shortage) -> Refusal:
        return limits.refusal(model, shortage)

    def succeeded(self, row: RowRef, body: dict[str, Any]) -> dict[str, Any]:
        return _line(row, _response(row, 200, body), None)

    def errored(self, row: RowRef, refusal: Refusal) -> dict[str, Any]:
        return _line(row, _response(row, refusal.status, self.envelope(refusal, "")), None)

    def failed(self, row: RowRef, name: str) -> dict[str, Any]:
        if name == "timeout":
            return _line(row, None, {"code": "request_timeout", "message": FAILURES[name]})
        return super().failed(row, name)

    def overtaken(self, row: RowRef, outcome: RowOutcome) -> dict[str, Any]:
        code, message = _OVERTAKEN[outcome]
        return _line(row, None, {"code": code, "message": message})

    def check(self, batch: Batch, state: State, settings: Settings, keep_on: Callable[[], None]) -> Check:
        return validation.check(batch, state, settings, keep_on)

    def publish(self, batch: Batch, state: State, settings: Settings) -> None:
        files.publish(batch, state, settings)

    async def announce(self, batch: Batch, settings: Settings) -> None:
        await webhooks.send(batch, settings)


def _response(row: RowRef, status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": row.id("req"), "body": body}


def _line(row: RowRef, response: dict[str, Any] | None, error: dict[str, str] | None) -> dict[str, Any]:
    return {"id": row.id("batch_req"), "custom_id": row.custom_id, "response": response, "error": error}
