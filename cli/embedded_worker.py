"""The worker in the command's own process, beside an embedded Temporal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from ..activities import prices
from ..activities.providers import open_provider
from ..activities.providers.settings import ProviderSettings
from ..contract import ConfigurationError
from ..workers.settings import Settings
from ..workers.worker import open_worker
from . import stand_in
from .session import Session

#: How long steps may go on after Ctrl-C, where somebody waits for the prompt. What is not done is done by the next run.
_GRACE = timedelta(seconds=2)


def load(provider: ProviderSettings) -> None:
    """Load what the first batch at a provider needs, for which no server has to be there."""
    prices.load()
    with suppress(ConfigurationError):  # who calls it reports it
        open_provider(provider)  # nothing is connected, so nothing needs to be closed


@asynccontextmanager
async def embedded_worker(opened: Session, sandbox: Awaitable[Settings] | None) -> AsyncIterator[None]:
    """Run a worker for as long as the block runs.

    Args:
        opened: what it works with.
        sandbox: the settings that know the stand-in provider, which the caller is starting; None without one.
    """
    settings = stand_in.known(opened.settings) if sandbox is None else await sandbox
    queue = settings.worker.task_queue
    async with open_worker(opened.connection.client, settings, task_queue=queue, grace=_GRACE):
        yield
