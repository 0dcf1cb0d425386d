"""How long a batch that has ended is kept: the rows that it was run with, and then the batch itself."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import msgspec
from pydantic import ValidationError

from ...contract import ObjectNotFound
from ...contract.gateway_batch import OUTPUT_FAILED, BatchEntry, BatchObject, GatewayBatch, inner_id
from ...contract.gateway_layout import (
    Listed,
    analytics_path,
    deleted_path,
    due_path,
    first_id_at,
    idempotency_path_of,
    index_folder,
    index_path,
    is_id,
    made_at_ms,
    message_results_path,
    parse_index_path,
    retries_folder,
    spent_day,
    spent_folder,
)
from ...contract.gateway_limits import Keep
from ...contract.layout import parse_name, plan_path
from ...contract.object_name import Kind
from ..records import decode_plan
from ..store import Store
from .files import remove
from .messages import remove_requests
from .spending import forget

#: What stays of a batch's folder while the batch is listed: who it was, and what it bought.
_RECORDS = frozenset({Kind.PLAN, Kind.RESULT, Kind.NOTE})
#: How long the entries of a day's costs are kept. Nothing is added to them by then.
_SPENT = timedelta(days=60)
#: How long an order of a retry may be there before the retry itself is.
_TO_BE_NOTED = timedelta(days=1)
#: Names that are read at a time.
_PAGE = 1000
#: Names of events that are read at a time: a batch has one for each webhook of its tenant's.
_EVENTS = 20


class _Event(msgspec.Struct):
    """What is looked at in an event."""

    batch_id: str


async def note_end(store: Store, tenant: str, batch_id: str) -> None:
    """Have a batch looked at that is about to end.

    Raises:
        StoreError: the store failed.
    """
    await store.write(due_path(datetime.now(UTC).date(), tenant, batch_id), b"")


async def expire(store: Store, tenant: str, batch_id: str, keep: Keep, now: datetime) -> date | None:
    """Remove what of a batch is kept no longer. One that has not ended is left alone.

    Returns:
        When to look at it again; None for never, or for when it will have ended.

    Raises:
        StoreError: the store failed; the next call goes on.
    """
    entry = await _entry(store, tenant, batch_id)
    if entry is None and await store.entry(deleted_path(tenant, batch_id)) is not None:
        await _remove_rows(store, tenant, batch_id, records=True)
        await _remove_events(store, tenant, batch_id)
    if entry is None:
        return None
    if entry.final is None:  # noted because it is about to end: its entry says so only after that
        return now.date() + timedelta(days=1)
    ended = datetime.fromtimestamp(entry.final.ended_at or entry.final.created_at, UTC)
    rows, whole = (None if kept is None else ended + kept for kept in keep)
    if whole is not None and whole <= now:
        if await _is_retried(store, entry.request) or await _follows_a_listed_one(store, entry.request):
            return now.date() + timedelta(days=1)
        await _remove_rows(store, tenant, batch_id, records=True)
        await _remove(store, tenant, entry, entry.final)
        return None
    if rows is not None and rows <= now and not _is_owed(entry):
        if await _is_retried(store, entry.request):
            return now.date() + timedelta(days=1)
        await _remove_rows(store, tenant, batch_id, records=False)
    return min((one.date() for one in (rows, whole) if one is not None and one > now), default=None)


async def is_needed(store: Store, tenant: str, batch_id: str) -> bool:
    """Return whether somebody still has to read the rows of a batch: its tenant's files are not written, or a retry of
    it has not begun.

    Raises:
        StoreError: the store failed.
    """
    entry = await _entry(store, tenant, batch_id)
    if entry is None:
        return False
    return entry.final is None or _is_owed(entry) or await _is_retried(store, entry.request)


def _is_owed(entry: BatchEntry) -> bool:
    """Return whether a batch has run, and its output could not be written so far."""
    errors = entry.final.errors.data if entry.final is not None and entry.final.errors is not None else ()
    return not entry.published and any(error.code == OUTPUT_FAILED for error in errors)


async def _entry(store: Store, tenant: str, batch_id: str) -> BatchEntry | None:
    try:
        return BatchEntry.model_validate_json(await store.read(index_path(tenant, batch_id)))
    except (ObjectNotFound, ValidationError):
        return None


async def _is_retried(store: Store, batch: GatewayBatch) -> bool:
    """Return whether there is a retry that has not read yet what the batch, or the retry before it, has left over."""
    slots = await store.page(retries_folder(batch.tenant, batch.retry_of or batch.id), limit=_PAGE)
    if not slots:
        return False
    order = msgspec.json.decode(await store.read(slots[-1]))
    entry = await _entry(store, batch.tenant, order["id"])
    if entry is None:  # about to be noted, unless whoever asked for it was killed
        return datetime.now(UTC).timestamp() - made_at_ms(order["id"]) / 1000 < _TO_BE_NOTED.total_seconds()
    return entry.final is None and entry.intake is None


async def _follows_a_listed_one(store: Store, batch: GatewayBatch) -> bool:
    """Return whether a batch is a retry, and its batch or a retry before it is listed.

    Without it, the next retry of that one would run the rows again that this one has run.
    """
    if batch.retry_of is None:
        return False
    before = [batch.retry_of]
    for id in await _retries(store, batch.tenant, batch.retry_of):
        if id == batch.id:
            break
        before.append(id)
    for id in before:
        if await _entry(store, batch.tenant, id) is not None:
            return True
    return False


async def _retries(store: Store, tenant: str, batch_id: str) -> list[str]:
    """Return the ids of the retries of a batch, in their order."""
    paths = await store.page(retries_folder(tenant, batch_id), limit=_PAGE)
    return [msgspec.json.decode(await store.read(path))["id"] for path in paths]


async def _remove_rows(store: Store, tenant: str, batch_id: str, *, records: bool) -> None:
    """Remove the folder of the batch that ran the rows.

    Args:
        records: whether what says whose it is goes, too.
    """
    root = inner_id(tenant, batch_id)
    last = []
    if not records:
        await _unplan(store, root)
    for entry in await store.entries(root):
        name = parse_name(entry.path[len(root) + 1 :])
        if name is not None and name.kind not in _RECORDS:
            await store.delete(entry.path)
        elif name is not None and records:
            last.append(entry.path)
    for path in last:
        await store.delete(path)
    await store.prune(root)
    if is_id(Listed.MESSAGES, batch_id):
        await remove_requests(store, tenant, batch_id)


async def _unplan(store: Store, root: str) -> None:
    """Have the batch planned again should somebody start it by hand, as its rows are gone."""
    try:
        plan = decode_plan(await store.read(plan_path(root)))
    except (ObjectNotFound, msgspec.DecodeError):
        return
    if plan.spec_digest:
        await store.write(plan_path(root), msgspec.json.encode(msgspec.structs.replace(plan, spec_digest="")))


async def _remove(store: Store, tenant: str, entry: BatchEntry, final: BatchObject) -> None:
    """Remove all else of a batch. Its entry in the list goes last: a removal that is broken off is gone on with."""
    batch = entry.request
    for file_id in (final.output_file_id, final.error_file_id):
        if file_id is not None:
            await remove(store, tenant, file_id)
    for path in (message_results_path(tenant, batch.id), analytics_path(tenant, batch.id)):
        await store.delete(path)
    await forget(store, tenant, batch.id)
    for path in await store.page(spent_folder(tenant), limit=_PAGE):
        day = spent_day(path)
        if day is None or day > (datetime.now(UTC) - _SPENT).date():
            break  # they are in the order of days
        await store.delete(path)
    await _remove_events(store, tenant, batch.id)
    await _forget_retries(store, batch)
    if batch.idempotency is not None:
        await _free_key(store, tenant, batch.id, batch.idempotency)
    await store.delete(index_path(tenant, batch.id))


async def _forget_retries(store: Store, batch: GatewayBatch) -> None:
    """Remove the orders of a batch's retries with the last of them: until then they say which rows were run."""
    original = batch.retry_of or batch.id
    for id in [original, *await _retries(store, batch.tenant, original)]:
        if id != batch.id and await _entry(store, batch.tenant, id) is not None:
            return
    for path in await store.page(retries_folder(batch.tenant, original), limit=_PAGE):
        await store.delete(path)


async def _remove_events(store: Store, tenant: str, batch_id: str) -> None:
    """Remove the events of a batch's webhooks. Their ids hold its own time, so they are found at once."""
    made_at = made_at_ms(batch_id)
    last = index_path(tenant, first_id_at(Listed.EVENTS, made_at))
    while paths := await store.page(index_folder(tenant, Listed.EVENTS), after=last, limit=_EVENTS):
        for last in paths:
            id = parse_index_path(last)
            if id is None or made_at_ms(id) != made_at:
                return
            with suppress(ObjectNotFound, msgspec.MsgspecError):
                if msgspec.json.decode(await store.read(last), type=_Event).batch_id == batch_id:
                    await store.delete(last)


async def _free_key(store: Store, tenant: str, batch_id: str, digest: str) -> None:
    """Let an idempotency key make another batch, unless it has made one already: the removal may be a repeated one."""
    path = idempotency_path_of(tenant, digest)
    with suppress(ObjectNotFound):
        if msgspec.json.decode(await store.read(path))["id"] == batch_id:
            await store.delete(path)
