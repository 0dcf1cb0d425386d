"""From a provider batch to its results: polled on durable timers, cancelled there when a stop comes, and fetched."""

from __future__ import annotations

from temporalio import workflow

from ..contract import Phase, RowStatus
from ..contract.steps import (
    CANCEL,
    FETCH,
    POLL,
    BatchRequest,
    Fetched,
    FetchRequest,
    Snapshot,
)
from .decisions import LATE, outage_delay, poll_delay
from .ongoing import Ongoing
from .steering import LONG, PATIENCE, StepFailed

_NOT_FOUND = frozenset({"provider_not_found"})


class Following:
    """One attempt's provider batch on its way to the end."""

    def __init__(self, ongoing: Ongoing) -> None:
        self._ongoing = ongoing
        self._state = ongoing.state
        self._steering = ongoing.steering
        self._changed = ongoing.changed

    async def to_its_end(self) -> None:
        """Ask, ever less often, until the provider is done; when told to stop, cancel there and wait for its end."""
        state = self._state
        self._changed(Phase.POLLING)
        while state.batch is not None and not state.batch.status.ended:
            stop = self._steering.stop()
            if stop and state.stopped is None:
                if not await self._look():  # it may have ended meanwhile, and then nothing is to be cancelled
                    return
                if state.provisional and not state.batch.status.ended:
                    # It may be somebody else's: it is not ours to cancel, and its end will tell whose it was.
                    state.stopped = stop
                elif not state.batch.status.ended:
                    await self._cancel(stop)
                continue
            if state.stopped and workflow.now() >= self._steering.deadline_at + PATIENCE:
                self._steering.last_error = "The provider never ended the batch that it was asked to cancel."
                return
            why = self._waiting_words()
            delay = poll_delay(self._ongoing.spec.poll, state.polls, workflow.random().random())
            await self._steering.pause(delay, why, until_stop=state.stopped is None)
            if self._steering.stop() and state.stopped is None:
                continue
            if not await self._look():
                return
            state.polls += 1
            self._changed(Phase.POLLING)
            await self._steering.breathe()

    async def _look(self) -> bool:
        """Ask the provider; return whether it still knows the batch."""
        state = self._state
        unknown_since = 0
        while state.batch is not None:
            try:
                state.batch = await self._steering.call(
                    POLL,
                    self._about(state.batch),
                    Snapshot,
                    summary=f"poll {state.polls + 1}",
                    submitted=True,
                    passes=_NOT_FOUND,
                    give_up_at=self._steering.deadline_at + PATIENCE,
                )
                return True
            except StepFailed as error:
                if error.code != "provider_not_found":
                    raise  # past all patience: it may have run, so nothing of it is ever submitted again
                submitted = state.submitted_at or workflow.now()
                if workflow.now() - submitted >= LATE:
                    state.lost = True
                    self._steering.last_error = f"The provider lost its batch {state.batch.id}."
                    return False
                unknown_since += 1
                await self._steering.pause(
                    outage_delay(unknown_since, None),
                    f"The provider does not show its new batch {state.batch.id} yet.",
                    until_stop=False,
                )
        return False

    async def _cancel(self, stop: RowStatus) -> None:
        state = self._state
        assert state.batch is not None
        try:
            state.batch = await self._steering.call(
                CANCEL,
                self._about(state.batch),
                Snapshot,
                summary="cancel at the provider",
                submitted=True,
                passes=_NOT_FOUND,
                give_up_at=self._steering.deadline_at + PATIENCE,
            )
        except StepFailed as error:
            self._steering.last_error = error.message
        state.stopped = stop
        state.polls = 0  # its end is near: ask often again
        self._changed(Phase.POLLING)

    async def fetch(self) -> None:
        """Bring home what is finished, whatever the batch ended as; let it go if it turns out to be a stranger's."""
        state = self._state
        batch = state.batch
        assert batch is not None
        if batch.output is None and batch.errors is None:
            state.fetched = True
            return
        self._changed(Phase.FETCHING)
        request = FetchRequest(
            attempt=self._ongoing.attempt,
            account=self._ongoing.provider.account,
            batch=batch,
            provisional=state.provisional,
        )
        fetched = await self._steering.call(
            FETCH,
            request,
            Fetched,
            summary=f"fetch {batch.id}",
            timeout=LONG,
            submitted=True,
            give_up_at=max(workflow.now(), self._steering.deadline_at) + PATIENCE,
        )
        if fetched.stranger:
            state.strangers = (*state.strangers, batch.id)
            state.batch, state.adopted, state.provisional, state.polls = None, False, False, 0
            state.stopped = None  # nothing was cancelled, and what comes in its place is not being ended
        else:
            state.fetched, state.lines = True, fetched.rows

    def _about(self, batch: Snapshot) -> BatchRequest:
        return BatchRequest(
            attempt=self._ongoing.attempt, account=self._ongoing.provider.account, provider_batch_id=batch.id
        )

    def _waiting_words(self) -> str:
        state = self._state
        batch = state.batch
        assert batch is not None
        if state.stopped and state.provisional:
            return f"The batch {batch.id} may be another's, so it is not cancelled; its results will tell."
        if state.stopped:
            return f"{self._ongoing.spec.provider} is ending the batch ({batch.raw_status})."
        done = f", {batch.completed + batch.failed:,} of {batch.total:,} rows" if batch.total else ""
        return f"{self._ongoing.spec.provider} is working ({batch.raw_status}{done})."
