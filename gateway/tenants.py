"""Who is asking: a tenant for each key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from ..contract.gateway_layout import DEFAULT_TENANT
from ..workers.gateway_settings import GatewayKey


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """Who a key belongs to, and what that key may do."""

    name: str  #: Every path in the store is below this name.
    models: tuple[str, ...] = ()  #: Patterns of the models it may use; none for all.


class Tenants:
    """The tenants of a configuration, by their keys. Without keys everybody is the tenant `default`."""

    def __init__(self, keys: Sequence[GatewayKey]) -> None:
        self._keys = [(bytes.fromhex(key.sha256), Tenant(name=key.tenant, models=key.models)) for key in keys]

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return not self._keys

    def of(self, key: str | None) -> Tenant | None:
        """Return the tenant of a key, None for a key that is nobody's."""
        if self.open:
            return Tenant(name=DEFAULT_TENANT)
        digest = hashlib.sha256((key or "").encode("utf-8", "surrogateescape")).digest()
        found = None
        # Every key is compared, and each in the same time, so that the time it takes reveals nothing.
        for known, tenant in self._keys:
            if hmac.compare_digest(known, digest):
                found = tenant
        return found if key else None
