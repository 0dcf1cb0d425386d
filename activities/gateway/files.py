"""A tenant's files in the store: made, found and removed in the one order that leaves no half file visible."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from ...contract import ObjectNotFound
from ...contract.gateway import FileRecord
from ...contract.gateway_layout import (
    DUE,
    Listed,
    content_path,
    due_path,
    index_path,
    is_id,
    meta_path,
    parse_due_path,
)
from ..store import Store

#: After this long, an upload whose file is not there was broken off: at the least pace it is 9 GiB.
_UPLOAD = timedelta(days=7)
#: Names that are read at a time.
_PAGE = 1000


@asynccontextmanager
async def brought(store: Store, tenant: str, file_id: str) -> AsyncIterator[None]:
    """Note that content for a file is brought within the block, so that it goes if the process is killed there.

    Raises:
        StoreError: the store failed.
    """
    note = due_path((datetime.now(UTC) + _UPLOAD).date(), tenant, file_id)
    await store.write(note, b"")
    try:
        yield
    finally:
        await store.delete(note)


async def register(store: Store, tenant: str, record: FileRecord) -> None:
    """Make a file visible whose content is in the store (`content_path`). Called again, it changes nothing.

    Raises:
        StoreError: the store failed.
    """
    # Both before the file itself: what names no file is passed over, and a file that nothing names is lost from sight.
    if record.expires_at is not None:
        await store.write(_due(tenant, record.id, record.expires_at), b"")
    await store.write(index_path(tenant, record.id), b"")
    await store.write(meta_path(tenant, record.id), record.model_dump_json().encode())


async def find(store: Store, tenant: str, file_id: str) -> FileRecord | None:
    """Return a file of a tenant's; None where there is none, it is another tenant's, or its time is over.

    Raises:
        StoreError: the store failed.
    """
    if not is_id(Listed.FILES, file_id):
        return None
    record = await _read(store, tenant, file_id)
    return None if record is None or record.expired(datetime.now(UTC)) else record


async def _read(store: Store, tenant: str, file_id: str) -> FileRecord | None:
    try:
        return FileRecord.model_validate_json(await store.read(meta_path(tenant, file_id)))
    except ObjectNotFound:
        return None


async def remove(store: Store, tenant: str, file_id: str) -> None:
    """Remove a file; what is gone already is fine.

    Raises:
        StoreError: the store failed.
    """
    for path in (meta_path(tenant, file_id), content_path(tenant, file_id), index_path(tenant, file_id)):
        await store.delete(path)


async def collect(store: Store) -> int:
    """Remove the files of all tenants whose time is over, and what uploads left that were broken off; return how many.

    Any number of processes may do so at a time.

    Raises:
        StoreError: the store failed; what is done is done.
    """
    today = datetime.now(UTC).date()
    removed = 0
    last: str | None = None
    while paths := await store.page(DUE, after=last, limit=_PAGE):
        for last in paths:
            due = parse_due_path(last)
            if due is None:
                continue
            day, tenant, file_id = due
            if day > today:
                return removed  # they are in the order of days
            record = await _read(store, tenant, file_id)
            if record is None or record.expired(datetime.now(UTC)):
                await remove(store, tenant, file_id)
                removed += 1
            elif record.expires_at is not None and _due(tenant, file_id, record.expires_at) == last:
                continue  # later today
            await store.delete(last)
    return removed


def _due(tenant: str, file_id: str, expires_at: int) -> str:
    return due_path(datetime.fromtimestamp(expires_at, UTC).date(), tenant, file_id)
