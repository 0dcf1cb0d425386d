"""Task queues: which of them workers poll, and what becomes of a workflow on one that none polls any more.

All batches of an account or a tenant share a ledger, so it runs on the task queue of whichever needed it first. Where
workers have moved to another task queue, everybody would wait for it for ever.
"""

from __future__ import annotations

from datetime import datetime

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

#: Workers are gone from a task queue's list five minutes after their last poll, so an old entry proves nothing.
_POLLER_SECONDS = 70.0


async def worker_polls(client: Client, task_queue: str, identity: str | None = None) -> bool:
    """Return whether a worker takes batches from the task queue.

    Args:
        client: a connected client.
        task_queue: the task queue.
        identity: the worker that is meant; any if None.

    Raises:
        RPCError: Temporal does not answer.
    """
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    now = datetime.now().timestamp()
    return any(
        now - poller.last_access_time.ToSeconds() < _POLLER_SECONDS
        for poller in answer.pollers
        if identity in (None, poller.identity)
    )


async def runs_elsewhere(client: Client, workflow_id: str, task_queue: str) -> tuple[str, str] | None:
    """Return the run and the task queue of a workflow that runs on another task queue than this one; None otherwise.

    Raises:
        RPCError: Temporal does not answer.
    """
    try:
        found = await client.get_workflow_handle(workflow_id).describe()
    except ValueError:  # a status that this SDK does not know
        return None
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return None
    if found.status is not WorkflowExecutionStatus.RUNNING or found.task_queue == task_queue:
        return None
    return str(found.run_id), found.task_queue


async def end_abandoned(client: Client, workflow_id: str, task_queue: str) -> bool:
    """Terminate a workflow that no worker serves any more, for one on another task queue to take its place.

    Args:
        client: a connected client.
        workflow_id: whose successor goes on with what it knew.
        task_queue: where that will run.

    Returns:
        Whether it has ended. It has not if it runs on that task queue, if workers poll its own, or if Temporal does not
        let this be done.
    """
    try:
        found = await runs_elsewhere(client, workflow_id, task_queue)
        if found is None or await worker_polls(client, found[1]):
            return False
        reason = f"No worker polls the task queue {found[1]!r} any more: it goes on on {task_queue!r}."
        await client.get_workflow_handle(workflow_id, run_id=found[0]).terminate(reason)
    except RPCError as error:
        return error.status is RPCStatusCode.NOT_FOUND  # it has ended just now
    return True
