"""An attempt in direct mode: a step sends its rows one by one, and another one joins what was answered.

What is answered is soon in the store, whoever sent it, and is never sent again. So the step that sends is
simply run again when its worker was lost, when the endpoint is dead, or by a new run of a workflow that was reset.
"""

from __future__ import annotations

from temporalio import workflow

from ..contract import ErrorClass, Mode, Phase, RowStatus
from ..contract.steps import COLLECT, RUN_ROWS, AttemptRecord, CollectRequest, RunRequest
from .attempt import AttemptContext
from .attempt_state import AttemptEnd, Fate
from .decisions import outage_delay, waits_for_payment
from .failures import StepFailed, Stopped
from .steering import LONG

_ABSENT = {RowStatus.CANCELED: ErrorClass.CANCELED, RowStatus.EXPIRED: ErrorClass.EXPIRED}


class DirectMode:
    """One attempt whose rows go to the provider's ordinary endpoint. An `AttemptRun`."""

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._state = context.state
        self._direct = context.state.direct
        self._steering = context.steering

    async def run(self) -> AttemptEnd:
        """Have every row answered, from wherever the attempt is; return what became of it."""
        state = self._state
        if not state.ended:
            try:
                await self._send()
            except Stopped:
                pass
            except StepFailed as error:
                fixable = waits_for_payment(error.code, create=False)
                state.refuse(error.message, code=error.code, blocked=fixable and not self._context.paid)
        # What is kept is paid for. Where nothing is known to be, and an operator can fix what refused it, the batch
        # looks whether anything was bought, and has the attempt run again.
        if self._direct.collected is None and not state.blocked and not self._empty():
            await self._collect()
        return self._end()

    async def tidy(self) -> bool:
        """Do nothing: an attempt in direct mode leaves nothing at the provider."""
        return True

    async def _send(self) -> None:
        """Send the rows until each of them has an answer.

        Raises:
            Stopped: a stop came first, or the attempt is only looked for.
            StepFailed: the rows cannot be sent.
        """
        context, direct = self._context, self._direct
        spec = context.spec
        request = RunRequest(attempt=context.attempt, account=context.provider.account, spec=spec)
        nudges = self._steering.nudges
        while not direct.answered:
            if self._steering.stop() or self._state.only_if_bought:
                raise Stopped  # what another run of the workflow had answered is joined all the same
            direct.begin()
            context.changed(Phase.RUNNING)
            at_once, nudges = self._steering.nudges > nudges, self._steering.nudges
            ran = await self._steering.call(
                RUN_ROWS,
                request.model_copy(update={"at_once": at_once}),
                summary=f"run shard {context.attempt.shard}, attempt {context.attempt.number}",
                # It may go on until the deadline ends it: a slow model takes days for a shard, and a worker that is
                # lost is noticed by its heartbeats.
                timeout=self._steering.deadline_at - workflow.now() + LONG,
                submitted=context.paid,
                stops=True,
                interrupts=True,
            )
            direct.note(ran)
            if ran.kept:
                await self._steering.bought()
            if ran.reason is not None:
                if not ran.waits:
                    self._steering.report(ran.reason)
                await self._steering.pause(outage_delay(direct.vain, ran.retry_after), ran.reason)
            await self._steering.checkpoint()

    async def _collect(self) -> None:
        """Join what was answered, by this run of the workflow or by one before it."""
        context, state = self._context, self._state
        request = CollectRequest(attempt=context.attempt, account=context.provider.account)
        try:
            collected = await self._steering.call(
                COLLECT, request, summary="join what was answered", timeout=LONG, submitted=True
            )
        except StepFailed as error:  # an operator insisted on a cancel, for example, while the store was away
            state.refuse(state.refused or error.message, code=state.refused_code or error.code, blocked=False)
            return
        if self._direct.begun or collected.lines:
            self._direct.collect(collected)
            stop = self._steering.stop()
            if stop is not None:
                state.stop(stop, asked=False)

    def _empty(self) -> bool:
        """Return whether it has no row to send: the plan refused all of them."""
        return self._direct.answered and not self._direct.rows

    def _end(self) -> AttemptEnd:
        state, collected = self._state, self._direct.collected
        if collected is None:
            return AttemptEnd(
                fate=Fate.EMPTY if self._empty() else Fate.UNSENT,
                record=AttemptRecord(number=state.number, sent=False, mode=Mode.DIRECT),
                refused=state.refused,
                refused_code=state.refused_code,
                blocked=state.blocked,
            )
        absent = _ABSENT[state.stopped] if state.stopped else ErrorClass.MISSING
        return AttemptEnd(
            fate=Fate.RAN,
            record=AttemptRecord(
                number=state.number,
                mode=Mode.DIRECT,
                absent=absent,
                message=_absent_words(absent, state.refused),
                lines=collected.lines,
                repeated=collected.repeated,
            ),
            refused=state.refused,
            refused_code=state.refused_code,
            blocked=state.blocked,
        )


def _absent_words(absent: ErrorClass, refused: str | None) -> str:
    """Return in words what is the matter with rows that have no answer."""
    if refused:
        return f"The rows could not be sent to their end: {refused}"
    return "No answer to this row was kept." if absent is ErrorClass.MISSING else ""
