"""Where it is measured: a real Temporal server, the sandbox and a worker, each a process of its own. Linux only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError

from durabatch import BatchClient
from durabatch.contract import BatchResult
from durabatch.sandbox import SandboxAdmin

MODEL = "gpt-4o-mini"
#: Nothing here takes longer to start, in seconds.
_START = 60.0
_PAUSE = 0.02
#: No batch takes longer, in seconds; a batch that waits for an outage's end would wait for ever here.
_PATIENCE = 3600.0
#: Runs a command, on some cores, that dies with its parent, so that a benchmark that is killed leaves nothing behind.
_LAUNCH = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); "
    "os.sched_setaffinity(0, map(int, sys.argv[2].split(','))); "
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[3], sys.argv[3:])"
)
#: Where what is measured runs, and where everything else does, so that neither takes the other's time. On one core
#: they are the same.
FIRST_CORE, LAST_CORE = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))


class Process:
    """A process, what it has used so far, and its end.

    Args:
        command: an absolute path, and its arguments.
        log: where what it prints is added.
        core: the only core that it may run on; None for all.
        environment: what it gets beside this process's environment.
    """

    def __init__(self, command: Sequence[str], log: Path, core: int | None = None, **environment: str) -> None:
        cores = sorted(os.sched_getaffinity(0)) if core is None else [core]
        self._log = log
        self._seen = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), ",".join(map(str, cores)), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**clean_environment(), **environment},
            )

    async def says(self, word: str) -> str:
        """Wait until it has written a line with this word, and return the line."""
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline and self._child.poll() is None:
            with self._log.open(encoding="utf-8") as log:
                log.seek(self._seen)
                for line in log:
                    if word in line and line.endswith("\n"):
                        return line
            await asyncio.sleep(_PAUSE)
        raise RuntimeError(f"It did not start:\n{self._log.read_text(encoding='utf-8')}")

    @property
    def peak(self) -> int:
        """The most memory that it has had, in bytes (VmHWM, the resident set)."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024

    @property
    def cpu(self) -> float:
        """Processor seconds that it has used."""
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Let it end as it is meant to."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        self._child.send_signal(number)  # does nothing once it has ended
        try:
            self._child.wait(30)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what would lead Durabatch to somebody's servers or settings."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL_", "DURABATCH_", "OPENAI_"))
    }


def silent() -> Runtime:
    """Return a runtime for the SDK that does not warn: it would do so on stdout, where the JSON goes."""
    errors = TelemetryFilter(core_level="ERROR", other_level="ERROR")
    return Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter=errors)))


@contextlib.contextmanager
def scratch(folder: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder, and remove it afterwards."""
    made = Path(tempfile.mkdtemp(prefix="durabatch-bench-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.asynccontextmanager
async def sandbox(folder: Path, **settings: Any) -> AsyncIterator[tuple[SandboxAdmin, Process]]:
    """Run a sandbox that remembers nothing, at zero latency."""
    state = folder / f"sandbox-{uuid.uuid4().hex[:8]}"
    options = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "durabatch.sandbox", "--state", str(state), *options]
    process = Process(command, folder / "sandbox.log")
    try:
        yield SandboxAdmin(json.loads(await process.says('"url"'))["url"]), process
    finally:
        process.stop()
        shutil.rmtree(state, ignore_errors=True)


@contextlib.asynccontextmanager
async def live_server(folder: Path, core: int | None = None, **settings: Any) -> AsyncIterator[str]:
    """Run live_server.py with these settings; yield its URL."""
    options = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, str(Path(__file__).with_name("live_server.py")), *options]
    process = Process(command, folder / f"live-{uuid.uuid4().hex[:8]}.log", core)
    try:
        yield json.loads(await process.says('"url"'))["url"]
    finally:
        process.kill()


async def live_books(url: str) -> dict[str, Any]:
    """Return what a live server has seen."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        books: dict[str, Any] = (await client.get(f"{url}/books")).json()
    return books


@dataclass
class Lab:
    """A Temporal server for a whole benchmark, and a folder."""

    folder: Path
    client: Client
    address: str
    server: Process

    @property
    def store(self) -> Path:
        return self.folder / "store"

    async def worker(self, provider: str, queue: str, core: int | None = None, **environment: str) -> Process:
        """Start `durabatch worker`, and wait until it polls.

        Args:
            provider: sections `[providers.NAME]`, in TOML. Everything else is as it is by default.
            queue: its task queue.
            core: the only core that it may run on; None for all.
            environment: what it gets beside this process's environment.
        """
        process = self._start(["worker"], provider, queue, core, environment)
        await process.says("Worker polls")
        return process

    async def gateway(self, provider: str, queue: str, name: str, **environment: str) -> tuple[str, Process]:
        """Start `durabatch gateway` in front of a provider, and return its base URL too.

        Args:
            provider: as for a worker, whose configuration must say the same.
            queue: the worker's task queue.
            name: the provider that every batch goes to.
            environment: what it gets beside this process's environment.
        """
        words = ["gateway", "--port", "0", "--provider", name]
        process = self._start(words, provider, queue, None, environment)
        line = await process.says("OPENAI_BASE_URL=")
        return line.strip().partition("=")[2], process

    def _start(
        self, words: Sequence[str], provider: str, queue: str, core: int | None, environment: dict[str, str]
    ) -> Process:
        name = f"{words[0]}-{queue}-{uuid.uuid4().hex[:8]}"
        config = self.folder / f"{name}.toml"
        config.write_text(f'[store]\nurl = "{self.store}"\n[worker]\ntask_queue = "{queue}"\n{provider}')
        environment = {**environment, "TEMPORAL_ADDRESS": self.address, "DURABATCH_CONFIG": str(config)}
        return Process([sys.executable, "-m", "durabatch", *words], self.folder / f"{name}.log", core, **environment)


@contextlib.asynccontextmanager
async def open_lab(folder: Path | None = None, core: int | None = None) -> AsyncIterator[Lab]:
    """Start a Temporal server on a database file, with the defaults of Temporal's own command, in a scratch folder."""
    with scratch(folder) as made:
        port = _free_port()
        server = Process(
            [
                str(Path(sys.executable).with_name("temporal")),
                *("server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)),
                *("--db-filename", str(made / "temporal.db"), "--log-level", "error"),
                *("--disable-config-file", "--disable-config-env"),
            ],
            made / "temporal.log",
            core,
        )
        try:
            address = f"127.0.0.1:{port}"
            yield Lab(made, await _connected(address), address, server)
        finally:
            server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _connected(address: str) -> Client:
    deadline, runtime = time.monotonic() + _START, silent()
    while True:
        try:
            client = await Client.connect(address, data_converter=pydantic_data_converter, runtime=runtime)
            # The front end answers before its namespace is there, and describes it before its calls find it.
            await client.count_workflows()
            return client
        except (RPCError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


@dataclass
class Run:
    """One batch that went through a worker."""

    result: BatchResult
    seconds: float  #: From the client's call to the batch's result.
    peak: int  #: Bytes; the worker's, or that of the one that needed most.
    idle: int  #: The same before the batch.
    worker_cpu: float  #: Seconds, of a worker that was not killed.
    sandbox_cpu: float
    server_cpu: float
    kills: int


async def run_batch(
    lab: Lab, provider: SandboxAdmin, sandbox_process: Process, source: Path, kills: int = 0, **spec: Any
) -> Run:
    """Bring a file of the store, with these fields of its spec, through a fresh worker, killing it so many times.

    The worker is killed when a third, two thirds, … of the shards have ended.
    """
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    config = f'[providers.sandbox]\nkind = "openai"\nbase_url = "{provider.url}/v1"\nlisting_lag = "1s"\n'
    worker = await lab.worker(config, queue)
    try:
        os.sync()  # what was written before must not be paid for here
        idle = peak = worker.peak
        client = BatchClient(lab.client, str(lab.store), task_queue=queue)
        used = worker.cpu, sandbox_process.cpu, lab.server.cpu
        began = time.perf_counter()
        batch_id = await client.create(source.as_uri(), provider="sandbox", id=queue, model=MODEL, **spec)
        end = asyncio.ensure_future(client.result(batch_id))
        for number in range(kills):
            await _shards_ended(client, batch_id, (number + 1) / (kills + 1), end)
            peak = max(peak, worker.peak)
            worker.kill()
            worker = await lab.worker(config, queue)
        result = await asyncio.wait_for(end, _PATIENCE)
        seconds = time.perf_counter() - began
        return Run(
            result=result,
            seconds=seconds,
            peak=max(peak, worker.peak),
            idle=idle,
            worker_cpu=worker.cpu - used[0],
            sandbox_cpu=sandbox_process.cpu - used[1],
            server_cpu=lab.server.cpu - used[2],
            kills=kills,
        )
    finally:
        worker.stop()


async def _shards_ended(client: BatchClient, batch_id: str, share: float, end: asyncio.Future[BatchResult]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not end.done():
        shards = (await client.status(batch_id)).shards
        if shards.total and shards.ended >= shards.total * share:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"After {_PATIENCE:.0f} s only {shards.ended} of {shards.total} shards have ended.")
        await asyncio.sleep(0.1)
    end.result()  # a batch that failed says why
    raise RuntimeError("The batch has ended before the worker could be killed: take more rows.")
