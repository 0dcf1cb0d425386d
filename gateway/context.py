"""What the gateway's routes work with."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from ..activities.store import Store
from ..clients.client import BatchClient
from ..workers.settings import Settings
from .tenants import Tenant


@dataclass(frozen=True, kw_only=True)
class Context:
    """One gateway's settings and connections."""

    settings: Settings
    client: BatchClient
    #: The provider of batches that name none, whatever the routes say; None to route by model.
    provider: str | None = None

    @property
    def store(self) -> Store:
        return self.client.store


def context_of(request: Request) -> Context:
    """Return what the gateway works with that received a request."""
    context: Context = request.app.state.context
    return context


def tenant_of(request: Request) -> Tenant:
    """Return who sent a request."""
    tenant: Tenant = request.state.tenant
    return tenant
