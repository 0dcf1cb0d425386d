"""How a batch's workflow ended: what Temporal, or the store, says of it in the terms of the contract."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
)
from temporalio.exceptions import ApplicationError, CancelledError, FailureError, TerminatedError, TimeoutError
from temporalio.service import RPCError, RPCStatusCode

from ..activities.store import Store
from ..contract import (
    BATCH_WORKFLOW,
    BatchNotFound,
    BatchResult,
    BatchStatus,
    CancelRequest,
    DurabatchError,
    InvalidInput,
    InvalidSpec,
    ObjectNotFound,
)
from ..contract.errors import RowProblem, error_classes
from ..contract.layout import result_path
from ..contract.names import check_batch_id
from .connection import TemporalUnavailable, translated

#: Pause before Temporal is asked again after it did not answer, in seconds.
_PAUSE = 1.0
#: The failure type of a batch that ended as `failed`; its first detail is the BatchResult.
_BATCH_FAILED = "BatchFailed"
#: Failure types of a start whose input is not a spec: such a batch never began.
_NO_SPEC = frozenset({"ValidationError", InvalidSpec.code})


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a batch ended."""

    result: BatchResult | None  #: Its accounts, where it left any.
    error: DurabatchError | None  #: Why it failed, where it did; an InvalidInput carries the rows that are wrong.
    submitted: bool | None  #: Whether anything reached the provider; None where that is not known.


async def describe(client: Client, batch_id: str) -> WorkflowExecutionDescription:
    """Return what Temporal knows of a batch.

    Raises:
        BatchNotFound: the id belongs to a workflow that is not a batch.
        RPCError: Temporal does not know the id, or does not answer.
    """
    description = await client.get_workflow_handle(batch_id).describe()
    if description.workflow_type != BATCH_WORKFLOW:
        raise BatchNotFound(
            f"There is no batch {batch_id!r}: the id belongs to a workflow of type {description.workflow_type}."
        )
    return description


async def ending(client: Client, store: Store, batch_id: str) -> Ending | None:
    """Return how a batch ended; None while it runs.

    Temporal forgets a batch some days after its end. Then the result.json in the batch's own folder in the store says
    how it ended.

    Raises:
        BatchNotFound: Temporal does not know it, and the store has no result of it.
        StoreError: the store failed.
        TemporalUnavailable: Temporal does not answer.
    """
    try:
        with translated(client, batch_id):
            return await ending_of(client, await describe(client, batch_id))
    except BatchNotFound as unknown:
        return await _stored_ending(store, batch_id, unknown)


async def cancel(client: Client, batch_id: str, request: CancelRequest) -> bool:
    """Ask a batch that ran just now to end; return False if it has ended since.

    Raises:
        TemporalUnavailable: Temporal does not answer.
    """
    with translated(client, batch_id):
        try:
            await client.get_workflow_handle(batch_id).signal("cancel", request.model_dump(exclude_none=True))
        except RPCError as error:
            # NOT_FOUND, after Temporal has described it: it has ended.
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return False
    return True


async def wait_for_ending(client: Client, store: Store, batch_id: str) -> Ending:
    """Wait until a batch has ended, and return how; outages of Temporal are waited out.

    Raises:
        BatchNotFound, StoreError: as `ending`.
    """
    handle = client.get_workflow_handle(batch_id, result_type=BatchResult)
    while True:
        try:
            with translated(client, batch_id):
                await describe(client, batch_id)
                try:
                    return completed(await handle.result())
                except WorkflowFailureError as error:
                    return failed(error)
        except TemporalUnavailable:
            await asyncio.sleep(_PAUSE)
        except BatchNotFound as unknown:
            return await _stored_ending(store, batch_id, unknown)


async def ending_of(client: Client, description: WorkflowExecutionDescription) -> Ending | None:
    """Return how a batch that Temporal knows ended; None while it runs.

    Raises:
        RPCError: Temporal does not answer.
    """
    if description.status is WorkflowExecutionStatus.RUNNING:
        return None
    handle = client.get_workflow_handle(description.id, run_id=description.run_id, result_type=BatchResult)
    try:
        return completed(await handle.result())
    except WorkflowFailureError as error:
        return failed(error)


async def stored_result(store: Store, batch_id: str) -> BatchResult | None:
    """Return the result in a batch's own folder in the store, None if there is none.

    Raises:
        StoreError: the store failed.
    """
    try:
        check_batch_id(batch_id)
        result = BatchResult.model_validate_json(await store.read(result_path(batch_id)))
    except (InvalidSpec, ObjectNotFound, ValidationError):
        return None
    return result if result.batch_id == batch_id else None


async def _stored_ending(store: Store, batch_id: str, unknown: BatchNotFound) -> Ending:
    result = await stored_result(store, batch_id)
    if result is None:
        raise unknown
    why = result.error if result.status is BatchStatus.FAILED else None
    return Ending(result=result, error=DurabatchError(why) if why else None, submitted=None)


def completed(result: BatchResult) -> Ending:
    """Return the ending of a workflow that returned its result."""
    return Ending(result=result, error=None, submitted=_bought(result))


def failed(failure: WorkflowFailureError) -> Ending:
    """Return the ending of a workflow that failed, was cancelled past its own handling, or was terminated."""
    first = failure.cause
    if not isinstance(first, ApplicationError):
        return Ending(result=None, error=DurabatchError(_sentence(first)), submitted=None)
    if first.type in _NO_SPEC:
        error = InvalidSpec(f"The batch was started with a spec that is wrong: {first.message}")
        return Ending(result=None, error=error, submitted=False)
    result = _result(first) if first.type == _BATCH_FAILED else None
    if result is None:
        return Ending(result=None, error=DurabatchError(_sentence(first)), submitted=None)
    submitted = _bought(result) or _cause(first).get("submitted") is True
    return Ending(result=result, error=_error(first, result), submitted=submitted)


def _bought(result: BatchResult) -> bool:
    """Return whether a batch reached the provider: as provider batches, or row by row."""
    return bool(result.provider_batches) or result.direct is not None


def _cause(failure: ApplicationError) -> dict[str, Any]:
    """Return what a failed batch reports beside its result: the code of the step's error, and which rows are wrong."""
    detail = failure.details[1] if len(failure.details) > 1 else None
    return detail if isinstance(detail, dict) else {}


def _result(error: ApplicationError) -> BatchResult | None:
    try:
        return BatchResult.model_validate(error.details[0])
    except (IndexError, ValidationError):
        return None


def _error(failure: ApplicationError, result: BatchResult) -> DurabatchError:
    """Return the error that the workflow's failure represents, of the contract's own class where it names one."""
    message = result.error or _sentence(failure)
    cause = _cause(failure)
    if "problems" in cause:
        return _invalid_input(message, cause)
    return error_classes().get(str(cause.get("code")), DurabatchError)(message)


def _invalid_input(message: str, detail: dict[str, Any]) -> InvalidInput:
    problems = [_problem(one) for one in detail.get("problems") or ()]
    total = detail.get("total")
    if problems and (listed := message.find(f": {problems[0].message}")) > 0:
        message = f"{message[:listed]}."  # The sentence lists the rows too, for those who see nothing else.
    return InvalidInput(message, problems, total if isinstance(total, int) else None)


def _problem(facts: object) -> RowProblem:
    """Return why a row cannot be sent, as far as it is understood: workers of other versions may say less, or more."""
    if not isinstance(facts, dict):
        return RowProblem(message=str(facts))
    words = {name: str(facts[name]) for name in ("message", "code", "field", "file") if name in facts}
    line = facts.get("line")
    return RowProblem(**{"message": "", **words}, line=line if isinstance(line, int) else None)


def _sentence(error: BaseException) -> str:
    said = (error.message if isinstance(error, FailureError) else str(error)).rstrip(".") or type(error).__name__
    if isinstance(error, TerminatedError | CancelledError | TimeoutError):
        return (
            f"The batch was ended at Temporal without being asked ({said}), so nothing was cleaned up: give the same "
            "requests, options and id again to go on where it was."
        )
    return f"The batch ended without accounts: {said}."
