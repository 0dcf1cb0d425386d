"""A rule of Temporal's time-skipping server: a workflow is ended only where nothing of it is under way.

That server skips no time while a task is under way. It counts those tasks, and forgets to count down for one whose
workflow is terminated meanwhile: from then on time passes at its usual pace, for every workflow, and a test that waits
for a timer of five minutes waits for five minutes.
"""

from __future__ import annotations

import asyncio

from temporalio.api.enums.v1 import EventType
from temporalio.client import (
    FetchWorkflowHistoryEventsInput,
    Interceptor,
    OutboundInterceptor,
    TerminateWorkflowInput,
    WorkflowHistoryEventFilterType,
)

_BEGINS = {EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED, EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED}
_ENDS = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED: "workflow_task_completed_event_attributes",
    EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED: "workflow_task_failed_event_attributes",
    EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT: "workflow_task_timed_out_event_attributes",
    EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED: "activity_task_completed_event_attributes",
    EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED: "activity_task_failed_event_attributes",
    EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: "activity_task_timed_out_event_attributes",
    EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED: "activity_task_canceled_event_attributes",
}


class AtRest(Interceptor):
    """Has a client terminate workflows only where nothing of them is under way, and wait until then.

    A workflow that polls every second may begin a task just after the look: have it poll seldom, and a worker run.
    """

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _AtRest(next)


class _AtRest(OutboundInterceptor):
    async def terminate_workflow(self, input: TerminateWorkflowInput) -> None:
        while await self._busy(input.id, input.run_id):
            await asyncio.sleep(0.05)
        await super().terminate_workflow(input)

    async def _busy(self, workflow_id: str, run_id: str | None) -> bool:
        history = FetchWorkflowHistoryEventsInput(
            id=workflow_id,
            run_id=run_id,
            page_size=None,
            next_page_token=None,
            wait_new_event=False,
            event_filter_type=WorkflowHistoryEventFilterType.ALL_EVENT,
            skip_archival=True,
            rpc_metadata={},
            rpc_timeout=None,
        )
        under_way = set[int]()
        async for event in self.fetch_workflow_history_events(history):
            if event.event_type in _BEGINS:
                under_way.add(event.event_id)
            elif ends := _ENDS.get(event.event_type):
                under_way.discard(getattr(event, ends).scheduled_event_id)
        return bool(under_way)
