"""Runs scenarios side by side: they mostly wait, for a heartbeat to be missed or a listing to settle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from .check import Tally

#: Seconds that one scenario may take: a quarter of a minute on a quiet machine, and many times that on a busy one.
PATIENCE = 400
Runs = dict[str, asyncio.Task[Tally]]


@contextlib.asynccontextmanager
async def side_by_side(
    names: Iterable[str], run: Callable[[str], Awaitable[Tally]], places: int
) -> AsyncIterator[Runs]:
    """Start these scenarios, so many at a time, in this order."""
    free = asyncio.Semaphore(places)

    async def one(name: str) -> Tally:
        async with free, asyncio.timeout(PATIENCE):
            return await run(name)

    tasks = {name: asyncio.create_task(one(name)) for name in names}
    try:
        yield tasks
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
