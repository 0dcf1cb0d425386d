"""A tenant's files in the store: made, found and removed in the one order that leaves no half file visible."""

from __future__ import annotations

from datetime import UTC, datetime

from ...contract import ObjectNotFound
from ...contract.gateway import FileRecord
from ...contract.gateway_layout import Listed, content_path, index_path, is_id, meta_path
from ..store import Store


async def register(store: Store, tenant: str, record: FileRecord) -> None:
    """Make a file visible whose content is in the store (`content_path`). Called again, it changes nothing.

    Raises:
        StoreError: the store failed.
    """
    # The entry first: one without a file is passed over by listings, and a file without one would be in none.
    await store.write(index_path(tenant, record.id), b"")
    await store.write(meta_path(tenant, record.id), record.model_dump_json().encode())


async def find(store: Store, tenant: str, file_id: str) -> FileRecord | None:
    """Return a file of a tenant's; None where there is none, it is another tenant's, or its time is over.

    Raises:
        StoreError: the store failed.
    """
    if not is_id(Listed.FILES, file_id):
        return None
    try:
        record = FileRecord.model_validate_json(await store.read(meta_path(tenant, file_id)))
    except ObjectNotFound:
        return None
    return None if record.expired(datetime.now(UTC)) else record


async def remove(store: Store, tenant: str, file_id: str) -> None:
    """Remove a file; what is gone already is fine.

    Raises:
        StoreError: the store failed.
    """
    for path in (meta_path(tenant, file_id), content_path(tenant, file_id), index_path(tenant, file_id)):
        await store.delete(path)
