"""Whose a provider batch is, where nothing can be searched exactly.

Anthropic's batches carry no marker until they end. So a batch whose create was answered is *claimed* in the store for
its marker, and a search by another batch of the same account, from the same store, does not take it for its own. A
claim is deleted once its batch has been dealt with: from then on the ids in its results say whose it is.
"""

from __future__ import annotations

from ..contract.claim_names import claim_owner, claim_path, claims_folder, parse_claim
from ..contract.steps import Attempt
from .store import Store


class Owners:
    """The claims of an account's provider batches, as one attempt sees them.

    Args:
        account: digest of the account that the attempt is submitted to.
    """

    def __init__(self, store: Store, attempt: Attempt, account: str) -> None:
        self._store = store
        self._account = account
        self._marker = attempt.marker
        self._mine = claim_owner(attempt.marker)

    async def claim(self, provider_batch_id: str) -> None:
        """Note that a provider batch is the attempt's."""
        await self._store.write(claim_path(self._account, provider_batch_id, self._marker), b"")

    async def of_others(self) -> list[str]:
        """Return the provider batches that are claimed for other markers."""
        return [provider_batch_id for _, provider_batch_id, owner in await self._claims() if owner != self._mine]

    async def release(self) -> None:
        """Delete the attempt's claims."""
        for path, _, owner in await self._claims():
            if owner == self._mine:
                await self._store.delete(path)

    async def _claims(self) -> list[tuple[str, str, str]]:
        """Return each claim's path, its provider batch and its owner."""
        paths = [path for path, _ in await self._store.list(claims_folder(self._account))]
        return [(path, *claim) for path in paths if (claim := parse_claim(path)) is not None]
