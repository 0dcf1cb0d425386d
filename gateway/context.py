"""What the gateway's routes work with."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from ..activities.store import Store
from ..clients.client import BatchClient
from ..workers.settings import Settings
from .inbox import inboxes
from .metrics import Metrics
from .stored import Stored
from .tenants import Tenant
from .uploads import Uploads

_LONG_READS = 4


class Context:
    """One gateway's settings and connections.

    Args:
        provider: the provider of batches that name none, whatever the routes say; None to route by model.
    """

    def __init__(self, settings: Settings, client: BatchClient, provider: str | None = None) -> None:
        self.settings = settings
        self.client = client
        self.provider = provider
        self.uploads = Uploads(settings.gateway.uploads)
        self.stored = Stored(client.store)
        self.metrics = Metrics()
        #: Long reads of the store at a time, so that those of one caller leave room for the short ones of others.
        self.long_reads = asyncio.Semaphore(_LONG_READS)
        self.inboxes = inboxes(settings.providers)

    @property
    def store(self) -> Store:
        """Where files and lists are."""
        return self.client.store


def context_of(request: Request) -> Context:
    """Return what the gateway works with that received a request."""
    context: Context = request.app.state.context
    return context


def tenant_of(request: Request) -> Tenant:
    """Return who sent a request."""
    tenant: Tenant = request.state.tenant
    return tenant
