"""`/v1/messages/batches`: create, list, retrieve, cancel, results, delete, as Anthropic has them.

Source: https://platform.claude.com/docs/en/api/messages/batches and the anthropic package's types.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..activities.gateway.messages import count_requests, remove_requests, write_messages
from ..activities.gateway.routing import Route as Routed
from ..activities.gateway.routing import Router
from ..activities.lease import Lease
from ..clients.concurrency import concurrently
from ..contract import ObjectNotFound, StoreError
from ..contract.gateway_batch import BatchEntry, GatewayBatch, GatewayStatus, Shape, message_rows_path
from ..contract.gateway_layout import (
    Listed,
    deleted_path,
    index_path,
    is_id,
    key_digest,
    made_at_ms,
    make_id,
    message_results_path,
)
from . import index
from .batches import id_for, start
from .body import announced, pieces
from .context import Context, context_of, tenant_of
from .described import Described, Param
from .download import BUSY, download
from .errors import ApiError
from .incoming import Incoming
from .live import Glance, ask_to_stop, find_entries, find_entry
from .message_batch import wire
from .message_requests import Requests
from .message_shapes import MessageBatch, MessageBatchDeleted, MessageBatchOrder, MessageBatchPage, MessageError
from .order import asked_provider, idempotency_key
from .params import limit_of, limit_param
from .tenants import Tenant

BATCHES = "/v1/messages/batches"
_DEFAULT_LIMIT, _MAX_LIMIT = 20, 1000
#: Batches of a page that are looked at at a time.
_PARALLEL = 16
#: What keeps idempotency keys of this create apart from those of others.
_REALM = f"POST {BATCHES} "
_MEDIA = "application/x-jsonl"
_VERSION = re.compile(r"\d{4}-\d\d-\d\d")
#: What a body may say beside its requests; both are ours.
_BESIDE = {"provider", "idempotency_key"}

_VERSIONED = Param(
    "anthropic-version",
    'Of Anthropic\'s API, such as "2023-06-01".',
    {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
    where="header",
    required=True,
)
_KEY = Param("idempotency-key", "Ours: the same create with the same key is the same batch.", where="header")
_AFTER = Param("after_id", "The id that the page before ended with.")
_BEFORE = Param("before_id", "The id that the page behind begins with.")
_NO_BATCH = {404: "The caller has no such batch."}


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [
        Route(BATCHES, create, methods=["POST"]),
        Route(BATCHES, listing, methods=["GET"]),
        Route(f"{BATCHES}/{{message_batch_id}}", retrieve, methods=["GET"]),
        Route(f"{BATCHES}/{{message_batch_id}}", delete, methods=["DELETE"]),
        Route(f"{BATCHES}/{{message_batch_id}}/cancel", cancel, methods=["POST"]),
        Route(f"{BATCHES}/{{message_batch_id}}/results", results, methods=["GET"]),
    ]


@Described(
    answer=MessageBatch,
    takes=[_VERSIONED, _KEY],
    body=MessageBatchOrder,
    errors={409: "The key was used with other parameters.", 413: "The body is too large."},
    error=MessageError,
)
async def create(request: Request) -> Response:
    """Take a message batch: its requests go straight into the store, and its workflow is started."""
    context, tenant = _caller(request)
    new_id = make_id(Listed.MESSAGES, datetime.now(UTC), secrets.token_hex(8))
    path, requests = message_rows_path(tenant.name, new_id), Requests(tenant.limits.max_rows)
    async with (
        context.uploads.one(tenant.name),
        context.stored.room(tenant, announced(request)) as room,
        Incoming(context.store, path, requests.feed) as incoming,
    ):
        async for piece in pieces(request, tenant.max_file_bytes):
            await incoming.write(piece)
        room.take(incoming.size)
        await incoming.flush()
        beside = requests.end()
        if unknown := beside.keys() - _BESIDE:
            raise ApiError(400, f"{min(unknown)[:100]}: Extra inputs are not permitted")
        key, batch = idempotency_key(request, beside), _ordered(new_id, requests, beside, context, tenant)
        asked = batch.model_copy(update={"provider": beside.get("provider")})  # for the key; routes may change
    entry, noted, kept = BatchEntry(request=batch), False, False
    try:
        if key is not None:
            found_id = await id_for(context, asked, key, realm=_REALM, content=requests.digest)
            entry, noted = await _keyed_entry(context, entry, key, found_id)
        # With a key, whoever repeats the create may be noting it at this moment.
        kept = key is not None and entry.request.id == new_id
        # Noted first, as at OpenAI's batches; and never again, as it may be deleted at this moment.
        made = not noted and await context.store.create(_index(entry), entry.model_dump_json().encode())
        kept = entry.request.id == new_id
        if made:
            with contextlib.suppress(StoreError):  # an error would have the caller create it twice
                await count_requests(context.store, entry.request)
    finally:
        if not kept:
            with contextlib.suppress(StoreError):  # `gc` finds them too
                await context.store.delete(path)
            context.stored.forget(tenant.name)
    if not made:
        found = await _find(context, tenant.name, entry.request.id)
        if found is None and noted:
            raise _deleted(entry.request.id)
        entry = found or entry
    if entry.final is None:
        await start(context, entry, retried=key is not None)
    return await _shown(request, context, entry, new=made)


def _ordered(
    batch_id: str, requests: Requests, beside: dict[str, Any], context: Context, tenant: Tenant
) -> GatewayBatch:
    routes = [Routed(route.model, route.provider) for route in context.settings.gateway.routes]
    router = Router(routes, asked_provider(beside.get("provider"), context), tenant.models)
    return GatewayBatch(
        tenant=tenant.name,
        id=batch_id,
        input_file_id="",
        endpoint="/v1/messages",
        provider=requests.provider(router),
        models=tenant.models,
        limits=tenant.limits,
        created_at=made_at_ms(batch_id) // 1000,
        shape=Shape.ANTHROPIC,
        rows=requests.rows,
    )


async def _keyed_entry(context: Context, entry: BatchEntry, key: str, found: str) -> tuple[BatchEntry, bool]:
    """Return the entry of the batch `found` that an idempotency key made, or makes now; and whether the index has it.

    Raises:
        ApiError: it was deleted.
    """
    batch = entry.request.model_copy(update={"idempotency": key_digest(_REALM + key)})
    if found == batch.id:
        return BatchEntry(request=batch), False
    if known := await _find(context, batch.tenant, found):
        return known, True
    if await context.store.entry(deleted_path(batch.tenant, found)) is not None:
        raise _deleted(found)
    # Whoever came first did not come so far as to note it, and its requests may be gone: these are the same.
    rows = message_rows_path(batch.tenant, batch.id), message_rows_path(batch.tenant, found)
    if await context.store.size(rows[1]) is None:
        await run_in_threadpool(context.store.concat, rows[1], [rows[0]])
    changed = {"id": found, "created_at": made_at_ms(found) // 1000}
    return BatchEntry(request=batch.model_copy(update=changed)), False


def _deleted(batch_id: str) -> ApiError:
    return ApiError(409, f"The batch {batch_id} of this idempotency key was deleted.", param="idempotency_key")


def _index(entry: BatchEntry) -> str:
    return index_path(entry.request.tenant, entry.request.id)


@Described(answer=MessageBatch, takes=[_VERSIONED], errors=_NO_BATCH, error=MessageError)
async def retrieve(request: Request) -> Response:
    """Retrieve a message batch."""
    context, _ = _caller(request)
    return await _shown(request, context, await _entry(request))


@Described(
    answer=MessageBatchPage,
    takes=[_VERSIONED, limit_param(_DEFAULT_LIMIT, _MAX_LIMIT), _AFTER, _BEFORE],
    error=MessageError,
)
async def listing(request: Request) -> Response:
    """List message batches, newest first."""
    context, tenant = _caller(request)
    limit = limit_of(request, _DEFAULT_LIMIT, _MAX_LIMIT)
    after, before = _cursor(request, "after_id"), _cursor(request, "before_id")
    if after and before:
        raise ApiError(400, "after_id, before_id: only one of them may be given")
    entries, more = await index.objects(
        partial(find_entries, context.store, tenant.name, listed=Listed.MESSAGES),
        context.store,
        tenant.name,
        Listed.MESSAGES,
        after=after or before,
        limit=limit,
        oldest_first=before is not None,
    )
    if before:
        entries.reverse()
    glance = Glance(context.client)

    async def one(entry: BatchEntry) -> dict[str, Any]:
        return await _wired(request, context, entry, glance)

    data = await concurrently(one, entries, _PARALLEL)
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return JSONResponse({"data": data, "has_more": more, "first_id": ends[0], "last_id": ends[1]})


@Described(answer=MessageBatch, takes=[_VERSIONED], errors=_NO_BATCH, error=MessageError)
async def cancel(request: Request) -> Response:
    """Ask a message batch to stop. It keeps the requests that are finished; a second request is fine."""
    context, _ = _caller(request)
    entry, glance = await _entry(request), Glance(context.client)
    shown = await glance.at(entry)
    if shown.status.ended:
        raise ApiError(400, f"Batch {entry.request.id} cannot be canceled because it has already ended.")
    if shown.status is not GatewayStatus.CANCELLING:
        await ask_to_stop(context.client, entry.request)
        entry = await _entry(request)
        shown = await glance.at(entry)
        if not shown.status.ended and shown.status is not GatewayStatus.CANCELLING:  # no worker answers
            asked = {"status": GatewayStatus.CANCELLING, "cancelling_at": int(time.time())}
            shown = shown.model_copy(update=asked)
    if shown.status.ended:
        entry = await _entry(request)
    return JSONResponse(wire(request, context, entry, shown))


@Described(media=_MEDIA, takes=[_VERSIONED], errors={**_NO_BATCH, **BUSY}, error=MessageError)
async def results(request: Request) -> Response:
    """Send the results of a message batch that has ended: a line for each of its requests, in their order."""
    context, tenant = _caller(request)
    entry = await _ended(request, "has no results yet")
    batch, final = entry.request, entry.final
    assert final is not None
    store, path = context.store, message_results_path(tenant.name, batch.id)
    if (size := await store.size(path)) is None:
        if entry.published:  # deleted since; else it is one that was never started
            raise _no_batch(batch.id)
        async with context.long_reads.one(tenant.name):
            await run_in_threadpool(write_messages, store, batch, final, None, False, Lease())
        size = await store.size(path) or 0
    name = f"{batch.id}_results.jsonl"
    try:
        return await download(request, path, size=size, etag=batch.id, filename=name, media=_MEDIA)
    except ObjectNotFound:  # deleted since
        raise _no_batch(batch.id) from None


@Described(answer=MessageBatchDeleted, takes=[_VERSIONED], errors=_NO_BATCH, error=MessageError)
async def delete(request: Request) -> Response:
    """Remove a message batch that has ended, with its requests and results."""
    context, tenant = _caller(request)
    batch = (await _ended(request, "cannot be deleted")).request
    # First: what repeats its create must not run it again.
    await context.store.create(deleted_path(tenant.name, batch.id), b"")
    for path in (index_path(tenant.name, batch.id), message_results_path(tenant.name, batch.id)):
        await context.store.delete(path)
    await remove_requests(context.store, tenant.name, batch.id)
    context.stored.forget(tenant.name)
    return JSONResponse({"id": batch.id, "type": "message_batch_deleted"})


def _caller(request: Request) -> tuple[Context, Tenant]:
    """Return what every route works with, and for whom.

    Raises:
        ApiError: the request does not say which version of the API it speaks.
    """
    version = request.headers.get("anthropic-version")
    if version is None:
        raise ApiError(400, "anthropic-version: header is required")
    if not _VERSION.fullmatch(version):
        raise ApiError(400, f'anthropic-version: "{version[:100]}" is not a valid version')
    return context_of(request), tenant_of(request)


def _cursor(request: Request, name: str) -> str | None:
    given = request.query_params.get(name) or None
    if given is not None and not is_id(Listed.MESSAGES, given):
        raise ApiError(400, f"{name}: there is no batch {given[:100]}")
    return given


async def _find(context: Context, tenant: str, batch_id: str) -> BatchEntry | None:
    return await find_entry(context.store, tenant, batch_id, Listed.MESSAGES)


async def _entry(request: Request) -> BatchEntry:
    batch_id = request.path_params["message_batch_id"]
    entry = await _find(context_of(request), tenant_of(request).name, batch_id)
    if entry is None:
        raise _no_batch(batch_id)
    return entry


def _no_batch(batch_id: str) -> ApiError:
    return ApiError(404, f"Message batch {batch_id[:100]} not found.")


async def _ended(request: Request, otherwise: str) -> BatchEntry:
    """Return a batch that has ended.

    Raises:
        ApiError: it has not.
    """
    entry = await _entry(request)
    if entry.final is None:
        await Glance(context_of(request).client).at(entry)  # starts it again where its workflow was lost
        entry = await _entry(request)
    if entry.final is None:
        raise ApiError(400, f"Batch {entry.request.id} {otherwise}: it has not ended.")
    return entry


async def _shown(request: Request, context: Context, entry: BatchEntry, *, new: bool = False) -> Response:
    if new:
        return JSONResponse(wire(request, context, entry, entry.request.beginning()))
    return JSONResponse(await _wired(request, context, entry, Glance(context.client)))


async def _wired(request: Request, context: Context, entry: BatchEntry, glance: Glance) -> dict[str, Any]:
    shown = await glance.at(entry)
    if shown.status.ended and entry.final is None:  # it has ended since, and its entry counts its requests
        entry = await _find(context, entry.request.tenant, entry.request.id) or entry
    return wire(request, context, entry, shown)
