"""`/v1/webhooks`, which is ours: a tenant's webhooks, what became of its events, and sending them again."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..clients.webhooks import deliveries, enable, endpoint_status, resend
from ..contract.gateway_layout import Listed
from ..contract.webhooks import Delivery, DeliveryStatus
from ..workers.gateway_settings import GatewayWebhook
from .context import context_of, tenant_of
from .described import Described
from .errors import ApiError
from .files import as_list
from .params import AFTER, after_of, limit_of, limit_param
from .shapes import DeliveryObject, DeliveryPage, WebhookObject, WebhookPage

_DEFAULT_LIMIT, _MAX_LIMIT = 20, 100
_NOBODYS = {404: "You have none of this name or id."}


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [
        Route("/v1/webhooks", listing, methods=["GET"]),
        Route("/v1/webhooks/deliveries", delivered, methods=["GET"]),
        Route("/v1/webhooks/deliveries/{delivery_id}/resend", send_again, methods=["POST"]),
        Route("/v1/webhooks/{name}/enable", enabled, methods=["POST"]),
    ]


@Described(answer=WebhookPage)
async def listing(request: Request) -> Response:
    """List your webhooks, as the operator has configured them, and how they answer."""
    return JSONResponse({"object": "list", "data": [await _shown(request, one) for one in _own(request)]})


@Described(answer=DeliveryPage, takes=[AFTER, limit_param(_DEFAULT_LIMIT, _MAX_LIMIT)])
async def delivered(request: Request) -> Response:
    """List what became of your events, those of the newest batches first."""
    context, tenant = context_of(request), tenant_of(request).name
    limit, after = limit_of(request, _DEFAULT_LIMIT, _MAX_LIMIT), after_of(request, Listed.EVENTS)
    found, more = await deliveries(context.client, tenant, after=after, limit=limit)
    return JSONResponse(as_list([wire(one) for one in found], more=more and bool(found)))


@Described(answer=DeliveryObject, errors=_NOBODYS)
async def send_again(request: Request) -> Response:
    """Send an event again, with its old id; it is tried for another day."""
    delivery_id = request.path_params["delivery_id"]
    found = await resend(context_of(request).client, tenant_of(request).name, delivery_id)
    if found is None:
        raise ApiError(404, f"No delivery found with id '{delivery_id[:100]}'.")
    return JSONResponse(wire(found))


@Described(answer=WebhookObject, errors=_NOBODYS)
async def enabled(request: Request) -> Response:
    """Try a webhook again at once that is disabled or failing."""
    name = request.path_params["name"]
    found = next((one for one in _own(request) if one.name == name), None)
    if found is None:
        raise ApiError(404, f"No webhook found with name '{name[:100]}'.")
    await enable(context_of(request).client, found.tenant, found.name)
    return JSONResponse(await _shown(request, found))


def _own(request: Request) -> list[GatewayWebhook]:
    tenant = tenant_of(request).name
    return [one for one in context_of(request).settings.gateway.webhooks if one.tenant == tenant]


async def _shown(request: Request, webhook: GatewayWebhook) -> dict[str, Any]:
    """Return a webhook without its address, which may hold a token."""
    status = await endpoint_status(context_of(request).client, webhook.tenant, webhook.name)
    return {"object": "webhook", "name": webhook.name, "events": list(webhook.events), "status": status}


def wire(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as it is shown."""
    waits = delivery.status is DeliveryStatus.PENDING
    return {
        "id": delivery.id,
        "object": "webhook.delivery",
        "webhook": delivery.endpoint,
        "type": delivery.type,
        "batch_id": delivery.batch_id,
        "created_at": delivery.created_at,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "next_attempt_at": delivery.next_ms // 1000 if waits else None,
        "delivered_at": delivery.delivered_at,
        "response_status": delivery.response_status,
        "error": delivery.error,
    }
