"""What an operator does to a batch with Temporal's own commands: resets a workflow, pauses or resets an activity."""

from __future__ import annotations

import random
import uuid

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import (
    PauseActivityRequest,
    ResetActivityRequest,
    ResetWorkflowExecutionRequest,
    UnpauseActivityRequest,
)
from temporalio.client import Client

#: Events that a workflow can be reset to, as the Web UI offers them.
_POINTS = (
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
    EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED,
)
_NAMESPACE = "default"


async def reset_points(client: Client, workflow_id: str) -> list[int]:
    """Return the events of a workflow's newest run that it can be reset to, in order."""
    history = await client.get_workflow_handle(workflow_id).fetch_history()
    return [event.event_id for event in history.events if event.event_type in _POINTS]


async def reset_workflow(client: Client, workflow_id: str, event_id: int) -> str:
    """Reset a workflow to a workflow task; return the new run's id. What it did since then is forgotten, not undone."""
    answer = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=_NAMESPACE,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            reason="chaos",
            workflow_task_finish_event_id=event_id,
            request_id=uuid.uuid4().hex,
        )
    )
    return answer.run_id


async def pending_activity(client: Client, workflow_id: str, dice: random.Random) -> str | None:
    """Return the id of one of the activities that are under way or wait for their next try, None if there is none."""
    found = await client.get_workflow_handle(workflow_id).describe()
    pending = [one.activity_id for one in found.raw_description.pending_activities]
    return dice.choice(pending) if pending else None


async def pause_activity(client: Client, workflow_id: str, activity_id: str) -> None:
    """Keep an activity from being tried again; the try under way finds out by its next heartbeat."""
    execution = WorkflowExecution(workflow_id=workflow_id)
    await client.workflow_service.pause_activity(
        PauseActivityRequest(namespace=_NAMESPACE, execution=execution, identity="chaos", id=activity_id)
    )


async def unpause_activity(client: Client, workflow_id: str, activity_id: str) -> None:
    """Let a paused activity go on."""
    execution = WorkflowExecution(workflow_id=workflow_id)
    await client.workflow_service.unpause_activity(
        UnpauseActivityRequest(namespace=_NAMESPACE, execution=execution, identity="chaos", id=activity_id)
    )


async def reset_activity(client: Client, workflow_id: str, activity_id: str) -> None:
    """Have an activity begin with its first try again."""
    execution = WorkflowExecution(workflow_id=workflow_id)
    await client.workflow_service.reset_activity(
        ResetActivityRequest(namespace=_NAMESPACE, execution=execution, identity="chaos", id=activity_id)
    )
