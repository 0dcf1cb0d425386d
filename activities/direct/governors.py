"""The governors of one worker process: one for each account and model whose rows it sends."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

from temporalio import activity

from ...contract.ledger import MIXED
from ...contract.rates import RateLimits, RatesStart
from ..providers.settings import ProviderSettings
from .governor import Governor
from .lane import Lane
from .rate_lease import RateLedger, TemporalLedger

#: Seconds that a lease lasts; where workers are believed to be alive for less than 20 s of silence, 1.5 times that.
LEASE = 30.0


class Governors:
    """All rates that this process has a share of.

    Args:
        heartbeat: how long a silent worker is believed to be alive.
        ledger_of: returns who leases a rate; by default the ledger workflow, by the activity's own client.
    """

    def __init__(self, heartbeat: timedelta, ledger_of: Callable[[RatesStart], RateLedger] | None = None) -> None:
        self._ledger_of = ledger_of or _temporal_ledger
        self._ttl = max(3.0, min(LEASE, 1.5 * heartbeat.total_seconds()))
        self._governors: dict[tuple[str, str, str], Governor] = {}

    @contextlib.asynccontextmanager
    async def lane(
        self,
        settings: ProviderSettings,
        account: str,
        model: str,
        *,
        priority: int = 3,
        fairness_key: str = "",
        batch: str = "",
    ) -> AsyncIterator[Lane]:
        """Open a lane for one running attempt, in an activity; calls that it has left open count as done at its end.

        Args:
            settings: the provider's.
            account: digest of the provider's account.
            model: whose rate it is; "" for rows that name several.
            priority: 1 comes first, 5 last.
            fairness_key: batches with one key share one turn; a batch without one is its own.
            batch: the batch's id.
        """
        # Two providers of one account share its ledger, which goes by the lower limits; each asks by its own.
        key = (account, model, settings.name)
        if key not in self._governors:
            of = RatesStart(account=account, provider=settings.name, model=model or MIXED)
            ledger = self._ledger_of(of)
            self._governors[key] = Governor(
                ledger,
                RateLimits(
                    requests_per_minute=settings.requests_per_minute,
                    tokens_per_minute=settings.tokens_per_minute,
                    slots=settings.max_concurrent_requests,
                ),
                used=settings.counts == "used",
                ttl=self._ttl,
                label=ledger.label,
                what=f"provider {settings.name}, model {model}" if model else f"provider {settings.name}",
            )
        governor = self._governors[key]
        lane = governor.join(priority, fairness_key, batch)
        try:
            yield lane
        finally:
            governor.leave(lane)

    async def close(self) -> None:
        """Stop asking, and give every share back."""
        governors, self._governors = list(self._governors.values()), {}
        for governor in governors:
            await governor.close()


def _temporal_ledger(of: RatesStart) -> RateLedger:
    return TemporalLedger(activity.client(), activity.info().task_queue, of)
