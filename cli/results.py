"""Results on their way out of the store: to a local copy, or to the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from ..activities import manifest
from ..activities.store import Store
from ..clients import result_rows
from ..contract import BatchResult, DurabatchError, ResultRow


async def copy_results(store: Store, result: BatchResult, output: Path) -> Path:
    """Copy a batch's results to a local file, or results and errors into a local folder; return the results' path.

    Raises:
        StoreError: the store failed.
        DurabatchError: the copy cannot be written.
    """
    assert result.results is not None
    if not output.is_dir():
        await copy(store, result.results, output)
        return output
    if result.errors and result.counts.succeeded < result.counts.total:
        await copy(store, result.errors, output / "errors.jsonl")
    await copy(store, result.results, output / "results.jsonl")
    return output / "results.jsonl"


async def copy(store: Store, uri: str, file: Path) -> None:
    """Copy a results file, or its parts as one, to a local file, all or nothing.

    Raises:
        StoreError: the store failed.
        DurabatchError: the copy cannot be written.
    """
    await asyncio.to_thread(_copy, store, uri, file)


def _copy(store: Store, uri: str, file: Path) -> None:
    draft = file.with_name(f".{file.name}.part")
    try:
        with draft.open("wb") as out:
            for piece in manifest.stream_results(store, uri):
                out.write(piece)
        draft.replace(file)
    except OSError as error:
        raise DurabatchError(f"The results cannot be copied to {file}: {error.strerror}; they are at {uri}.") from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


async def stream_results(store: Store, uri: str, *, text: bool) -> None:
    """Write results to stdout: the lines as they are, or each row's id and text."""
    out = sys.stdout.buffer
    if not text:
        pieces = manifest.stream_results(store, uri)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            out.write(piece)
        return
    async with contextlib.aclosing(result_rows.rows(store, uri)) as rows:
        async for row in rows:
            out.write(f"{row.custom_id}\t{_text(row)}\n".encode())


def _text(row: ResultRow) -> str:
    """Return a row's answer on one line; of one that has none, why."""
    if row.text is not None:
        return row.text.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")
    if row.error is not None:
        return f"[{row.status.value}: {row.error.type.value}]"
    return f"[{row.status.value}]"
