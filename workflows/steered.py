"""What all workflows of a batch share: the signals that steer it, and how it goes on in a new run."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

from temporalio import workflow

from .signals import read_cancel, run_cancellable
from .state import SteeringState
from .steering import Steering, history_is_long

T = TypeVar("T")


class _LongHistory(Exception):
    """The history has grown long: go on in a new run."""


class SteeredWorkflow(ABC):
    """A workflow that people steer, and that outlives its history.

    Args:
        steering: what was asked of it so far, by the run before or not at all.
    """

    def __init__(self, steering: SteeringState) -> None:
        self._steering = Steering(steering, self._changed)
        self._steering.checkpoint = self._checkpoint

    # A signal with an argument too many would leave the workflow stuck, so each takes any number of them.
    @workflow.signal(description="Stop: cancel what is at the provider, and keep the finished rows")
    def cancel(self, request: Any = None, *ignored: Any) -> None:
        self._steering.request_cancel(read_cancel(request))

    @workflow.signal(description="Ask the provider now instead of at the next poll")
    def poll_now(self, *ignored: Any) -> None:
        self._steering.nudge()

    @workflow.signal(description="Sent by a ledger: the turn of a holder has come")
    def granted(self, holder: Any = None, *ignored: Any) -> None:
        self._steering.grant(str(holder))

    @abstractmethod
    def _changed(self) -> None:
        """Show what has changed of what people ask of it, or of what it waits for."""

    @abstractmethod
    def _successor(self) -> list[Any]:
        """Return the arguments of the run that follows this one."""

    async def _follow(self, life: Coroutine[Any, Any, T]) -> T:
        """Live to the end; where the history grows long before it, go on in a new run."""
        try:
            return await run_cancellable(asyncio.create_task(life), self._steering.request_cancel)
        except _LongHistory:
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(args=self._successor())

    async def _checkpoint(self) -> None:
        """End this run of the workflow, if its history has grown long."""
        if history_is_long():
            raise _LongHistory
