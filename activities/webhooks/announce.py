"""The end of a batch becomes an event for each of its tenant's webhooks that wants it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import Priority, WorkflowIDConflictPolicy

from ...contract.gateway_batch import BatchObject
from ...contract.webhooks import WEBHOOK_WORKFLOW, Delivery, WebhookStart, event_id, webhook_workflow_id
from ..store import Store
from ..task_queues import runs_elsewhere, worker_polls
from .endpoint import Endpoint
from .queue import DeliveryQueue, now_ms


async def queue_events(store: Store, endpoints: Iterable[Endpoint], tenant: str, batch: BatchObject) -> list[str]:
    """Queue the events of a batch that has ended; return the names of the endpoints that are to be woken.

    Called again, it makes no second one.

    Raises:
        StoreError: the store failed.
    """
    kind, found = f"batch.{batch.status}", []
    for endpoint in endpoints:
        if endpoint.tenant != tenant or kind not in endpoint.events:
            continue
        now = now_ms()
        delivery = Delivery(
            id=event_id(tenant, endpoint.name, batch.id, kind),
            endpoint=endpoint.name,
            type=kind,
            batch_id=batch.id,
            created_at=batch.ended_at or int(time.time()),
            queued_ms=now,
            next_ms=now,
        )
        if await DeliveryQueue(store, tenant, endpoint.name).add(delivery):
            found.append(endpoint.name)
    return found


async def wake(client: Client, task_queue: str, tenant: str, endpoint: str, heartbeat: timedelta | None = None) -> None:
    """Have the workflow of an endpoint look at what is due; it is started if it does not run.

    One on another task queue, which workers may have left, is replaced: all that it knew is in the store. It stays
    where it is if workers are there and none are here, as where a gateway is restarted after them.

    Raises:
        RPCError: Temporal does not answer.
    """
    workflow_id = webhook_workflow_id(tenant, endpoint)
    start = WebhookStart(tenant=tenant, endpoint=endpoint)
    if heartbeat is not None:
        start = start.model_copy(update={"heartbeat_seconds": heartbeat.total_seconds()})
    elsewhere = await runs_elsewhere(client, workflow_id, task_queue)
    stays = elsewhere is None or (
        await worker_polls(client, elsewhere[1]) and not await worker_polls(client, task_queue)
    )
    conflict = WorkflowIDConflictPolicy.USE_EXISTING if stays else WorkflowIDConflictPolicy.TERMINATE_EXISTING
    await client.start_workflow(
        WEBHOOK_WORKFLOW,
        start.model_dump(mode="json", exclude_defaults=True),
        id=workflow_id,
        task_queue=task_queue,
        id_conflict_policy=conflict,
        start_signal="wake",
        priority=Priority(fairness_key=tenant),
        static_summary=f"webhook {endpoint} of {tenant}",
    )
