"""Deliver: the step that sends what is due at an endpoint, and notes what came of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from ...contract.webhooks import DELIVER, DeliverAnswer, DeliverRequest, Delivery
from ..lease import Lease
from ..resources import Resources
from ..step import step
from . import schedule
from .endpoint import Endpoint
from .outcome import Outcome
from .queue import DeliveryQueue, now_ms

#: Events that are sent to one endpoint at a time.
_PARALLEL = 4
#: Seconds after which a step ends, so that an endpoint with much to deliver leaves room for others.
_TURN = 60.0
_REMOVED = Outcome(error="No webhook of this name is configured where the worker runs.")


class DeliverWebhooks:
    """The step of an endpoint's workflow."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(DELIVER)
    async def deliver(self, request: DeliverRequest, lease: Lease) -> DeliverAnswer:
        """Send what is due until nothing is, or others should have their turn; say when to come again.

        An attempt that is cut off by the death of its worker is made again, with the same `webhook-id`.
        """
        endpoint = self._resources.webhook(request.tenant, request.endpoint)
        queue = DeliveryQueue(self._resources.store, request.tenant, request.endpoint)
        began = time.monotonic()
        async with _sender(endpoint) as send:
            while time.monotonic() - began < _TURN:
                state = await queue.state()
                if state.disabled:
                    return DeliverAnswer(next_at=None)
                found, next_ms = await queue.due(schedule.room(state, _PARALLEL))
                if not found:
                    return DeliverAnswer(next_at=_instant(next_ms))
                now = now_ms()
                old = [delivery for delivery in found if schedule.too_old(delivery, now)]
                for delivery in old:
                    await queue.put(delivery, schedule.given_up(delivery))
                if old:
                    continue
                if state.probe_ms > now:
                    return DeliverAnswer(next_at=_instant(state.probe_ms))
                outcomes = await asyncio.gather(*map(send, found))
                await lease.hold()
                judged = state
                for delivery, outcome in zip(found, outcomes, strict=True):
                    judged = schedule.judged(judged, outcome, now_ms())
                    await queue.put(delivery, schedule.after(delivery, outcome, now_ms(), random.random()))
                if judged != state:
                    await queue.note(judged)
        return DeliverAnswer(next_at=datetime.now(UTC))


@asynccontextmanager
async def _sender(endpoint: Endpoint | None) -> AsyncIterator[Callable[[Delivery], Awaitable[Outcome]]]:
    """Yield what sends an event to an endpoint once; of one that is not configured it says so."""
    from .sending import open_session, send  # aiohttp takes a tenth of a second, which other workers need not wait for

    if endpoint is None:
        yield _removed
        return
    async with open_session(endpoint) as session:
        yield lambda delivery: send(session, endpoint, delivery)


async def _removed(delivery: Delivery) -> Outcome:
    return _REMOVED


def _instant(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)
