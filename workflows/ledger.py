"""LedgerWorkflow: the queue of one account and model, kept for as long as somebody has room in it or waits for some.

It begins with the first reservation (a signal that starts it) and ends when it has been empty for a while. Batches of
all workers of the account meet here, so that they wait their turn instead of being refused by the provider.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import islice
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from ..contract.ledger import LEDGER_WORKFLOW, LedgerStart, LedgerView, Place, Reservation, shown
from ..contract.ledger_steps import CENSUS, CensusRequest
from .queue import Queue
from .steering import history_is_long

#: How often it looks around: whether holders are still there when others wait, and whether it is needed itself.
ROUND = timedelta(minutes=5)
#: If nobody waits, holders that have gone do no harm, and are looked for only once in so many rounds.
QUIET_ROUNDS = 6
#: How many of those who wait are looked at as well.
FIRST = 20

_COUNT = RetryPolicy(maximum_attempts=3)


# A wrong start by hand fails instead of being stuck.
@workflow.defn(name=LEDGER_WORKFLOW, failure_exception_types=[ValidationError])
class LedgerWorkflow:
    """One account's queue for one model."""

    # The signal that starts it is handled before run() begins, so everything is there from the first moment.
    @workflow.init
    def __init__(
        self,
        start: LedgerStart | None = None,
        holding: list[Reservation] | None = None,
        waiting: list[Reservation] | None = None,
    ) -> None:
        self._start = LedgerStart.model_validate(start or {})
        self._queue = Queue(
            self._start.limit,
            (Reservation.model_validate(reservation) for reservation in holding or ()),
            (Reservation.model_validate(reservation) for reservation in waiting or ()),
        )
        self._news = bool(waiting)
        self._again: list[Reservation] = []  # those that have room and ask again: perhaps the signal did not reach them
        self._over = False

    @workflow.signal(description="Ask for room: a reservation, and the limit as the asking worker knows it")
    def reserve(self, reservation: Any = None, limit: Any = None, *ignored: Any) -> None:
        try:
            asked = Reservation.model_validate(reservation)
        except ValidationError:
            return  # sent by hand, and not a reservation: it must not leave the ledger stuck
        if self._queue.reserve(asked) and not asked.held:
            self._again.append(asked)
        if isinstance(limit, int) and limit > 0:
            self._queue.limit = limit  # the newest configuration holds
        self._news = True

    @workflow.signal(description="Give room back: the holder's marker")
    def release(self, holder: Any = None, *ignored: Any) -> None:
        self._queue.release(str(holder))
        self._news = True

    @workflow.query(description="Limit, tokens in use, and who waits")
    def ledger(self) -> LedgerView:
        queue = self._queue
        return LedgerView(
            account=self._start.account,
            provider=self._start.provider,
            model=self._start.model,
            limit=queue.limit,
            in_use=queue.in_use,
            holders=queue.holders,
            waiting=queue.waiters,
            waiting_tokens=queue.waiting_tokens,
            holding=shown(queue.holding),
            queue=shown(queue.waiting),
        )

    @workflow.query(description="Where one holder is in the queue, by its marker")
    def place(self, holder: str = "") -> Place:
        return self._queue.place(holder)

    @workflow.run
    async def run(
        self,
        start: LedgerStart | None = None,
        holding: list[Reservation] | None = None,
        waiting: list[Reservation] | None = None,
    ) -> None:
        if not self._start.account:
            raise ApplicationError("A ledger is started by the batches that need it.", non_retryable=True)
        rounds = asyncio.create_task(self._look_around())
        while not self._over:
            await workflow.wait_condition(lambda: self._news or self._over)
            self._news = False
            await self._serve()
            if history_is_long():
                rounds.cancel()
                await workflow.wait_condition(workflow.all_handlers_finished)
                now = self._start.model_copy(update={"limit": self._queue.limit})
                workflow.continue_as_new(args=[now, self._queue.holding, self._queue.page()])

    async def _serve(self) -> None:
        """Give room to those whose turn it is, and signal them; a workflow that is gone gives it back.

        A workflow task gives no more than a page, because the next page waits for what became of these signals.
        """
        while granted := [*self._taken(), *self._grant()]:
            there = await asyncio.gather(*(self._tell(reservation) for reservation in granted))
            for reservation, heard in zip(granted, there, strict=True):
                if not heard:
                    self._queue.release(reservation.holder)
        workflow.set_current_details(self._details())

    def _grant(self) -> list[Reservation]:
        # Where thousands wait who are gone, the rounds have no end: the rest is for the next run.
        if history_is_long():
            return []
        return self._queue.grant()

    def _taken(self) -> list[Reservation]:
        again, self._again = self._again, []
        return again

    async def _tell(self, reservation: Reservation) -> bool:
        handle = workflow.get_external_workflow_handle(reservation.workflow_id)
        try:
            await handle.signal("granted", reservation.holder)
        except FailureError:
            return False
        return True

    async def _look_around(self) -> None:
        """Find holders that have gone without giving their room back, and end when there is nothing left to keep."""
        quiet = idle = 0
        if self._queue.holders and workflow.info().continued_run_id is None:
            await self._count()  # what is known of them is from a ledger that was ended, perhaps long ago
        while True:
            await workflow.sleep(ROUND, summary="look whether holders are still there")
            self._news = True  # so that a history that grows by rounds alone is looked at, too
            if self._queue.empty:
                idle += 1
                if idle > 1:
                    self._over = True
                    return
                continue
            idle = 0
            quiet = 0 if self._queue.waiters else quiet + 1
            if quiet % QUIET_ROUNDS == 0:
                await self._count()

    async def _count(self) -> None:
        # And the first who wait: one that is gone would keep all others behind it.
        reservations = [*self._queue.holding, *islice(self._queue.waiting, FIRST)]
        try:
            found = await workflow.execute_activity(
                CENSUS.name,
                CensusRequest(workflow_ids=tuple(sorted({reservation.workflow_id for reservation in reservations}))),
                result_type=CENSUS.answer,
                start_to_close_timeout=timedelta(minutes=2),
                retry_policy=_COUNT,
                summary="which holders are still there?",
            )
        except ActivityError:
            return  # the next round tries again
        for workflow_id in found.gone:
            if self._queue.release_all(workflow_id):
                self._news = True

    def _details(self) -> str:
        start, queue = self._start, self._queue
        return (
            f"Account `{start.account}` of provider `{start.provider}`, model `{start.model}`\n\n"
            f"- {queue.in_use:,} of {queue.limit:,} tokens are given out to {queue.holders:,} shards\n"
            f"- {queue.waiters:,} shards wait for {queue.waiting_tokens:,} tokens"
        )
