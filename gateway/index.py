"""Lists of files and batches: a page at a time, newest first, whatever there is in all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..activities.store import Store
from ..contract.gateway_layout import Listed, index_folder, index_path, parse_index_path

T = TypeVar("T")

#: Names that are read at a time where none of those before them was there.
_LARGEST_STEP = 1000


async def page(
    store: Store,
    tenant: str,
    listed: Listed,
    *,
    after: str | None = None,
    limit: int,
    oldest_first: bool = False,
    purpose: str | None = None,
) -> list[str]:
    """Return the ids that come next in a tenant's list, at most `limit`.

    An id is in the list before its object is whole, and may stay after it is gone: pass over what is not there, and ask
    for more. A page with fewer ids than `limit` is the last one.

    Args:
        after: the id that came last; it need not be there any more.
        purpose: of files: which ones.

    Raises:
        StoreError: the store failed.
    """
    start = index_path(tenant, after, purpose) if after else None
    folder = index_folder(tenant, listed, purpose)
    paths = await store.page(folder, after=start, limit=limit, backwards=oldest_first)
    return [id for path in paths if (id := parse_index_path(path)) is not None]


async def objects(
    find: Callable[[Sequence[str]], Awaitable[list[T | None]]],
    store: Store,
    tenant: str,
    listed: Listed,
    *,
    after: str | None,
    limit: int,
    oldest_first: bool = False,
    purpose: str | None = None,
) -> tuple[list[T], bool]:
    """Return the objects that come next in a tenant's list, at most `limit`, and whether there are more behind them.

    Args:
        find: returns the objects with these ids, in their order; None for one that is gone.
        after, purpose: as `page`.

    Raises:
        StoreError: the store failed.
    """
    found: list[T] = []
    whole = False
    # One more than is asked for shows whether there are more; what is not there is made up for, and in larger steps, as
    # thousands of files may have expired since any were removed.
    wanted = limit + 1
    while not whole and len(found) <= limit:
        ids = await page(store, tenant, listed, after=after, limit=wanted, oldest_first=oldest_first, purpose=purpose)
        whole = len(ids) < wanted
        after = ids[-1] if ids else after
        wanted = max(wanted, min(_LARGEST_STEP, 4 * wanted))
        found += [one for one in await find(ids) if one is not None]
    return found[:limit], len(found) > limit
