"""An attempt by the provider's batch API: upload, submit, poll, fetch, within the account's queue."""

from __future__ import annotations

from temporalio import workflow

from ..contract import ErrorClass, Phase, ProviderBatch
from ..contract.steps import TIDY, AttemptRecord, Snapshot, TidyRequest
from .attempt import AttemptContext
from .attempt_state import AttemptEnd, AttemptState, Fate, Stage
from .decisions import absent_class, queue_was_full, waits_for_payment
from .failures import StepFailed, Stopped
from .fetching import Fetching
from .polling import LOST_WORDS, Polling
from .queue_slot import QueueSlot
from .submission import Refused, Submission


class BatchMode:
    """One attempt as a provider batch. An `AttemptRun`."""

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._state = context.state
        self._steering = context.steering
        self._slot = QueueSlot(context)

    async def run(self) -> AttemptEnd:
        """Take the attempt as far as it will go, from wherever it is; return what became of it."""
        try:
            while not self._state.ended:
                if not self._state.sent:
                    await self._submit()
                if not self._state.sent:
                    break  # there was no row to send
                await self._poll_and_fetch()
        except Stopped:
            pass
        except (Refused, StepFailed) as error:
            fixable = waits_for_payment(error.code or "", create=isinstance(error, Refused))
            self._state.refuse(error.message, code=error.code, blocked=fixable and not self._context.paid)
        await self._slot.give_back()
        return self._end()

    async def _submit(self) -> None:
        self._context.changed(Phase.SUBMITTING)
        await Submission(self._context).run()
        if self._state.sent:
            await self._steering.bought()
            await self._slot.note()
            await self._steering.checkpoint()

    async def _poll_and_fetch(self) -> None:
        await Polling(self._context).to_its_end()
        await self._slot.give_back()  # before the download, so that others may go on meanwhile
        if self._state.stage is Stage.VANISHED:
            return
        await self._steering.checkpoint()
        await Fetching(self._context).run()
        await self._steering.checkpoint()

    def _end(self) -> AttemptEnd:
        state, batch = self._state, self._state.batch
        if batch is None:
            empty = state.stage is Stage.UPLOADED and not state.rows
            return AttemptEnd(
                fate=Fate.EMPTY if empty else Fate.UNSENT,
                record=AttemptRecord(number=state.number, sent=False),
                refused=state.refused,
                refused_code=state.refused_code,
                blocked=state.blocked,
            )
        full, vanished = queue_was_full(batch), state.stage is Stage.VANISHED
        absent = absent_class(None if vanished else batch, state.stopped)
        named = batch.output is not None or batch.errors is not None
        return AttemptEnd(
            fate=Fate.NO_ROOM if full else Fate.VANISHED if vanished else Fate.RAN,
            record=AttemptRecord(
                number=state.number,
                provider_batch_id=batch.id,
                absent=absent,
                message=_absent_words(absent, batch, state),
                lines=state.lines,
                fetched=state.lines is not None or (state.stage is Stage.FETCHED and named),
                answered=state.answered,
                counted=not full,
            ),
            reason=str(batch.error or batch.error_code) if full else "",
            batch=ProviderBatch(
                marker=self._context.attempt.marker,
                id=batch.id,
                status=batch.status,
                rows=state.rows,
                adopted=state.adopted,
            ),
            refused=state.refused,
            refused_code=state.refused_code,
            blocked=state.blocked,
        )

    async def tidy(self) -> bool:
        """Delete the attempt's files at the provider; return False if that failed."""
        state, provider = self._state, self._context.provider
        if not state.begun:
            return True
        if state.stage is Stage.UPLOADING and provider.uploads:
            # An interrupted upload may still arrive: a look that comes too early would leave its file behind.
            await self._steering.pause(
                provider.listing_lag,
                "The upload was interrupted and may still arrive: waiting, to delete its file.",
                until_stop=False,
                until_nudged=False,
            )
        request = TidyRequest(
            attempt=self._context.attempt,
            account=provider.account,
            since=self._context.plan.planned_at,
            file_id=state.file_id,
            provider_batch_id=state.batch.id if state.batch else None,
        )
        try:
            await self._steering.call(TIDY, request, summary="tidy up", give_up_at=workflow.now())
        except StepFailed:
            return False
        return True


def _absent_words(absent: ErrorClass, batch: Snapshot, state: AttemptState) -> str:
    """Return in words what is the matter with rows that a provider batch did not return."""
    if state.refused:
        return f"The provider's batch {batch.id} could not be followed to its end: {state.refused}"
    if state.stage is Stage.VANISHED:
        return f"The provider lost its batch {batch.id}: {LOST_WORDS}"
    if state.unreturned:
        return state.unreturned
    if absent is ErrorClass.MISSING:
        return "The provider ended the batch and never returned this row."
    if absent is ErrorClass.INVALID_REQUEST:
        return f"The provider refused the batch: {batch.error or batch.error_code or 'no reason given'}"
    return ""
