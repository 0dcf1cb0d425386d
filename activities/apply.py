"""Apply: join the shards' results in input order, or list them; add up the accounts, and write the result down."""

from __future__ import annotations

import asyncio
from functools import partial

from ..contract import AccountingError, Counts, DirectShare, StoreError, Usage
from ..contract.layout import (
    ERRORS,
    RESULTS,
    SHARDS,
    manifest_path,
    part_name,
    result_path,
    results_path,
    settled_path,
)
from ..contract.steps import APPLY, FINISH, Applied, ApplyRequest, FinishRequest
from .lease import Lease
from .manifest import Part, write_manifest
from .model_shares import add_models
from .prices import dollars, picodollars
from .records import SettledRecord
from .resources import Resources
from .step import in_thread, step

#: Shards that are looked at at a time: one after another, 10,000 of them would take minutes in a bucket.
_AT_ONCE = 32


class Apply:
    """The steps from settled shards to a finished batch."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(APPLY, long=True)
    async def apply(self, request: ApplyRequest, lease: Lease) -> Applied:
        """Write results.jsonl and errors.jsonl, or a manifest for each, and return the batch's accounts.

        Raises:
            AccountingError: the shards together do not have the rows that the plan has.
        """
        await self._resources.batch_folder(request)
        total = Applied(results="", errors="", counts=Counts(), usage=Usage(), cost_usd="0", list_cost_usd="0")
        results: list[Part] = []
        errors: list[Part] = []
        for first in range(0, request.shards, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, request.shards))
            found = await asyncio.gather(*(self._shard(request.root, number) for number in numbers))
            for settled, rows, failed in found:
                total = _add(total, settled)
                results.append(rows)
                errors.append(failed)
            lease.rows = total.counts.total
        if not total.counts.total == total.counts.settled == request.rows:
            raise AccountingError(
                f"The plan has {request.rows:,} rows, the shards {total.counts.total:,}, and "
                f"{total.counts.settled:,} of them have ended."
            )
        if total.unpriced.total and total.list_cost_usd == "0":
            # Nothing is known, which is not to say that it was free.
            direct = total.direct and total.direct.model_copy(update={"cost_usd": None})
            total = total.model_copy(update={"cost_usd": None, "list_cost_usd": None, "direct": direct})
        await self._resources.batch_folder(request)  # again, as reading many shards takes a while
        joins = sum(part.bytes for part in results) <= self._resources.results_file_bytes
        write = self._join if joins else self._list
        return total.model_copy(
            update={
                "results": await write(request.root, RESULTS, results, lease),
                "errors": await write(request.root, ERRORS, errors, lease),
            }
        )

    async def _shard(self, root: str, number: int) -> tuple[SettledRecord, Part, Part]:
        """Return a shard's accounts, and what it adds to the results and to the errors."""
        path = self._resources.store.path(root)
        settled = SettledRecord.model_validate_json(await self._resources.store.read(settled_path(path, number)))
        rows = settled.counts.total
        return (
            settled,
            Part(part_name(number, RESULTS), rows, settled.results_bytes),
            Part(part_name(number, ERRORS), rows - settled.counts.succeeded, settled.errors_bytes),
        )

    async def _join(self, root: str, name: str, parts: list[Part], lease: Lease) -> str:
        """Join the parts into one file, and return its URI."""
        store, folder = self._resources.store, self._resources.store.path(root)
        path = results_path(folder, name)

        def report(count: int) -> None:
            lease.bytes += count
            lease.check()

        sources = [f"{folder}/{part.path}" for part in parts]
        found = await in_thread(lease, partial(store.concat, path, sources, report))
        settled = sum(part.bytes for part in parts)
        if found != settled:
            raise StoreError(
                f"The shards' {name} have {found:,} bytes below {store.uri(folder)}/{SHARDS}, and {settled:,} were "
                "written there: bring the changed files back."
            )
        return store.uri(path)

    async def _list(self, root: str, name: str, parts: list[Part], lease: Lease) -> str:
        """Leave the parts where they are, and return the URI of their list."""
        store = self._resources.store
        path = manifest_path(store.path(root), name)
        await write_manifest(store, path, parts)
        return store.uri(path)

    @step(FINISH)
    async def finish(self, request: FinishRequest, lease: Lease) -> None:
        """Write result.json."""
        path = result_path(await self._resources.batch_folder(request))
        await lease.hold()  # a batch that was reset meanwhile may be buying something, which this result leaves out
        await self._resources.store.write(path, request.result.model_dump_json(indent=2).encode() + b"\n")


def _add(total: Applied, shard: SettledRecord) -> Applied:
    classes = dict(total.classes)
    for name, rows in shard.classes.items():
        classes[name] = classes.get(name, 0) + rows
    return total.model_copy(
        update={
            "counts": total.counts + shard.counts,
            "usage": total.usage + shard.usage,
            "cost_usd": _sum(total.cost_usd, shard.cost_usd),
            "list_cost_usd": _sum(total.list_cost_usd, shard.list_cost_usd),
            "unpriced": total.unpriced + shard.unpriced,
            "strays": total.strays + shard.strays,
            "repeated": total.repeated + shard.repeated,
            "direct": _direct(total.direct, shard.direct),
            "classes": classes,
            "models": add_models(total.models, shard.models),
        }
    )


def _direct(one: DirectShare | None, other: DirectShare | None) -> DirectShare | None:
    if one is None or other is None:
        return one or other
    return DirectShare(rows=one.rows + other.rows, cost_usd=_sum(one.cost_usd, other.cost_usd))


def _sum(one: str | None, other: str | None) -> str:
    """Add two amounts, as far as they are known."""
    return dollars(sum(picodollars(amount) for amount in (one, other) if amount is not None))
