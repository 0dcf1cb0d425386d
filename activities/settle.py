"""Settle: account for every row of a shard; choose rows to try again, or write the results in input order."""

from __future__ import annotations

from ..contract.steps import SETTLE, Settled, SettleRequest
from .claims import may_be_bought
from .lease import Lease
from .records import read_picked, read_shard
from .resources import Resources
from .settlement import Settlement
from .step import in_thread, step


class Settle:
    """The step that makes promise G2 true: every row once."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(SETTLE, long=True)
    async def settle(self, request: SettleRequest, lease: Lease) -> Settled:
        """Return the shard's accounts after its newest attempt.

        Where rows are worth another try and another attempt may follow, they are written down for it. So they are where
        none is to follow, but a run of the workflow before a reset may have bought the next one: that is to be found,
        and cancelled if it still runs. Otherwise the shard's results are written: exactly one row per request.

        Raises:
            AccountingError: the rows do not add up.
        """
        store, attempt = self._resources.store, request.attempt
        await self._resources.home(attempt)
        record = await read_shard(store, attempt)
        sent = [
            (past, await read_picked(store, attempt.model_copy(update={"number": past.number})))
            for past in request.attempts
            if past.provider_batch_id is not None
        ]
        following = attempt.model_copy(update={"number": attempt.number + 1})
        retries = request.unfinished is None or await may_be_bought(store, following)
        accounts = Settlement(
            store,
            self._resources.provider(attempt.provider),
            self._resources.prices(attempt.provider),
            request,
            record,
            sent,
            retries,
            lease,
        )
        async with self._resources.row_work:
            return await in_thread(lease, accounts.settle)
