"""Ends a server that a killed command left behind, once no command has used it for a while.

It is a process of its own, and imports nothing but the standard library, so that it starts at once and takes little
memory beside the server. `background` says what the files mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock, and no server is shared there.
    fcntl = None  # type: ignore[assignment]

#: Seconds between two checks. Nobody waits for it.
_CHECK_SECONDS = 1.0
#: How long one reaper waits for another one to go, and a server may take to end.
_WAIT_SECONDS = 5.0


def main(folder: Path, name: str, mark: str, idle: float) -> None:
    """Watch until the server has ended.

    Args:
        folder: where the server's files are.
        name: what they begin with.
        mark: text that only its command line contains.
        idle: seconds without any user after which it is ended.
    """
    with contextlib.ExitStack() as stack:
        own, users, start = (
            stack.enter_context((folder / f"{name}.{kind}").open("ab")).fileno()
            for kind in ("reaper.lock", "lock", "start.lock")
        )
        give_up = time.monotonic() + _WAIT_SECONDS
        while not _try_lock(own):
            if time.monotonic() > give_up:
                return  # another one watches it
            time.sleep(_CHECK_SECONDS / 10)
        used_at = time.monotonic()
        while True:
            time.sleep(min(_CHECK_SECONDS, max(idle / 4, 0.05)))
            # While we hold this lock nobody starts, joins or leaves the server. Another holder is about to use it.
            if not _try_lock(start):
                used_at = time.monotonic()
                continue
            try:
                if not _try_lock(users):
                    used_at = time.monotonic()
                    continue
                pid = _recorded(folder / f"{name}.json")
                if pid is None or mark not in command_line(pid):
                    return
                if time.monotonic() - used_at >= idle:
                    _end(pid, mark)
                    return
            finally:
                fcntl.flock(users, fcntl.LOCK_UN)
                fcntl.flock(start, fcntl.LOCK_UN)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _recorded(file: Path) -> int | None:
    try:
        pid = json.loads(file.read_bytes())["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if isinstance(pid, int) else None


def _end(pid: int, mark: str) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        give_up = time.monotonic() + _WAIT_SECONDS
        while mark in command_line(pid) and time.monotonic() < give_up:
            time.sleep(_CHECK_SECONDS / 10)


def command_line(pid: int) -> str:
    """Return the command line of a process, "" if there is none or it has ended without being waited for."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    listing = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listing.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))
