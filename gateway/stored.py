"""How many bytes each tenant's files and message batches have, so that no upload goes beyond what it may store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ..activities.store import Store
from ..contract.gateway_layout import files_folder, is_content, messages_folder, parse_message_requests_path
from .body import FORM_BYTES
from .errors import ApiError
from .tenants import Tenant

#: Seconds that a sum is believed: it takes a listing of all of the tenant's files.
_BELIEVED = 60.0


@dataclass
class _Sum:
    at: float = float("-inf")  #: When the files were listed.
    bytes: int = 0
    coming: int = 0  #: Of uploads under way in this process.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Room:
    """What one upload may still bring."""

    def __init__(self, tenant: Tenant, known: _Sum, announced: int) -> None:
        self._tenant = tenant
        self._sum = known
        self._held = announced
        known.coming += announced
        self._check()

    def take(self, size: int) -> None:
        """Count the upload by the bytes that it has, now that these are known.

        Raises:
            ApiError: they are too many.
        """
        self._sum.coming += size - self._held
        self._held = size
        self._check()

    def close(self, *, stored: bool) -> None:
        """Count the upload as stored, or not at all."""
        self._sum.coming -= self._held
        if stored:
            self._sum.bytes += self._held

    def _check(self) -> None:
        most = self._tenant.max_stored_bytes
        if most is not None and self._sum.bytes + self._sum.coming > most:
            self.close(stored=False)
            self._held = 0
            raise ApiError(
                400,
                f"You have exceeded your file storage quota. You are limited to {most:,} bytes of files. Please delete "
                "old files or attempt with a smaller file size.",
                code="storage_quota_exceeded",
            )


class Stored:
    """The sums, listed anew each minute; what this process takes in between is added at once.

    What other gateways take within that minute is not seen: several of them may go beyond a limit together, by what
    they take in a minute. Files and results that batches write count, and are never refused, as they are paid for.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sums: dict[str, _Sum] = {}

    @asynccontextmanager
    async def room(self, tenant: Tenant, announced: int) -> AsyncIterator[Room]:
        """Have room for an upload for as long as the block lasts.

        Args:
            announced: bytes of its request, 0 if that does not say.

        Raises:
            ApiError: it does not fit.
            StoreError: the store failed.
        """
        known = self._sums.setdefault(tenant.name, _Sum())
        if tenant.max_stored_bytes is not None:
            await self._list(tenant.name, known)
        room = Room(tenant, known, max(0, announced - FORM_BYTES))
        stored = False
        try:
            yield room
            stored = True
        finally:
            room.close(stored=stored)

    def forget(self, tenant: str) -> None:
        """Have a tenant's files listed anew, because some are gone."""
        self._sums.setdefault(tenant, _Sum()).at = float("-inf")

    async def _list(self, tenant: str, known: _Sum) -> None:
        async with known.lock:
            if time.monotonic() - known.at < _BELIEVED:
                return
            began = time.monotonic()
            files = await self._store.entries(files_folder(tenant))
            messages = await self._store.entries(messages_folder(tenant))
            known.at = began
            known.bytes = sum(entry.size for entry in files if is_content(entry.path))
            known.bytes += sum(entry.size + (parse_message_requests_path(entry.path) or 0) for entry in messages)
