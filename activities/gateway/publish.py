"""Publish: a batch's results become files of its tenant's, and its index says how it has ended."""

from __future__ import annotations

import contextlib
import hashlib
import time
from functools import partial
from typing import NamedTuple

from temporalio import activity

from ...contract import AccountingError, BatchResult, StoreError
from ...contract.gateway import FileRecord
from ...contract.gateway_analytics import Analytics
from ...contract.gateway_batch import (
    OUTPUT_FAILED,
    PUBLISH,
    BatchEntry,
    BatchObject,
    GatewayBatch,
    Published,
    PublishRequest,
    Shape,
)
from ...contract.gateway_layout import Listed, analytics_path, content_path, deleted_path, index_path, make_id
from ..lease import Lease
from ..lines import split_lines
from ..manifest import stream_results
from ..prices import picodollars
from ..resources import Resources
from ..step import in_thread, step
from ..store import Store, Writer
from ..webhooks.announce import queue_events, wake
from .expiry import note_end
from .files import find, register
from .intake import read_entry
from .messages import write_messages
from .output import Lines
from .spending import settle

_PURPOSE = "batch_output"


class _File(NamedTuple):
    """One of the two files that a batch ends with."""

    id: str
    name: str
    rows: int


class GatewayPublish:
    """The step that ends a batch of the gateway's."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(PUBLISH, long=True)
    async def publish(self, request: PublishRequest, lease: Lease) -> Published:
        """Write output and error file, where there are rows for them, and then the batch as it stays.

        The same request makes the same files again. What an earlier run of the workflow has published stays.

        Raises:
            AccountingError: the results do not have the rows that they are said to have.
            StoreError: the store failed, or the results are damaged or gone.
        """
        store, batch, shown = self._resources.store, request.batch, request.object
        before = await read_entry(store, batch)
        if before.published and before.final is not None:
            await self._announce(batch.tenant, before.final)  # it may have been killed before it did
            return Published(object=before.final)
        outcomes = None
        if batch.shape is Shape.ANTHROPIC:
            if await store.entry(deleted_path(batch.tenant, batch.id)) is not None:
                return Published(object=shown)  # by its owner, since an earlier try of this step published it
            work = partial(write_messages, store, batch, shown, request.result, request.translated, lease)
            async with self._resources.row_work:
                outcomes = await in_thread(lease, work)
        elif request.result is not None and request.result.results is not None:
            shown = await self._write_files(request, request.result, lease)
        await lease.hold()  # a workflow that was reset may be at work on it
        # One whose results cannot be written is published once they can.
        published = all(error.code != OUTPUT_FAILED for error in (shown.errors.data if shown.errors else ()))
        if published and batch.limits.max_cost_usd_per_day is not None:
            await _settle(store, batch, request.result)
        if (result := request.result) is not None and batch.shape is Shape.OPENAI:
            await store.write(analytics_path(batch.tenant, batch.id), figures(shown, result).model_dump_json().encode())
        await note_end(store, batch.tenant, batch.id)
        entry = BatchEntry(request=batch, intake=before.intake, final=shown, published=published, outcomes=outcomes)
        await store.write(index_path(batch.tenant, batch.id), entry.model_dump_json().encode())
        await self._announce(batch.tenant, shown)
        return Published(object=shown)

    async def _announce(self, tenant: str, shown: BatchObject) -> None:
        """Queue the events of a batch that has ended, and have them delivered.

        Raises:
            StoreError: the store failed.
        """
        for endpoint in await queue_events(self._resources.store, self._resources.webhooks, tenant, shown):
            queue = activity.info().task_queue
            await wake(activity.client(), queue, tenant, endpoint, self._resources.heartbeat)

    async def _write_files(self, request: PublishRequest, result: BatchResult, lease: Lease) -> BatchObject:
        """Write output and error file, and return the batch with them."""
        store, batch, shown = self._resources.store, request.batch, request.object
        output, error = _files(request, result)
        async with self._resources.row_work:
            sizes, answered = await in_thread(lease, partial(_write, store, request, result, output, error, lease))
        for file, size in zip((output, error), sizes, strict=True):
            if file.rows:
                known = await find(store, batch.tenant, file.id)  # of an earlier try of this step
                created_at = known.created_at if known is not None else int(time.time())
                await register(store, batch.tenant, _record(request, file, size, created_at))
        if not answered and error.rows:
            shown = shown.as_failed()  # the provider refused them all unread: a wrong key, for example
        files = {
            "output_file_id": output.id if output.rows else None,
            "error_file_id": error.id if error.rows else None,
        }
        return shown.model_copy(update=files)


def figures(shown: BatchObject, result: BatchResult) -> Analytics:
    """Return the figures of a batch that has ended."""
    return Analytics.of(
        shown,
        usage=result.usage,
        cost_usd=result.cost_usd,
        list_cost_usd=result.list_cost_usd,
        unpriced=result.unpriced.total,
        models=result.models,
        classes=result.error_classes,
    )


async def _settle(store: Store, batch: GatewayBatch, result: BatchResult | None) -> None:
    """Count what a batch has cost; where that is not known, what it might have cost stays counted."""
    unbought = result is None or not (result.results or result.provider_batches)
    cost = "0" if result is None or unbought else result.cost_usd
    if cost is not None:
        await settle(store, batch.tenant, batch.id, picodollars(cost))


def _files(request: PublishRequest, result: BatchResult) -> tuple[_File, _File]:
    """Return the two files, by ids that a repeated step makes again."""
    succeeded = result.counts.succeeded

    def file(which: str, rows: int) -> _File:
        digest = hashlib.sha256(f"{request.batch.tenant}/{request.batch.id}/{which}".encode()).hexdigest()
        return _File(make_id(Listed.FILES, request.now, digest), f"{request.batch.id}_{which}.jsonl", rows)

    return file("output", succeeded), file("error", result.counts.total - succeeded)


def _record(request: PublishRequest, file: _File, size: int, created_at: int) -> FileRecord:
    # From here on its `output_expires_after` counts, as at OpenAI, and not from the batch's end: a file that could only
    # be written long after that is not gone at once.
    kept = request.batch.output_expires_seconds
    return FileRecord(
        id=file.id,
        bytes=size,
        created_at=created_at,
        filename=file.name,
        purpose=_PURPOSE,
        expires_at=None if kept is None else created_at + kept,
    )


def _write(
    store: Store, request: PublishRequest, result: BatchResult, output: _File, error: _File, lease: Lease
) -> tuple[tuple[int, int], int]:
    """Write the content of both files; return their sizes in bytes, and how many rows were answered. Blocks."""
    tenant, uri = request.batch.tenant, result.results or ""
    made = Lines(request.batch.id, int(request.now.timestamp()), translated=request.translated)
    written = {True: 0, False: 0}
    with contextlib.ExitStack() as stack:
        writers: dict[bool, Writer] = {
            ok: stack.enter_context(store.writer(content_path(tenant, file.id)))
            for ok, file in ((True, output), (False, error))
            if file.rows
        }
        for number, line in enumerate(split_lines(stream_results(store, uri)), 1):
            if not number % 1024:
                lease.check()
            try:
                ok, data = made.line(line)
            except ValueError:
                raise StoreError(f"Line {number} of {uri} is no result row: bring the file back as it was.") from None
            if ok in writers:
                writers[ok].write(data)
            written[ok] += 1
            lease.rows = number
        if written != {True: output.rows, False: error.rows}:
            raise AccountingError(
                f"{uri} has {written[True]:,} rows that succeeded and {written[False]:,} others, and "
                f"{output.rows:,} and {error.rows:,} were written there."
            )
    sizes = {ok: writer.bytes_written for ok, writer in writers.items()}
    return (sizes.get(True, 0), sizes.get(False, 0)), made.answered
