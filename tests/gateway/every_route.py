"""How every route of the gateway is asked for what a tenant made. A new route needs an entry in VISITS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import httpx2
from starlette.routing import Route

from durabatch.gateway.app import routes

from .conftest import LINE


class Shows(Enum):
    """What a route shows to whom."""

    OWNED = auto()  #: One object: 404 for everybody but its owner.
    LIST = auto()  #: A list: others see one without it.
    MADE = auto()  #: What it makes: others make their own, of whatever they name.
    SHARED = auto()  #: The same to every tenant.
    OPEN = auto()  #: The same to everybody, without a key.


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A request. In its texts, {file_id} and the like are the ids of what a tenant made."""

    shows: Shows
    own: tuple[int, ...] = (200,)  #: What its owner is answered with.
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    files: Mapping[str, Any] | None = None
    temporal: bool = False  #: Whether it cannot answer without Temporal.

    async def send(
        self, http: httpx2.AsyncClient, route: str, ids: Mapping[str, str], key: str | None = None
    ) -> httpx2.Response:
        """Send it, and return the answer."""
        method, _, path = route.partition(" ")
        return await http.request(
            method,
            path.format_map(ids),
            params=_filled(self.params, ids) or None,
            headers={**self.headers, **({} if key is None else {"authorization": f"Bearer {key}"})},
            json=_filled(self.json, ids),
            files=self.files,
        )


def _filled(value: Any, ids: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _filled(one, ids) for name, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, ids) for one in value]
    return value.format_map(ids) if isinstance(value, str) else value


VERSION = {"anthropic-version": "2023-06-01"}

#: In this order: what removes and stops comes last.
VISITS: dict[str, Visit] = {
    "GET /healthz": Visit(shows=Shows.OPEN),
    "GET /readyz": Visit(shows=Shows.OPEN, own=(200, 503)),
    "GET /metrics": Visit(shows=Shows.OPEN),
    "GET /openapi.json": Visit(shows=Shows.SHARED),
    # Its signature is its key, and this one has none.
    "POST /webhooks/{provider}": Visit(shows=Shows.OPEN, own=(401,), json={"type": "batch.completed"}),
    "GET /v1/models": Visit(shows=Shows.SHARED),
    "GET /v1/models/{model}": Visit(shows=Shows.SHARED),
    "POST /v1/files": Visit(shows=Shows.MADE, files={"file": ("rows.jsonl", LINE), "purpose": (None, "batch")}),
    "GET /v1/files": Visit(shows=Shows.LIST),
    "GET /v1/files/{file_id}": Visit(shows=Shows.OWNED),
    "GET /v1/files/{file_id}/content": Visit(shows=Shows.OWNED, own=(206,), headers={"range": "bytes=0-9"}),
    "POST /v1/batches": Visit(
        shows=Shows.MADE,
        json={
            "input_file_id": "{file_id}",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "idempotency_key": "a-key",
        },
        temporal=True,
    ),
    "GET /v1/batches": Visit(shows=Shows.LIST),
    "GET /v1/batches/{batch_id}": Visit(shows=Shows.OWNED),
    "GET /v1/batches/{batch_id}/results": Visit(shows=Shows.OWNED),
    "GET /v1/batches/{batch_id}/analytics": Visit(shows=Shows.OWNED),
    "POST /v1/batches/{batch_id}/retry": Visit(shows=Shows.OWNED, own=(400,)),
    "GET /v1/webhooks": Visit(shows=Shows.SHARED),
    "GET /v1/webhooks/deliveries": Visit(shows=Shows.LIST),
    "POST /v1/webhooks/deliveries/{delivery_id}/resend": Visit(shows=Shows.OWNED, temporal=True),
    "POST /v1/webhooks/{name}/enable": Visit(shows=Shows.OWNED, own=(404,)),  # none is configured
    "POST /v1/batches/{batch_id}/cancel": Visit(shows=Shows.OWNED, own=(200, 409)),
    "POST /v1/messages/batches": Visit(
        shows=Shows.MADE,
        json={
            "requests": [{"custom_id": "a", "params": {"model": "{model}", "max_tokens": 1, "messages": []}}],
            "idempotency_key": "a-key",
        },
        headers=VERSION,
        temporal=True,
    ),
    "GET /v1/messages/batches": Visit(shows=Shows.LIST, headers=VERSION),
    "GET /v1/messages/batches/{message_batch_id}": Visit(shows=Shows.OWNED, headers=VERSION),
    "POST /v1/messages/batches/{message_batch_id}/cancel": Visit(shows=Shows.OWNED, own=(200, 400), headers=VERSION),
    "GET /v1/messages/batches/{message_batch_id}/results": Visit(shows=Shows.OWNED, headers=VERSION),
    "DELETE /v1/messages/batches/{message_batch_id}": Visit(shows=Shows.OWNED, headers=VERSION),
    "DELETE /v1/files/{file_id}": Visit(shows=Shows.OWNED),
}


def every_route() -> Iterator[str]:
    """Yield method and path of every route that the gateway has, as "GET /v1/files/{file_id}"."""
    for route in routes():
        assert isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD"}):
            yield f"{method} {route.path_format}"
