"""The rows of an input that are tried before it is run: which ones, and what they look like as a file of their own."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..activities.compression import expanded
from ..activities.formats import checked
from ..activities.input import find_files
from ..activities.rows import Line, lines, place
from ..activities.store import Store
from ..contract import InvalidInput, InvalidSpec, RowProblem
from .local_files import PIECE, opened
from .requests import Rows

#: Rows that may be tried: their results are all in memory, and whoever wants more wants a batch.
MAX_TRIED = 1000
#: Bytes of a row; no provider takes a whole batch that is larger.
_LONGEST = 256 * 1024 * 1024
#: How reports name a row that the sample's own file has at this line.
_LINE = re.compile(r"\bline (\d+)\b")
#: Files, each by what messages call it, its name in reports about its lines, and its bytes as they are.
Sources = list[tuple[str, str | None, Iterator[bytes]]]


class Place(NamedTuple):
    """Where a row is in the input that it was taken from."""

    line: int  #: From 1, as an editor counts in its file.
    file: str | None  #: The file's name, where the input has several.

    def __str__(self) -> str:
        return place(self.line, self.file)


class Sample(NamedTuple):
    """The rows that are tried, in the order of the input, and where each of them came from."""

    places: list[Place]

    def problem(self, found: RowProblem) -> RowProblem:
        """Return why a row of the sample's file cannot be sent, by its line in the whole input."""
        if found.line is None or not 0 < found.line <= len(self.places):
            return found
        own = self.places[found.line - 1]
        message = _LINE.sub(lambda match: self._said(int(match[1]), match[0]), found.message)
        return RowProblem(message=message, code=found.code, line=own.line, field=found.field, file=own.file)

    def custom_id(self, number: int, custom_id: str) -> str:
        """Return what a row is called in the results of the whole input: one without an id is called by its line.

        Args:
            number: the row's place in the sample, from 0.
            custom_id: what it is called in the sample's results.
        """
        if number >= len(self.places) or custom_id != f"line:{number + 1}":
            return custom_id
        own = self.places[number]
        return f"{own.file or 'line'}:{own.line}"

    def _said(self, line: int, otherwise: str) -> str:
        return str(self.places[line - 1]) if 0 < line <= len(self.places) else otherwise


def check_count(count: int) -> None:
    """See that so many rows can be tried.

    Raises:
        InvalidSpec: they cannot.
    """
    if not 1 <= count <= MAX_TRIED:
        more = ': to run more of them row by row, run the batch with mode = "direct"' if count > MAX_TRIED else ""
        raise InvalidSpec(
            f"The number of rows to try must be between 1 and {MAX_TRIED:,}, and {count:,} was given{more}."
        )


def chosen(total: int, count: int, *, first: bool, seed: str = "") -> list[int]:
    """Return the numbers of the rows that are tried, from 0, in order; all of them where there are no more.

    Unless the first ones are wanted, the input is divided into as many stretches of the same length as rows are tried,
    and one row of each is drawn: so no part of the file is passed over, and a pattern that repeats itself in it does
    not matter.

    Args:
        total: rows of the input.
        count: rows to try.
        first: whether it shall be the first ones.
        seed: what the draw depends on: the same seed draws the same rows.
    """
    if first or count >= total:
        return list(range(min(count, total)))
    draw = random.Random(seed)
    bounds = [number * total // count for number in range(count + 1)]
    return [draw.randrange(bounds[number], bounds[number + 1]) for number in range(count)]


async def write_sample(rows: Rows, store: Store, count: int, file: Path, *, first: bool) -> Sample:
    """Write the rows that are tried into a local file, one a line, with one row of the input in memory at a time.

    Raises:
        InvalidInput: the input has changed since it was counted, or a row is too long to be tried.
        StoreError: the store failed.
    """
    wanted = chosen(rows.count, count, first=first, seed=rows.digest)
    if rows.uri is None:
        several = len(rows.files) > 1
        sources = [
            # The tilde replaces the slash in what a brought file is called (see `contract.layout`).
            (f"The file {one.file}", one.name.replace("~", "/") if several else None, _local(one.file))
            for one in rows.files
        ]
    else:
        found = await find_files(store, rows.uri)
        several = len(found) > 1
        sources = [
            (f"The file {store.uri(one.path)}", one.name if several else None, store.stream(one.path)) for one in found
        ]
    return await asyncio.to_thread(_write, sources, wanted, file)


def _write(sources: Sources, wanted: list[int], file: Path) -> Sample:
    left = iter(wanted)
    places: list[Place] = []
    next_one = next(left, None)
    with file.open("wb") as out:
        for number, line in enumerate(_lines(sources)):
            if number != next_one:
                continue
            if not line.data:
                raise InvalidInput(f"The row on {line.place} is longer than any provider takes, so it cannot be tried.")
            out.write(line.data + b"\n")
            places.append(Place(line.number, line.file))
            next_one = next(left, None)
            if next_one is None:
                return Sample(places)
    raise InvalidInput("The input has become shorter while it was read: give it again when it is whole.")


def _lines(sources: Sources) -> Iterator[Line]:
    for what, name, pieces in sources:
        yield from lines(checked(expanded(pieces, what), what), _LONGEST, name)


def _local(file: Path) -> Iterator[bytes]:
    with opened(file) as source:
        while piece := source.read(PIECE):
            yield piece
