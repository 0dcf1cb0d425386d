"""Connections that are to be made: some are begun in each turn of the event loop."""

from __future__ import annotations

import asyncio
from collections import deque

#: Connections that are begun in one turn of the event loop. A connect keeps it for half a millisecond, and thousands of
#: calls that begin at the same moment, in several shards, would keep it from everything else.
A_TURN = 32


class Beginnings:
    """Lets connections be begun, those first that have waited longest."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._left = A_TURN  # in this turn of the loop
        self._counting = False

    async def turn(self) -> None:
        """Return when a connection may be begun."""
        if not self._counting:
            self._counting = True
            self._loop.call_soon(self._next)
        if self._left:
            self._left -= 1
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        await future

    def _next(self) -> None:
        self._left = A_TURN
        while self._waiting and self._left:
            future = self._waiting.popleft()
            if not future.done():  # else its call was cancelled
                future.set_result(None)
                self._left -= 1
        self._counting = self._left < A_TURN
        if self._counting:
            self._loop.call_soon(self._next)
