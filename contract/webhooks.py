"""Webhooks of the gateway: the events about a tenant's batches, and what is known of each delivery.

An event is a small object in the tenant's index, and stays there; while it is to be delivered, a name in its endpoint's
folder says when. So Temporal's history holds neither: the workflow of an endpoint only waits until something is due.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from ._base import LenientModel, Word
from .gateway_layout import Listed, made_at_ms, make_id
from .step import Step

#: The workflow type that Temporal knows.
WEBHOOK_WORKFLOW = "DurabatchWebhook"
#: OpenAI's types of events about batches.
EVENTS = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")


def webhook_workflow_id(tenant: str, endpoint: str) -> str:
    """Return the id of the workflow that delivers to an endpoint."""
    return f"webhook/{tenant}/{endpoint}"


def event_id(tenant: str, endpoint: str, batch_id: str, type: str) -> str:
    """Return the id of an event for an endpoint: always the same, so that a step that is repeated makes no second one.

    It holds the time of its batch, so events are listed in the order of their batches.
    """
    digest = hashlib.sha256(f"{tenant}/{endpoint}/{batch_id}/{type}".encode()).hexdigest()
    return make_id(Listed.EVENTS, datetime.fromtimestamp(made_at_ms(batch_id) / 1000, UTC), digest)


class DeliveryStatus(Word):
    """How far an event has come."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"  #: Given up after a day.

    @classmethod
    def unknown(cls) -> DeliveryStatus:
        return cls.FAILED


class Delivery(LenientModel):
    """An event for an endpoint. Its id is also the `webhook-id` of every attempt."""

    id: str
    endpoint: str
    type: str  #: One of EVENTS.
    batch_id: str
    created_at: int  #: When the batch ended, in seconds since 1970.
    status: DeliveryStatus = DeliveryStatus.PENDING
    attempts: int = 0  #: Since it was last queued.
    queued_ms: int  #: When its day began: when it was made, or last sent again by hand; milliseconds since 1970.
    next_ms: int  #: When the next attempt is due, while it is pending.
    delivered_at: int | None = None
    response_status: int | None = None  #: The last answer's, where there was one.
    error: str | None = None  #: Why the last attempt failed, in a sentence that holds nothing of the receiver's.

    def payload(self) -> dict[str, Any]:
        """Return the event as OpenAI sends it."""
        return {
            "id": self.id,
            "object": "event",
            "created_at": self.created_at,
            "type": self.type,
            "data": {"id": self.batch_id},
        }


class EndpointState(LenientModel):
    """What the last attempts say of an endpoint, whatever they delivered."""

    failures: int = 0  #: In a row.
    probe_ms: int = 0  #: While there are too many: when the next single attempt is due.
    disabled: bool = False  #: It answered 410: nothing is sent until somebody enables it.


class WebhookStart(LenientModel):
    """What the workflow of an endpoint is started with."""

    tenant: str
    endpoint: str
    heartbeat_seconds: float = 20.0  #: How long a silent worker is believed to be alive.


class DeliverRequest(LenientModel):
    """Delivers what is due at an endpoint."""

    tenant: str
    endpoint: str


class DeliverAnswer(LenientModel):
    next_at: datetime | None  #: When something is due again; null where nothing is left to deliver.


DELIVER = Step("durabatch.deliver_webhooks", DeliverRequest, DeliverAnswer)
