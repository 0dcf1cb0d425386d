"""The stand-in provider `sandbox`: a process beside the command that answers like OpenAI and costs nothing."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from ..activities.providers.settings import ProviderSettings
from ..contract import ConfigurationError
from ..workers.background import IDLE, BackgroundProcess, accepts
from ..workers.embedded import FOLDER
from ..workers.settings import Settings

#: The provider's name in specs.
NAME = "sandbox"


def wanted(provider: str, settings: Settings) -> bool:
    """Whether a provider's name means the stand-in, and not a provider of the user's that has the same name."""
    return provider == NAME and NAME not in settings.providers


@asynccontextmanager
async def running(settings: Settings, folder: Path = FOLDER) -> AsyncIterator[Settings]:
    """Run the stand-in and yield settings that know it; it remembers its batches in `<folder>/sandbox`.

    Raises:
        ConfigurationError: what it needs is not installed.
        DurabatchError: it does not start.
    """
    if importlib.util.find_spec("aiohttp") is None:
        raise ConfigurationError('The stand-in provider is not installed: pip install "durabatch[sandbox]".')
    async with process(folder, settings.worker.embedded_idle).running() as ports:
        yield settings.with_provider(provider_at(ports["http"]))


def known(settings: Settings, folder: Path = FOLDER) -> Settings:
    """Return settings that know the stand-in if it was ever used here, so that a worker waits for its batches."""
    ports = process(folder).recorded()
    return settings.with_provider(provider_at(ports["http"])) if ports and NAME not in settings.providers else settings


def beside(settings: Settings, folder: Path = FOLDER) -> Settings:
    """Return settings that know the stand-in if it runs here now, for whoever looks and starts nothing."""
    return known(settings, folder) if process(folder).alive() else settings


def process(folder: Path = FOLDER, idle: timedelta = IDLE) -> BackgroundProcess:
    """Return the stand-in of a folder, running or not.

    Args:
        folder: where it keeps its state.
        idle: how long it goes on when its last user was killed.
    """
    folder = folder.absolute()
    state = str(folder / NAME)

    def command(ports: Mapping[str, int]) -> Sequence[str]:
        # -P: a file in the current folder must not stand in for one of the modules.
        return [sys.executable, "-P", "-m", "durabatch.sandbox", "--state", state, "--port", str(ports["http"])]

    async def ready(ports: Mapping[str, int]) -> bool:
        return await accepts(ports["http"])

    return BackgroundProcess(
        folder=folder, name=NAME, mark=state, ports=("http",), command=command, ready=ready, idle=idle
    )


def provider_at(port: int) -> ProviderSettings:
    """Return the settings of the stand-in at a port of this machine."""
    return ProviderSettings(
        name=NAME,
        kind="openai",
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key=SecretStr(NAME),
        # It lists a new batch at once.
        listing_lag=timedelta(seconds=5),
    )
