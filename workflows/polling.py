"""A provider batch until its end: polled on durable timers, searched for if it is not found, cancelled at a stop."""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow

from ..contract import Phase, RowStatus
from ..contract.steps import CANCEL, FIND, POLL, BatchRequest, FindRequest, Snapshot
from .attempt import AttemptContext
from .decisions import LATE, lengthened, poll_delay, poll_policy, streak_delay
from .failures import StepFailed
from .steering import PATIENCE

NOT_FOUND = "provider_not_found"
#: What was tried before a batch counts as lost.
LOST_WORDS = "polls did not find it for an hour, its listing does not show it, and a cancel did not reach it."


class Polling:
    """One attempt's provider batch on its way to the end."""

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._state = context.state
        self._steering = context.steering
        self._changed = context.changed

    async def to_its_end(self) -> None:
        """Poll, ever less often, until the provider has ended the batch; at a stop, cancel it there first."""
        state = self._state
        policy = poll_policy(self._context.spec.poll, self._context.provider.webhook_poll)
        nudges = self._steering.nudges
        self._changed(Phase.POLLING)
        while state.batch is not None and not state.batch.status.ended:
            stop = self._steering.stop()
            if stop and state.stopped is None:
                if not await self._look():  # it may have ended meanwhile, and then nothing is to be cancelled
                    return
                if state.provisional and not state.batch.status.ended:
                    # It may be somebody else's: it is not ours to cancel, and its end will show whose it was.
                    state.stop(stop, asked=False)
                elif not state.batch.status.ended:
                    await self._cancel(stop)
                continue
            if state.stopped and workflow.now() >= self._steering.deadline_at + PATIENCE:
                self._steering.report("The provider never ended the batch that it was asked to cancel.")
                return
            why = self._waiting_words()
            delay = poll_delay(policy, state.polls, workflow.random().random())
            await self._steering.pause(delay, why, until_stop=state.stopped is None)
            if self._steering.stop() and state.stopped is None:
                continue
            if not await self._look():
                return
            state.polls += 1
            if self._steering.nudges != nudges:
                # Somebody knows that its end is near, even if the provider does not show it yet.
                nudges, state.polls = self._steering.nudges, 0
            self._changed(Phase.POLLING)
            await self._steering.checkpoint()

    async def poll(self) -> None:
        """Ask the provider once for the batch as it is now.

        Raises:
            StepFailed: it answers 404, or there were only errors until `PATIENCE` past the deadline.
        """
        state = self._state
        assert state.batch is not None
        state.batch = await self._steering.call(
            POLL,
            self._about(state.batch),
            summary=f"poll {state.polls + 1}",
            submitted=True,
            passes=frozenset({NOT_FOUND}),
            give_up_at=self._steering.deadline_at + PATIENCE,
        )
        state.unknown = None

    async def _look(self) -> bool:
        """Ask the provider; return whether it still knows the batch.

        Raises:
            StepFailed: it could not be asked until `PATIENCE` past the deadline. The batch may have run, so none of
                its rows is ever submitted again.
        """
        state = self._state
        while state.batch is not None:
            try:
                await self.poll()
                return True
            except StepFailed as error:
                if error.code != NOT_FOUND:
                    raise
                if workflow.now() >= self._steering.deadline_at + PATIENCE:
                    raise
                state.unknown = lengthened(state.unknown, workflow.now())
                if state.unknown.length >= LATE:
                    return await self._search(state.batch)
                delay, why = streak_delay(state.unknown), self._unknown_words(state.batch)
            await self._steering.pause(delay, why, until_stop=False)
        return False

    async def _search(self, batch: Snapshot) -> bool:
        """Look for a batch that polls do not find in the provider's listing; return whether it is there.

        If the listing is not found either, it is waited for: then the connection to the provider is broken. A batch
        that the listing does not show is cancelled before it is given up, in case it still runs.
        """
        state, attempt = self._state, self._context.attempt
        state.unknown = None
        request = FindRequest(
            attempt=attempt,
            account=self._context.provider.account,
            since=self._context.plan.planned_at,
            rows=state.rows,
            strangers=state.strangers,
        )
        found = await self._steering.call(
            FIND,
            request,
            summary="is it still there?",
            submitted=True,
            give_up_at=self._steering.deadline_at + PATIENCE,
        )
        # Where a search only finds candidates, one of another id is not ours: ours had its id from its create.
        if found.batch and (found.batch.id == batch.id or not found.provisional or state.provisional):
            if found.batch.id != batch.id:
                self._steering.report(f"The provider shows {found.batch.id} in place of {batch.id}.")
                state.adopt(found.batch, provisional=found.provisional)
            state.batch = found.batch
            return True
        try:
            await self.poll()  # the search may have waited for hours
            return True
        except StepFailed as error:
            if error.code != NOT_FOUND:
                raise
        if not state.provisional and await self._cancels(batch):
            self._steering.report(f"The provider did not find its batch {batch.id}, and has cancelled it.")
            return True
        state.vanish()
        self._steering.report(f"The provider lost its batch {batch.id}: {LOST_WORDS}")
        return False

    async def _cancels(self, batch: Snapshot) -> bool:
        """Cancel a batch that is about to be given up; return whether the provider still knows it."""
        try:
            self._state.batch = await self._send_cancel(batch, workflow.now() + LATE)
        except StepFailed:
            return False
        return True

    async def _cancel(self, stop: RowStatus) -> None:
        state, give_up_at = self._state, self._steering.deadline_at + PATIENCE
        assert state.batch is not None
        try:
            state.batch = await self._send_cancel(state.batch, give_up_at)
        except StepFailed as error:
            self._steering.report(error.message)
            state.uncancelled = lengthened(state.uncancelled, workflow.now())
            if state.uncancelled.length < LATE and workflow.now() < give_up_at:
                why = f"The provider's batch {state.batch.id} is to be cancelled, and is not yet: {error.message}"
                await self._steering.pause(streak_delay(state.uncancelled), why, until_stop=False)
                return  # the caller polls and cancels it again: as long as it runs, it costs
        state.stop(stop, asked=True)
        self._changed(Phase.POLLING)

    async def _send_cancel(self, batch: Snapshot, give_up_at: datetime) -> Snapshot:
        return await self._steering.call(
            CANCEL,
            self._about(batch),
            summary="cancel at the provider",
            submitted=True,
            passes=frozenset({NOT_FOUND}),
            give_up_at=give_up_at,
        )

    def _about(self, batch: Snapshot) -> BatchRequest:
        return BatchRequest(
            attempt=self._context.attempt, account=self._context.provider.account, provider_batch_id=batch.id
        )

    def _unknown_words(self, batch: Snapshot) -> str:
        since = self._state.unknown.since if self._state.unknown else workflow.now()
        return (
            f"The provider does not find its batch {batch.id} (404 since {since:%H:%M} UTC): asking again. "
            "After an hour its listing decides."
        )

    def _waiting_words(self) -> str:
        state, provider = self._state, self._context.spec.provider
        batch = state.batch
        assert batch is not None
        if state.stopped and state.provisional:
            return f"The batch {batch.id} may be another's, so it is not cancelled; its results will show whose it is."
        if not batch.known:
            return (
                f"{provider} calls the batch's state {batch.raw_status!r}, which Durabatch does not know: asking again."
            )
        if state.stopped:
            return f"{provider} is ending the batch ({batch.raw_status})."
        done = f", {batch.completed + batch.failed:,} of {batch.total:,} rows" if batch.total else ""
        return f"{provider} is working ({batch.raw_status}{done})."
