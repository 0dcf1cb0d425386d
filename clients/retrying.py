"""Retrying the rows of a batch that did not succeed, as a new batch.

The retries of a batch are `<id>.retry-1`, `<id>.retry-2`, …: each takes the rows that the one before it has left over,
so what is finished is never bought again, and the last one has nothing but what is left over of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from temporalio.client import Client

from ..activities.left_rows import LeftRows
from ..activities.records import decode_plan
from ..activities.store import Store
from ..contract import (
    BatchNotFound,
    BatchSpec,
    InvalidSpec,
    NotRetryable,
    ObjectNotFound,
)
from ..contract.gateway_layout import Listed, is_id, is_tenant
from ..contract.layout import plan_path
from .connection import translated
from .execution import describe
from .most_cost import MostCost
from .requests import gathered
from .retry_chain import Run, check_last, ending_for_sure, original_of, retry_id, runs_of, with_results
from .start import Started, spec_of, start

#: What a retry does not take over: where the results of the batch go, which are not its own, and its rows.
_LEFT_OUT = ("input", "requests", "output")


@dataclass(frozen=True, kw_only=True)
class Retried(Started):
    """A batch of the rows that another one has left over."""

    retry_of: str  #: The batch that all retries are of.
    rows: int
    #: Rows of the batch before it that it does not take: their plan refused them, and it would again.
    refused: int
    #: What they may cost at most, in USD, their input being estimated; None where a price is not known, the output of a
    #: row has no limit, or another provider runs them.
    most_usd: str | None


async def retry(client: Client, store: Store, batch_id: str, fields: dict[str, Any], task_queue: str) -> Retried:
    """Start the next retry of a batch, or join the one that runs.

    Args:
        batch_id: the batch, or one of its retries.
        fields: of the spec, those that shall differ from the original's.

    Raises:
        as `BatchClient.retry`.
    """
    for name in _LEFT_OUT:
        if name in fields:
            raise InvalidSpec(f"A retry has no {name} of its own: leave it out.")
    original, ended = await original_of(client, store, batch_id)
    tenant, _, outer = original.partition(".")
    if is_tenant(tenant) and is_id(Listed.BATCHES, outer):
        # Its own retries are kept account of there. Rows that were retried in both ways would be bought by both.
        raise NotRetryable(
            f"The batch {original!r} came through the gateway: retry it there, by POST /v1/batches/{outer}/retry."
        )
    if original == batch_id:
        await check_last(client, store, batch_id)
    run = with_results(original, ended)
    spec = await _spec(client, store, run)
    runs = await runs_of(client, store, run)
    last = next(one for one in reversed(runs) if one is not None)
    left = await LeftRows.open(store, last.id, last.folder(store))
    given = {**spec, **fields}
    cost = MostCost(left.plan, given) if given["provider"] == spec["provider"] else None
    with tempfile.TemporaryDirectory(prefix="durabatch-") as folder:
        file = Path(folder, "retry.jsonl")
        await asyncio.to_thread(_write, left, cost, file)
        if not left.rows:
            raise NotRetryable(_nothing(original, left.refused))
        async with gathered(file, store) as rows:
            started = await start(client, store, rows, given, retry_id(original, len(runs)), task_queue)
    if started.ended and not started.created:
        with_results(started.id, await ending_for_sure(client, store, started.id))
    most = cost.usd if cost else None
    return Retried(**vars(started), retry_of=original, rows=left.rows, refused=left.refused, most_usd=most)


def _write(left: LeftRows, cost: MostCost | None, file: Path) -> None:
    with file.open("wb") as out:
        for line in left.lines():
            out.write(line)
            if cost is not None:
                cost.add(line)


async def _spec(client: Client, store: Store, run: Run) -> dict[str, Any]:
    """Return the fields of a batch's spec that its retries take over."""
    spec: dict[str, Any] | None = None
    with contextlib.suppress(ObjectNotFound, msgspec.MsgspecError):
        spec = decode_plan(await store.read(plan_path(run.folder(store)))).spec or None
    if spec is None:
        found: BatchSpec | None = None
        with contextlib.suppress(BatchNotFound), translated(client, run.id):
            found = await spec_of(client, await describe(client, run.id))
        if found is None:
            raise NotRetryable(
                f"Nobody knows any more what the batch {run.id!r} was asked for: give the requests of its errors "
                "again, as a new batch."
            )
        spec = found.model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in spec.items() if name not in _LEFT_OUT}


def _nothing(batch_id: str, refused: int) -> str:
    if refused:
        rows = f"{refused:,} row{'s' * (refused != 1)}"
        return (
            f"The batch {batch_id!r} has nothing to retry: the {rows} that did not succeed cannot be sent, as the "
            "results say. Correct them, and give them as a new batch."
        )
    return f"The batch {batch_id!r} has nothing to retry: every row has succeeded."
