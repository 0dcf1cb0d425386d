"""Results on their way out of the store: to a local copy, or to the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import NamedTuple

from ..activities import manifest
from ..activities.store import Store
from ..clients import result_rows
from ..clients.client import BatchClient
from ..clients.execution import ending
from ..clients.merged import merged
from ..clients.reading import rows_so_far
from ..contract import BatchResult, DurabatchError, ResultRow, RowStatus, StoreError

#: Rows that did not succeed that are looked at for one that failed: the others were canceled, or expired.
_LOOKED_AT = 1000


class Results(NamedTuple):
    """Where the results of a batch are, and those of its retries where each row is wanted as they have it."""

    store: Store
    uris: list[str]

    def pieces(self) -> Iterator[bytes]:
        """Yield them as bytes, in pieces. Blocks.

        Raises:
            StoreError: the store failed, or what is there is not what Durabatch wrote.
        """
        if len(self.uris) == 1:
            yield from manifest.stream_results(self.store, self.uris[0])
        else:
            for line in merged(self.store, self.uris):
                yield line + b"\n"

    def rows(self) -> AsyncGenerator[ResultRow]:
        """Return them as rows."""
        one = len(self.uris) == 1
        return result_rows.rows(self.store, self.uris[0]) if one else result_rows.merged_rows(self.store, self.uris)


async def copy_results(store: Store, result: BatchResult, output: Path) -> Path:
    """Copy a batch's results to a local file, or results and errors into a local folder; return the results' path.

    Raises:
        StoreError: the store failed.
        DurabatchError: the copy cannot be written.
    """
    assert result.results is not None
    if not output.is_dir():
        await copy(Results(store, [result.results]), output)
        return output
    if result.errors and result.counts.succeeded < result.counts.total:
        await copy(Results(store, [result.errors]), output / "errors.jsonl")
    await copy(Results(store, [result.results]), output / "results.jsonl")
    return output / "results.jsonl"


async def copy(results: Results, file: Path) -> None:
    """Copy results to one local file, all or nothing.

    Raises:
        StoreError: the store failed.
        DurabatchError: the copy cannot be written.
    """
    await asyncio.to_thread(_copy, results, file)


def _copy(results: Results, file: Path) -> None:
    draft = file.with_name(f".{file.name}.part")
    try:
        with draft.open("wb") as out:
            for piece in results.pieces():
                out.write(piece)
        draft.replace(file)
    except OSError as error:
        raise DurabatchError(
            f"The results cannot be copied to {file}: {error.strerror}; they are at {results.uris[0]}."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


async def first_failed(store: Store, result: BatchResult) -> ResultRow | None:
    """Return the first row that failed, None if none did, or it is far down or cannot be read."""
    if not (result.errors and result.counts.failed):
        return None
    with contextlib.suppress(StoreError):
        async with contextlib.aclosing(result_rows.rows(store, result.errors)) as rows:
            looked_at = 0
            async for row in rows:
                if row.status is RowStatus.FAILED:
                    return row
                looked_at += 1
                if looked_at == _LOOKED_AT:
                    break
    return None


async def stream_results(results: Results, *, text: bool) -> None:
    """Write results to stdout: the lines as they are, or each row's id and text."""
    out = sys.stdout.buffer
    if not text:
        pieces = results.pieces()
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            out.write(piece)
        return
    async with contextlib.aclosing(results.rows()) as rows:
        async for row in rows:
            out.write(f"{row.custom_id}\t{_text(row)}\n".encode())


async def stream_so_far(client: BatchClient, id: str) -> tuple[int, int]:
    """Write the results that a batch has by now to stdout; return how many they are, and how many rows it has.

    Raises:
        as `BatchClient.retrieve`.
    """
    out = sys.stdout.buffer
    rows = total = 0
    if await ending(client.temporal, client.store, id) is not None:
        uri = await client.results_uri(id)
        async with contextlib.aclosing(result_rows.lines(client.store, uri)) as lines:
            async for line in lines:
                out.write(line + b"\n")
                rows += 1
        return rows, rows
    async with contextlib.aclosing(rows_so_far(client.temporal, client.store, id, all=True)) as found:
        async for row in found:
            total += 1
            if row.result is not None:
                rows += 1
                out.write(row.result + b"\n")
    return rows, total


def _text(row: ResultRow) -> str:
    """Return a row's answer on one line; of one that has none, why."""
    if row.text is not None:
        return row.text.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")
    if row.error is not None:
        return f"[{row.status.value}: {row.error.type.value}]"
    return f"[{row.status.value}]"
