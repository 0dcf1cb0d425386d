"""What a gateway does by itself: it removes the files and batches whose time is over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from ..activities.gateway.collecting import collect
from ..activities.store import Store
from ..contract import StoreError
from ..contract.gateway_limits import Keep

logger = logging.getLogger("durabatch.gateway")

#: Seconds from one look to the next. A file that has expired is gone for its owner in any case.
_PAUSE = 3600.0


@contextlib.asynccontextmanager
async def upkeep(store: Store, keep: Keep, pause: float = _PAUSE) -> AsyncIterator[None]:
    """Look after a store for as long as the block lasts.

    Args:
        keep: how long batches are kept.
        pause: seconds from one look to the next.
    """
    task = asyncio.create_task(_collect(store, keep, pause))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _collect(store: Store, keep: Keep, pause: float) -> None:
    while True:
        try:
            removed = await collect(store, keep)
            if any(removed):
                logger.info("Removed %d files whose time is over, and what %d batches need no longer.", *removed)
        except StoreError as error:
            logger.error("What is kept no longer could not be removed. %s", error.message)
        await asyncio.sleep(pause)
