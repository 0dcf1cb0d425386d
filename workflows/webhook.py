"""WebhookWorkflow: delivers a tenant's events to one endpoint. It runs while there is something to deliver.

It knows nothing but when to look: the events are in the store, so a new run, or another workflow of the same endpoint,
goes on where this one was.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from ..contract.webhooks import DELIVER, WEBHOOK_WORKFLOW, DeliverAnswer, DeliverRequest, WebhookStart
from .steering import SHORT, history_is_long

#: A step that fails has not reached the store: it is tried again as soon as that is there.
_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))
#: Until a step is tried again that failed for good, by a fault of Durabatch's own.
_FAULT = timedelta(minutes=30)


# A wrong start by hand fails instead of being stuck.
@workflow.defn(name=WEBHOOK_WORKFLOW, failure_exception_types=[ValidationError])
class WebhookWorkflow:
    """One endpoint's deliveries. Whoever queues an event starts it, with the signal `wake`."""

    @workflow.init
    def __init__(self, start: WebhookStart) -> None:
        self._woken = True

    @workflow.signal(description="Something may be due: look now")
    def wake(self, *ignored: Any) -> None:
        self._woken = True

    @workflow.run
    async def run(self, start: WebhookStart) -> None:
        while not history_is_long():
            self._woken = False
            next_at = workflow.now() + _FAULT
            try:
                answer = await self._deliver(start)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
            else:
                if answer.next_at is None:
                    if not self._woken:
                        return
                    continue
                next_at = answer.next_at
            delay = next_at - workflow.now()
            if delay > timedelta(0):
                with suppress(TimeoutError):
                    await workflow.wait_condition(
                        lambda: self._woken, timeout=delay, timeout_summary="until the next attempt is due"
                    )
        workflow.continue_as_new(start)

    async def _deliver(self, start: WebhookStart) -> DeliverAnswer:
        answered: DeliverAnswer = await workflow.execute_activity(
            DELIVER.name,
            DeliverRequest(tenant=start.tenant, endpoint=start.endpoint),
            result_type=DeliverAnswer,
            start_to_close_timeout=SHORT,
            heartbeat_timeout=timedelta(seconds=start.heartbeat_seconds),
            retry_policy=_RETRY,
            summary="send what is due",
        )
        return answered
