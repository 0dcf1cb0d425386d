"""How a batch's workflow ended, told apart from what Temporal says of it."""

from __future__ import annotations

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

from ..contract import BatchResult, DurabatchError, InvalidInput, InvalidSpec
from ..contract.errors import RowProblem, error_classes

#: The failure type of a batch that ended as `failed`; its first detail is the BatchResult.
_BATCH_FAILED = "BatchFailed"
#: Failure types of a start whose input is no spec: such a batch never began.
_NO_SPEC = frozenset({"ValidationError", InvalidSpec.code})


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a batch ended."""

    result: BatchResult | None  #: Its accounts, where it left any.
    error: DurabatchError | None  #: Why it failed, where it did; an InvalidInput carries the rows that are wrong.
    submitted: bool | None  #: Whether anything reached the provider; None where that is not known.


async def ending(client: Client, found: WorkflowExecutionDescription) -> Ending | None:
    """Return how a batch ended; None while it runs."""
    if found.status is WorkflowExecutionStatus.RUNNING:
        return None
    handle = client.get_workflow_handle(found.id, run_id=found.run_id, result_type=BatchResult)
    try:
        return completed(await handle.result())
    except WorkflowFailureError as error:
        return failed(error)


def completed(result: BatchResult) -> Ending:
    """Return the ending of a workflow that returned its result."""
    return Ending(result=result, error=None, submitted=bool(result.provider_batches))


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
    submitted = bool(result.provider_batches) or _cause(first).get("submitted") is True
    return Ending(result=result, error=_error(first, result), submitted=submitted)


def _cause(failure: ApplicationError) -> dict[str, Any]:
    """Return what a failed batch tells beside its result: the code of the step's error, and which rows are wrong."""
    detail = failure.details[1] if len(failure.details) > 1 else None
    return detail if isinstance(detail, dict) else {}


def _result(error: ApplicationError) -> BatchResult | None:
    try:
        return BatchResult.model_validate(error.details[0])
    except (IndexError, ValidationError):
        return None


def _error(failure: ApplicationError, result: BatchResult) -> DurabatchError:
    """Return the error that the workflow's failure stands for, of the contract's own class where it names one."""
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
