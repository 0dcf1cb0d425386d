"""A message batch as Anthropic shows it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request

from ..contract.gateway_batch import BatchEntry, BatchObject, MessageCounts
from .context import Context


def wire(request: Request, context: Context, entry: BatchEntry, shown: BatchObject) -> dict[str, Any]:
    """Return a batch in Anthropic's shape.

    Args:
        request: the one that is answered: the address that it was sent to leads to the results as well.
        context: what the gateway works with.
        entry: what the tenant's index holds of it.
        shown: how it looks now.
    """
    ended, rows = shown.status.ended, entry.request.rows
    if ended:
        counts = entry.outcomes or MessageCounts(errored=rows)  # it was never started
        status = "ended"
    else:
        counts = MessageCounts(processing=rows)
        status = "in_progress" if shown.cancelling_at is None else "canceling"
    return {
        "id": shown.id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": counts.model_dump(),
        "created_at": _instant(shown.created_at),
        "expires_at": _instant(shown.expires_at),
        "ended_at": _instant(shown.ended_at),
        "cancel_initiated_at": _instant(shown.cancelling_at),
        "archived_at": None,
        "results_url": f"{_root(request, context)}/v1/messages/batches/{shown.id}/results" if ended else None,
    }


def _root(request: Request, context: Context) -> str:
    """Return the address of the gateway as its caller knows it."""
    public = context.settings.gateway.public_url
    return public.rstrip("/") if public else f"{request.url.scheme}://{request.url.netloc}"


def _instant(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
