"""The rows of an attempt as the provider takes them: straight from the input where nothing changes, else rewritten."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

from ..contract import AccountingError, BatchSpec
from ..contract.steps import Attempt
from ._boundary import Pulse, in_thread
from .providers import Content, Provider
from .records import IndexRow, ShardRecord, attempt_digest, index_path, read_index
from .rows import parse
from .store import Store

#: Bytes read at a time on the way to the provider.
CHUNK = 1 << 20


def file_prefix(attempt: Attempt) -> str:
    """Return how the names of an attempt's files begin. No batch id has a tilde, so no two attempts share one."""
    return f"durabatch~{attempt.batch_id}~{attempt.shard}~{attempt.number}~"


def file_name(attempt: Attempt, digest: str, generation: int) -> str:
    """Return the deterministic name of an upload."""
    return f"{file_prefix(attempt)}{digest}~g{generation}.jsonl"


@contextlib.asynccontextmanager
async def open_content(
    store: Store,
    provider: Provider,
    attempt: Attempt,
    spec: BatchSpec,
    record: ShardRecord,
    picked: list[int] | None,
    generation: int,
    pulse: Pulse,
) -> AsyncIterator[Content]:
    """Open an attempt's rows for sending."""
    name = file_name(attempt, attempt_digest(record, picked), generation)
    unchanged = record.verbatim and picked is None and provider.capabilities.keeps_ids
    if unchanged:
        source = _counted(store.stream(record.input, record.start, record.end, CHUNK), pulse)
        yield Content(name=name, size=record.end - record.start, chunks=_async(source))
        return
    with tempfile.TemporaryFile(prefix="durabatch-upload-") as spool:
        await in_thread(pulse, lambda: _write(spool, store, provider, attempt, spec, record, picked, pulse))
        size = spool.tell()
        spool.seek(0)
        yield Content(name=name, size=size, chunks=_async(_counted(iter(lambda: spool.read(CHUNK), b""), pulse)))


def _write(
    spool: BinaryIO,
    store: Store,
    provider: Provider,
    attempt: Attempt,
    spec: BatchSpec,
    record: ShardRecord,
    picked: list[int] | None,
    pulse: Pulse,
) -> None:
    index = index_path(store.path(attempt.root), attempt.shard)
    wanted = None if picked is None else set(picked)
    rows = (
        (number, row)
        for number, row in enumerate(read_index(store, index))
        if row.refusal is None and (wanted is None or number in wanted)
    )
    first = True
    for number, row, data in _with_data(store, record, rows):
        if not number % 1024:
            pulse.check()
        prepared = provider.prepare(parse(data), spec)
        sent_as = provider.wire_id(row.custom_id, attempt.marker, number)
        spool.write(provider.join(provider.wire(prepared, sent_as), first))
        first = False
    spool.write(provider.join(None, first))
    spool.flush()


def _with_data(
    store: Store, record: ShardRecord, rows: Iterator[tuple[int, IndexRow]]
) -> Iterator[tuple[int, IndexRow, bytes]]:
    """Yield rows with their bytes, reading the shard's part of the input once from front to back."""
    chunks = store.stream(record.input, record.start, record.end, CHUNK)
    held, position = b"", record.start  # `held` begins at `position`
    for number, row in rows:
        while position + len(held) < row.offset + row.length:
            chunk = next(chunks, None)
            if chunk is None:
                raise AccountingError(
                    "The input has changed since it was planned; submit it again under another id, as a new batch."
                )
            skip = min(len(held), max(0, row.offset - position))
            held, position = held[skip:] + chunk, position + skip
        start = row.offset - position
        yield number, row, held[start : start + row.length]


def _counted(chunks: Iterator[bytes], pulse: Pulse) -> Iterator[bytes]:
    for chunk in chunks:
        pulse.bytes += len(chunk)
        yield chunk


async def _async(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Turn a blocking iterator into one that leaves the event loop free."""
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk
