"""Settle: account for every row of a shard; choose rows to try again, or write the results in input order."""

from __future__ import annotations

import contextlib

import msgspec

from ..contract import Mode
from ..contract.errors import ObjectNotFound
from ..contract.layout import plan_path
from ..contract.steps import SETTLE, Attempt, Settled, SettleRequest
from .attempt_rows import AttemptRows, Bought
from .budget import Budget
from .lease import Lease
from .notes import noted_digests, noted_mode
from .records import ShardRecord, decode_plan, read_shard
from .resources import Resources
from .settlement import Settlement
from .step import in_thread, step
from .store import Store


class Settle:
    """The step that makes promise G2 true: every row once."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(SETTLE, long=True)
    async def settle(self, request: SettleRequest, lease: Lease) -> Settled:
        """Return the shard's accounts after its newest attempt.

        Where rows are worth another try and another attempt may follow, they are written down for it. Where another run
        of the batch (it was reset, or terminated) may have bought the next attempt, that one is to be found with the
        rows that it was bought with, whatever would be chosen now, and whether or not another one may follow: other
        rows under its number would be bought beside it. Otherwise the shard's results are written: exactly one row per
        request.

        Raises:
            AccountingError: the rows do not add up.
        """
        store, attempt = self._resources.store, request.attempt
        await self._resources.batch_folder(attempt)
        shard = await read_shard(store, attempt)
        sent = [
            (past, await AttemptRows.read(store, attempt.model_copy(update={"number": past.number}), shard))
            for past in request.attempts
            if past.sent
        ]
        following = attempt.model_copy(update={"number": attempt.number + 1})
        settlement = Settlement(
            store,
            self._resources.provider(attempt.provider),
            self._resources.prices(attempt.provider),
            request,
            shard,
            sent,
            await _bought(store, following, shard),
            await self._budget(request, shard),
            lease,
        )
        async with self._resources.row_work:
            return await in_thread(lease, settlement.settle)

    async def _budget(self, request: SettleRequest, shard: ShardRecord) -> Budget | None:
        """Return what may be spent on finishing the shard directly; None where nothing limits it."""
        if request.max_cost_usd is None or request.retry.on_expired is not Mode.DIRECT:
            return None
        attempt, store = request.attempt, self._resources.store
        plan = decode_plan(await store.read(plan_path(store.path(attempt.root))))
        prices = self._resources.prices(attempt.provider)
        return Budget(limit=request.max_cost_usd, prices=prices, batch=plan.tokens, shard=shard.models)


async def _bought(store: Store, attempt: Attempt, shard: ShardRecord) -> Bought | None:
    """Return how an attempt may have been bought, by any run of its batch; None if it was not.

    Rows of another plan, of an input that has changed since for example, do not count.
    """
    if digests := await noted_digests(store, attempt):
        with contextlib.suppress(ObjectNotFound, msgspec.MsgspecError):
            rows = await AttemptRows.read(store, attempt, shard)
            if rows.digest in digests:
                return Bought(rows=rows.picked or [], mode=await noted_mode(store, attempt))
    return None
