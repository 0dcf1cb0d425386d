"""How many uploads a process takes at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .errors import ApiError

#: Uploads that may wait for each one under way: they hold a connection, and no more than its buffers.
_WAITING = 8


class Uploads:
    """Slots for uploads; who waits for one longer than `patience` seconds is sent away with 429."""

    def __init__(self, most: int, patience: float = 5.0) -> None:
        self._slots = asyncio.Semaphore(most)
        self._room = most * (1 + _WAITING)
        self._patience = patience
        #: Uploads under way or waiting.
        self.active = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot.

        Raises:
            ApiError: 429 where there is none.
        """
        if self.active >= self._room:
            raise _busy()
        self.active += 1
        try:
            try:
                async with asyncio.timeout(self._patience):
                    await self._slots.acquire()
            except TimeoutError:
                raise _busy() from None
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self.active -= 1


def _busy() -> ApiError:
    return ApiError(
        429,
        "Too many uploads at a time: try again.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        headers={"Retry-After": "2"},
    )
