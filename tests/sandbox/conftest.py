"""A sandbox on loopback, the providers' own clients for it, and the few steps that most tests share."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai.types import Batch

from durabatch.sandbox import Sandbox, SandboxAdmin

KEY = "sk-test"
#: Seconds. By default the clients have five for a connection, which a busy machine may need.
PATIENCE = 60
#: Never used on loopback; loading the certificates anew for every client would be a third of the tests' time.
TLS = ssl.create_default_context()


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path / "state") as running:
        yield running


@pytest.fixture
async def gpt(sandbox: Sandbox) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = openai.DefaultAsyncHttpxClient(verify=TLS)
    async with openai.AsyncOpenAI(
        base_url=f"{sandbox.url}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE, http_client=transport
    ) as client:
        yield client


@pytest.fixture
async def claude(sandbox: Sandbox) -> AsyncIterator[anthropic.AsyncAnthropic]:
    transport = anthropic.DefaultAsyncHttpxClient(verify=TLS)
    async with anthropic.AsyncAnthropic(
        base_url=sandbox.url, api_key=KEY, max_retries=0, timeout=PATIENCE, http_client=transport
    ) as client:
        yield client


def jsonl(*rows: Any) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def chat_row(custom_id: str, text: str = "Tell me a joke. Please.", **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    body = {"model": "gpt-4o-mini", "messages": messages, **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


async def create(client: openai.AsyncOpenAI, *rows: Any, **options: Any) -> Batch:
    """Upload rows and create a batch of them."""
    file = await client.files.create(file=("rows.jsonl", jsonl(*rows)), purpose="batch")
    options = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **options}
    return await client.batches.create(input_file_id=file.id, **options)


async def end(client: openai.AsyncOpenAI, batch_id: str) -> Batch:
    """Retrieve a batch until it has ended."""
    while True:
        batch = await client.batches.retrieve(batch_id)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch


async def read(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file; none when there is no file."""
    if file_id is None:
        return []
    content = await client.files.content(file_id)
    return [json.loads(line) for line in content.text.splitlines()]


class Process(SandboxAdmin):
    """A sandbox in a process of its own, which can be killed and started again on the same folder."""

    def __init__(self, state: Path) -> None:
        super().__init__("")
        self.state = state
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *options: str) -> None:
        command = (sys.executable, "-m", "durabatch.sandbox", "--state", str(self.state), *options)
        self._process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = json.loads(await self._process.stdout.readline())["url"]

    async def stop(self, number: signal.Signals = signal.SIGKILL) -> int | None:
        """Send a signal and wait for the end; says the exit status."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.send_signal(number)
        await process.communicate()
        return process.returncode

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE)


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    running = Process(tmp_path / "state")
    await running.start()
    yield running
    await running.stop()


class Steps:
    """The shared steps as one fixture: test modules cannot import each other in pytest's importlib mode."""

    chat_row = staticmethod(chat_row)
    create = staticmethod(create)
    end = staticmethod(end)
    jsonl = staticmethod(jsonl)
    read = staticmethod(read)


@pytest.fixture
def steps() -> type[Steps]:
    return Steps


Refused = Callable[[Awaitable[Any]], Awaitable[openai.APIStatusError]]


@pytest.fixture
def refusal() -> Refused:
    async def refused(call: Awaitable[Any]) -> openai.APIStatusError:
        with pytest.raises(openai.APIStatusError) as caught:
            await call
        return caught.value

    return refused
