"""What became of a tenant's events; sending them again, and endpoints that are disabled."""

from __future__ import annotations

from ..activities.webhooks.announce import wake
from ..activities.webhooks.queue import DeliveryQueue, read_deliveries, read_delivery
from ..activities.webhooks.schedule import BREAKER
from ..contract import InvalidSpec
from ..contract.gateway_layout import Listed, index_folder, index_path, is_id, is_tenant, parse_index_path
from ..contract.webhooks import Delivery, EndpointState
from .client import BatchClient
from .connection import translated


async def deliveries(
    client: BatchClient, tenant: str, *, after: str | None = None, limit: int = 20
) -> tuple[list[Delivery], bool]:
    """Return a tenant's events, those of its newest batches first, and whether there are more.

    Args:
        after: the id of the event that came last.
        limit: how many at most.

    Raises:
        StoreError: the store failed.
    """
    _check_name(tenant)
    start = index_path(tenant, after) if after is not None and is_id(Listed.EVENTS, after) else None
    paths = await client.store.page(index_folder(tenant, Listed.EVENTS), after=start, limit=limit + 1)
    ids = [id for path in paths if (id := parse_index_path(path)) is not None]
    found = await read_deliveries(client.store, tenant, ids[:limit])
    return [delivery for delivery in found if delivery is not None], len(ids) > limit


async def resend(client: BatchClient, tenant: str, event_id: str) -> Delivery | None:
    """Send an event again, whatever became of it, under its old id; None where the tenant has none of this id.

    Raises:
        StoreError: the store failed.
        TemporalUnavailable: Temporal does not answer; the event is sent with the next one.
    """
    _check_name(tenant)
    delivery = await read_delivery(client.store, tenant, event_id)
    if delivery is None:
        return None
    queued = await DeliveryQueue(client.store, tenant, delivery.endpoint).requeue(delivery)
    await _wake(client, tenant, delivery.endpoint)
    return queued


async def enable(client: BatchClient, tenant: str, endpoint: str) -> None:
    """Have an endpoint tried again at once that was disabled, or failed too often; what waits for it is sent.

    Raises:
        StoreError, TemporalUnavailable: as `resend`.
    """
    _check_name(tenant)
    _check_name(endpoint)
    queue = DeliveryQueue(client.store, tenant, endpoint)
    await queue.note(EndpointState())
    await queue.make_due()
    await _wake(client, tenant, endpoint)


async def endpoint_status(client: BatchClient, tenant: str, endpoint: str) -> str:
    """Return how an endpoint is: "enabled", "failing" where it is tried with one event at a time, or "disabled".

    Raises:
        StoreError: the store failed.
    """
    state = await DeliveryQueue(client.store, tenant, endpoint).state()
    return "disabled" if state.disabled else "failing" if state.failures >= BREAKER else "enabled"


async def _wake(client: BatchClient, tenant: str, endpoint: str) -> None:
    with translated(client.temporal):
        await wake(client.temporal, client.task_queue, tenant, endpoint)


def _check_name(name: str) -> None:
    if not is_tenant(name):  # it becomes part of a path
        raise InvalidSpec(f"{name[:80]!r} is not the name of a tenant or of a webhook.")
