"""`POST /webhooks/{provider}`: a provider's events about its batches. Each wakes the batch that waits for it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..activities.followers import follower_of
from ..clients.client import BatchClient
from ..clients.connection import translated
from ..contract import BatchNotFound
from .body import pieces
from .context import context_of
from .described import Described, Param
from .errors import SERVER, ApiError
from .shapes import AnyObject, Received

#: Bytes of an event; OpenAI's have some 200.
_MOST = 64 * 1024
#: Providers want an answer within seconds. After that they send the event again, which is harmless.
_SECONDS = 5.0
_SIGNAL = timedelta(seconds=2)


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [Route("/webhooks/{provider}", receive, methods=["POST"])]


@Described(
    answer=Received,
    body=AnyObject,
    takes=[
        Param("webhook-id", "Identifies the event; the same where it is sent again.", where="header"),
        Param("webhook-timestamp", "When it was signed, in seconds since 1970.", where="header"),
        Param("webhook-signature", "As Standard Webhooks has it: v1 and the signature.", where="header"),
    ],
    errors={401: "It is not signed by the provider, or was not in the last five minutes."},
    keyless=True,
)
async def receive(request: Request) -> Response:
    """Take an event. Its signature is its key; whatever is signed is answered alike, so that nothing can be found out.

    An event about a batch that nobody of this store follows, or that has ended, changes nothing.
    """
    context, provider = context_of(request), request.path_params["provider"]
    body = b"".join([piece async for piece in pieces(request, _MOST)])
    inbox, message_id = context.inboxes.get(provider), request.headers.get("webhook-id", "")
    event = inbox.opened(body, request.headers) if inbox is not None else None
    if inbox is None or event is None:
        raise ApiError(
            401,
            "The webhook's signature is missing, wrong, or older than five minutes.",
            code="invalid_webhook_signature",
        )
    if not inbox.knows(message_id):
        if event.type.startswith("batch.") and event.data.id:
            try:
                async with asyncio.timeout(_SECONDS):
                    await _wake(context.client, provider, event.data.id)
            except TimeoutError:
                raise ApiError(503, "The gateway is busy: send the event again.", type=SERVER) from None
        inbox.remember(message_id)
    return JSONResponse({"received": True})


async def _wake(client: BatchClient, provider: str, provider_batch_id: str) -> None:
    """Have the workflow that follows a provider batch ask for it now.

    Raises:
        StoreError: the store failed.
        TemporalUnavailable: Temporal does not answer.
    """
    follower = await follower_of(client.store, provider, provider_batch_id)
    if follower is None:
        return
    try:
        with translated(client.temporal, follower):
            await client.temporal.get_workflow_handle(follower).signal("poll_now", rpc_timeout=_SIGNAL)
    except BatchNotFound:
        pass  # it has ended, and has its results
