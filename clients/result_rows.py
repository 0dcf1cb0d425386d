"""The rows of a results file, wherever it is stored and however many parts it has."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator

from pydantic import ValidationError

from ..activities.manifest import stream_results
from ..activities.repair import repaired
from ..activities.store import Store
from ..contract import ResultRow, StoreError
from .merged import merged

#: Rows that a thread reads at a time.
_ROWS_A_TURN = 100


async def rows(store: Store, uri: str) -> AsyncGenerator[ResultRow]:
    """Yield the rows of a results file in order, with one piece of it in memory at a time.

    Raises:
        StoreError: the store failed, or the file is not what Durabatch wrote.
    """
    number = 0
    async with contextlib.aclosing(lines(store, uri)) as stream:
        async for line in stream:
            number += 1
            yield as_row(line, f"Line {number} of {uri}")


async def merged_rows(store: Store, uris: list[str]) -> AsyncGenerator[ResultRow]:
    """Yield the rows of a batch, by its results and those of its retries (`merged`).

    Raises:
        StoreError: as `rows`.
    """
    found = merged(store, uris)
    number = 0
    while some := await asyncio.to_thread(lambda: list(itertools.islice(found, _ROWS_A_TURN))):
        for line in some:
            number += 1
            yield as_row(line, f"Line {number} of the results")


def as_row(line: bytes, where: str) -> ResultRow:
    """Return a line of results as a row.

    Args:
        where: what it is, for messages.

    Raises:
        StoreError: it is no row.
    """
    with contextlib.suppress(ValidationError):
        return ResultRow.model_validate_json(line)
    # pydantic takes fewer levels than JSON may have.
    with contextlib.suppress(ValueError):
        return ResultRow.model_validate_json(repaired(line))
    raise StoreError(f"{where} is no result row: the file was changed.")


async def lines(store: Store, uri: str) -> AsyncGenerator[bytes]:
    """Yield the lines of a results file, without their breaks; those of its parts, one after another, for a manifest.

    Raises:
        StoreError: the store failed, or a manifest or a part of it is damaged or gone.
    """
    pieces = stream_results(store, uri)
    rest: list[bytes] = []
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        *whole, tail = piece.split(b"\n")
        if whole:
            whole[0] = b"".join([*rest, whole[0]])
            rest = [tail]
        else:
            rest.append(tail)
        for line in whole:
            if line:
                yield line
    if last := b"".join(rest):
        yield last
