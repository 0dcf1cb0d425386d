"""`/v1/batches/{id}/retry`: the rows of a batch that did not succeed, once more as a new batch. Ours.

A retry is an order like any other, noted under the batch that it is a retry of before it is anywhere else: who comes
first with a number decides what it is, so however many ask at once, there is one batch. Each takes the rows that the
one before it has left over; which these are, its own intake finds out.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..activities.notes import notes_below
from ..contract import ObjectNotFound
from ..contract.gateway_batch import BatchEntry, BatchObject, GatewayBatch, GatewayStatus, inner_id
from ..contract.gateway_layout import Listed, idempotency_path, key_digest, make_id, retries_folder, retry_path
from ..contract.layout import SHARDS
from .batches import KEY, NO_BATCH, entry_of, id_for, placed
from .body import read_json
from .context import Context, context_of, tenant_of
from .described import Described
from .errors import ApiError
from .live import Glance, find_entry
from .order import fingerprint, idempotency_key, ordered
from .shapes import BatchRetry
from .tenants import Tenant

#: Retries of one batch.
_MOST = 1000


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [Route("/v1/batches/{batch_id}/retry", retry, methods=["POST"])]


@Described(
    answer=BatchObject,
    takes=[KEY],
    body=BatchRetry,
    body_optional=True,
    errors=NO_BATCH | {400: "Nothing of it can be retried.", 409: "It runs still, or a retry of it that differs does."},
)
async def retry(request: Request) -> Response:
    """Run the rows of a batch that failed, expired or were cancelled once more, as a new batch."""
    context, tenant = context_of(request), tenant_of(request)
    entry = await entry_of(request)
    body = await read_json(request, optional=True)
    if unknown := body.keys() - BatchRetry.__annotations__.keys():
        name = min(unknown)[:100]
        raise ApiError(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    key = idempotency_key(request, body)
    original_id = entry.request.retry_of or entry.request.id
    original = await _original(context, tenant.name, original_id)
    # Where the original was removed, its retries are still those of one batch.
    order = _order(original or entry, original_id, body, context, tenant)
    paths = await context.store.page(retries_folder(tenant.name, original_id), limit=_MOST)
    left_by, joined = await _last(context, original, paths)
    # Behind the look at the retries: one of this key that has ended by then is known by it.
    if key is not None and (known := await _known(context, order, key)) is not None:
        return await placed(context, known.request, retried=True)
    if joined is None:
        left_by = _with_left_rows(left_by)
        if len(paths) >= _MOST:
            raise ApiError(400, f"The batch has been retried {_MOST:,} times.", code="not_retryable")
        used = None if key is None else key_digest(key)
        order = order.model_copy(update={"left_by": left_by.request.id, "idempotency": used})
        path = retry_path(tenant.name, original_id, len(paths) + 1)
        if not await context.store.create(path, order.model_dump_json().encode()):
            joined = await _read_order(context, path)  # another one was first
    if joined is not None:
        if fingerprint(joined) != fingerprint(order):
            # Unless whoever asked for it was killed, this is done. Without it nobody could retry the batch any more.
            await placed(context, joined, retried=True)
            raise ApiError(
                409,
                f"A retry of this batch with other parameters is under way: {joined.id}.",
                code="retry_under_way",
            )
        order = joined
    if key is not None:
        await id_for(context, order, key)
    return await placed(context, order, retried=True)


async def _original(context: Context, tenant: str, batch_id: str) -> BatchEntry | None:
    """Return the batch that retries are of, which has ended and ran; None if it was removed since.

    Raises:
        ApiError: it runs still, or never ran.
    """
    entry = await find_entry(context.store, tenant, batch_id)
    if entry is None:
        return None
    shown = await Glance(context.client).at(entry)
    if not shown.status.ended:
        raise ApiError(409, f"Cannot retry a batch with status '{shown.status}'.")
    entry = await find_entry(context.store, tenant, batch_id) or entry
    if not await _ran(context, entry):
        raise ApiError(
            400,
            "The batch ended before its requests were run, so there is nothing to retry: create it again, with a file "
            "that is right.",
            code="not_retryable",
        )
    return entry


def _order(
    pattern: BatchEntry, original_id: str, body: dict[str, Any], context: Context, tenant: Tenant
) -> GatewayBatch:
    """Return the order of a retry, checked as that of a create is.

    Args:
        pattern: the batch whose fields it takes over.
    """
    batch = pattern.request
    asked = {
        "input_file_id": batch.input_file_id,
        "endpoint": batch.endpoint,
        "completion_window": batch.completion_window if (own := body.get("completion_window")) is None else own,
        "metadata": batch.metadata,
        "provider": batch.provider if (own := body.get("provider")) is None else own,
    }
    order = ordered(asked, make_id(Listed.BATCHES, datetime.now(UTC), secrets.token_hex(8)), context, tenant)
    return order.model_copy(
        update={
            "retry_of": original_id,
            "output_expires_seconds": batch.output_expires_seconds,
            "models": tenant.models,
        }
    )


async def _known(context: Context, order: GatewayBatch, key: str) -> BatchEntry | None:
    """Return the batch of an idempotency key.

    Raises:
        ApiError: it belongs to a batch with other parameters.
    """
    try:
        known = json.loads(await context.store.read(idempotency_path(order.tenant, key)))
    except ObjectNotFound:
        return None
    id = await id_for(context, order.model_copy(update={"id": known["id"]}), key)
    return await find_entry(context.store, order.tenant, id)


async def _last(
    context: Context, original: BatchEntry | None, paths: list[str]
) -> tuple[BatchEntry | None, GatewayBatch | None]:
    """Return the last batch that ran rows, of the original and its retries; and the retry that is under way, if one is.

    Args:
        paths: paths of the orders of the retries.
    """
    newest = True
    for path in reversed(paths):
        order = await _read_order(context, path)
        entry = await find_entry(context.store, order.tenant, order.id)
        if newest and (entry is None or not (await Glance(context.client).at(entry)).status.ended):
            return original, order
        newest = False
        entry = entry and await find_entry(context.store, order.tenant, order.id)
        if entry is not None and await _ran(context, entry):
            return entry, None
    return original, None


async def _ran(context: Context, entry: BatchEntry) -> bool:
    """Return whether rows of a batch that has ended were run.

    None is accounted for where it was stopped before, or could not begin, for every row was refused for example. One
    whose accounts could not be made may have bought something all the same.
    """
    batch, final = entry.request, entry.final
    if entry.intake is None or final is None:
        return entry.intake is not None
    if final.request_counts.completed + final.request_counts.failed > 0:
        return True
    if final.status in (GatewayStatus.CANCELLED, GatewayStatus.EXPIRED):
        return False
    return bool(await notes_below(context.store, inner_id(batch.tenant, batch.id), SHARDS))


async def _read_order(context: Context, path: str) -> GatewayBatch:
    return GatewayBatch.model_validate_json(await context.store.read(path))


def _with_left_rows(entry: BatchEntry | None) -> BatchEntry:
    """Return a batch that has left rows over.

    Raises:
        ApiError: it has none, or was removed.
    """
    if entry is None:
        raise ApiError(
            400,
            "What this batch has left over was known by a batch that was removed: create a batch with the requests "
            "that are still wanted.",
            code="not_retryable",
        )
    if entry.final is not None and (counts := entry.final.request_counts).completed == counts.total:
        raise ApiError(400, "The batch has nothing to retry: every request has succeeded.", code="not_retryable")
    return entry
