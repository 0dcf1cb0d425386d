"""One attempt's slot in its account's queue: taken before its upload, given back when the provider is done."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from ..contract.ledger_steps import RELEASE, RESERVE, ReleaseRequest, Reserved, ReserveRequest
from .attempt import AttemptContext
from .failures import StepFailed, Stopped

#: How often a place in the queue is asked for again, ever less often. The ledger sends a signal when the turn has come;
#: this is for a signal that was lost, a ledger that was terminated, and reservations beyond what a ledger carries.
RENEW = timedelta(minutes=5)
RENEW_LONGEST = timedelta(hours=1)
#: How long an attempt keeps trying to report room that it holds or gives back; once the workflow has ended, the ledger
#: finds out by itself.
LEDGER_PATIENCE = timedelta(minutes=30)


class QueueSlot:
    """Room for one attempt among the tokens that its account may have enqueued; nothing where there is no limit."""

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._state = context.state.slot
        self._steering = context.steering

    async def take(self) -> None:
        """Wait until there is room.

        Raises:
            Stopped: a stop came first.
        """
        asked = 0
        while self._wanted():
            self._steering.await_grant()
            reserved = await self._ask(held=False)
            if reserved.place is not None and reserved.place.granted:
                self._state.taken = True
                return
            delay = min(RENEW * 2 ** min(asked, 10), RENEW_LONGEST) * (0.9 + 0.2 * workflow.random().random())
            asked += 1
            await self._steering.pause(delay, self._waiting_words(reserved), until=self._granted)
            # The signal is only a hint: one that a reset replays may be of a turn that is long over. So the ledger is
            # asked again, and the signal is believed where the ledger cannot be.
            if reserved.place is None and self._granted():
                self._state.taken = True
                return
            if self._steering.stop():
                raise Stopped
            await self._steering.checkpoint()

    async def note(self) -> None:
        """Have the ledger count a provider batch that already runs, one of an earlier run for example."""
        if not self._wanted():
            return
        try:
            await self._ask(held=True)
            self._state.taken = True
        except StepFailed as error:
            self._steering.report(error.message)  # to poll what is paid for matters more than to count it

    async def give_back(self) -> None:
        """Give the room back, or the place in the queue."""
        if self._state.asked_at is None:
            return
        request = ReleaseRequest(
            attempt=self._context.attempt, account=self._context.provider.account, ledger=self._state.ledger
        )
        try:
            await self._steering.call(
                RELEASE,
                request,
                summary="give the room in the queue back",
                give_up_at=workflow.now() + LEDGER_PATIENCE,
            )
        except StepFailed as error:
            self._steering.report(error.message)
        self._state.asked_at = self._state.ledger = None
        self._state.taken = False

    def _wanted(self) -> bool:
        return self._context.provider.max_enqueued_tokens is not None and not self._state.taken

    def _granted(self) -> bool:
        return self._steering.granted == self._context.attempt.marker

    async def _ask(self, *, held: bool) -> Reserved:
        self._state.asked_at = self._state.asked_at or workflow.now()
        request = ReserveRequest(
            attempt=self._context.attempt,
            account=self._context.provider.account,
            workflow_id=workflow.info().workflow_id,
            since=self._state.asked_at,
            priority=self._context.spec.priority,
            fairness_key=self._context.spec.fairness_key or "",
            held=held,
        )
        reserved = await self._steering.call(
            RESERVE,
            request,
            summary="ask for room in the account's queue",
            submitted=held,
            stops=not held,
            give_up_at=workflow.now() + LEDGER_PATIENCE if held else None,
        )
        self._state.ledger = reserved.ledger
        return reserved

    def _waiting_words(self, reserved: Reserved) -> str:
        words, place = f"Waiting for its turn in the queue of provider {self._context.spec.provider}", reserved.place
        if place is None:
            return f"{words}; its ledger, the workflow {reserved.ledger}, does not answer: does a worker run for it?"
        ahead = f"{place.ahead:,} ahead of it" if place.ahead else "it is next"
        shards = "1 shard" if place.holders == 1 else f"{place.holders:,} shards"
        return f"{words} ({place.in_use:,} of {place.limit:,} tokens are in use by {shards}, {ahead})."
