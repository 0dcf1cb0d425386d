"""Starting something before it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def ahead(manager: AbstractAsyncContextManager[T]) -> AsyncIterator[asyncio.Task[T]]:
    """Enter a context manager beside the block. The block awaits the task where it needs what the manager gives.

    The first part of the work, up to where it waits, is done before the block begins. The manager is left with the
    block; where it is still being entered by then, that is cancelled.
    """
    task = asyncio.ensure_future(manager.__aenter__())
    try:
        await asyncio.sleep(0)
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await manager.__aexit__(None, None, None)
