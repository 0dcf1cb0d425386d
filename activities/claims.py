"""What we write down about provider batches beside Temporal's history, for runs that have not seen it.

Before a create is sent its *intent* is written into the attempt's folder: when, and to which account. A later run of
the same batch that works for another account finds out by it, instead of buying the batch a second time there. And
where nothing can be searched exactly (Anthropic's batches carry no marker until they end) a search needs not look at
all without an intent.

There a batch whose create was answered is also *claimed* for its marker, so that a search by another batch of the same
account, from the same store, does not take it for its own. A claim is deleted when its batch is done with: by then the
ids in its results tell whose it is.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import NamedTuple

from ..contract.errors import ObjectNotFound
from ..contract.steps import Attempt
from .store import Store

#: No batch id has a tilde, so this is no batch's folder.
_CLAIMS = "~claims"


class Intent(NamedTuple):
    """A create that was about to be sent."""

    at: datetime
    account: str  #: Digest of the account.


class Claims:
    """Intents and claims of one attempt.

    Args:
        account: digest of the account that the attempt is submitted to.
    """

    def __init__(self, store: Store, attempt: Attempt, account: str) -> None:
        self._store = store
        self._intent = f"{store.path(attempt.root)}/{attempt.folder}/intent"
        self._account = account
        self._folder = f"{_CLAIMS}/{account}"
        self._mine = hashlib.sha256(attempt.marker.encode()).hexdigest()[:16]

    async def intend(self, now: datetime) -> bool:
        """Note that a create is about to be sent; the earliest note stands. Return whether this one is the first."""
        if await self.intended() is not None:
            return False
        await self._store.write(self._intent, f"{now.isoformat()} {self._account}".encode())
        return True

    async def intended(self) -> Intent | None:
        """Return when and where a create was first about to be sent, None if there never was one."""
        try:
            at, account = (await self._store.read(self._intent)).decode().split()
        except ObjectNotFound:
            return None
        return Intent(datetime.fromisoformat(at), account)

    async def withdraw(self) -> None:
        """Note that nothing came of the create: the provider said so."""
        await self._store.delete(self._intent)

    async def claim(self, provider_batch_id: str) -> None:
        """Note whose a provider batch is."""
        await self._store.write(f"{self._folder}/{provider_batch_id}~{self._mine}", b"")

    async def of_others(self) -> list[str]:
        """Return the provider batches that are claimed for other markers."""
        names = [path.rpartition("/")[2] for path, _ in await self._store.list(self._folder)]
        pairs = [name.rpartition("~") for name in names]
        return [batch_id for batch_id, _, marker in pairs if marker != self._mine]

    async def release(self) -> None:
        """Delete the attempt's claims."""
        for path, _ in await self._store.list(self._folder):
            if path.endswith(f"~{self._mine}"):
                await self._store.delete(path)
