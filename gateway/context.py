"""What the gateway's routes work with."""

from __future__ import annotations

from starlette.requests import Request

from ..activities.store import Store
from ..clients.client import BatchClient
from ..workers.settings import Settings
from .inbox import inboxes
from .metrics import Metrics
from .places import Places
from .stored import Stored
from .tenants import Tenant
from .upkeep import Upkeep

#: Each has a piece of its object in memory, of 8 MiB where the store is a bucket.
_DOWNLOADS = 64
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
        shared = len({key.tenant for key in settings.gateway.keys}) > 1
        self.uploads = Places("uploads", settings.gateway.uploads, shared=shared)
        self.downloads = Places("downloads", _DOWNLOADS, shared=shared)
        self.stored = Stored(client.store)
        self.metrics = Metrics()
        self.upkeep = Upkeep(client.store, settings.gateway.keep)
        #: Long reads of the store, so that they leave room for the short ones of others.
        self.long_reads = Places("searches and pages of results", _LONG_READS, shared=shared)
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
