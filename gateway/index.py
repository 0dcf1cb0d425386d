"""Lists of files and batches: a page at a time, newest first, whatever there is in all."""

from __future__ import annotations

from ..activities.store import Store
from ..contract.gateway_layout import Listed, index_folder, index_path, parse_index_path


async def page(
    store: Store, tenant: str, listed: Listed, *, after: str | None = None, limit: int, oldest_first: bool = False
) -> list[str]:
    """Return the ids that come next in a tenant's list, at most `limit`.

    An id is in the list before its object is whole, and may stay after it is gone: pass over what is not there, and ask
    for more. A page with fewer ids than `limit` is the last one.

    Args:
        after: the id that came last; it need not be there any more.

    Raises:
        StoreError: the store failed.
    """
    start = index_path(tenant, after) if after else None
    folder = index_folder(tenant, listed)
    paths = await store.page(folder, after=start, limit=limit, backwards=oldest_first)
    return [id for path in paths if (id := parse_index_path(path)) is not None]
