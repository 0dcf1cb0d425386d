"""What the store knows of batches that Temporal has forgotten: it keeps a workflow for some days after its end only."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Collection

import msgspec
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ..activities.records import decode_plan
from ..activities.store import Entry, Store
from ..contract import BatchProgress, Counts, InvalidSpec, ObjectNotFound, Phase, ShardCounts
from ..contract.layout import plan_path, result_path
from ..contract.names import batch_of, check_batch_id
from .concurrency import concurrently
from .connection import translated
from .execution import stored_result
from .listing import BatchRecord, Status, listing
from .progress import final

#: Batches that are looked up at a time.
_PARALLEL = 8


async def progress(store: Store, batch_id: str) -> BatchProgress | None:
    """Return how a batch ended, by its result; or that it never ended, by its plan; None if its folder has neither.

    Raises:
        StoreError: the store failed.
    """
    ended = await stored_result(store, batch_id)
    if ended is not None:
        return final(ended)
    try:
        check_batch_id(batch_id)
        plan = decode_plan(await store.read(plan_path(batch_id)))
    except (InvalidSpec, ObjectNotFound, msgspec.DecodeError, UnicodeDecodeError):
        return None
    if batch_of(plan.scoped_id) != batch_id:
        return None
    return BatchProgress(
        batch_id=batch_id,
        phase=Phase.POLLING,
        counts=Counts(total=plan.rows),
        shards=ShardCounts(total=plan.shards),
        waiting_for=(
            "Temporal does not know this batch, and its folder in the store has a plan and no result: give the same "
            "requests, options and id again to go on with what it bought"
        ),
    )


async def all_batches(client: Client, store: Store, status: Status | None, limit: int) -> AsyncGenerator[BatchRecord]:
    """Yield the batches that Temporal knows, and then those that it has forgotten, as `BatchClient.list`.

    Raises:
        StoreError: the store failed.
        TemporalUnavailable: Temporal does not answer.
    """
    known = set[str]()
    with translated(client):
        async for record in listing(client, status, limit):
            known.add(record.batch_id)
            yield record
        if status == "running" or len(known) >= limit:
            return
        async with contextlib.aclosing(forgotten(client, store, status, known)) as records:
            async for record in records:
                known.add(record.batch_id)
                yield record
                if len(known) >= limit:
                    return


async def forgotten(
    client: Client, store: Store, status: Status | None, known: Collection[str]
) -> AsyncGenerator[BatchRecord]:
    """Yield the batches that ended and that Temporal does not know, the one that ended last first.

    All names in the store are listed for it; results are read as far as they are asked for.

    Args:
        status: only those that ended so.
        known: batches that Temporal does know.

    Raises:
        RPCError: Temporal does not answer.
        StoreError: the store failed.
    """
    entries = [entry for entry in await store.entries() if entry.path == result_path(_folder(entry.path))]
    left = [entry for entry in entries if _folder(entry.path) not in known]
    left.sort(key=lambda entry: entry.modified, reverse=True)

    async def record(entry: Entry) -> BatchRecord | None:
        ended = await stored_result(store, _folder(entry.path))
        if ended is None or status not in (None, ended.status.value) or await _knows(client, ended.batch_id):
            return None
        return BatchRecord(
            batch_id=ended.batch_id,
            status=ended.status.value,
            provider=None,
            started_at=ended.started_at or ended.ended_at or entry.modified,
            ended_at=ended.ended_at or entry.modified,
            metadata=ended.metadata,
        )

    for first in range(0, len(left), _PARALLEL):
        for found in await concurrently(record, left[first : first + _PARALLEL], _PARALLEL):
            if found is not None:
                yield found


def _folder(path: str) -> str:
    return path.partition("/")[0]


async def _knows(client: Client, batch_id: str) -> bool:
    """Return whether Temporal knows the id: then the listing has shown the batch, or has passed it over on purpose."""
    try:
        await client.get_workflow_handle(batch_id).describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True
