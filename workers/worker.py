"""The worker process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

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


@contextlib.asynccontextmanager
async def open_worker(client: Client, settings: Settings, task_queue: str = TASK_QUEUE) -> AsyncIterator[Worker]:
    """Run a worker for as long as the block runs; leaving it lets activities end, for 20 s at most.

    Args:
        client: a connected client, without a BatchPlugin of its own.
        settings: the worker's configuration.
        task_queue: the task queue to poll.
    """
    worker = Worker(
        client,
        task_queue=task_queue,
        plugins=[BatchPlugin(settings)],
        max_concurrent_activities=settings.worker.max_concurrent_activities,
        graceful_shutdown_timeout=GRACE,
        sticky_queue_schedule_to_start_timeout=STICKY,
    )
    async with worker:
        yield worker
