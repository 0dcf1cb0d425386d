"""A batch's turn among those of its tenant, and of all tenants: taken before its rows are run, and given back then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from ..contract.gateway_batch import GatewayBatch
from ..contract.gateway_limits import LEAVE, TURN, LeaveRequest, Turned, TurnLedger, TurnRequest, turn_ledgers
from .failures import StepFailed, Stopped, Trouble
from .gateway_state import TurnState
from .queue_slot import LEDGER_PATIENCE, RENEW, RENEW_LONGEST
from .steering import SHORT, Steering

#: How a turn is given back: tried until the ledger has it, or `LEDGER_PATIENCE` is over.
_UNTIL_LEFT = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))
#: How long a batch whose files are there stays for that. Once it has ended, the ledger looks for it within minutes.
_LAST_WAIT = timedelta(minutes=1)


class Turn:
    """Places of one batch in the ledgers that its limits name; none where there is no limit.

    Args:
        runs: returns whether the batch's rows are run already, as an earlier run of the workflow began them.
    """

    def __init__(
        self, batch: GatewayBatch, state: TurnState, steering: Steering, runs: Callable[[], Awaitable[bool]]
    ) -> None:
        self._batch = batch
        self._state = state
        self._steering = steering
        self._runs = runs
        self._ledgers = turn_ledgers(batch.tenant, batch.limits)
        self._leaving: asyncio.Task[None] | None = None

    async def take(self) -> None:
        """Wait until it is the batch's turn.

        Raises:
            Stopped: a stop came first.
        """
        for ledger in self._ledgers:
            if ledger.name not in self._state.taken:
                await self._wait(ledger)
                self._state.taken = (*self._state.taken, ledger.name)

    async def leave(self) -> None:
        """Begin to give back what the batch has, and its places in the queues. What comes next does not wait for it."""
        if self._state.asked_at is None:
            return
        if workflow.patched("turn-given-back-beside-the-files"):
            self._leaving = asyncio.create_task(self._give_back())
        else:
            await self._give_back_first()

    async def left(self) -> None:
        """Wait a moment until what `leave` began is done; a ledger finds out by itself that the workflow has ended."""
        if self._leaving is not None and not self._leaving.done():
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(self._leaving.done, timeout=_LAST_WAIT)

    async def _give_back(self) -> None:
        await asyncio.gather(*(self._give_back_to(ledger) for ledger in self._ledgers))
        self._state.asked_at, self._state.taken = None, ()

    async def _give_back_to(self, ledger: TurnLedger) -> None:
        """Give back what the batch has of a ledger. Not by `Steering`, whose waits are those of the files."""
        try:
            await workflow.execute_activity(
                LEAVE.name,
                LeaveRequest(ledger=ledger, holder=ledger.holder(self._batch.id)),
                result_type=LEAVE.answer,
                schedule_to_close_timeout=LEDGER_PATIENCE,
                start_to_close_timeout=SHORT,
                heartbeat_timeout=self._steering.heartbeat,
                retry_policy=_UNTIL_LEFT,
                summary="give the turn back",
                priority=self._steering.priority,
            )
        except ActivityError as error:
            self._steering.report(Trouble(error).message)

    async def _give_back_first(self) -> None:
        """Give everything back before anything else, as workflows do that began to before `leave` was."""
        for ledger in reversed(self._ledgers):
            try:
                await self._steering.call(
                    LEAVE,
                    LeaveRequest(ledger=ledger, holder=ledger.holder(self._batch.id)),
                    summary="give the turn back",
                    give_up_at=workflow.now() + LEDGER_PATIENCE,
                )
            except StepFailed as error:
                self._steering.report(error.message)
        self._state.asked_at, self._state.taken = None, ()

    async def _wait(self, ledger: TurnLedger) -> None:
        asked = 0
        while True:
            self._steering.await_grant()
            turned = await self._ask(ledger)
            if turned.place is not None and turned.place.granted:
                return
            if not asked and await self._runs():
                await self._ask(ledger, held=True)
                return
            delay = min(RENEW * 2 ** min(asked, 10), RENEW_LONGEST) * (0.9 + 0.2 * workflow.random().random())
            asked += 1
            await self._steering.pause(delay, _words(ledger, turned), until=lambda: self._granted(ledger))
            # The signal is only a hint, as it is for `QueueSlot`; it is believed where the ledger does not answer.
            if turned.place is None and self._granted(ledger):
                return
            if self._steering.stop():
                raise Stopped
            await self._steering.checkpoint()

    def _granted(self, ledger: TurnLedger) -> bool:
        return self._steering.granted == ledger.holder(self._batch.id)

    async def _ask(self, ledger: TurnLedger, *, held: bool = False) -> Turned:
        self._state.asked_at = self._state.asked_at or workflow.now()
        request = TurnRequest(
            ledger=ledger,
            holder=ledger.holder(self._batch.id),
            workflow_id=workflow.info().workflow_id,
            tenant=self._batch.tenant,
            since=self._state.asked_at,
            held=held,
        )
        return await self._steering.call(
            TURN, request, summary=f"is it its turn among those of {ledger.whose}?", stops=not held
        )


def _words(ledger: TurnLedger, turned: Turned) -> str:
    place = turned.place
    if place is None:
        return f"Waiting for its turn; the ledger, the workflow {ledger.id}, does not answer: does a worker run for it?"
    ahead = f"{place.ahead:,} ahead of it" if place.ahead else "it is next"
    return (
        f"Waiting for its turn: {place.holders:,} of {place.limit:,} batches of {ledger.whose} are under way, {ahead}."
    )
