"""A tenant's files in the store: made, found and removed in the one order that leaves no half file visible."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta

from ...contract import ObjectNotFound
from ...contract.gateway import FileRecord
from ...contract.gateway_layout import (
    Listed,
    content_path,
    due_path,
    index_path,
    is_id,
    is_purpose,
    made_at_ms,
    meta_path,
)
from ..store import Store

#: After this long, an upload whose file is not there was broken off: at the least pace it is 9 GiB.
_UPLOAD = timedelta(days=7)


@asynccontextmanager
async def uploading(store: Store, tenant: str, file_id: str) -> AsyncIterator[None]:
    """Note that a file is uploaded within the block, so that its content is removed if the process is killed there.

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
    # All before the file itself: what names no file is passed over, and a file that nothing names is lost from sight.
    if record.expires_at is not None:
        await store.write(_due(tenant, record.id, record.expires_at), b"")
    if is_purpose(record.purpose):
        await store.write(index_path(tenant, record.id, record.purpose), b"")
    await store.write(index_path(tenant, record.id), record.purpose.encode())
    await store.write(meta_path(tenant, record.id), record.model_dump_json().encode())


async def find(store: Store, tenant: str, file_id: str) -> FileRecord | None:
    """Return a file of a tenant's; None where there is none, it is another tenant's, or its time is over.

    Raises:
        StoreError: the store failed.
    """
    return (await find_each(store, tenant, [file_id]))[0]


async def find_each(store: Store, tenant: str, ids: Sequence[str]) -> list[FileRecord | None]:
    """Return some files of a tenant's, in the order of their ids; None as `find`.

    Raises:
        StoreError: the store failed.
    """
    known = [id for id in ids if is_id(Listed.FILES, id)]
    records, now = dict(zip(known, await _read(store, tenant, known), strict=True)), datetime.now(UTC)
    found = [records.get(id) for id in ids]
    return [None if record is None or record.expired(now) else record for record in found]


async def _read(store: Store, tenant: str, ids: Sequence[str]) -> list[FileRecord | None]:
    found = await store.read_each([meta_path(tenant, id) for id in ids])
    return [None if data is None else FileRecord.model_validate_json(data) for data in found]


async def remove(store: Store, tenant: str, file_id: str) -> None:
    """Remove a file; what is gone already is fine.

    Raises:
        StoreError: the store failed.
    """
    purpose = await _purpose(store, tenant, file_id)
    for path in (meta_path(tenant, file_id), content_path(tenant, file_id)):
        await store.delete(path)
    if purpose is not None:
        await store.delete(index_path(tenant, file_id, purpose))
    await store.delete(index_path(tenant, file_id))  # last: it says where else to look, if this is broken off


async def _purpose(store: Store, tenant: str, file_id: str) -> str | None:
    """Return the purpose by which a file is listed, None if it is not."""
    with suppress(ObjectNotFound):
        purpose = (await store.read(index_path(tenant, file_id))).decode(errors="replace")
        return purpose if is_purpose(purpose) else None
    return None


async def expire_file(store: Store, tenant: str, file_id: str, now: datetime) -> tuple[bool, date | None]:
    """Remove a file whose time is over, or what an upload left that was broken off.

    Returns:
        Whether it is gone, and if not, when to look at it again; None for never.

    Raises:
        StoreError: the store failed.
    """
    [record] = await _read(store, tenant, [file_id])
    if record is None and now - datetime.fromtimestamp(made_at_ms(file_id) / 1000, UTC) < _UPLOAD:
        return False, now.date() + timedelta(days=1)  # it may be about to be registered
    if record is None or record.expired(now):
        await remove(store, tenant, file_id)
        return True, None
    return False, None if record.expires_at is None else _day(record.expires_at)


def _due(tenant: str, file_id: str, expires_at: int) -> str:
    return due_path(_day(expires_at), tenant, file_id)


def _day(instant: int) -> date:
    return datetime.fromtimestamp(instant, UTC).date()
