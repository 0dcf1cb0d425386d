"""Join: how a batch is that another run of the gateway's workflow has started."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from ...contract import BatchResult, ObjectNotFound
from ...contract.gateway_batch import JOIN, Ended, Joined, JoinRequest
from ...contract.layout import result_path
from ..lease import Lease
from ..resources import Resources
from ..step import step


class GatewayJoin:
    """The step that asks Temporal, and the store, how a batch is."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(JOIN)
    async def join(self, request: JoinRequest, lease: Lease) -> Joined:
        """Return whether a batch runs, or how it ended."""
        handle = activity.client().get_workflow_handle(request.batch_id, result_type=BatchResult)
        try:
            if await _running(handle):
                return Joined(running=True)
            return Joined(ended=Ended(result=await handle.result()))
        except WorkflowFailureError as error:
            if isinstance(error.cause, ApplicationError):
                cause = error.cause
                return Joined(ended=Ended.of_failure(cause.type, cause.message, cause.details))
            return Joined(broken_off=True)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
        try:
            data = await self._resources.store.read(result_path(request.batch_id))
            return Joined(ended=Ended(result=BatchResult.model_validate_json(data)))
        except (ObjectNotFound, ValidationError):
            return Joined()


async def _running(handle: WorkflowHandle[Any, Any]) -> bool:
    try:
        return (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
    except ValueError:
        return True  # a status that this SDK does not know, such as paused: it has not ended
