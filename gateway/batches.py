"""`/v1/batches`: create, list, retrieve, cancel."""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..activities.gateway.expiry import note_end
from ..clients.concurrency import concurrently
from ..contract import DurabatchError
from ..contract.gateway_batch import (
    BatchEntry,
    BatchObject,
    ErrorList,
    GatewayBatch,
    GatewayStatus,
    LineError,
)
from ..contract.gateway_layout import Listed, idempotency_path, index_path, key_digest, listed_as, make_id
from . import index
from .body import read_json
from .context import Context, context_of, tenant_of
from .described import Described, Param
from .errors import ApiError
from .files import as_list
from .live import Glance, ask_to_stop, begin, find_entries, find_entry
from .order import MAX_IDEMPOTENCY_KEY, fingerprint, idempotency_key, ordered
from .params import AFTER, after_of, limit_of, limit_param
from .search import FILTERS, Wanted, search
from .shapes import BatchOrder, BatchPage

_DEFAULT_LIMIT, _MAX_LIMIT = 20, 100
#: Batches of a page that are looked at at a time.
_PARALLEL = 16

KEY = Param(
    "idempotency-key",
    "The same create with the same key is the same batch.",
    {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY},
    where="header",
)
NO_BATCH = {404: "The caller has no such batch."}


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [
        Route("/v1/batches", create, methods=["POST"]),
        Route("/v1/batches", listing, methods=["GET"]),
        Route("/v1/batches/{batch_id}", retrieve, methods=["GET"]),
        Route("/v1/batches/{batch_id}/cancel", cancel, methods=["POST"]),
    ]


@Described(answer=BatchObject, takes=[KEY], body=BatchOrder, errors={409: "The key was used with other parameters."})
async def create(request: Request) -> Response:
    """Take an order: note it in the tenant's index, start its workflow, and answer before anything is checked."""
    context, tenant = context_of(request), tenant_of(request)
    body = await read_json(request)
    key = idempotency_key(request, body)
    new_id = make_id(Listed.BATCHES, datetime.now(UTC), secrets.token_hex(8))
    batch = ordered(body, new_id, context, tenant)
    if key is not None:
        # By what was asked for: which provider runs what names none is the operator's, and may be another by now.
        asked = batch.model_copy(update={"provider": body.get("provider")})
        batch = ordered(body, await id_for(context, asked, key), context, tenant)
        batch = batch.model_copy(update={"idempotency": key_digest(key)})
    return await placed(context, batch, retried=key is not None)


async def placed(context: Context, batch: GatewayBatch, *, retried: bool) -> Response:
    """Note a batch in its tenant's index and start its workflow, unless that is done; answer with how it is.

    Args:
        retried: whether the caller can ask for the same batch again.
    """
    entry = BatchEntry(request=batch)
    path = index_path(batch.tenant, batch.id)
    # Noted first: a batch that runs and is in no list would cost unseen, and one that was only noted is started by
    # whoever asks for it next.
    made = await context.store.create(path, entry.model_dump_json().encode())
    if not made:
        entry = await find_entry(context.store, batch.tenant, batch.id) or entry
    if entry.final is None:
        await start(context, entry, retried=retried)
    shown = batch.beginning() if made else await Glance(context.client, thorough=True).at(entry)
    return JSONResponse(wire(shown))


async def id_for(context: Context, batch: GatewayBatch, key: str, *, realm: str = "", content: str = "") -> str:
    """Return the id of the batch of an idempotency key: whoever comes first with it decides.

    Args:
        realm: what the key belongs to; "" for OpenAI's batches.
        content: what two creates with the key must agree on beside the batch.

    Raises:
        ApiError: the key belongs to a batch with other parameters.
    """
    path, asked = idempotency_path(batch.tenant, realm + key), fingerprint(batch) + content
    if await context.store.create(path, json.dumps({"id": batch.id, "fingerprint": asked}).encode()):
        return batch.id
    known = json.loads(await context.store.read(path))
    if known["fingerprint"] != asked:
        raise ApiError(
            409,
            f"Idempotency key '{key[:100]}' was previously used with different parameters. Either use a new "
            "idempotency key or ensure all parameters match the original request.",
            param="idempotency_key",
            code="idempotency_conflict",
        )
    return str(known["id"])


async def start(context: Context, entry: BatchEntry, *, retried: bool) -> None:
    """Start a batch's workflow.

    Args:
        retried: whether the caller can ask for the same batch again.

    Raises:
        TemporalUnavailable: Temporal does not answer.
        DurabatchError: it refused the call.
    """
    try:
        await begin(context.client, entry.request)  # the SDK tries it again for some ten seconds
    except DurabatchError:
        if not retried:
            # The caller will create another batch. This one must not be started then by whoever lists it.
            await _give_up(context, entry)
        raise


async def _give_up(context: Context, entry: BatchEntry) -> None:
    batch = entry.request
    known = await find_entry(context.store, batch.tenant, batch.id, listed_as(batch.id))
    if known is not None and (known.intake or known.final):
        return  # it was started, and only the answer was lost: it runs, and may be cancelled
    why = LineError(code="not_started", message="Temporal did not answer, and the batch was not started.")
    now = int(time.time())
    final = entry.request.beginning().model_copy(
        update={"status": GatewayStatus.FAILED, "failed_at": now, "errors": ErrorList(data=(why,))}
    )
    path = index_path(entry.request.tenant, entry.request.id)
    await note_end(context.store, entry.request.tenant, entry.request.id)
    await context.store.write(path, entry.model_copy(update={"final": final}).model_dump_json().encode())


@Described(answer=BatchObject, errors=NO_BATCH)
async def retrieve(request: Request) -> Response:
    """Retrieve a batch."""
    return JSONResponse(wire(await Glance(context_of(request).client, thorough=True).at(await entry_of(request))))


@Described(answer=BatchPage, takes=[AFTER, limit_param(_DEFAULT_LIMIT, _MAX_LIMIT), *FILTERS])
async def listing(request: Request) -> Response:
    """List batches, newest first."""
    context, tenant = context_of(request), tenant_of(request).name
    limit, after = limit_of(request, _DEFAULT_LIMIT, _MAX_LIMIT), after_of(request, Listed.BATCHES)
    if (narrowed := Wanted.of(request)) is not None:
        async with context.long_reads.one(tenant):
            some, more = await search(context, tenant, narrowed, after, limit)
        return JSONResponse(as_list([wire(one) for one in some], more=more))
    find = partial(find_entries, context.store, tenant)
    entries, more = await index.objects(find, context.store, tenant, Listed.BATCHES, after=after, limit=limit)
    shown = await concurrently(Glance(context.client).at, entries, _PARALLEL)
    return JSONResponse(as_list([wire(one) for one in shown], more=more))


@Described(answer=BatchObject, errors={**NO_BATCH, 409: "The batch has ended."})
async def cancel(request: Request) -> Response:
    """Ask a batch to stop. It keeps the rows that are finished; a second request is fine."""
    context, entry = context_of(request), await entry_of(request)
    glance = Glance(context.client, thorough=True)
    shown = await glance.at(entry)
    if shown.status in (GatewayStatus.CANCELLED, GatewayStatus.CANCELLING):
        return JSONResponse(wire(shown))
    if shown.status.ended:
        raise ApiError(409, f"Cannot cancel a batch with status '{shown.status}'.")
    await ask_to_stop(context.client, entry.request)
    shown = await glance.at(await entry_of(request))
    if not shown.status.ended and shown.status is not GatewayStatus.CANCELLING:  # no worker answers
        update = {"status": GatewayStatus.CANCELLING, "cancelling_at": int(time.time())}
        shown = shown.model_copy(update=update)
    return JSONResponse(wire(shown))


async def entry_of(request: Request) -> BatchEntry:
    """Return the batch that a path names.

    Raises:
        ApiError: the caller has none of this id.
    """
    batch_id = request.path_params["batch_id"]
    entry = await find_entry(context_of(request).store, tenant_of(request).name, batch_id)
    if entry is None:
        raise ApiError(404, f"No batch found with id '{batch_id[:100]}'.")
    return entry


def wire(shown: BatchObject) -> dict[str, Any]:
    """Return a batch in OpenAI's shape."""
    found = shown.model_dump(mode="json")
    if shown.errors is not None and shown.errors.total is None:
        del found["errors"]["total"]
    if shown.retry_of is None:
        del found["retry_of"]
    return found
