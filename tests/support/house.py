"""Real servers: Temporal's dev server and its time-skipping server, and the sandbox provider over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.plugin import SimplePlugin
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker, WorkerConfig

from durabatch.activities.store import IDENTITY
from durabatch.contract import BatchProgress, BatchResult, BatchSpec
from durabatch.contract.names import marker, scoped
from durabatch.sandbox import Sandbox, SandboxAdmin
from durabatch.workers import BatchPlugin, Settings
from durabatch.workflows import BatchWorkflow

from .rest import AtRest

KEY = "sk-test"
T = TypeVar("T")

#: What a query fails with that a busy machine did not answer in time.
_BUSY = (
    *(RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED),
    *(RPCStatusCode.RESOURCE_EXHAUSTED, RPCStatusCode.UNAVAILABLE),
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binary(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not on PATH: run the tests with `make test`"
    return found


@contextlib.contextmanager
def dev_server(**dynamic: int | str) -> Iterator[str]:
    """Run a real Temporal dev server in memory, with these values of its dynamic configuration; yield its address."""
    port = free_port()
    command = [binary("temporal"), "server", "start-dev", "--headless", "--port", str(port), "--log-level", "never"]
    for key, value in dynamic.items():
        command += ["--dynamic-config-value", f"{key}={json.dumps(value)}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


async def asked(query: Callable[[], Awaitable[T]]) -> T:
    """Ask a workflow, again where nobody answered in time; the test's own time limit bounds it."""
    while True:
        try:
            return await query()
        except RPCError as error:
            if error.status not in _BUSY:
                raise
            await asyncio.sleep(0.1)


async def time_skipping() -> WorkflowEnvironment:
    """Start a real time-skipping server. The SDK waits 5 seconds for it, which a busy machine may need twice."""
    for tries_left in (3, 2, 1, 0):
        try:
            return await WorkflowEnvironment.start_time_skipping(
                test_server_existing_path=binary("temporal-test-server"),
                data_converter=pydantic_data_converter,
                interceptors=[AtRest()],
            )
        except RuntimeError as error:
            if not tries_left or "did not start" not in str(error):
                raise
    raise AssertionError


class Older(SimplePlugin):
    """Has a worker not know some steps."""

    def __init__(self, without: Collection[str]) -> None:
        super().__init__("tests.Older")
        self._without = set(without)

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        named = {temporal_name(one): one for one in config.get("activities") or ()}
        assert self._without <= named.keys()
        config["activities"] = [one for name, one in named.items() if name not in self._without]
        return super().configure_worker(config)


def temporal_name(step: Callable[..., Any]) -> str:
    return str(getattr(step, "__temporal_activity_definition").name)


@dataclass
class House:
    """One test's worker, provider and store."""

    client: Client
    sandbox: Sandbox
    admin: SandboxAdmin
    settings: Settings
    store: Path
    task_queue: str
    name: str | None = None  #: The id of batches that are started without one; a random one if None.
    handles: list[WorkflowHandle[Any, Any]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def worker(self, *, without: Collection[str] = (), **options: Any) -> AsyncIterator[Worker]:
        """Run a worker.

        Args:
            without: names of steps that it does not know, as one of an older version.
        """
        plugins = [BatchPlugin(self.settings), Older(without)]
        worker = Worker(self.client, task_queue=self.task_queue, plugins=plugins, **options)
        async with worker:
            yield worker

    async def start(self, rows: Any = 3, *, id: str | None = None, **fields: Any) -> WorkflowHandle[Any, BatchResult]:
        """Start a batch of so many rows, or of these texts."""
        texts = [f"Row {n}. Say something." for n in range(rows)] if isinstance(rows, int) else rows
        lines = [{"custom_id": f"r{n}", "input": text} for n, text in enumerate(texts)]
        batch_id = id or self.name or f"batch-{uuid.uuid4().hex[:10]}"
        path = self.store / "in" / f"{batch_id}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        spec = BatchSpec(
            **{
                "provider": "sandbox",
                "input": path.as_uri(),
                "model": "gpt-4o-mini",
                "poll": {"first": "0.2s", "factor": 1.2, "maximum": "1s"},
                **fields,
            }
        )
        handle = await self.client.start_workflow(BatchWorkflow.run, spec, id=batch_id, task_queue=self.task_queue)
        self.handles.append(handle)
        return handle

    async def progress(self, handle: WorkflowHandle[Any, Any]) -> BatchProgress:
        return await asked(lambda: handle.query(BatchWorkflow.progress))

    async def until(self, handle: WorkflowHandle[Any, Any], what: Any) -> BatchProgress:
        """Wait until the batch's progress is as wanted; the test's own time limit bounds it."""
        while True:
            progress = await self.progress(handle)
            if what(progress):
                return progress
            assert progress.result is None, f"it ended before that: {progress.result}"
            await asyncio.sleep(0.05)

    def marker(self, batch_id: str, shard: int = 0, attempt: int = 1) -> str:
        """Return the marker of a batch that was planned in this house's store."""
        identity = json.loads((self.store / IDENTITY).read_text())["id"]
        return marker(scoped(batch_id, identity), shard, attempt)

    def results(self, batch_id: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.store / batch_id / "results.jsonl").read_text().splitlines()]

    async def batches(self) -> list[dict[str, Any]]:
        return (await self.admin.books())["batches"]


@contextlib.asynccontextmanager
async def open_house(client: Client, tmp_path: Path, provider: dict[str, str]) -> AsyncIterator[House]:
    async with Sandbox(state=tmp_path / "sandbox", port=0) as sandbox:
        config = tmp_path / "durabatch.toml"
        lines = "".join(f'{name} = "{value}"\n' for name, value in provider.items())
        config.write_text(
            f'[store]\nurl = "{tmp_path / "store"}"\n[worker]\nheartbeat = "3s"\n'
            f'[providers.sandbox]\nkind = "openai"\nbase_url = "{sandbox.url}/v1"\napi_key_env = "KEY"\n{lines}'
            f'[providers.claude]\nkind = "anthropic"\nbase_url = "{sandbox.url}"\napi_key_env = "KEY"\n{lines}'
        )
        settings = Settings.load(config, {"KEY": KEY})
        yield House(
            client=client,
            sandbox=sandbox,
            admin=SandboxAdmin(sandbox.url),
            settings=settings,
            store=tmp_path / "store",
            task_queue=f"test-{uuid.uuid4().hex[:8]}",
        )


async def connect(address: str) -> Client:
    while True:
        try:
            return await Client.connect(address, data_converter=pydantic_data_converter)
        except RuntimeError:
            await asyncio.sleep(0.2)
