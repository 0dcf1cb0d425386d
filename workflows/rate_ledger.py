"""RatesWorkflow: the rate of one account and model in direct mode, leased to worker processes a few seconds at a time.

It begins with the first ask (an Update that starts it) and ends when nobody has asked for a while. Its Updates never
wait: each is answered in the workflow task that brings it, so a worker that is alone costs six of them a minute.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.exceptions import ApplicationError

from ..contract.rates import RATES_WORKFLOW, RateAsk, RateLease, RatesCarried, RatesStart, RatesView
from .rate_shares import RateShares
from .steering import history_is_long

#: How often it looks whether anybody has asked.
ROUND = timedelta(minutes=5)
#: The longest lease that the ledger before this one may have given out. That one was ended from outside, so nobody
#: knows who has one.
LONGEST = timedelta(seconds=75)


# A wrong start by hand fails instead of being stuck.
@workflow.defn(name=RATES_WORKFLOW, failure_exception_types=[ValidationError])
class RatesWorkflow:
    """One account's rate for one model."""

    # The Update that starts it is handled before run() begins, so everything is there from the first moment.
    @workflow.init
    def __init__(self, start: RatesStart | None = None, carried: RatesCarried | None = None) -> None:
        self._start = RatesStart.model_validate(start or {})
        before = None if carried is None else RatesCarried.model_validate(carried)
        if before is None and self._start.ended_at is not None:
            # Both times are the server's: when it closed the ledger before, and now.
            before = RatesCarried(quiet_until=(self._start.ended_at + LONGEST).timestamp())
        self._shares = RateShares(before)
        self._time = 0.0
        self._asked = False
        self._over = False

    @workflow.update(description="Ask what may be used: a RateAsk. It is never kept waiting.")
    def lease(self, ask: Any = None, *ignored: Any) -> RateLease:
        self._asked = True
        lease = self._shares.lease(RateAsk.model_validate(ask), self._now())
        workflow.set_current_details(self._details())
        return lease

    # What is refused here leaves nothing in history.
    @lease.validator
    def check(self, ask: Any = None, *ignored: Any) -> None:
        RateAsk.model_validate(ask)

    @workflow.signal(description="Give everything back: the worker's name. It needs no worker to be taken.")
    def release(self, worker: Any = None, *ignored: Any) -> None:
        self._shares.release(str(worker))

    @workflow.query(description="The limits, what each worker may use and uses, and who waits")
    def rates(self) -> RatesView:
        now = self._now()
        return RatesView(
            account=self._start.account,
            provider=self._start.provider,
            model=self._start.model,
            limits=self._shares.limits(now),
            configured=self._shares.configured(),
            factor=round(self._shares.factor(now), 3),
            workers=self._shares.views(now),
        )

    @workflow.run
    async def run(self, start: RatesStart | None = None, carried: RatesCarried | None = None) -> None:
        if not self._start.account:
            raise ApplicationError("A rate ledger is started by the workers that need it.", non_retryable=True)
        rounds = asyncio.create_task(self._look_around())
        await workflow.wait_condition(lambda: self._over or history_is_long())
        rounds.cancel()
        await workflow.wait_condition(workflow.all_handlers_finished)
        if not self._shares.idle(self._now()):
            passed_on = self._shares.carried(self._now()).model_dump(mode="json", exclude_defaults=True)
            workflow.continue_as_new(args=[self._start, passed_on])

    async def _look_around(self) -> None:
        """End it when nobody has asked for a whole round, so that no lease can be in use any more."""
        while not self._over:
            self._asked = False
            await workflow.sleep(ROUND, summary="does anybody still ask?")
            self._over = not self._asked and self._shares.idle(self._now())

    def _now(self) -> float:
        # A server's clock may be set back, and leases would seem to last for ever.
        self._time = max(self._time, workflow.time())
        return self._time

    def _details(self) -> str:
        start, now = self._start, self._now()
        limits = self._shares.limits(now)
        return (
            f"Account `{start.account}` of provider `{start.provider}`, model `{start.model}`\n\n"
            f"- a minute: {_shown(limits.requests_per_minute)} requests, {_shown(limits.tokens_per_minute)} tokens\n"
            f"- in flight: {_shown(limits.slots)} calls\n"
            f"- {len(self._shares.views(now)):,} workers share them"
        )


def _shown(limit: float | None) -> str:
    return "any number of" if limit is None else f"{limit:,.0f}"
