"""What a gateway does by itself: it removes the files and batches whose time is over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from ..activities.gateway.collecting import collect
from ..activities.store import Store
from ..contract import StoreError
from ..contract.gateway_limits import Keep

logger = logging.getLogger("durabatch.gateway")

#: Seconds from one look to the next. A file that has expired is gone for its owner in any case.
_PAUSE = 3600.0
#: Seconds after a look that failed; each pause is twice the one before it, up to the usual one.
_AFTER_FAILURE = 60.0


class Upkeep:
    """Looks after a store, whatever goes wrong: what fails is logged, shown in the metrics, and tried again.

    Args:
        keep: how long batches are kept.
        pause: seconds from one look to the next.
        after_failure: seconds from the first look that failed to the next.
    """

    def __init__(self, store: Store, keep: Keep, pause: float = _PAUSE, after_failure: float = _AFTER_FAILURE) -> None:
        self._store = store
        self._keep = keep
        self._pause = pause
        self._after_failure = after_failure
        self.failures = 0  #: In a row.
        self.succeeded_at: float | None = None  #: When the last look came to its end, in seconds since 1970.

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look after the store for as long as the block lasts."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
                self.failures, self.succeeded_at = 0, time.time()
            except StoreError as error:
                self.failures += 1
                logger.error("What is kept no longer could not be removed. %s", error.message)
            except Exception:
                self.failures += 1
                logger.exception("What is kept no longer could not be removed.")
            late = self._after_failure * 2 ** (min(self.failures, 20) - 1)
            await asyncio.sleep(min(self._pause, late) if self.failures else self._pause)

    async def _look(self) -> None:
        removed = await collect(self._store, self._keep)
        if any(removed):
            logger.info("Removed %d files whose time is over, and what %d batches need no longer.", *removed)
