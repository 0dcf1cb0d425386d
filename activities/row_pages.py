"""Pages of rows of results files, each with a place behind which the next page begins."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from ..contract import RowStatus, StoreError
from .lines import split_lines
from .records import IndexRow, read_index
from .store import Store

#: What a row without a result is called.
PENDING = "pending"
#: Bytes of results after which a page ends, so that rows of any size fit into memory.
PAGE_BYTES = 4 * 1024 * 1024
_PLACE = re.compile(r"row_(\d{1,6})_(\d{1,9})(?:_([rew])(\d{1,15}))?")


class Place(NamedTuple):
    """Where a row is in its batch; its text is what a next page begins behind."""

    shard: int
    row: int  #: Its number within the shard, from 0.
    #: Where it was read from the shard's results: "r", its errors: "e", or the whole batch's results: "w".
    file: str = ""
    end: int = 0  #: The byte behind it there, so that the next page need not look for it.

    def __str__(self) -> str:
        return f"row_{self.shard}_{self.row + 1}{f'_{self.file}{self.end}' if self.file else ''}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """Return the place that a text names; None for any other text."""
        found = _PLACE.fullmatch(text)
        if found is None or int(found[2]) < 1:
            return None
        return cls(int(found[1]), int(found[2]) - 1, found[3] or "", int(found[4] or 0))


class RowSoFar(NamedTuple):
    """A row as far as it is known."""

    place: Place
    custom_id: str
    status: str  #: A RowStatus, or `PENDING`.
    result: bytes | None  #: Its line of results, without a break; None while it is pending.


class _Ended(msgspec.Struct):
    custom_id: str
    status: RowStatus


_ended = msgspec.json.Decoder(_Ended).decode


async def page_of_results(
    store: Store, path: str, after: Place | None, limit: int, wanted: frozenset[str] | None
) -> tuple[list[RowSoFar], bool]:
    """Return a page of the results of a batch that has ended and whose shards were cleared away, as `SoFar.page`.

    Args:
        path: of results.jsonl.
    """
    rows = await asyncio.to_thread(lambda: some(results(store, path, 0, after, "w"), limit + 1, wanted))
    more = len(rows) > limit or sum(len(row.result or b"") for row in rows) >= PAGE_BYTES
    return rows[:limit], more


def some(rows: Iterator[RowSoFar], room: int, wanted: frozenset[str] | None) -> list[RowSoFar]:
    """Return the next rows that are wanted, at most `room`, and no more than a page has bytes."""
    found: list[RowSoFar] = []
    size = 0
    for row in rows:
        if wanted is None or row.status in wanted:
            found.append(row)
            size += len(row.result or b"")
            if len(found) >= room or size >= PAGE_BYTES:
                break
    return found


def results(store: Store, path: str, shard: int, start: Place | None, file: str) -> Iterator[RowSoFar]:
    """Yield the rows of a results file. Blocks.

    Args:
        shard: whose it is.
        start: behind which row to begin.
        file: what it is called in a place.
    """
    first = start.row + 1 if start else 0
    hinted = _hinted(store, path, start, file)
    number, end = (first, hinted) if hinted else (0, 0)
    for line in split_lines(store.stream(path, end)):
        end += len(line) + 1
        if number >= first:
            ended = _read(line, store.uri(path))
            yield RowSoFar(Place(shard, number, file, end), ended.custom_id, ended.status.value, line)
        number += 1


def _read(line: bytes, where: str) -> _Ended:
    try:
        return _ended(line)
    except msgspec.MsgspecError:
        raise StoreError(f"{where} has a line that is no result row: bring the file back as it was.") from None


def _hinted(store: Store, path: str, start: Place | None, file: str) -> int:
    """Return where in a file to go on; 0 where that is not known, or is no beginning of a line."""
    if start is None or start.file != file or not start.end:
        return 0
    return start.end if b"".join(store.stream(path, start.end - 1, start.end)) == b"\n" else 0


def errors(store: Store, path: str, index: str, shard: int, start: Place | None) -> Iterator[RowSoFar]:
    """Yield the rows of a shard that did not succeed. Blocks.

    Args:
        path: of its errors.jsonl.
        index: path of its index, which has the same order and from which the rows' numbers come.
        start: behind which row to begin.
    """
    end = _hinted(store, path, start, "e")
    rows: Iterator[tuple[int, IndexRow]] = enumerate(read_index(store, index))
    if end and start:
        rows = ((number, row) for number, row in rows if number > start.row)
    for line in split_lines(store.stream(path, end)):
        end += len(line) + 1
        ended = _read(line, store.uri(path))
        number = next((number for number, row in rows if row.custom_id == ended.custom_id), None)
        if number is not None and (start is None or number > start.row):
            yield RowSoFar(Place(shard, number, "e", end), ended.custom_id, ended.status.value, line)
