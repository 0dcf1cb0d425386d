"""What the steps work with: the store, and one open connection to each provider in use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from ..contract import AccountMismatch
from .prices import Prices
from .providers import Provider, ProviderSettings, open_provider
from .store import Store

#: Python works on one row at a time, however many threads it has: a second one uses the first one's waits for disk and
#: network, and more would only take more memory, and keep the event loop waiting.
_ROW_THREADS = 2


class Resources:
    """Opened once per worker, before its first activity, and closed after its last.

    Args:
        store: where inputs, plans and results live.
        settings_of: returns the settings of a provider by name, or raises UnknownProvider or MissingKey.
        heartbeat: how long a silent worker is believed to be alive.
        results_file_bytes: results up to this size are joined into one file.
    """

    def __init__(
        self,
        store: Store,
        settings_of: Callable[[str], ProviderSettings],
        heartbeat: timedelta = timedelta(seconds=20),
        results_file_bytes: int = 4 * 1024**3,
    ) -> None:
        self.store = store
        self.heartbeat = heartbeat
        self.results_file_bytes = results_file_bytes
        self._settings_of = settings_of
        self._open: dict[str, Provider] = {}
        self._row_work: asyncio.Semaphore | None = None

    @property
    def row_work(self) -> asyncio.Semaphore:
        """What a step holds while a thread of its works on rows."""
        if self._row_work is None:  # not before there is a loop that it can belong to
            self._row_work = asyncio.Semaphore(_ROW_THREADS)
        return self._row_work

    def settings(self, name: str) -> ProviderSettings:
        """Return a provider's settings.

        Raises:
            ConfigurationError: there is no such provider, or its key is missing.
        """
        return self._settings_of(name)

    def provider(self, name: str) -> Provider:
        """Return the adapter of a provider, opened at its first use."""
        settings = self.settings(name)
        if name not in self._open:
            self._open[name] = open_provider(settings)
        return self._open[name]

    def at_account(self, name: str, account: str) -> Provider:
        """Return the adapter of a provider if it is at this account.

        Raises:
            AccountMismatch: the worker's key or base URL belongs to another account.
        """
        settings = self.settings(name)
        if not settings.owns(account):
            raise AccountMismatch(
                f"The batch belongs to account {account} of provider {name}, and this worker is configured for "
                f"{settings.fingerprint}: restore the key or base URL, or, if it is a new key of the same account, add "
                f'also_accounts = ["{account}"] to [providers.{name}] in durabatch.toml and restart the worker.'
            )
        return self.provider(name)

    def prices(self, name: str) -> Prices:
        """Return a provider's prices."""
        settings = self.settings(name)
        return Prices(settings.price_provider or settings.kind, settings.batch_discount)

    async def close(self) -> None:
        """Close every connection."""
        for provider in self._open.values():
            await provider.close()
        self._open.clear()
        self._row_work = None
