"""Anthropic's Message Batches API."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from ..batch import Batch, Status, decode_batch
from ..download import download
from ..errors import Refusal
from ..lifecycle import accept, begin_cancel, polled
from ..provider import account_of, answer, int_param, new_id, provider_of
from ..state import INLINE_INPUT
from .endpoints import MESSAGES, NAME
from .intake import receive, split

_WINDOW_SECONDS = 24 * 3600


async def create(request: web.Request) -> web.Response:
    """POST /v1/messages/batches: the rows come inline and go straight to disk."""
    provider = provider_of(request)
    batch_id = new_id("msgbatch_")
    input_id = f"{batch_id}{INLINE_INPUT}"
    path = provider.state.file_path(input_id)
    incoming = path.with_suffix(".part")
    try:
        await receive(request, incoming, provider.settings)
        rows = await asyncio.to_thread(split, incoming, path, provider.settings)
        batch = Batch(
            id=batch_id,
            protocol=NAME,
            account=account_of(request),
            created_at=time.time(),
            endpoint=MESSAGES,
            input_file_id=input_id,
            rows=rows,
        )
        accept(provider, batch)
    except Refusal:
        path.unlink(missing_ok=True)
        raise
    finally:
        incoming.unlink(missing_ok=True)
    return answer(wire(batch, request))


async def retrieve(request: web.Request) -> web.Response:
    """GET /v1/messages/batches/{batch_id}."""
    return answer(wire(await polled(provider_of(request), _batch(request)), request))


async def listing(request: web.Request) -> web.Response:
    """GET /v1/messages/batches."""
    state, account = provider_of(request).state, account_of(request)
    limit = int_param(request, "limit", 20, 1, 1_000)
    after, before = request.query.get("after_id"), request.query.get("before_id")
    if after and before:
        raise Refusal(400, "after_id, before_id: only one of them may be given")
    place = None
    if cursor := after or before:
        place = state.place("batches", cursor, account)
        if place is None:
            raise Refusal(400, f"{'after_id' if after else 'before_id'}: there is no batch {cursor}")
    found = state.page(
        "batches",
        account,
        purpose=NAME,
        older_than=None if before else place,
        newer_than=place if before else None,
        oldest_first=bool(before),
        limit=limit + 1,
    )
    batches = [decode_batch(data) for data in found[:limit]]
    if before:
        batches.reverse()
    data = [wire(batch, request) for batch in batches]
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return answer({"data": data, "has_more": len(found) > limit, "first_id": ends[0], "last_id": ends[1]})


async def cancel(request: web.Request) -> web.Response:
    """POST /v1/messages/batches/{batch_id}/cancel."""
    provider = provider_of(request)
    with provider.state.transaction():
        batch = _batch(request)
        if batch.status.ended:
            raise Refusal(400, f"Batch {batch.id} cannot be canceled because it has already ended.")
        begin_cancel(provider, batch)
    return answer(wire(batch, request))


async def delete(request: web.Request) -> web.Response:
    """DELETE /v1/messages/batches/{batch_id}: only when it has ended."""
    state = provider_of(request).state
    with state.transaction():
        batch = _batch(request)
        if not batch.status.ended:
            raise Refusal(400, f"Batch {batch.id} cannot be deleted because it has not ended; cancel it first.")
        batch.deleted = True
        state.save_batch(batch)
    if batch.output_file_id is not None:
        state.file_path(batch.output_file_id).unlink(missing_ok=True)
    return answer({"id": batch.id, "type": "message_batch_deleted"})


async def results(request: web.Request) -> web.StreamResponse:
    """GET /v1/messages/batches/{batch_id}/results."""
    batch = _batch(request)
    if not batch.status.ended:
        raise Refusal(400, f"Batch {batch.id} has no results yet: it is {_status(batch)}.")
    if batch.output_file_id is None:  # every row has the directive `missing`
        return web.Response(body=b"", content_type="application/x-jsonl")
    path = provider_of(request).state.file_path(batch.output_file_id)
    return await download(request, "batches.results", path, "application/x-jsonl", final_newline=False)


def _batch(request: web.Request) -> Batch:
    batch_id = request.match_info["batch_id"]
    batch = provider_of(request).state.batch(batch_id)
    if batch is None or batch.deleted:
        raise Refusal(404, f"Message batch {batch_id} not found.")
    if batch.account != account_of(request) or batch.protocol != NAME:
        raise Refusal(404, f"Message batch {batch_id} not found.")
    return batch


def _status(batch: Batch) -> str:
    if batch.status.ended:
        return "ended"
    return "canceling" if batch.status is Status.CANCELLING else "in_progress"


def wire(batch: Batch, request: web.Request) -> dict[str, Any]:
    """Anthropic's message batch object as it looks now."""
    ended = batch.status.ended
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": _status(batch),
        "request_counts": {
            "processing": 0 if ended else batch.rows,
            "succeeded": batch.tally.succeeded if ended else 0,
            "errored": batch.tally.errored if ended else 0,
            "canceled": batch.tally.canceled if ended else 0,
            "expired": batch.tally.expired if ended else 0,
        },
        "created_at": _instant(batch.created_at),
        "expires_at": _instant(batch.created_at + _WINDOW_SECONDS),
        "ended_at": _instant(batch.ended_at),
        "cancel_initiated_at": _instant(batch.cancelling_at),
        "archived_at": None,
        "results_url": f"{request.url.origin()}{MESSAGES}/batches/{batch.id}/results" if ended else None,
    }


def _instant(instant: float | None) -> str | None:
    return None if instant is None else datetime.fromtimestamp(instant, UTC).isoformat()
