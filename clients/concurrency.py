"""Doing the same with many items, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def concurrently(work: Callable[[T], Awaitable[R]], items: Iterable[T], at_a_time: int) -> list[R]:
    """Do something with every item, so many at a time, and return what came of it in the items' order.

    Raises:
        Exception: the first one that the work raises; the rest of it is cancelled.
    """
    room = asyncio.Semaphore(at_a_time)

    async def one(item: T) -> R:
        async with room:
            return await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
