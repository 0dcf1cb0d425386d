"""The gateway over real HTTP on loopback, with a store of its own. Files need no Temporal, and there is none."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from openai import AsyncOpenAI
from temporalio.client import Client

from durabatch.activities.store import Store
from durabatch.clients.client import BatchClient
from durabatch.gateway.app import create_app
from durabatch.gateway.body import Pace
from durabatch.gateway.context import Context
from durabatch.gateway.places import Places
from durabatch.gateway.server import Patience, serving
from durabatch.workers import Settings
from support.house import House, connect, dev_server, open_house

#: A request line of a batch.
LINE = b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}\n'


@dataclass
class Door:
    """A gateway that serves."""

    url: str  #: Without a path.
    folder: Path  #: The store's.
    store: Store
    openai: AsyncOpenAI
    http: httpx2.AsyncClient
    context: Context

    def client(self, key: str) -> AsyncOpenAI:
        """Return an official client with another key. Its connections are closed with the test's event loop."""
        return self.openai.with_options(api_key=key)

    def objects(self) -> list[str]:
        """Return the paths of all files in the store, temporary ones included."""
        return sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file())


Opener = Callable[..., AbstractAsyncContextManager[Door]]


@pytest.fixture
def opened(tmp_path: Path) -> Opener:
    """Return what opens a gateway, from lines of [gateway], and what it waits for at most."""

    @contextlib.asynccontextmanager
    async def opened(
        gateway: str = "", pace: Pace | None = None, queued: float = 60, patience: Patience | None = None
    ) -> AsyncIterator[Door]:
        config = tmp_path / "durabatch.toml"
        config.write_text(f'[store]\nurl = "{tmp_path / "store"}"\n[gateway]\n{gateway}\n')
        settings = Settings.load(config, {})
        store = Store.open(settings.store.url)
        temporal = await Client.connect("127.0.0.1:1", lazy=True)
        context = Context(settings, BatchClient(temporal, store))
        context.uploads = Places("uploads", settings.gateway.uploads, shared=False, patience=queued)
        app = create_app(context, pace)
        async with (
            serving(app, "127.0.0.1", 0, patience or Patience()) as url,
            AsyncOpenAI(
                base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60, _strict_response_validation=True
            ) as openai,
            httpx2.AsyncClient(base_url=url, timeout=60) as http,
        ):
            yield Door(url, tmp_path / "store", store, openai, http, context)

    return opened


@pytest.fixture
async def door(opened: Opener) -> AsyncIterator[Door]:
    async with opened() as door:
        yield door


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a real Temporal dev server."""
    with dev_server() as address:
        yield address


@pytest.fixture
async def house(server: str, tmp_path: Path) -> AsyncIterator[House]:
    """A sandbox, a store and settings on it; no worker runs yet."""
    async with open_house(await connect(server), tmp_path, {"listing_lag": "1s", "timeout": "5s"}) as house:
        yield house
