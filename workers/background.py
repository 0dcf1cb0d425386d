"""A server process that the commands in one folder share, such as the embedded Temporal.

The first command that needs such a server starts it, the last one that leaves stops it. Each user holds a shared lock
on `<name>.lock` for as long as it lives, so the operating system itself releases the lock of one that was killed: its
server runs on as an orphan until the next command adopts it, or the `reaper` beside it ends it once nobody uses it. A
second lock, `<name>.start.lock`, is held for the moments of starting and stopping, so that two commands never start two
servers on one database.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from ..contract import ConfigurationError, DurabatchError
from . import reaper

try:
    import fcntl
except ImportError:  # Windows has no flock.
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("durabatch")

#: How long a server without users keeps running after its last command was killed.
IDLE = timedelta(minutes=10)
#: A laptop under load takes some seconds to start Temporal; one that needs longer than this has a fault.
_START_SECONDS = 30.0
#: A process that was killed is gone in milliseconds, unless the kernel still writes for it.
_STOP_SECONDS = 5.0
#: Pause between two looks at a server that starts or ends, or at a lock.
_POLL_SECONDS = 0.01
#: How often a user checks that the server still runs.
_WATCH_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class BackgroundProcess:
    """A server process on loopback that the commands in one folder share."""

    folder: Path
    #: Names its files: <name>.json (ports and process id), <name>.log, <name>.lock.
    name: str
    #: Text that only its command line contains, so that another process with the same id is not taken for it.
    mark: str
    #: Names of the ports it needs. The same numbers are taken again whenever they are free.
    ports: tuple[str, ...]
    command: Callable[[Mapping[str, int]], Sequence[str]]
    ready: Callable[[Mapping[str, int]], Awaitable[bool]]
    #: Called before a start while none has ever succeeded: clears away what a killed start left unfinished.
    clear: Callable[[], None] = lambda: None
    #: It is ended after this long without a user, which happens only when the last one was killed.
    idle: timedelta = IDLE
    _children: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Mapping[str, int]]:
        """Yield the server's ports while it runs; it is started again, on the same ports, should it die meanwhile.

        Raises:
            ConfigurationError: this system cannot share processes.
            DurabatchError: it does not start; the message holds the end of its log.
        """
        if fcntl is None:
            raise ConfigurationError(f"{self.name} cannot be run by this command on this system: run it yourself.")
        self.folder.mkdir(parents=True, exist_ok=True)
        with _lock(self.folder / f"{self.name}.lock") as users:
            await _take(users, exclusive=False)
            try:
                ports = await self._ensure(keep_ports=False)
                self._start_reaper()
                watcher = asyncio.create_task(self._watch())
                try:
                    yield ports
                finally:
                    watcher.cancel()
                    await asyncio.gather(watcher, return_exceptions=True)
            finally:
                await self._leave(users)

    def recorded(self) -> Mapping[str, int] | None:
        """Return the ports it was last started on, whether or not it runs; None before the first start."""
        ports = self._record().get("ports")
        return ports if isinstance(ports, dict) and set(ports) == set(self.ports) else None

    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._pid() is not None

    async def stop(self) -> bool:
        """End the server, and return whether there was one.

        Raises:
            DurabatchError: a command uses it.
        """
        if fcntl is None or not self.folder.exists():
            return False
        with _lock(self.folder / f"{self.name}.lock") as users:
            async with self._starting():
                running = self.alive()
                if not await self._end_unused(users) and running:
                    raise DurabatchError(
                        f"The {self.name} server in {self.folder} is in use by another command: end that one first."
                    )
                return running

    async def _ensure(self, *, keep_ports: bool) -> Mapping[str, int]:
        """Return the ports of the running server; start it first if it does not run."""
        async with self._starting():
            recorded = self.recorded()
            if recorded and self.alive():
                await self._wait(recorded, self._pid())
                return recorded
            if keep_ports and recorded:
                await self._start(recorded)
                return recorded
            return await self._start_somewhere(recorded)

    async def _start_somewhere(self, recorded: Mapping[str, int] | None) -> Mapping[str, int]:
        # A free port may be taken by somebody else before the server binds it, so a second choice is made.
        for _ in range(2):
            ports = _free(self.ports, recorded or {})
            with contextlib.suppress(DurabatchError):
                await self._start(ports)
                return ports
            recorded = None
        ports = _free(self.ports, {})
        await self._start(ports)
        return ports

    async def _start(self, ports: Mapping[str, int]) -> None:
        ready = bool(self._record().get("ready"))
        if not ready:
            self.clear()
        with (self.folder / f"{self.name}.log").open("ab") as log:
            begin = log.tell()
            # A session of its own: Ctrl-C in the terminal reaches only us, and we stop it when we are done.
            process = subprocess.Popen(  # noqa: ASYNC220  asyncio's own would kill it when the loop ends
                list(self.command(ports)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._children[process.pid] = process
        self._write({"ports": dict(ports), "pid": process.pid, "ready": ready})
        await self._wait(ports, process.pid, begin)
        self._write({**self._record(), "ready": True})

    async def _wait(self, ports: Mapping[str, int], pid: int | None, begin: int = 0) -> None:
        clock = asyncio.get_running_loop().time
        give_up = clock() + _START_SECONDS
        while not await self.ready(ports):
            gone = pid is None or not self._lives(pid)
            if gone or clock() > give_up:
                if pid is not None and not gone:
                    await self._stop(pid)
                why = "ended at once" if gone else f"did not answer within {_START_SECONDS:g} s"
                raise DurabatchError(f"The {self.name} server {why}; its log ends: {self._tail(begin)}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            for child in self._children.values():
                child.poll()  # one that has ended is let go
            if not self.alive():
                # A start that fails is tried again at the next check; clients see that nothing answers.
                try:
                    await self._ensure(keep_ports=True)
                except (DurabatchError, OSError):
                    pass
                except Exception:
                    logger.exception("The %s server could not be started again.", self.name)

    async def _leave(self, users: int) -> None:
        async with self._starting():
            await self._end_unused(users)
            for child in self._children.values():
                if child.poll() is None:
                    # It outlives us on purpose; without this, Popen would warn of a child that was not waited for.
                    child.returncode = 0

    async def _end_unused(self, users: int) -> bool:
        """End the server unless somebody else uses it; return whether nobody does."""
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        pid = self._pid()
        if pid is not None:
            await self._stop(pid)
        self._write({**self._record(), "pid": None})
        return True

    def _start_reaper(self) -> None:
        """Start the process that ends the server if we are killed; one that runs already stays."""
        # -I -S: nothing of the user's or of the environment's is loaded.
        command = [sys.executable, "-I", "-S", reaper.__file__]
        facts = [str(self.folder), self.name, self.mark, str(self.idle.total_seconds())]
        process = subprocess.Popen(
            [*command, *facts],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._children[process.pid] = process

    async def _stop(self, pid: int) -> None:
        # Temporal's dev server and the sandbox survive this without loss: whatever they have answered is in their
        # databases. At a SIGTERM, Temporal waits a fixed second for callers to go elsewhere, and here are none left.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        clock = asyncio.get_running_loop().time
        give_up = clock() + _STOP_SECONDS
        while self._lives(pid):
            if clock() > give_up:
                return
            await asyncio.sleep(_POLL_SECONDS)

    @asynccontextmanager
    async def _starting(self) -> AsyncIterator[None]:
        with _lock(self.folder / f"{self.name}.start.lock") as lock:
            await _take(lock, exclusive=True)
            yield

    def _pid(self) -> int | None:
        pid = self._record().get("pid")
        return pid if isinstance(pid, int) and self._lives(pid) else None

    def _lives(self, pid: int) -> bool:
        child = self._children.get(pid)
        if child is not None:
            return child.poll() is None
        return self.mark in reaper.command_line(pid)

    def _record(self) -> dict[str, object]:
        try:
            record = json.loads((self.folder / f"{self.name}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write(self, record: Mapping[str, object]) -> None:
        # Replaced as a whole: a reader never sees half a record, even if this process is killed now.
        draft = self.folder / f"{self.name}.json.new"
        draft.write_text(json.dumps(record), encoding="utf-8")
        draft.replace(self.folder / f"{self.name}.json")

    def _tail(self, begin: int) -> str:
        log = (self.folder / f"{self.name}.log").read_bytes()[begin:]
        return " / ".join(log.decode(errors="replace").strip().splitlines()[-3:]) or "(nothing)"


async def accepts(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _free(names: Sequence[str], preferred: Mapping[str, int]) -> dict[str, int]:
    """Return a free port for each name: the preferred one if it is free."""
    with contextlib.ExitStack() as held:
        ports: dict[str, int] = {}
        for name in names:
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", preferred.get(name, 0)))
            except OSError:
                listener.bind(("127.0.0.1", 0))
            ports[name] = listener.getsockname()[1]
        return ports


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _take(descriptor: int, *, exclusive: bool) -> None:
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return
