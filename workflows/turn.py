"""One attempt's turn in its account's queue: taken before its upload, given back when the provider is done."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from ..contract import BatchSpec
from ..contract.ledger import Place
from ..contract.steps import RELEASE, RESERVE, Attempt, PlanSummary, ReleaseRequest, Reserved, ReserveRequest
from .state import AttemptState
from .steering import Steering, StepFailed, Stopped

#: How often a place in the queue is asked for anew. The ledger tells when the turn has come; this is for a ledger that
#: somebody terminated, and for those beyond what a ledger carries to a new run.
RENEW = timedelta(minutes=5)
#: How long room is tried to be given back; the ledger finds out for itself when the workflow has ended.
GIVE_BACK_PATIENCE = timedelta(minutes=30)


class Turn:
    """Room for one attempt among the tokens that its account may have enqueued; nothing where there is no limit."""

    def __init__(
        self, steering: Steering, spec: BatchSpec, plan: PlanSummary, attempt: Attempt, state: AttemptState
    ) -> None:
        self._steering = steering
        self._spec = spec
        self._plan = plan
        self._attempt = attempt
        self._state = state

    async def take(self) -> None:
        """Wait until there is room.

        Raises:
            Stopped: a stop came first.
        """
        while self._wanted():
            reserved = await self._ask(held=False)
            if reserved.place.granted:
                self._state.room = True
                return
            await self._steering.pause(RENEW, self._waiting_words(reserved.place), until=self._granted)
            if self._granted():
                self._state.room = True
                return
            if self._steering.stop():
                raise Stopped
            await self._steering.breathe()

    async def note(self) -> None:
        """Have a provider batch counted that was there before it was asked for, from an earlier run for example."""
        if self._wanted():
            await self._ask(held=True)
            self._state.room = True

    async def give_back(self) -> None:
        """Give the room back, or the place in the queue."""
        ledger, self._state.ledger = self._state.ledger, None
        if ledger is None:
            return
        request = ReleaseRequest(ledger=ledger, holder=self._attempt.marker)
        give_up_at = workflow.now() + GIVE_BACK_PATIENCE
        try:
            await self._steering.call(
                RELEASE, request, type(None), summary="give the room in the queue back", give_up_at=give_up_at
            )
        except StepFailed as error:
            self._steering.last_error = error.message

    def _wanted(self) -> bool:
        return self._plan.provider.max_enqueued_tokens is not None and not self._state.room

    def _granted(self) -> bool:
        return self._steering.granted == self._attempt.marker

    async def _ask(self, *, held: bool) -> Reserved:
        self._state.asked_at = self._state.asked_at or workflow.now()
        request = ReserveRequest(
            attempt=self._attempt,
            account=self._plan.provider.account,
            workflow_id=workflow.info().workflow_id,
            since=self._state.asked_at,
            priority=self._spec.priority,
            fairness_key=self._spec.fairness_key or "",
            held=held,
        )
        reserved = await self._steering.call(
            RESERVE, request, Reserved, summary="ask for room in the account's queue", submitted=True, stops=not held
        )
        self._state.ledger = reserved.ledger
        return reserved

    def _waiting_words(self, place: Place) -> str:
        ahead = f"{place.ahead:,} ahead of it" if place.ahead else "it is next"
        use = f" ({place.in_use:,} of {place.limit:,} tokens are in use, {ahead})" if place.limit else ""
        return f"Waiting for its turn in the queue of provider {self._spec.provider}{use}."
