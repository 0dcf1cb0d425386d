"""Apply: join the shards into one results file in input order, add up the accounts, and write the result down."""

from __future__ import annotations

from functools import partial

from ..contract import AccountingError, Counts, Usage
from ..contract.names import shard_folder
from ..contract.steps import APPLY, FINISH, Applied, ApplyRequest, FinishRequest, Settled
from ._boundary import Pulse, in_thread, step
from .prices import dollars, picodollars
from .resources import Resources


class Apply:
    """The steps from settled shards to a finished batch."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(APPLY)
    async def apply(self, request: ApplyRequest, pulse: Pulse) -> Applied:
        """Write results.jsonl and errors.jsonl, and return the batch's accounts.

        Raises:
            AccountingError: the shards together do not have the rows that the plan has.
        """
        store, root = self._resources.store, self._resources.store.path(request.root)
        folders = [f"{root}/{shard_folder(number)}" for number in range(request.shards)]
        total = Applied(results=store.uri(f"{root}/results.jsonl"), errors=store.uri(f"{root}/errors.jsonl"),
                        counts=Counts(), usage=Usage(), cost_usd="0", list_cost_usd="0")  # fmt: skip
        for folder in folders:
            total = _add(total, Settled.model_validate_json(await store.read(f"{folder}/settled.json")))
        if not total.counts.total == total.counts.settled == request.rows:
            raise AccountingError(
                f"The plan has {request.rows:,} rows, the shards {total.counts.total:,}, and "
                f"{total.counts.settled:,} of them have ended."
            )
        for name in ("results.jsonl", "errors.jsonl"):
            parts = [f"{folder}/{name}" for folder in folders]
            await in_thread(pulse, partial(store.concat, f"{root}/{name}", parts))
        return total

    @step(FINISH)
    async def finish(self, request: FinishRequest, pulse: Pulse) -> None:
        """Write result.json."""
        path = f"{self._resources.store.path(request.root)}/result.json"
        await self._resources.store.write(path, request.result.model_dump_json(indent=2).encode() + b"\n")


def _add(total: Applied, shard: Settled) -> Applied:
    classes = dict(total.classes)
    for name, rows in shard.classes.items():
        classes[name] = classes.get(name, 0) + rows
    return total.model_copy(
        update={
            "counts": total.counts + shard.counts,
            "usage": total.usage + shard.usage,
            "cost_usd": _sum(total.cost_usd, shard.cost_usd),
            "list_cost_usd": _sum(total.list_cost_usd, shard.list_cost_usd),
            "strays": total.strays + shard.strays,
            "classes": classes,
        }
    )


def _sum(one: str | None, other: str | None) -> str | None:
    """Add two amounts; an unknown one makes the sum unknown."""
    return None if one is None or other is None else dollars(picodollars(one) + picodollars(other))
