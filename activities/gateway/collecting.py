"""What is due: files and batches whose time is over, and what broken-off uploads left. Gone through day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import NamedTuple

from ...contract import StoreError
from ...contract.gateway_layout import DUE, Listed, due_path, is_id, parse_due_path
from ...contract.gateway_limits import FOR_EVER, Keep
from ..log import logger
from ..store import Store
from .expiry import expire
from .files import expire_file

#: Names that are read at a time.
_PAGE = 1000


class Collected(NamedTuple):
    """How many there were."""

    files: int = 0
    batches: int = 0  #: Of which something went.


async def collect(store: Store, keep: Keep = FOR_EVER) -> Collected:
    """Remove the files and batches of all tenants whose time is over. Any number of processes may do so at a time.

    Raises:
        StoreError: the store failed; what is done is done.
    """
    now = datetime.now(UTC)
    files = batches = 0
    last: str | None = None
    while paths := await store.page(DUE, after=last, limit=_PAGE):
        for last in paths:
            due = parse_due_path(last)
            if due is None:
                continue
            day, tenant, id = due
            if day > now.date():
                return Collected(files, batches)  # they are in the order of days
            try:
                if is_id(Listed.FILES, id):
                    removed, again = await expire_file(store, tenant, id, now)
                    files += removed
                else:
                    again = await expire(store, tenant, id, keep, now)
                    batches += again is None or again > day
            except StoreError:
                raise
            except Exception:  # one that is damaged must not keep all that are behind it
                logger.exception("What is kept no longer of %s of the tenant %s could not be removed.", id, tenant)
                continue
            await _look_again(store, last, tenant, id, again)
    return Collected(files, batches)


async def _look_again(store: Store, path: str, tenant: str, id: str, day: date | None) -> None:
    again = None if day is None else due_path(day, tenant, id)
    if again == path:
        return  # later today
    if again is not None:
        await store.write(again, b"")
    await store.delete(path)
