"""The ledgers of the providers' queues, as they tell it themselves: each is a workflow of one account and model."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import Client, WorkflowExecution, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from ..contract import DurabatchError
from ..contract.ledger import LEDGER_WORKFLOW, LedgerView
from .abreast import abreast

#: A worker answers a query in milliseconds; one that replays a long history first may need seconds.
_QUERY = timedelta(seconds=5)
#: Ledgers that are asked at a time.
_PARALLEL = 8


async def ledgers(client: Client) -> list[LedgerView]:
    """Return what every ledger that runs says of itself, by account and model.

    Raises:
        DurabatchError: no worker answers for one of them.
        RPCError: Temporal does not answer.
    """
    query = f"WorkflowType = '{LEDGER_WORKFLOW}' AND ExecutionStatus = 'Running'"
    running = [execution async for execution in client.list_workflows(query)]
    views = await abreast(lambda execution: _view(client, execution), running, _PARALLEL)
    return sorted((view for view in views if view), key=lambda view: (view.provider, view.account, view.model))


async def _view(client: Client, execution: WorkflowExecution) -> LedgerView | None:
    """Return a ledger's answer, None if it has ended since it was listed."""
    handle = client.get_workflow_handle(execution.id)
    try:
        view: LedgerView = await handle.query("ledger", result_type=LedgerView, rpc_timeout=_QUERY)
    except WorkflowQueryFailedError as error:
        raise DurabatchError(
            f"The ledger {execution.id} cannot answer ({error}): the worker's version may be older than this client's."
        ) from None
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return None
        if error.status not in (
            *(RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED, RPCStatusCode.FAILED_PRECONDITION),
        ):
            raise
        raise DurabatchError(
            f"No worker answers for the ledger {execution.id} on task queue {execution.task_queue!r}: start one with "
            "`durabatch worker`."
        ) from None
    return view
