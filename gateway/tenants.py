"""Who is asking: a tenant for each key."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from ..contract.gateway_layout import DEFAULT_TENANT
from ..contract.gateway_limits import TenantLimits
from ..workers.gateway_settings import GatewayKey, GatewaySettings


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """Who a key belongs to, and what that key may do."""

    name: str  #: Every path in the store is below this name.
    models: tuple[str, ...] = ()  #: Patterns of the models it may use; none for all.
    limits: TenantLimits = field(default_factory=TenantLimits)  #: Of its batches.
    max_file_bytes: int = 512 * 1024**2  #: Of an upload.
    max_stored_bytes: int | None = None  #: Of all its files; None for no limit.


class Tenants:
    """The tenants of a configuration, by their keys. Without keys everybody is the tenant `default`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._keys = [(bytes.fromhex(key.sha256), self._tenant(key)) for key in settings.keys]
        self._anybody = self._tenant(None)

    def _tenant(self, key: GatewayKey | None) -> Tenant:
        settings = self._settings
        return Tenant(
            name=key.tenant if key else DEFAULT_TENANT,
            models=key.models if key else (),
            limits=settings.limits(key),
            max_file_bytes=settings.file_bytes(key),
            max_stored_bytes=settings.stored_bytes(key),
        )

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return not self._keys

    def of(self, key: str | None) -> Tenant | None:
        """Return the tenant of a key, None for a key that is nobody's."""
        if self.open:
            return self._anybody
        digest = hashlib.sha256((key or "").encode("utf-8", "surrogateescape")).digest()
        found = None
        # Every key is compared, and each in the same time, so that the time it takes reveals nothing.
        for known, tenant in self._keys:
            if hmac.compare_digest(known, digest):
                found = tenant
        return found if key else None
