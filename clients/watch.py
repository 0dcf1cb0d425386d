"""Watching a batch until it has ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from temporalio.client import Client

from ..activities.store import Store
from ..contract import BatchNotFound, BatchProgress, DurabatchError, Phase
from .connection import TemporalUnavailable, translated
from .execution import stored_result, wait_for_ending
from .progress import batch_progress, final

#: How often a watcher looks: at first, and at most. The end of a batch is seen at once in any case.
_LOOK_FIRST, _LOOK_FACTOR, _LOOK_MOST = 0.5, 1.5, 5.0


async def watch(client: Client, store: Store, batch_id: str) -> AsyncGenerator[BatchProgress]:
    """Yield where a batch is, until it has ended; the last one has its result.

    Raises:
        BatchNotFound: there is no such batch, nor a result of one in the store.
    """
    try:
        with translated(client, batch_id):
            seen, _ = await batch_progress(client, batch_id)
    except BatchNotFound:
        result = await stored_result(store, batch_id)
        if result is None:
            raise
        seen = final(result)
    except TemporalUnavailable as error:
        seen = BatchProgress(batch_id=batch_id, phase=Phase.PLANNING, waiting_for=error.message)
    end = asyncio.create_task(wait_for_ending(client, store, batch_id))
    try:
        pause = _LOOK_FIRST
        while seen.result is None:
            yield seen
            if end.done():  # and yet the last look did not show it: Temporal was away just then
                await asyncio.sleep(pause)
            await asyncio.wait([end], timeout=pause)
            pause = min(pause * _LOOK_FACTOR, _LOOK_MOST)
            seen = await _look(client, batch_id, seen)
        yield seen
    finally:
        end.cancel()
        with contextlib.suppress(asyncio.CancelledError, DurabatchError):
            await end


async def _look(client: Client, batch_id: str, before: BatchProgress) -> BatchProgress:
    """Return the progress, or the one before with a word on why there is no newer one."""
    try:
        with translated(client, batch_id):
            seen, certain = await batch_progress(client, batch_id)
    except TemporalUnavailable as error:
        return before.model_copy(update={"waiting_for": error.message})
    if certain or not before.counts.total:
        return seen
    # No worker answers: what one reported last is still the best that is known.
    return before.model_copy(update={"waiting_for": seen.waiting_for})
