"""What the runs of an attempt leave in the store, so that a lost worker costs no more than the calls in flight.

A *run* is one execution of the step. It writes, below the attempt's folder:

- `sent/<run>.rows`, at its beginning: which rows it is to send, in order, as ranges of their numbers;
- `sent/<run>.mark`: how many of them it may have sent, written *before* they are sent;
- `kept/<run>-<seq>.jsonl`, soon after they came: answers, as lines of results. Before them comes a line that says whose
  they are, so that nobody has to read answers to know which rows have one. The newest of these objects is written again
  with more answers, until they are `WHOLE` bytes.

A later run sends what has no answer. A row that two runs had below their marks was, for all that anybody can know, sent
twice: that is what `repeated` counts. `ran.json` says which lines the attempt's output has, and makes it final.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sys
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from ...contract.errors import ObjectNotFound
from ...contract.layout import kept_path, mark_path, parse_name, ran_path, sent_path
from ...contract.object_name import Kind, Run
from ...contract.steps import Attempt
from ..log import logger
from ..store import Store, StoredNumber

#: An answer's status in an index: nobody answered the row; or it was not sent at all.
UNANSWERED, UNSENT = 0, -1
#: A file with so many bytes of answers is never written again. One that has less may be by a worker that is not lost
#: after all, so it is read in one piece.
WHOLE = 1 << 16
#: Bytes that are read of an answers' file for its index, at first.
_HEAD = 2 * WHOLE
#: Files whose indexes are read at a time.
_AT_ONCE = 16


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One line of answers."""

    row: int  #: Its number within the shard.
    status: int  #: The HTTP status, or one of those above.
    length: int  #: Bytes, the line break included.

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300


class _Index(msgspec.Struct, frozen=True):
    """The first line of a file of answers."""

    rows: str  #: Digest of the attempt's rows.
    lines: list[Line]

    @property
    def size(self) -> int:
        """Bytes of the answers."""
        return sum(line.length for line in self.lines)


class RanRecord(msgspec.Struct, frozen=True, kw_only=True):
    """ran.json: the output of an attempt in direct mode."""

    rows: str  #: Digest of the attempt's rows.
    lines: list[Line]  #: The lines of its output, in order.
    repeated: int


class _Sent(msgspec.Struct, frozen=True):
    rows: str  #: Digest of the attempt's rows.
    ranges: list[tuple[int, int]]  #: First row, and the one after the last.
    ended: bool = False  #: Whether the run has ended in good order.
    doubts: list[tuple[int, int]] = []  #: Rows that it has doubts about, and how many.
    away: bool = False  #: Whether the endpoint was away when it ended.

    def first(self, count: int) -> Iterator[int]:
        """Yield the first rows of these."""
        return itertools.islice((row for first, end in self.ranges for row in range(first, end)), count)


_index = msgspec.json.Decoder(_Index).decode
_ran = msgspec.json.Decoder(RanRecord).decode
_sent = msgspec.json.Decoder(_Sent).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class KeptFile:
    """A file of answers."""

    path: str
    start: int  #: Where its first answer begins.
    lines: list[Line]
    data: bytes | None = None  #: All of it, where it may be written again.

    def read(self, store: Store, start: int, end: int, chunk: int) -> Iterator[bytes]:
        """Yield a part of it. Blocks."""
        return store.stream(self.path, start, end, chunk) if self.data is None else iter((self.data[start:end],))


@dataclass
class Found:
    """What earlier runs left."""

    newest: int = 0  #: The highest number of a run.
    ran: RanRecord | None = None
    files: list[KeptFile] = field(default_factory=list)  #: In the order of the runs.
    answered: set[int] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  #: Paths of everything that belongs to runs.

    @property
    def succeeded(self) -> bool:
        """Whether any of them had a good answer."""
        lines = [self.ran.lines if self.ran else [], *(file.lines for file in self.files)]
        return any(line.succeeded for part in lines for line in part)


class KeptRows:
    """What the runs of one attempt keep.

    Args:
        store: where it is.
        attempt: whose rows they are.
        digest: of the attempt's rows; what was kept of others is passed over.
    """

    def __init__(self, store: Store, attempt: Attempt, digest: str) -> None:
        self.store = store
        self.digest = digest
        self._root = store.path(attempt.root)
        self._folder = f"{self._root}/{attempt.folder}"
        self._where = (self._root, attempt.shard, attempt.number)
        self._marks: dict[Run, StoredNumber] = {}

    async def find(self) -> Found:
        """Return what earlier runs left."""
        found = Found(ran=await self._read_ran())
        if found.ran is not None:
            found.answered.update(line.row for line in found.ran.lines)
        kept: list[tuple[Run, int, str]] = []
        for path, _ in await self.store.list(self._folder):
            name = parse_name(path[len(self._root) + 1 :])
            if name is None or name.run is None:
                continue
            found.left.append(path)
            found.newest = max(found.newest, name.run.number)
            if name.kind is Kind.KEPT:
                kept.append((name.run, name.number, path))
            elif name.kind is Kind.SENT:
                found.runs.append(name.run)
        paths = [path for _, _, path in sorted(kept)]
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            for file in await asyncio.gather(*(asyncio.to_thread(self._read_file, path) for path in some)):
                if file is not None:
                    found.files.append(file)
                    found.answered.update(line.row for line in file.lines)
        return found

    async def begin(self, after: int, rows: Sequence[int]) -> Run:
        """Begin a run, which is to send these rows in this order; none of them counts as sent yet.

        Args:
            after: the highest number of an earlier run.
            rows: their numbers.
        """
        run = Run(after + 1, secrets.token_hex(4))
        data = _encode(_Sent(self.digest, list(_ranges(rows))))
        await self.store.write(sent_path(*self._where, run), data)
        return run

    async def mark(self, run: Run, count: int) -> None:
        """Write down that the first `count` rows of a run may be sent from now on.

        Not so that it outlives a power cut: that would cost more than all else that is done for a row.
        """
        mark = self._marks.get(run)
        if mark is None:
            mark = self._marks[run] = await self.store.number(mark_path(*self._where, run))
        await mark.set(count)

    def close(self) -> None:
        """Let go of the marks."""
        for mark in self._marks.values():
            mark.close()

    async def end(self, run: Run, rows: Sequence[int], doubts: Mapping[int, int], *, away: bool) -> None:
        """End a run in good order: only these of its rows may have been sent without anybody knowing how they fared.

        Args:
            run: the run.
            rows: those, and those that it has sent and kept answers of, in ascending order.
            doubts: about rows of which nobody knows why they have no answer (`judgement.py`).
            away: whether the endpoint was away.
        """
        sent = _Sent(self.digest, list(_ranges(rows)), ended=True, doubts=sorted(doubts.items()), away=away)
        await self.store.write(sent_path(*self._where, run), _encode(sent))

    async def doubts(self, found: Found) -> tuple[Counter[int], bool]:
        """Return the doubts about rows that have no answer, and whether the endpoint was away when the last run ended.

        They are those that earlier runs had, and one for each run that was lost while a row may have been in flight.
        """
        doubts, away = Counter[int](), False
        for sent, mark in await self._all_sent(sorted(found.runs)):
            if sent.ended or mark:  # one that was lost before it sent anything knows no better
                away = sent.away
            if sent.ended:
                doubts.update(dict(sent.doubts))
            else:
                doubts.update(sent.first(mark))
        return Counter({row: count for row, count in doubts.items() if row not in found.answered}), away

    async def keep(self, run: Run, number: int, lines: Sequence[tuple[int, int, bytes]]) -> None:
        """Keep answers so that they outlive this process; a power cut they outlive after `sync`.

        Args:
            run: whose they are.
            number: of the file. What it has is replaced, so it comes again among the lines.
            lines: row, status and line of each, without a line break.
        """
        index = _Index(self.digest, [Line(row, status, len(line) + 1) for row, status, line in lines])
        data = b"\n".join([_encode(index), *(line for _, _, line in lines), b""])
        await self.store.write(kept_path(*self._where, run, number), data, durable=False)

    async def sync(self, run: Run, numbers: Sequence[int]) -> None:
        """Make files of answers, and the run's mark, outlive a power cut."""
        paths = [kept_path(*self._where, run, number) for number in numbers]
        if run in self._marks:
            paths.append(mark_path(*self._where, run))
        await asyncio.to_thread(self.store.sync, paths)

    async def repeated(self, runs: Sequence[Run], unsent: Container[int]) -> int:
        """Return how many calls were sent again by a later run, as far as anybody can know.

        Args:
            runs: those to be counted.
            unsent: rows that no run has sent, although it came by them.
        """
        times = Counter[int]()
        for sent, mark in await self._all_sent(runs):
            times.update(sent.first(mark))
        return sum(count - 1 for row, count in times.items() if row not in unsent)

    async def _all_sent(self, runs: Sequence[Run]) -> list[tuple[_Sent, int]]:
        """Return which rows of this attempt runs were to send, and their marks."""
        found: list[tuple[_Sent, int] | None] = []
        for first in range(0, len(runs), _AT_ONCE):
            found += await asyncio.gather(*(self._sent_by(run) for run in runs[first : first + _AT_ONCE]))
        return [one for one in found if one is not None]

    async def _sent_by(self, run: Run) -> tuple[_Sent, int] | None:
        try:
            sent = _sent(await self.store.read(sent_path(*self._where, run)))
        except ObjectNotFound:  # another worker has collected it meanwhile
            return None
        try:
            mark = _mark(await self.store.read(mark_path(*self._where, run)))
        except ObjectNotFound:  # nothing was sent
            mark = 0
        return (sent, mark) if sent.rows == self.digest else None

    async def write_ran(self, lines: list[Line], repeated: int) -> None:
        """Make the attempt's output final."""
        record = RanRecord(rows=self.digest, lines=lines, repeated=repeated)
        await self.store.write(ran_path(*self._where), _encode(record))

    async def _read_ran(self) -> RanRecord | None:
        try:
            record = _ran(await self.store.read(ran_path(*self._where)))
        except ObjectNotFound:
            return None
        return record if record.rows == self.digest else None

    def _read_file(self, path: str) -> KeptFile | None:
        """Return a file of answers; None where it is of other rows, gone, or not what was written."""
        try:
            data = b"".join(self.store.stream(path, 0, _HEAD))
            index, whole = _index_of(data), len(data) < _HEAD
            if not whole and (index is None or index.size < WHOLE):
                data, whole = b"".join(self.store.stream(path)), True
                index = _index_of(data)
        except ObjectNotFound:  # another worker has collected it meanwhile
            return None
        start = data.find(b"\n") + 1
        if index is None or (whole and len(data) != start + index.size):
            # What a power cut may leave of a file that was just written. Its rows count as sent, and not as answered.
            logger.warning("The object %s is not what Durabatch wrote there; it is passed over.", self.store.uri(path))
            return None
        if index.rows != self.digest:
            return None
        return KeptFile(path, start, index.lines, data if index.size < WHOLE else None)


def _index_of(data: bytes) -> _Index | None:
    """Return the index that a file begins with; None if none can be read."""
    try:
        return _index(data[: max(0, data.find(b"\n"))])
    except msgspec.MsgspecError:
        return None


def _mark(data: bytes) -> int:
    """Return a mark; as high as can be where a power cut has left nothing of it."""
    return int(data) if data.isdigit() else sys.maxsize


def _ranges(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield ascending numbers as ranges."""
    first = end = -1
    for row in rows:
        if row != end:
            if end > first:
                yield first, end
            first = row
        end = row + 1
    if end > first:
        yield first, end
