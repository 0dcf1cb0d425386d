"""Anthropic's protocol: Message Batches and Messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from ..batch import Batch
from ..directives import FAILURES
from ..errors import Refusal
from ..limits import Shortage, Standing
from ..lines import Lines
from ..prompt import Body
from ..protocol import Check, Protocol, Route, RowOutcome, RowRef
from ..settings import Settings
from ..state import State
from . import batches, limits, models, requests
from .endpoints import ENDPOINTS, NAME

_VERSION = "anthropic-version"
#: Status and type of the failures that a row may ask for.
_FAILURES = {
    "rate_limited": (429, "rate_limit_error"),
    "server_error": (500, "api_error"),
    "timeout": (504, "timeout_error"),
    "invalid_request": (400, "invalid_request_error"),
    "context_length": (400, "invalid_request_error"),
    "overloaded": (529, "overloaded_error"),
}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
#: What Anthropic says of a parameter, by the code of the core's refusal.
_WORDS = {
    "missing_required_parameter": "Field required",
    "invalid_type": "Input should be of another type",
    "empty_array": "at least one message is required",
}


class Anthropic(Protocol):
    """Anthropic's wire protocol."""

    name = NAME
    request_id_header = "request-id"
    request_field = "params"
    live_tier = "standard"
    batch_tier = "batch"
    keeps_ids = False
    error_file = False
    endpoints = ENDPOINTS
    routes = (
        Route("POST", "/v1/messages/batches", "batches.create", batches.create, streamed=True),
        Route("GET", "/v1/messages/batches", "batches.list", batches.listing),
        Route("GET", "/v1/messages/batches/{batch_id}", "batches.retrieve", batches.retrieve),
        Route("POST", "/v1/messages/batches/{batch_id}/cancel", "batches.cancel", batches.cancel),
        Route("DELETE", "/v1/messages/batches/{batch_id}", "batches.delete", batches.delete),
        Route("GET", "/v1/messages/batches/{batch_id}/results", "batches.results", batches.results),
        Route("GET", "/v1/models", "models", models.listing),
        Route("GET", "/v1/models/{model}", "models", models.retrieve),
    )

    def speaks(self, request: web.Request) -> bool:
        return _VERSION in request.headers

    def authenticate(self, request: web.Request, key: str, valid: bool) -> None:
        version = request.headers.get(_VERSION)
        if version is None:
            raise Refusal(400, f"{_VERSION}: header is required")
        if version not in requests.VERSIONS:
            raise Refusal(400, f'{_VERSION}: "{version}" is not a valid version')
        if not key or not valid:
            raise Refusal(401, "invalid x-api-key" if key else "x-api-key header is required")

    def check_live(self, request: web.Request, body: Body) -> None:
        requests.check_version(request.headers[_VERSION], body)

    def check_row(self, body: Body) -> None:
        requests.check_row(body)

    def envelope(self, refusal: Refusal, request_id: str) -> dict[str, Any]:
        default = "api_error" if refusal.status >= 500 else "invalid_request_error"
        kind = refusal.type or _TYPES.get(refusal.status, default)
        return {"type": "error", "error": {"type": kind, "message": refusal.message}, "request_id": request_id}

    def reworded(self, refusal: Refusal) -> Refusal:
        if refusal.param is None or refusal.code not in _WORDS:
            return refusal
        return Refusal(refusal.status, f"{refusal.param}: {_WORDS[refusal.code]}")

    def failure(self, name: str) -> Refusal:
        status, kind = _FAILURES[name]
        return Refusal(status, FAILURES[name], type=kind)

    def limit_headers(self, standings: Mapping[str, Standing]) -> Mapping[str, str]:
        return limits.headers(standings)

    def over_limit(self, model: str, shortage: Shortage) -> Refusal:
        return limits.refusal(model, shortage)

    def succeeded(self, row: RowRef, body: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": row.custom_id, "result": {"type": "succeeded", "message": body}}

    def errored(self, row: RowRef, refusal: Refusal) -> dict[str, Any]:
        error = self.envelope(refusal, row.id("req"))
        return {"custom_id": row.custom_id, "result": {"type": "errored", "error": error}}

    def overtaken(self, row: RowRef, outcome: RowOutcome) -> dict[str, Any]:
        return {"custom_id": row.custom_id, "result": {"type": outcome}}

    def check(self, batch: Batch, state: State, settings: Settings, keep_on: Callable[[], None]) -> Check:
        # Checked when it came in; and no limit is by tokens, so none are counted.
        with Lines(state.file_path(batch.input_file_id)) as lines:
            return Check([], len(lines), None, 0)
