"""From rows to exactly one provider batch (promise G1).

A create call is the only one that costs money, and its answer can be lost: the network breaks after the provider took
it, or the worker dies before it reported. So it is never repeated blindly:

1. **find** first: has an earlier create of this attempt, in this run or in another one, made the batch? Then adopt it.
2. **create** once. Its answer is created, refused (nothing exists), deferred (nothing exists, try later), or lost.
3. After a lost answer, wait until the provider's listing is sure to show the batch, and find again.
4. If it is still not there, **fence**: delete the file that the lost create names, and upload another. A create that is
   still on its way, in a worker that was only paused, can then no longer run a row. Wait again, find again, and create.

A run that finds the note of a create in the store, and no batch, has not seen how that create went: the workflow was
reset, or another one had begun. It goes on from 3. So does one whose create is not sent, because another was noted
since the look before it: an operator reset the workflow to a task in between, or had Temporal start the step once more.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.exceptions import ActivityError, ApplicationError

from ..contract import Mode, Phase
from ..contract.steps import (
    CREATE,
    FIND,
    UPLOAD,
    CreateAnswer,
    Created,
    CreateRequest,
    FindRequest,
    UploadRequest,
)
from .attempt import AttemptContext
from .attempt_state import Stage
from .decisions import FIXABLE_CREATE, outage_delay
from .failures import Stopped, Trouble
from .queue_slot import QueueSlot
from .steering import LONG, PATIENCE, SHORT

#: Failures of the create step that are known to come before the call to the provider.
_BEFORE_THE_CALL = frozenset(
    {
        *("account_mismatch", "configuration_error", "unknown_provider", "missing_key"),
        *("store_error", "object_not_found", "store_mismatch", "invalid_spec"),
    }
)


class Refused(Exception):
    """The provider will never take this attempt; nothing exists there."""

    def __init__(self, message: str, code: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Submission:
    """One attempt's way to its provider batch."""

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._state = context.state
        self._steering = context.steering
        self._changed = context.changed
        self._noted = 0  #: Number of the newest create that was noted before the last look.
        self._standing = 0  #: The same of those that were not refused.
        self._slot = QueueSlot(context)
        self._paid = context.paid  #: Whether what an operator can fix is waited out.

    async def run(self) -> None:
        """Bring the attempt to a provider batch, created or adopted; or to none, if it has no row to send.

        Raises:
            Refused: the provider will not take it.
            StepFailed: something before the create failed for good.
            Stopped: a stop came before anything was created, or the attempt was run directly before.
        """
        try:
            await self._submit()
        except Stopped:
            if self._state.mode is Mode.DIRECT:
                raise
            # Another run may have created the batch since this one looked: the workflow was reset to a task in between.
            await self._submit()

    async def _submit(self) -> None:
        """Look, and create what is not there; a stop ends it, but never before it has looked."""
        deferrals = not_found = 0
        while not await self._find():
            if self._standing > self._state.cleared and not self._state.doubt:
                # By a run before this one, or a workflow that was terminated: as if our own answer had been lost.
                self._doubt()
                await self._wait_for_listing("A create of an earlier run may be on its way.", timedelta(0))
                continue
            if self._steering.stop() or self._state.only_if_bought:
                raise Stopped
            if self._state.doubt:
                await self._fence()
                await self._wait_for_listing("A create may still be on its way to the provider.", timedelta(0))
                self._state.clear_doubt(self._standing)
                continue
            if self._state.stage is not Stage.UPLOADED:
                await self._slot.take()
                self._changed(Phase.UPLOADING)
                await self._upload()
                self._changed(Phase.SUBMITTING)
                if self._steering.stop():  # it came too late to interrupt the upload
                    raise Stopped
                await self._steering.checkpoint()
            if not self._state.rows:  # every row of it was refused by the plan, so there is nothing to buy
                return
            await self._slot.take()  # where a file was there already
            created = await self._create()
            if created.answer is CreateAnswer.CREATED and created.batch is not None:
                self._state.submit(created.batch)
                return
            reason = created.reason or "The provider gave no reason."
            self._steering.report(reason)
            if created.answer is CreateAnswer.REFUSED and not self._may_be_lifted(created):
                raise Refused(reason, created.code)
            if created.answer is CreateAnswer.LOST:
                self._doubt()
                await self._wait_for_listing(reason, created.retry_after or timedelta(0))
                continue
            deferrals += 1
            if created.code == "provider_not_found" and self._context.provider.uploads:
                # Perhaps it is the file: the next upload looks for it and sends it if it is gone. One that the provider
                # lists and still does not find is replaced, once.
                not_found += 1
                self._state.begin_upload(another=not_found == 2)
            await self._steering.pause(outage_delay(deferrals, created.retry_after), reason)
            await self._steering.checkpoint()

    def _doubt(self) -> None:
        self._state.doubt_create()
        self._paid = True

    def _may_be_lifted(self, created: Created) -> bool:
        """Return whether a refusal is waited out: an operator can lift it, and something of the batch is bought."""
        paid = self._paid or self._steering.paid  # by another shard, meanwhile
        return paid and created.code in FIXABLE_CREATE

    async def _wait_for_listing(self, reason: str, at_least: timedelta) -> None:
        """Wait until the provider's listing is sure to show whatever it has taken."""
        lag = self._context.provider.listing_lag
        why = f"{reason} The batch may exist: looking for it before anything is paid again."
        # Nobody may cut this short: a look that comes too early would buy the batch a second time.
        await self._steering.pause(lag, why, until_stop=False, until_nudged=False)
        # What the provider asks for beyond that does not keep a stop waiting: what may run costs.
        await self._steering.pause(at_least - lag, why)

    async def _upload(self, fence: bool = False) -> None:
        self._state.begin_upload(another=fence)
        request = UploadRequest(
            attempt=self._context.attempt,
            account=self._context.provider.account,
            generation=self._state.generation,
            since=self._context.plan.planned_at,
            spec=self._context.spec,
            fence=fence,
        )
        uploaded = await self._steering.call(
            UPLOAD,
            request,
            summary=f"upload shard {self._context.attempt.shard}, attempt {self._context.attempt.number}",
            timeout=LONG,
            submitted=self._paid,
            stops=True,
            interrupts=True,
        )
        self._state.end_upload(uploaded)

    async def _find(self) -> bool:
        request = FindRequest(
            attempt=self._context.attempt,
            account=self._context.provider.account,
            since=self._context.plan.planned_at,
            rows=self._state.rows,
            strangers=self._state.strangers,
            sent=self._state.doubt,
        )
        # Not ended by a stop: whether something is paid for must be known before the batch may end.
        found = await self._steering.call(
            FIND,
            request,
            summary="is it there already?",
            submitted=self._paid,
            give_up_at=self._steering.deadline_at + PATIENCE,
        )
        self._noted, self._standing = found.noted, found.standing
        if found.direct:
            self._state.turn_direct()
            raise Stopped
        if found.batch is None:
            return False
        self._state.adopt(found.batch, provisional=found.provisional)
        return True

    async def _fence(self) -> None:
        if self._context.provider.uploads:
            await self._upload(fence=True)

    async def _create(self) -> Created:
        """Create once; whatever is not surely an answer counts as a lost one."""
        request = CreateRequest(
            attempt=self._context.attempt,
            account=self._context.provider.account,
            file_id=self._state.file_id,
            rows=self._state.rows,
            spec=self._context.spec,
            noted=self._noted,
        )
        timeout = SHORT if self._context.provider.uploads else LONG
        try:
            return await self._steering.call_once(
                CREATE, request, summary=f"create {self._context.attempt.marker}", timeout=timeout
            )
        except ActivityError as error:
            trouble = Trouble(error)
            sent = not (isinstance(error.cause, ApplicationError) and trouble.code in _BEFORE_THE_CALL)
            return Created(answer=CreateAnswer.LOST if sent else CreateAnswer.DEFERRED, reason=trouble.message)
