"""What a subcommand works with: settings, Temporal and the log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from ..clients.client import BatchClient
from ..clients.connection import Connection, Embed, connection
from ..workers.embedded import FOLDER, Embedded
from ..workers.logs import set_up_logging
from ..workers.settings import LogFormat, Settings
from .terminal import State
from .terminal import settings as read_settings

#: An embedded worker's log is for looking up what just happened.
_LOG_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Session:
    """An open connection with a client on it."""

    settings: Settings
    connection: Connection
    client: BatchClient

    @property
    def embedded(self) -> bool:
        """Whether Temporal is the embedded one, so that batches only move while a `run` or a `dev` does."""
        return self.connection.embedded is not None


@asynccontextmanager
async def session(
    embed: Embed = Embed.KEPT, settings: Settings | None = None, server: Awaitable[Embedded] | None = None
) -> AsyncIterator[Session]:
    """Connect, for as long as the block lasts.

    Args:
        embed: when the embedded Temporal is used.
        settings: the configuration; it is read if None.
        server: the embedded Temporal, where the caller is starting it already.

    Raises:
        ConfigurationError, TemporalUnavailable: as `connection`.
        StoreError: the store cannot be opened.
    """
    settings = settings or read_settings()
    async with connection(embed, runtime=_runtime(), idle=settings.worker.embedded_idle, server=server) as way:
        client = BatchClient(way.client, settings.store.url, task_queue=settings.worker.task_queue)
        yield Session(settings=settings, connection=way, client=client)


def log_to_file(log_format: LogFormat, folder: Path = FOLDER) -> None:
    """Send the worker's log to a file, so that the terminal stays free for what the user asked for."""
    if State.debug:
        log_to_stderr(log_format, logging.DEBUG)
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(folder / "worker.log", maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
        set_up_logging(handler, log_format)


def log_to_stderr(log_format: LogFormat, level: int = logging.INFO) -> None:
    """Send the log to stderr, as a long-running worker does."""
    set_up_logging(logging.StreamHandler(), log_format, level)


def _runtime() -> Runtime:
    """Return a runtime whose own warnings go to Python's log, not to the terminal."""
    return Runtime(
        telemetry=TelemetryConfig(
            logging=LoggingConfig(
                filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
                forwarding=LogForwardingConfig(logger=logging.getLogger("temporalio.core")),
            )
        )
    )
