"""The lab: a real Temporal server on a SQLite file, the sandbox as a process, and crews of worker processes.

All of them can be killed and started again. A crew is a task queue with workers and an account of its own, so several
scenarios can run in one lab at once without killing each other's workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError, TerminatedError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from durabatch.contract import BatchProgress, BatchResult, BatchSpec, CancelRequest
from durabatch.sandbox import SandboxAdmin
from durabatch.workflows import BatchWorkflow
from support.house import binary

from .orders import MODEL, Order
from .processes import Held, Service, quiet_port

T = TypeVar("T")
#: What the test process meets while a server is away.
_AWAY = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED, RPCStatusCode.UNKNOWN)


class Lab:
    """The processes, and a client of each."""

    def __init__(self, folder: Path) -> None:
        self.sandbox_deaths = 0
        self.folder = folder
        self.address = f"127.0.0.1:{quiet_port()}"
        port = quiet_port()
        self.admin = SandboxAdmin(f"http://127.0.0.1:{port}")
        self.client: Client
        self._namespace_ready = False
        self.server = Service(
            [
                binary("temporal"),
                *("server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", self.address.rpartition(":")[2]),
                *("--db-filename", str(folder / "temporal.db"), "--log-level", "error"),
                *("--disable-config-file", "--disable-config-env"),
            ],
            folder / "server.log",
        )
        state = str(folder / "sandbox")
        self.sandbox = Service(
            [sys.executable, "-m", "durabatch.sandbox", "--port", str(port), "--state", state], folder / "sandbox.log"
        )
        worker = str(Path(__file__).with_name("worker.py"))
        self._nursery = Service([sys.executable, worker, str(folder)], folder / "workers.log")
        self.crews: list[Crew] = []

    async def open(self) -> None:
        self.server.start()
        self.sandbox.start()
        self._pipes = self._nursery.start(pipes=True)
        await asyncio.gather(self._server_ready(), self._sandbox_ready())

    async def close(self) -> None:
        for crew in self.crews:
            await crew.close()
        for service in (self._nursery, self.sandbox, self.server):
            service.stop()

    async def kill_server(self) -> None:
        await self.server.kill()

    async def start_server(self) -> None:
        self.server.start()
        await self._server_ready()

    async def kill_sandbox(self) -> None:
        self.sandbox_deaths += 1
        await self.sandbox.kill()

    async def start_sandbox(self) -> None:
        self.sandbox.start()
        await self._sandbox_ready()

    async def _server_ready(self) -> None:
        while True:
            try:
                if not hasattr(self, "client"):
                    self.client = await Client.connect(self.address, data_converter=pydantic_data_converter)
                # The front end answers before its namespace is there.
                await self.client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
                return
            except (RPCError, RuntimeError):
                await asyncio.sleep(0.1)

    async def _sandbox_ready(self) -> None:
        while True:
            try:
                await self.admin.faults()
                return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask a server, and again for as long as it is away."""
        while True:
            try:
                return await call()
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
            except RPCError as error:
                if error.status not in _AWAY:
                    raise
                await asyncio.sleep(0.1)

    async def books(self) -> dict[str, Any]:
        return await self.ask(self.admin.books)

    def crew(self, workers: int = 1, **provider: str) -> Crew:
        """Hire workers on a task queue of their own."""
        crew = Crew(self, f"crew-{uuid.uuid4().hex[:8]}", provider)
        self.crews.append(crew)
        crew.staff = workers
        return crew

    def fork(self, order: dict[str, str]) -> Held:
        """Start one worker process."""
        stdin, stdout = self._pipes.stdin, self._pipes.stdout
        assert stdin and stdout
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        return Held(int(stdout.readline()))

    # --- failpoints ---

    def arm(self, order: Order, step: str, when: str, *, what: str = "kill", times: int = 1) -> None:
        """Have the worker that runs this step of this batch send itself a signal there, so many times."""
        for number in range(times):
            (self.folder / f"{what}-{step}-{when}@{order.batch_id}#{number}").touch()

    def spent(self, order: Order) -> int:
        """Return how many of a batch's failpoints have been met."""
        return len(list(self.folder.glob(f"spent-*@{order.batch_id}#*")))

    async def met(self, order: Order, times: int = 1) -> None:
        """Wait until so many of a batch's failpoints have been met."""
        while self.spent(order) < times:
            await asyncio.sleep(0.05)

    async def late(self, worker: Held, order: Order, step: str) -> None:
        """Have a paused worker go on, and wait until it has done with the step that it stopped before."""
        (self.folder / f"watch-{worker.pid}").touch()
        worker.resume()
        while not (self.folder / f"done-{step}@{order.batch_id}-{worker.pid}").exists():
            await asyncio.sleep(0.05)

    async def held(self, fault_id: int) -> None:
        """Wait until the sandbox holds a request by this fault."""
        while True:
            found = await self.admin.faults()
            if any(fault["id"] == fault_id and fault["waiting"] for fault in found):
                return
            await asyncio.sleep(0.05)


class Crew:
    """Workers on one task queue; whoever dies is replaced until the crew is closed."""

    def __init__(self, lab: Lab, name: str, provider: dict[str, str]) -> None:
        self.lab = lab
        self.name = name
        self.key = f"sk-{name}-{uuid.uuid4().hex}"
        self.staff = 0  #: How many workers there are to be; paused ones do not count.
        self.workers: list[Held] = []
        self.deaths = 0
        given = {"listing_lag": "1s", "timeout": "3s", **provider}
        lines = "".join(f'{field} = "{value}"\n' for field, value in given.items())
        url = lab.admin.url
        (lab.folder / f"{name}.toml").write_text(
            f'[store]\nurl = "{lab.folder / "store"}"\n[worker]\nheartbeat = "2s"\n'
            f'[providers.sandbox]\nkind = "openai"\nbase_url = "{url}/v1"\napi_key_env = "KEY"\n{lines}'
            f'[providers.claude]\nkind = "anthropic"\nbase_url = "{url}"\napi_key_env = "KEY"\n{lines}'
        )
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        for worker in self.workers:
            await worker.kill()

    async def dismiss(self) -> None:
        """Kill every worker and hire nobody."""
        self.staff = 0
        for worker in self.workers:
            await worker.kill()

    @property
    def fit(self) -> list[Held]:
        """The workers that live and move."""
        return [worker for worker in self.workers if worker.alive and not worker.paused]

    async def _keep(self) -> None:
        while True:
            self._replace()
            await asyncio.sleep(0.05)

    def _replace(self) -> None:
        alive = [worker for worker in self.workers if worker.alive]
        self.deaths += len(self.workers) - len(alive)
        self.workers = alive
        for _ in range(self.staff - len(self.fit)):
            order = {"config": f"{self.name}.toml", "key": self.key, "address": self.lab.address, "queue": self.name}
            self.workers.append(self.lab.fork(order))

    async def zombie(self) -> Held:
        """Wait for a worker that has stopped itself at a failpoint."""
        while not (found := [worker for worker in self.workers if worker.paused]):
            await asyncio.sleep(0.05)
        return found[0]

    # --- batches ---

    def order(
        self,
        rows: int = 3,
        markers: dict[int, str] | None = None,
        name: str | None = None,
        provider: str = "sandbox",
        direct: bool = False,
    ) -> Order:
        """Think of a batch, which is not started yet: its failpoints are armed first."""
        return Order.make(rows, markers or {}, self.key, name, provider, direct)

    async def start(self, rows: int = 3, markers: dict[int, str] | None = None, **fields: Any) -> Order:
        """Start a batch."""
        return await self.submit(self.order(rows, markers), **fields)

    async def submit(self, order: Order, **fields: Any) -> Order:
        spec = BatchSpec(
            **{
                "provider": order.provider,
                "input": order.write(self.lab.folder / "store"),
                "model": MODEL,
                "mode": "direct" if order.direct else "batch",
                "poll": {"first": "0.2s", "factor": 1.2, "maximum": "1s"},
                "retry": {"max_attempts": 3},
                **fields,
            }
        )
        # A start whose answer was lost has taken place.
        with contextlib.suppress(WorkflowAlreadyStartedError):
            await self.lab.ask(
                lambda: self.lab.client.start_workflow(
                    BatchWorkflow.run,
                    spec,
                    id=order.batch_id,
                    task_queue=self.name,
                    # How soon a task is taken from a worker that stands still.
                    task_timeout=timedelta(seconds=4),
                )
            )
        return order

    def handle(self, order: Order) -> WorkflowHandle[Any, Any]:
        return self.lab.client.get_workflow_handle(order.batch_id, result_type=BatchResult)

    async def result(self, order: Order) -> BatchResult:
        """Wait for a batch's end; a failed one has a result as well, and one that was reset goes on in another run."""
        while True:
            try:
                return await self.lab.ask(self.handle(order).result)
            except WorkflowFailureError as error:
                if isinstance(error.cause, ApplicationError) and error.cause.details:
                    return BatchResult.model_validate(error.cause.details[0])
                newest = await self.lab.ask(self.handle(order).describe)
                if not isinstance(error.cause, TerminatedError) or newest.status is WorkflowExecutionStatus.TERMINATED:
                    raise

    async def cancel(self, order: Order) -> None:
        await self.lab.ask(lambda: self.handle(order).signal("cancel", CancelRequest(requested_by="chaos")))

    async def until(self, order: Order, what: Callable[[BatchProgress], object]) -> BatchProgress:
        """Wait until a batch's progress is as wanted."""
        while True:
            progress = await self.lab.ask(lambda: self.handle(order).query(BatchWorkflow.progress))
            if what(progress):
                return progress
            assert progress.result is None, f"it ended before that: {progress.result}"
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def open_lab(folder: Path) -> AsyncIterator[Lab]:
    """Open a lab in an empty folder."""
    lab = Lab(folder)
    try:
        await lab.open()
        yield lab
    finally:
        await lab.close()
