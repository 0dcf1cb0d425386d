"""Real processes that a test may kill, and that never outlive it.

Each is bound to its parent by PR_SET_PDEATHSIG, so a test process that is killed itself leaves nothing behind; and each
is held by a pidfd, so that a signal can never reach a stranger that was given the same number. Both are Linux's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: Runs a command that dies with its parent. (A preexec_fn would do it too, and warns in a process with threads.)
_LAUNCH = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); "
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)


def quiet_port() -> int:
    """Return a free port below those that outgoing connections are given, so that it stays free over a restart."""
    while True:
        port = random.randrange(15_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class Held:
    """A process by its number, for as long as it lives and after."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._fd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._fd = None

    @property
    def alive(self) -> bool:
        if self._fd is None:
            return False
        if select.select([self._fd], [], [], 0)[0]:
            self._forget()
        return self._fd is not None

    @property
    def paused(self) -> bool:
        """Whether it stands still: it may have stopped itself, at a failpoint."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] == "T"

    async def gone(self) -> None:
        """Wait for its end."""
        while self.alive:
            await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        self._send(signal.SIGKILL)
        await self.gone()

    def stop(self) -> None:
        """SIGTERM: it is asked to end, and says goodbye."""
        self._send(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: it stands still, with its connections open, and knows nothing of it."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it goes on in the middle of whatever it did."""
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        if self._fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def _forget(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Service:
    """A server that can be killed and started again with the same command, so on the same port and the same files."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = list(command)
        self._log = log
        self._child: subprocess.Popen[str] | None = None
        self.held: Held | None = None

    def start(self, *, pipes: bool = False) -> subprocess.Popen[str]:
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *self._command]
        with self._log.open("a") as log:
            self._child = subprocess.Popen(
                launch,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=log,
                text=True,
            )
        self.held = Held(self._child.pid)
        return self._child

    async def kill(self) -> None:
        if self.held is not None:
            await self.held.kill()
        self.stop()

    def stop(self) -> None:
        """Kill it and clear up; also where the event loop has gone already."""
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._child = None
