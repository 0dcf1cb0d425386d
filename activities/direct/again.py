"""Rows of a run that are to be sent again, and when."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Awaitable, Callable

from .judgement import FEW, SUSPECT
from .source import Call


class Again:
    """Rows that wait to be sent again: for their time, or for all others, where they may be what breaks connections."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timed: list[tuple[float, int, Call]] = []  # a heap: when, the row, the call
        self._suspects: list[tuple[int, int, Call]] = []  # a heap: broken connections, the row, the call
        self._few = set[Call]()  # those of them that are in flight
        self._due = asyncio.Event()

    def add(self, call: Call, wait: float) -> None:
        """Have a row sent again, in so many seconds."""
        call.timed_out = False
        self._few.discard(call)
        if call.broke >= SUSPECT:
            heapq.heappush(self._suspects, (call.broke, call.row, call))
        else:
            heapq.heappush(self._timed, (self._loop.time() + wait, call.row, call))
        self._due.set()

    def over(self, call: Call) -> None:
        """Take note that a row is not in flight any more."""
        self._few.discard(call)

    def suspect(self, call: Call) -> bool:
        """Return whether a row is in flight that may be what breaks connections, with few others or none."""
        return call in self._few

    def alone(self, call: Call) -> bool:
        """Return whether a row is in flight, and no other one is, so that nothing else breaks its connection."""
        return call in self._few and call.broke > SUSPECT

    def look(self) -> None:
        """See whether rows that were to wait for others may be sent."""
        if self._suspects:
            self._due.set()

    async def next(self, others: Callable[[], int | None], ready: Callable[[], Awaitable[None]]) -> Call:
        """Return the next row that is to be sent again, when its time has come.

        Args:
            others: returns how many rows have no answer and wait for none; None while not all rows are read.
            ready: waits until calls may be begun.
        """
        while True:
            wait = self._timed[0][0] - self._loop.time() if self._timed else None
            if self._suspects_turn(others()):
                await ready()
                call = heapq.heappop(self._suspects)[2]
                self._few.add(call)
                return call
            if wait is not None and wait <= 0:
                await ready()
                return heapq.heappop(self._timed)[2]
            self._due.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._due.wait()

    def _suspects_turn(self, others: int | None) -> bool:
        """Return whether it is the turn of a row that may be what breaks connections: when no other row has any."""
        if not self._suspects or others is None or others > len(self._suspects) + len(self._few):
            return False
        alone = self._suspects[0][0] > SUSPECT or any(call.broke > SUSPECT for call in self._few)
        return len(self._few) < (1 if alone else FEW)
