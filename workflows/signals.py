"""What people ask of a running workflow: the three ways to cancel it, and the one path behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from temporalio import workflow

from ..contract import BatchSpec, CancelRequest
from ..contract.spec import PassedSpec
from .state import Carried

T = TypeVar("T")
_GIVEN: TypeAdapter[BatchSpec] = TypeAdapter(BatchSpec)
_PASSED: TypeAdapter[BatchSpec] = TypeAdapter(PassedSpec)


async def run_cancellable(life: asyncio.Task[T], request_cancel: Callable[[CancelRequest], None]) -> T:
    """Await a workflow's life; treat Temporal's own cancel, and a closing parent's, like the `cancel` signal.

    The life runs in a task of its own, so that no await in it is cut short: however a cancel arrives, the same code
    handles it in the same way.
    """
    try:
        return await asyncio.shield(life)
    except asyncio.CancelledError:
        reason = workflow.cancellation_reason()
        request_cancel(CancelRequest(reason=reason[:500] if reason else None, requested_by="temporal"))
        return await life


def read_spec(argument: Any, *, passed_on: bool = False) -> tuple[BatchSpec | None, str | None]:
    """Return the spec that a workflow was started with, or what is wrong with it in a sentence.

    Args:
        argument: the spec, or the plain JSON that it was.
        passed_on: an earlier run has read it, perhaps one of a newer version, so unknown fields are not
            its user's mistakes.
    """
    example = 'for example {"provider": "openai", "input": "file:///…/requests.jsonl"}'
    if argument is None:
        return None, f"BatchWorkflow needs a BatchSpec as its input, {example}."
    try:
        return (_PASSED if passed_on else _GIVEN).validate_python(argument), None
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or 'input'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        return None, f"The BatchSpec is wrong: {'; '.join(problems[:10])}. Give {example}."


def read_carried(argument: Any, fresh: Carried) -> tuple[Carried, str | None]:
    """Return what the run before carried over, or `fresh`; and what is wrong with it, in a sentence."""
    try:
        return Carried.model_validate(argument or fresh), None
    except ValidationError:
        return fresh, "The second argument of BatchWorkflow is carried from run to run: start it with the spec alone."


def read_cancel(argument: Any) -> CancelRequest:
    """Return the cancel that a signal's argument describes.

    Nothing is asked of the argument: none, a sentence, or an object with `reason` and `requested_by`. What cannot be
    read is left out, because a cancel that is dropped for a typing mistake costs money all night.
    """
    if isinstance(argument, CancelRequest):
        return argument
    if isinstance(argument, str):
        return CancelRequest(reason=argument[:500] or None)
    if not isinstance(argument, dict):
        return CancelRequest()
    fields = {}
    for name in ("reason", "requested_by"):
        try:
            fields[name] = getattr(CancelRequest.model_validate({name: argument.get(name)}), name)
        except ValidationError:
            fields[name] = str(argument.get(name))[:200]
    return CancelRequest(**fields)
