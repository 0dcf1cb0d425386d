"""A real Temporal server, the sandbox provider over HTTP, a worker, and the client in front of them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.service import RPCError

from durabatch import BatchClient
from durabatch.sandbox import Sandbox
from durabatch.workers import Settings, open_worker
from support import house

KEY = "sk-test"
#: Fast enough for a test, and slow enough to be seen.
POLL = {"first": "0.1s", "maximum": "0.5s"}


def unique(name: str) -> str:
    """Return a batch id that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def dev_server() -> Iterator[str]:
    """The address of a real Temporal dev server, which forgets a workflow as soon as it is asked to.

    Without these settings it first waits until it has noted its progress, which it does every half a minute.
    """
    queues = ("history.transferProcessor", "history.visibilityProcessor")
    with house.dev_server(**{f"{queue}EnsureCloseBeforeDelete": False for queue in queues}) as address:
        yield address


@dataclass
class Desk:
    """One test's client, with everything it needs behind it."""

    client: BatchClient
    sandbox: Sandbox
    settings: Settings

    def worker(self) -> contextlib.AbstractAsyncContextManager[Any]:
        return open_worker(self.client.temporal, self.settings, task_queue=self.client.task_queue)

    async def start(self, requests: Any = None, **fields: Any) -> str:
        """Create a batch of these requests, or of two of any kind."""
        return await self.client.create(requests or {"a": "Say one.", "b": "Say two."}, **self.fields(**fields))

    @staticmethod
    def fields(**fields: Any) -> dict[str, Any]:
        """What every batch of these tests has in common."""
        return {"provider": "stand_in", "model": "gpt-4o-mini", "poll": POLL, **fields}

    async def forget(self, id: str) -> None:
        """Have Temporal forget a batch that has ended, as it does when its retention is over."""
        await self.client.temporal.workflow_service.delete_workflow_execution(
            DeleteWorkflowExecutionRequest(
                namespace=self.client.temporal.namespace, workflow_execution=WorkflowExecution(workflow_id=id)
            )
        )
        with contextlib.suppress(RPCError):
            while True:
                await self.client.temporal.get_workflow_handle(id).describe()
                await asyncio.sleep(0.05)

    async def bought(self) -> int:
        """How many provider batches were ever created."""
        return len((await self.sandbox.books())["batches"])


@pytest.fixture
async def idle(dev_server: str, tmp_path: Path) -> AsyncIterator[Desk]:
    """A desk without a worker."""
    async with Sandbox(state=tmp_path / "sandbox") as sandbox:
        config = tmp_path / "durabatch.toml"
        config.write_text(
            '[store]\nurl = "store"\n[worker]\nheartbeat = "3s"\n'
            '[providers.stand_in]\nkind = "openai"\napi_key_env = "KEY"\nlisting_lag = "1s"\n'
            f'base_url = "{sandbox.url}/v1"\n'
        )
        settings = Settings.load(config, {"KEY": KEY})
        temporal = await house.connect(dev_server)
        client = BatchClient(temporal, settings.store.url, task_queue=f"test-{uuid.uuid4().hex[:8]}")
        yield Desk(client, sandbox, settings)


@pytest.fixture
async def desk(idle: Desk) -> AsyncIterator[Desk]:
    """A desk with a worker."""
    async with idle.worker():
        yield idle
