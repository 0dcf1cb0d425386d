"""The worker process."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib.metadata import version

from temporalio.client import Client
from temporalio.worker import Worker

from ..contract import TASK_QUEUE
from .plugin import BatchPlugin
from .settings import Settings

#: On SIGTERM, how long activities may go on before they are cancelled and retried elsewhere. Under the 30 s that
#: Kubernetes grants by default.
GRACE = timedelta(seconds=20)
#: How long Temporal waits for the worker that has a workflow in its cache before it asks another. The SDK's 10 s is
#: what a batch would lose when a killed `durabatch run` is given again.
STICKY = timedelta(seconds=3)
#: Pools that glibc's allocator may open, instead of 8 a core: each keeps what a thread has freed, which with a thread
#: for each long step was a quarter of a worker's memory (docs/performance.md).
ARENAS = 2
_M_ARENA_MAX = -8  # malloc.h


@contextlib.asynccontextmanager
async def open_worker(
    client: Client, settings: Settings, task_queue: str = TASK_QUEUE, grace: timedelta = GRACE
) -> AsyncIterator[Worker]:
    """Run a worker for as long as the block runs; leaving it lets activities end.

    Args:
        client: a connected client, without a BatchPlugin of its own.
        settings: the worker's configuration.
        task_queue: the task queue to poll.
        grace: how long they may go on; then they are cancelled, which takes direct mode two more seconds.
    """
    _keep_memory_together()
    worker = Worker(
        client,
        task_queue=task_queue,
        plugins=[BatchPlugin(settings)],
        max_concurrent_activities=settings.worker.max_concurrent_activities,
        graceful_shutdown_timeout=grace,
        sticky_queue_schedule_to_start_timeout=STICKY,
        # It only names the code that ran a task. The SDK would hash every module that is loaded, for 0.3 s.
        build_id=f"durabatch-{version('durabatch')}",
    )
    async with worker:
        yield worker


def _keep_memory_together() -> None:
    """Bound the allocator's pools, where it is glibc's; elsewhere there is nothing to bound."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)
