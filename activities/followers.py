"""Which workflow follows a provider batch, so that a webhook of the provider's wakes it at once.

A provider's event names its batch and nothing of ours. Where a provider is configured to send webhooks, the step that
creates or finds a batch notes in the store which workflow it works for; the gateway reads that note and sends the
workflow `poll_now`. Nothing rests on it: whoever is not woken asks the provider at the next poll.
"""

from __future__ import annotations

import contextlib

from temporalio import activity

from ..contract import ObjectNotFound, StoreError
from ..contract.follower_names import follower_path
from .providers import ProviderSettings
from .store import Store


async def note_follower(store: Store, provider: ProviderSettings, provider_batch_id: str) -> None:
    """Note that the workflow of the step that calls this follows a provider batch, if its provider sends webhooks."""
    if not provider.webhook_secret_env or (follower := activity.info().workflow_id) is None:
        return
    with contextlib.suppress(StoreError):  # the batch is paid for, and its polls do not need the note
        await store.write(follower_path(provider.name, provider_batch_id), follower.encode())


async def forget_follower(store: Store, provider: ProviderSettings, provider_batch_id: str | None) -> None:
    """Remove the note of a provider batch that is dealt with."""
    if provider.webhook_secret_env and provider_batch_id is not None:
        await store.delete(follower_path(provider.name, provider_batch_id))


async def follower_of(store: Store, provider: str, provider_batch_id: str) -> str | None:
    """Return the id of the workflow that follows a provider batch; None where nobody of this store does.

    Raises:
        StoreError: the store failed.
    """
    try:
        return (await store.read(follower_path(provider, provider_batch_id))).decode()
    except (ObjectNotFound, UnicodeDecodeError):
        return None
