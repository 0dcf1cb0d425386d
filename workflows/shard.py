"""The life of a shard: one attempt after another, each settled, until no row is worth another try."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow

from ..contract import BatchSpec, ErrorClass, Mode, Phase, RowStatus
from ..contract.steps import SETTLE, Attempt, PlanSummary, Settled, SettleRequest
from .attempt import AttemptContext, AttemptRun
from .attempt_state import AttemptEnd, Fate
from .batch_mode import BatchMode
from .decisions import direct_margin, outage_delay, refused_class
from .direct_mode import DirectMode
from .state import ShardOutcome, ShardState, Untidy
from .steering import LONG, Steering

#: Provider batches that the provider may lose before a shard gives up.
MAX_VANISHED = 3
#: A whole shard's rows are refused when the provider's queue had no room for it this often in a row (10 minutes each).
MAX_WAITS = 1000


class Shard:
    """One shard on its way.

    Args:
        state: how far it has come; changed as it goes on.
        changed: called when something that the progress shows has changed.
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
        self._state = state
        self._changed = changed

    async def run(self) -> ShardOutcome:
        """Bring every row of the shard to its end."""
        while True:
            end = self._state.end or await self._run_attempt()
            settled = await self._settle(end)
            if not settled.retry_rows:
                if settled.too_dear:
                    self._state.refuse(settled.too_dear, blocked=False)
                return self._outcome(settled)
            if end.fate is Fate.NO_ROOM:
                delay = outage_delay(self._state.waits + 3, None)
                await self._steering.pause(delay, f"The provider's queue has no room: {end.reason}.")
            self._state.begin_attempt(settled.retry_rows, only_if_bought=settled.only_if_bought, mode=settled.mode)
            await self._steering.checkpoint()

    async def _run_attempt(self) -> AttemptEnd:
        """Run the attempt under way to its end, and clear up after it."""
        run = self._mode()
        end = await run.run()
        while self._goes_on_directly(run) or self._goes_on_unsent(end) or self._goes_on_late(end):
            if self._state.attempt.mode is Mode.DIRECT and isinstance(run, BatchMode):
                if not await run.tidy():
                    self._state.leave_untidy()
                run = self._mode()
            await self._steering.checkpoint()
            end = await run.run()
        self._steering.end_early(timedelta(0))
        self._state.close(end)
        if not await run.tidy():
            self._state.leave_untidy()
        return end

    def _mode(self) -> AttemptRun:
        """Return how the attempt is run."""
        attempt, again = self._state.attempt, bool(self._state.records)
        context = AttemptContext(self._here(), attempt, self._spec, self._plan, self._steering, self._changed, again)
        if (attempt.mode or self._plan.provider.mode) is Mode.DIRECT:
            self._steering.end_early(timedelta(0))
            return DirectMode(context)
        if self._spec.retry.on_expired is Mode.DIRECT:
            self._steering.end_early(direct_margin(self._spec.deadline))
        return BatchMode(context)

    def _goes_on_directly(self, run: AttemptRun) -> bool:
        """Return whether another run of the batch has run the attempt directly: what is kept is not bought again."""
        return self._state.attempt.mode is Mode.DIRECT and isinstance(run, BatchMode)

    def _goes_on_late(self, end: AttemptEnd) -> bool:
        """Go on with an attempt that came too near to the deadline to be sent as a provider batch; return whether so.

        Its rows are run directly, in the same attempt. But if a create of it may still be on its way, or that would
        cost too much, it goes on as a provider batch, until the deadline itself.
        """
        late = self._steering.deadline_at <= workflow.now() < self._steering.last_deadline_at
        attempt = self._state.attempt
        if end.fate is not Fate.UNSENT or end.refused is not None or attempt.only_if_bought:
            return False
        if not late or self._steering.cancel is not None:
            return False
        if attempt.doubt or not self._plan.direct_affordable:
            self._steering.end_early(timedelta(0))
        else:
            attempt.turn_direct()
        return True

    def _goes_on_unsent(self, end: AttemptEnd) -> bool:
        """Renew a deadline that kept the attempt from being sent, where the spec says so; return whether it did.

        The same attempt goes on, and whatever doubt there is about its create. As another attempt, its rows could be
        bought under two numbers: a later run of the batch looks for the lower one first, finds nothing, and buys it.
        """
        if end.fate is not Fate.UNSENT or self._state.attempt.only_if_bought or not self._renews_deadline(end):
            return False
        self._state.try_once_more()
        return True

    def _renews_deadline(self, end: AttemptEnd) -> bool:
        """Renew a deadline that has passed, where the spec says so and another try is left; return whether it did."""
        passed = self._steering.stop() is RowStatus.EXPIRED
        if not (passed and self._spec.retry.after_deadline and self._may_retry(end)):
            return False
        self._steering.renew_deadline(self._spec.deadline)
        return True

    async def _settle(self, end: AttemptEnd) -> Settled:
        """Account for every row."""
        self._changed(Phase.SETTLING)
        self._renews_deadline(end)
        unfinished = self._steering.stop()
        if unfinished is None and not self._may_retry(end):
            unfinished = RowStatus.FAILED
        request = SettleRequest(
            attempt=self._here(),
            attempts=self._state.records,
            retry=self._spec.retry,
            max_cost_usd=None if self._spec.max_cost_usd is None else str(self._spec.max_cost_usd),
            unfinished=unfinished,
            message=self._state.refused,
            kind=refused_class(self._state.refused_code),
        )
        return await self._steering.call(SETTLE, request, summary=f"settle shard {self._state.shard}", timeout=LONG)

    def _may_retry(self, end: AttemptEnd) -> bool:
        """Return whether another attempt may follow this one."""
        state = self._state
        if end.refused is not None:
            return False
        if end.fate is Fate.NO_ROOM:
            return state.waits < MAX_WAITS
        if end.fate is Fate.VANISHED and state.vanished < MAX_VANISHED:
            return True
        # What a provider batch has left over is finished directly even if it was the last attempt of its kind.
        expired = end.record.mode is Mode.BATCH and end.record.absent is ErrorClass.EXPIRED
        if expired and end.record.sent and self._spec.retry.on_expired is Mode.DIRECT:
            return True
        return state.tries < self._spec.retry.max_attempts

    def _outcome(self, settled: Settled) -> ShardOutcome:
        state = self._state
        return ShardOutcome(
            settled=settled,
            batches=state.batches,
            error=state.refused,
            error_code=state.refused_code,
            untidy=tuple(Untidy(shard=state.shard, number=number) for number in state.untidy),
            blocked=state.blocked,
            bought=state.bought,
        )

    def _here(self) -> Attempt:
        return self._plan.attempt(self._batch_id, self._state.shard, self._state.attempt.number)
