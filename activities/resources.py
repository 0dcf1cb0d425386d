"""What the steps work with: the store, and one open connection to each provider in use."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from ..contract import AccountMismatch, ConfigurationError, Mode, StoreError, WorkerBusy
from ..contract.steps import ApplyRequest, Attempt, FinishRequest
from . import prices
from .batch_folder import find_folder
from .direct.governors import Governors
from .direct.judgement import Pulse
from .direct.memory import Memory
from .gateway.routing import Route
from .log import logger
from .prices import Prices
from .providers import Provider, ProviderSettings, open_provider
from .store import Store
from .webhooks.endpoint import Endpoint

if TYPE_CHECKING:
    from .direct.calls import Calls

#: Python works on one row at a time, however many threads it has: a second one uses the first one's waits for disk and
#: network, and more would only take more memory, and keep the event loop waiting.
_ROW_THREADS = 2
#: Endpoints and models that are remembered.
_PULSES = 1000


class LongSteps:
    """How many of a worker's slots long steps may hold: the others are left to polls, creates and cancels.

    Temporal gives a worker a step before it says which kind it is. So one step too many is given back, and offered
    again after some seconds, to any worker that has room.

    In direct mode such a step may take hours. So of what the others leave free those of one fairness key, such as a
    tenant of the gateway's, hold three quarters at most: somebody else's small batch finds room beside any number of
    theirs.

    Args:
        most: long steps that may be under way at a time.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._active = 0
        self._by_key = Counter[str]()

    @contextlib.contextmanager
    def one(self, fairness_key: str = "") -> Iterator[None]:
        """Hold room for a long step.

        Args:
            fairness_key: of its batch; "" if it has none.

        Raises:
            WorkerBusy: there is none.
        """
        own = self._by_key[fairness_key] if fairness_key else 0
        left = self.most - (self._active - own)
        share = max(1, left * 3 // 4) if fairness_key else left
        if own >= share or self._active >= self.most:
            raise WorkerBusy(f"The worker has {self._active} long steps under way, and this one waits for room.")
        self._active += 1
        self._by_key[fairness_key] += 1
        try:
            yield
        finally:
            self._active -= 1
            self._by_key[fairness_key] -= 1
            if not self._by_key[fairness_key]:
                del self._by_key[fairness_key]


class Resources:
    """What every worker of one plugin works with; closed after the last one's last activity.

    Args:
        store: where inputs, plans and results live.
        settings_of: returns the settings of a provider by name, or raises UnknownProvider or MissingKey.
        heartbeat: how long a silent worker is believed to be alive.
        results_file_bytes: results up to this size are joined into one file.
        long_steps: long steps under way at a time.
        governors: who says how fast rows may be sent in direct mode; by default the accounts' rate ledgers.
        routes: which provider runs which models, for batches that come through the gateway.
        webhooks: the endpoints of the gateway's tenants.
    """

    def __init__(
        self,
        store: Store,
        settings_of: Callable[[str], ProviderSettings],
        heartbeat: timedelta = timedelta(seconds=20),
        results_file_bytes: int = 4 * 1024**3,
        long_steps: int = 20,
        governors: Governors | None = None,
        routes: Sequence[Route] = (),
        webhooks: Sequence[Endpoint] = (),
    ) -> None:
        self.store = store
        self.heartbeat = heartbeat
        self.results_file_bytes = results_file_bytes
        self.long_steps = LongSteps(long_steps)
        self.governors = governors or Governors(heartbeat)
        self.routes = routes
        self.webhooks = webhooks
        self._settings_of = settings_of
        self._open: dict[str, Provider] = {}
        self._calls: dict[str, Calls] = {}
        self._pulses: dict[tuple[str, str, str], Pulse] = {}
        self._users = 0
        self._row_work: asyncio.Semaphore | None = None
        self._memory: Memory | None = None

    @property
    def row_work(self) -> asyncio.Semaphore:
        """What a step holds while a thread of its works on rows."""
        if self._row_work is None:  # not before there is a loop that it can belong to
            self._row_work = asyncio.Semaphore(_ROW_THREADS)
        return self._row_work

    @property
    def memory(self) -> Memory:
        """What answers of ordinary calls may take."""
        if self._memory is None:
            self._memory = Memory()
        return self._memory

    async def batch_folder(self, whose: Attempt | ApplyRequest | FinishRequest) -> str:
        """Return the path of a batch's folder, once it is known to be there, in this store (see `batch_folder`)."""
        return await find_folder(self.store, whose.root, whose.store)

    def settings(self, name: str) -> ProviderSettings:
        """Return a provider's settings.

        Raises:
            ConfigurationError: there is no such provider, or its key is missing.
        """
        return self._settings_of(name)

    def webhook(self, tenant: str, name: str) -> Endpoint | None:
        """Return an endpoint of a tenant's webhooks; None where none of this name is configured."""
        return next((one for one in self.webhooks if (one.tenant, one.name) == (tenant, name)), None)

    @contextlib.asynccontextmanager
    async def used(self, names: Iterable[str] = ()) -> AsyncIterator[None]:
        """Keep the connections open for one worker; the last of several that leaves closes them.

        A store that does not work is logged as well.

        Args:
            names: providers that the worker is to serve. One that cannot be set up is logged, with the cause: its
                batches fail or wait with the same words, and the others are served.
        """
        direct = False
        for name in names:
            try:
                self.provider(name)
                direct = direct or self.settings(name).mode is Mode.DIRECT
            except ConfigurationError as error:
                logger.error("%s Until then, this worker serves the other providers only.", error.message)
        self._users += 1
        beside = [asyncio.create_task(work) for work in (_try_out(self.store), asyncio.to_thread(_load, direct))]
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            self._users -= 1
            if not self._users:
                await self.close()

    def provider(self, name: str) -> Provider:
        """Return the adapter of a provider, opened at its first use.

        Raises:
            ConfigurationError: there is no such provider, its key is missing, or it cannot be set up.
        """
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

    def pulse(self, name: str, url: str, model: str) -> Pulse:
        """Return what all runs of this process know of a provider's endpoint and model."""
        if len(self._pulses) > _PULSES:  # whoever has one keeps it
            self._pulses.clear()
        return self._pulses.setdefault((name, url, model), Pulse())

    def calls(self, name: str) -> Calls:
        """Return the connections for a provider's ordinary calls, opened at their first use.

        Raises:
            ConfigurationError: the provider has no direct mode, or no call can be sent from this environment.
        """
        if name not in self._calls:
            from .direct.calls import Calls  # aiohttp takes a tenth of a second, which batch mode need not wait for

            live = self.provider(name).live
            if live is None:
                raise ConfigurationError(f"Provider {name} has no direct mode: run the batch in mode batch.")
            self._calls[name] = Calls(self.settings(name), live.headers, memory=self.memory)
        return self._calls[name]

    def prices(self, name: str) -> Prices:
        """Return a provider's prices."""
        settings = self.settings(name)
        return Prices(settings.prices, settings.batch_discount)

    async def close(self) -> None:
        """Close every connection, and give the shares of rates back."""
        await self.governors.close()
        for provider in self._open.values():
            await provider.close()
        self._open.clear()
        for calls in self._calls.values():
            await calls.close()
        self._calls.clear()
        self._row_work = self._memory = None


def _load(direct: bool) -> None:
    """Load what the first batch needs, so that it need not wait for it."""
    prices.load()
    if direct:
        from .direct import calls  # noqa: F401


async def _try_out(store: Store) -> None:
    """Log it when the store does not work; the worker goes on, as its batches wait and report the same."""
    try:
        await store.check()
    except StoreError as error:
        logger.error("%s The batches of this worker wait until it is fixed.", error.message)
