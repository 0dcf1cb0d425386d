"""The ledgers of queues and rates, as they report themselves: each is a workflow of one account and model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from temporalio.client import Client, WorkflowExecution, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from ..contract import DurabatchError
from ..contract.ledger import LEDGER_WORKFLOW, LedgerView
from ..contract.rates import RATES_WORKFLOW, RatesView
from .concurrency import concurrently
from .connection import worker_command

#: A worker answers a query in milliseconds; one that replays a long history first may need seconds.
_QUERY = timedelta(seconds=5)
#: Ledgers that are asked at a time.
_PARALLEL = 8
View = TypeVar("View", LedgerView, RatesView)


@dataclass(frozen=True, kw_only=True)
class SilentLedger:
    """A ledger that runs but does not answer."""

    id: str  #: The workflow's.
    account: str  #: Taken from its id; empty if the id names none.
    model: str
    task_queue: str
    problem: str  #: What is wrong, and what to do about it.


async def ledgers(client: Client) -> list[LedgerView]:
    """Return what every ledger that runs says of itself, by account and model.

    Raises:
        DurabatchError: one of them does not answer; `answers` returns the others even so.
        RPCError: Temporal does not answer.
    """
    views, silent = await answers(client)
    if silent:
        raise DurabatchError(silent[0].problem)
    return views


async def answers(client: Client) -> tuple[list[LedgerView], list[SilentLedger]]:
    """Return what the ledgers that run say of themselves, by account and model, and those that do not answer.

    Raises:
        RPCError: Temporal does not answer.
    """
    return await _answers(client, LEDGER_WORKFLOW, "ledger", LedgerView)


async def rates(client: Client) -> tuple[list[RatesView], list[SilentLedger]]:
    """Return what the ledgers of direct mode's rates say, by account and model, and those that do not answer.

    Raises:
        RPCError: Temporal does not answer.
    """
    return await _answers(client, RATES_WORKFLOW, "rates", RatesView)


async def _answers(client: Client, type_: str, query: str, view: type[View]) -> tuple[list[View], list[SilentLedger]]:
    listed = f"WorkflowType = '{type_}' AND ExecutionStatus = 'Running'"
    running = [execution async for execution in client.list_workflows(listed)]
    found = await concurrently(lambda execution: _answer(client, execution, query, view), running, _PARALLEL)
    views = [one for one in found if isinstance(one, view)]
    silent = [one for one in found if isinstance(one, SilentLedger)]
    return (
        sorted(views, key=lambda view: (view.provider, view.account, view.model)),
        sorted(silent, key=lambda one: one.id),
    )


async def _answer(
    client: Client, execution: WorkflowExecution, query: str, view: type[View]
) -> View | SilentLedger | None:
    """Return a ledger's answer, or why there is none; None if it has ended since it was listed."""
    handle = client.get_workflow_handle(execution.id)
    try:
        answer: View = await handle.query(query, result_type=view, rpc_timeout=_QUERY)
    except WorkflowQueryFailedError as error:
        return _silent(
            execution,
            f"The ledger {execution.id} on task queue {execution.task_queue!r} cannot answer ({error}): the worker's "
            "version may be older than this client's; update the worker.",
        )
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return None
        if error.status not in (
            *(RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED, RPCStatusCode.FAILED_PRECONDITION),
        ):
            raise
        return _silent(
            execution,
            f"No worker answers for the ledger {execution.id} on task queue {execution.task_queue!r}: start one with "
            f"{worker_command(client)}.",
        )
    return answer


def _silent(execution: WorkflowExecution, problem: str) -> SilentLedger:
    # As `ledger_id` and `rates_id` make it; a model's name may have slashes, an account's digest has none.
    _, account, model = (*execution.id.split("/", 2), "", "")[:3]
    return SilentLedger(id=execution.id, account=account, model=model, task_queue=execution.task_queue, problem=problem)
