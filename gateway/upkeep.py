"""What a gateway does by itself: it removes the files whose time is over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from ..activities.gateway.files import collect
from ..activities.store import Store
from ..contract import StoreError

logger = logging.getLogger("durabatch.gateway")

#: Seconds from one look to the next. A file that has expired is gone for its owner in any case.
_PAUSE = 3600.0


@contextlib.asynccontextmanager
async def upkeep(store: Store, pause: float = _PAUSE) -> AsyncIterator[None]:
    """Look after a store for as long as the block lasts."""
    task = asyncio.create_task(_collect(store, pause))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _collect(store: Store, pause: float) -> None:
    while True:
        try:
            if removed := await collect(store):
                logger.info("Removed %d files whose time is over.", removed)
        except StoreError as error:
            logger.error("Files whose time is over could not be removed. %s", error.message)
        await asyncio.sleep(pause)
