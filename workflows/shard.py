"""The life of a shard: upload, submit, poll, fetch, settle, and again for the rows worth another try."""

from __future__ import annotations

from collections.abc import Callable

from temporalio import workflow

from ..contract import BatchSpec, ErrorClass, Phase, ProviderBatch, RowStatus
from ..contract.steps import (
    SETTLE,
    TIDY,
    Attempt,
    AttemptRecord,
    PlanSummary,
    Settled,
    SettleRequest,
    Snapshot,
    TidyRequest,
)
from .attempt import AttemptContext
from .decisions import absent_class, outage_delay, queue_was_full, waits_for_payment
from .fetching import Fetching
from .polling import LOST_WORDS, Polling
from .queue_slot import QueueSlot
from .state import MAX_LISTED, AttemptState, ShardOutcome, ShardState, Untidy
from .steering import LONG, Steering, StepFailed, Stopped
from .submission import Refused, Submission

#: Provider batches that the provider may lose before a shard gives up.
MAX_LOSSES = 3
#: A whole shard's rows are refused when the provider's queue had no room for it this often in a row (10 minutes each).
MAX_WAITS = 1000


class Shard:
    """One shard on its way.

    Args:
        steering: the batch's wishes and waits.
        state: how far it has come; changed as it goes on.
        changed: called when something that the progress tells has changed.
    """

    def __init__(
        self,
        batch_id: str,
        steering: Steering,
        spec: BatchSpec,
        plan: PlanSummary,
        state: ShardState,
        changed: Callable[[Phase], None],
    ) -> None:
        self._batch_id = batch_id
        self._steering = steering
        self._spec = spec
        self._plan = plan
        self.state = state
        self._changed = changed

    async def run(self) -> ShardOutcome:
        """Bring every row of the shard to its end."""
        while True:
            if not self._closed():
                await self._attempt_phases()
                if self._goes_on_unsent():
                    await self._steering.checkpoint()
                    continue
                self._close_attempt()
                await self._tidy()
            settled = await self._settle()
            if not settled.retry_rows:
                break
            await self._begin_attempt(settled)
            await self._steering.checkpoint()
        state = self.state
        untidy = tuple(Untidy(shard=state.shard, number=number) for number in state.untidy)
        return ShardOutcome(
            settled=settled, batches=state.batches, error=state.refused, untidy=untidy, blocked=state.blocked
        )

    async def _attempt_phases(self) -> None:
        """Take the attempt as far as it will go, from wherever it is."""
        context = self._context()
        state, slot = context.state, QueueSlot(context)
        try:
            while not state.fetched and not self.state.refused:
                if state.batch is None:
                    self._changed(Phase.SUBMITTING)
                    await Submission(context, paid=self._paid()).run()
                    if state.batch is None:
                        break
                    await self._steering.bought()
                    await slot.note()
                    await self._steering.checkpoint()
                following = Polling(context)
                await following.to_its_end()
                await slot.give_back()  # before the results come home: others may go on meanwhile
                if state.lost:
                    break
                await self._steering.checkpoint()
                await Fetching(context).run()
                await self._steering.checkpoint()
        except Stopped:
            pass
        except (Refused, StepFailed) as error:
            self.state.refused = error.message
            self.state.blocked = not self._paid() and waits_for_payment(
                error.code or "", create=isinstance(error, Refused)
            )
        await slot.give_back()

    def _paid(self) -> bool:
        """Return whether something of the batch may be bought, so that what an operator can fix is waited out."""
        return self._steering.paid or self.state.attempt.doubt or bool(self.state.records)

    def _context(self) -> AttemptContext:
        return AttemptContext(self._here(), self.state.attempt, self._spec, self._plan, self._steering, self._changed)

    def _goes_on_unsent(self) -> bool:
        """Renew a deadline that kept the attempt from being submitted, where the spec says so; return whether it did.

        The same attempt goes on, and whatever doubt there is about its create. As another attempt, its rows could be
        bought under two numbers: a later run of the batch looks for the lower one first, finds nothing, and buys it.
        """
        attempt = self.state.attempt
        nothing_to_send = attempt.uploaded and not attempt.rows
        if attempt.batch is not None or nothing_to_send or attempt.only_if_bought:
            return False
        if self._steering.stop() is not RowStatus.EXPIRED:
            return False
        if not (self._spec.retry.after_deadline and self._may_retry()):
            return False
        self.state.tries += 1
        self._steering.deadline_at = workflow.now() + self._spec.deadline
        return True

    def _closed(self) -> bool:
        """Return whether the attempt was written down, by a run before this one."""
        return any(record.number == self.state.attempt.number for record in self.state.records)

    def _close_attempt(self) -> None:
        """Write the attempt down for the accounts."""
        state = self.state.attempt
        batch = state.batch
        if batch is None:
            record = AttemptRecord(number=state.number, provider_batch_id=None)
        else:
            self.state.tries += state.only_if_bought
            full = queue_was_full(batch)
            absent = absent_class(None if state.lost else batch, state.stopped)
            record = AttemptRecord(
                number=state.number,
                provider_batch_id=batch.id,
                absent=absent,
                message=_absent_words(absent, batch, state, self.state.refused),
                lines=state.lines,
                fetched=state.lines is not None
                or (state.fetched and not (batch.output is None and batch.errors is None)),
                answered=state.answered,
                counted=not full,
            )
            self.state.batches = (
                *self.state.batches,
                ProviderBatch(
                    marker=self._here().marker,
                    id=batch.id,
                    status=batch.status,
                    rows=state.rows,
                    adopted=state.adopted,
                ),
            )[:MAX_LISTED]
        before = self.state.records
        if batch is not None and before and not before[-1].counted:
            # It took just the rows that the queue had no room for, so its record says all that theirs did. There may be
            # hundreds of such records in a row.
            before = before[:-1]
        self.state.records = (*before, record)

    async def _settle(self) -> Settled:
        self._changed(Phase.SETTLING)
        stop = self._steering.stop()
        if stop is RowStatus.EXPIRED and self._spec.retry.after_deadline and self._may_retry():
            self._steering.deadline_at = workflow.now() + self._spec.deadline
            stop = None
        unfinished = stop
        if unfinished is None and not self._may_retry():
            unfinished = RowStatus.FAILED
        request = SettleRequest(
            attempt=self._here(),
            attempts=self.state.records,
            retry=self._spec.retry,
            unfinished=unfinished,
            message=self.state.refused,
        )
        return await self._steering.call(SETTLE, request, summary=f"settle shard {self.state.shard}", timeout=LONG)

    def _may_retry(self) -> bool:
        """Return whether another attempt may follow this one."""
        if self.state.refused:
            return False
        attempt, state = self.state.attempt, self.state
        if attempt.batch is not None and queue_was_full(attempt.batch):
            return state.waits < MAX_WAITS
        if attempt.lost and state.losses < MAX_LOSSES:
            return True
        return state.tries < self._spec.retry.max_attempts

    async def _begin_attempt(self, settled: Settled) -> None:
        state, last = self.state, self.state.attempt
        if last.batch is not None and queue_was_full(last.batch):
            state.waits += 1
            await self._steering.pause(
                outage_delay(state.waits + 2, None),
                f"The provider's queue has no room: {last.batch.error or last.batch.error_code}.",
            )
        elif last.lost:
            state.losses += 1
        else:
            state.tries += not settled.only_if_bought  # that one is a try when it is found
            state.waits = 0
        state.attempt = AttemptState(
            number=last.number + 1, rows=settled.retry_rows, only_if_bought=settled.only_if_bought
        )

    async def _tidy(self) -> None:
        """Delete the attempt's files at the provider; if that fails it is tried once more when the batch has ended."""
        state = self.state.attempt
        if not state.upload_begun:
            return
        if not state.uploaded and state.batch is None and self._plan.provider.uploads:
            # An upload that was broken off may still be on its way: a look that comes too early leaves its file behind.
            await self._steering.pause(
                self._plan.provider.listing_lag,
                "The upload was broken off and may still arrive: waiting, to delete its file.",
                until_stop=False,
                until_nudged=False,
            )
        request = TidyRequest(
            attempt=self._here(),
            account=self._plan.provider.account,
            since=self._plan.planned_at,
            file_id=state.file_id,
        )
        try:
            await self._steering.call(TIDY, request, summary="tidy up", give_up_at=workflow.now())
        except StepFailed:
            self.state.untidy = (*self.state.untidy, self.state.attempt.number)

    def _here(self) -> Attempt:
        return self._plan.attempt(self._batch_id, self.state.shard, self.state.attempt.number)


def _absent_words(absent: ErrorClass, batch: Snapshot, state: AttemptState, given_up: str | None) -> str:
    if given_up:
        return f"The provider's batch {batch.id} could not be followed to its end: {given_up}"
    if state.lost:
        return f"The provider lost its batch {batch.id}: {LOST_WORDS}"
    if state.unreturned:
        return state.unreturned
    if absent is ErrorClass.MISSING:
        return "The provider ended the batch and never returned this row."
    if absent is ErrorClass.INVALID_REQUEST:
        return f"The provider refused the batch: {batch.error or batch.error_code or 'no reason given'}"
    return ""
