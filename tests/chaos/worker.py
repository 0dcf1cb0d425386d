"""Worker processes by the dozen: a nursery imports everything once, and forks a worker for each line on its stdin.

Run as `python worker.py FOLDER`. A line is a JSON object {"config", "key", "address", "queue"}; the answer is the new
worker's process id. A worker is the real thing, a Temporal Worker with a BatchPlugin, and a process of its own; forking
merely saves the second that its imports take, two hundred times in a soak.

Failpoints: before a step runs and after it has its answer, but before the answer is reported, a worker looks for a file
`FOLDER/<what>-<step>-<before|after>@<batch id>#<n>`. If there is one it takes it, by a rename, so that one file works
once, and then sends itself the signal: `kill` is SIGKILL, `stop` is SIGSTOP. A worker for which there is a file
`watch-<its id>` notes what it has done, well or not, as `done-<step>@<batch id>-<its id>`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor, Worker

from durabatch.workers import BatchPlugin, Settings

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_PR_SET_PDEATHSIG = 1


class Failpoints(Interceptor):
    """Ends or stops this very process where a file says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Inbound(next, self.folder)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, folder: Path) -> None:
        super().__init__(next)
        self._folder = folder

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        step = info.activity_type.removeprefix("durabatch.")
        batch_id = (info.workflow_id or "").partition("/")[0]  # a shard's workflow is called after its batch
        self._obey(f"{step}-before@{batch_id}")
        try:
            answer = await super().execute_activity(input)
        finally:
            if (self._folder / f"watch-{os.getpid()}").exists():
                (self._folder / f"done-{step}@{batch_id}-{os.getpid()}").touch()
        self._obey(f"{step}-after@{batch_id}")
        return answer

    def _obey(self, where: str) -> None:
        for what, number in _SIGNALS.items():
            for flag in sorted(self._folder.glob(f"{what}-{where}#*")):
                try:
                    flag.rename(flag.with_name(f"spent-{flag.name}"))
                except FileNotFoundError:  # another worker was first
                    continue
                os.kill(os.getpid(), number)
                return


_STOPPED = asyncio.Event()


async def _until_stopped(worker: Worker) -> None:
    """Work until SIGTERM, as a deployment sends it: activities under way are cancelled after a moment's grace."""
    running = asyncio.create_task(worker.run())
    stopped = asyncio.create_task(_STOPPED.wait())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        await worker.shutdown()
    stopped.cancel()
    await running


async def work(folder: Path, order: dict[str, str]) -> None:
    """Be a worker, whatever becomes of the server."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _STOPPED.set)
    settings = Settings.load(folder / order["config"], {"KEY": order["key"]})
    while True:
        try:
            client = await Client.connect(order["address"], data_converter=pydantic_data_converter)
            worker = Worker(
                client,
                task_queue=order["queue"],
                plugins=[BatchPlugin(settings)],
                interceptors=[Failpoints(folder)],
                max_concurrent_activities=settings.worker.max_concurrent_activities,
                # Each poll that is open when a worker is stopped swallows one task, until that times out.
                max_concurrent_workflow_task_polls=2,
                max_concurrent_activity_task_polls=2,
                # How soon a workflow is given to another worker than the one that has it in its cache, and is dead.
                sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
                graceful_shutdown_timeout=timedelta(seconds=0.5),
            )
            await _until_stopped(worker)
            if _STOPPED.is_set():
                return
        except (RPCError, RuntimeError) as error:
            print(f"{os.getpid()}: {error}", file=sys.stderr, flush=True)
            if _STOPPED.is_set():
                return
            await asyncio.sleep(0.2)


def die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    folder = Path(sys.argv[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are cleared away at once
    gc.freeze()
    assert threading.active_count() == 1, "a process with threads must not fork"
    nursery = os.getpid()
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            die_with_parent(nursery)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(nothing, 1)
            asyncio.run(work(folder, json.loads(line)))
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
