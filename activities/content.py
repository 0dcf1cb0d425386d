"""The rows of an attempt as the provider takes them: straight from the input where nothing changes, else rewritten."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

from ..contract import AccountingError, BatchSpec
from ..contract.names import UploadName, parse_upload, upload_prefix
from ..contract.steps import Attempt
from .attempt_rows import AttemptRows
from .input import shard_bytes
from .lease import Lease
from .providers import Content, Provider, RowFormat
from .records import IndexRow, ShardRecord
from .resources import Resources
from .rows import RowRefused, parse
from .step import in_thread
from .store import Store

#: Bytes read at a time on the way to the provider.
CHUNK = 1 << 18


def file_prefix(attempt: Attempt) -> str:
    """Return how the names of an attempt's files begin."""
    return upload_prefix(attempt.scoped_id, attempt.shard, attempt.number)


def file_name(attempt: Attempt, digest: str, generation: int) -> str:
    """Return the deterministic name of an upload."""
    name = UploadName(
        batch=attempt.scoped_id, shard=attempt.shard, attempt=attempt.number, digest=digest, generation=generation
    )
    return str(name)


def file_generation(name: str, digest: str) -> int:
    """Return the generation of an attempt's file; 0 if it holds other rows than these."""
    found = parse_upload(name)
    return found.generation if found and found.digest == digest else 0


@contextlib.asynccontextmanager
async def open_content(
    resources: Resources, provider: Provider, rows: AttemptRows, spec: BatchSpec, generation: int, lease: Lease
) -> AsyncIterator[Content]:
    """Open an attempt's rows for sending.

    Raises:
        AccountingError: the input is not what was planned. It may come instead of the last chunk, so that what was sent
            before is no whole request.
    """
    name, shard = file_name(rows.attempt, rows.digest, generation), rows.shard
    if rows.verbatim and provider.rows.keeps_ids:
        source = _counted(_checked(shard_bytes(resources.store, shard, CHUNK), shard), lease)
        yield Content(name=name, size=shard.end - shard.start, chunks=_async(source))
        return
    with tempfile.TemporaryFile(prefix="durabatch-upload-") as spool:
        async with resources.row_work:
            await in_thread(lease, lambda: _write(spool, resources.store, provider, rows, spec, lease))
        size = spool.tell()
        spool.seek(0)
        yield Content(name=name, size=size, chunks=_async(_counted(iter(lambda: spool.read(CHUNK), b""), lease)))


def _write(spool: BinaryIO, store: Store, provider: Provider, rows: AttemptRows, spec: BatchSpec, lease: Lease) -> None:
    seal, digest = rows.seal, hashlib.sha256()
    format = provider.rows
    first = True
    for number, row, data in with_data(store, rows.shard, rows.read_sent(store)):
        if not number % 1024:
            lease.check()
        prepared = prepare_row(format, row, data, spec)
        digest.update(prepared)
        digest.update(b"\n")
        sent_as = format.sent_id(row.custom_id, seal, number)
        spool.write(format.join(format.with_id(prepared, sent_as), first))
        first = False
    if rows.picked is None and not digest.hexdigest().startswith(rows.digest):
        raise _changed()
    spool.write(format.join(None, first))
    spool.flush()


def prepare_row(format: RowFormat, row: IndexRow, data: bytes, spec: BatchSpec) -> bytes:
    try:
        found = parse(data)
        if found.custom_id == row.custom_id:
            return format.prepare(found, spec)
    except RowRefused:
        pass
    raise _changed()


def with_data(
    store: Store, shard: ShardRecord, rows: Iterator[tuple[int, IndexRow]]
) -> Iterator[tuple[int, IndexRow, bytes]]:
    """Yield rows with their bytes, reading the shard's part of the input once from front to back."""
    chunks = shard_bytes(store, shard, CHUNK)
    held, position = b"", shard.start  # `held` begins at `position`
    for number, row in rows:
        while position + len(held) < row.offset + row.length:
            chunk = next(chunks, None)
            if chunk is None:
                raise _changed()
            skip = min(len(held), max(0, row.offset - position))
            held, position = held[skip:] + chunk, position + skip
        start = row.offset - position
        yield number, row, held[start : start + row.length]


def _changed() -> AccountingError:
    return AccountingError(
        "The input has changed since it was planned; submit it again under another id, as a new batch."
    )


def _checked(chunks: Iterator[bytes], shard: ShardRecord) -> Iterator[bytes]:
    """Pass bytes on, and the last of them only if all are what was planned."""
    digest, last = hashlib.sha256(), b""
    for chunk in chunks:
        digest.update(chunk)
        if last:
            yield last
        last = chunk
    digest.update(b"\n")
    if not digest.hexdigest().startswith(shard.digest):
        raise _changed()
    yield last


def _counted(chunks: Iterator[bytes], lease: Lease) -> Iterator[bytes]:
    for chunk in chunks:
        lease.bytes += len(chunk)
        yield chunk


async def _async(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Turn a blocking iterator into one that leaves the event loop free."""
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk
