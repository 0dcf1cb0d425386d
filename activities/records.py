"""What the steps write into the store for one another, beside what users see.

`plan.json` and `shards/…/shard.json` describe the cut; `shards/…/rows.jsonl` is the shard's index, one JSON array a
row: `[custom_id, offset, length]`, with `{"line", "field", "reason", "code"}` as a fourth element where the row cannot
be sent, and "file" in it where the input has several. Offsets and lengths are bytes of the input.
`shards/…/attempt-N/rows.json` lists the rows (from 0, within the shard) that an attempt after the first takes.

Where the input has several files, `input.json` lists them in order, as an array for each: `[path, start,
end, name, feed]`. The file's bytes are those from start to end of the input; where feed is true it does not end with a
line feed, and the last byte is one that the input has in its place. `input/` holds the expanded copies of compressed
files, named by their place among the files and by what they were made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ..contract import Mode, ModelShare
from ..contract.errors import RowProblem
from ..contract.layout import shard_path
from ..contract.steps import Attempt, Settled
from .lines import split_lines
from .rows import Problem, place
from .store import Store


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why the plan refused a row."""

    line: int
    field: str | None
    reason: str
    file: str | None = None  #: The file's name, where the input has several.
    code: str = Problem.ROW

    def __str__(self) -> str:
        where = place(self.line, self.file)
        return f"{where}, {self.field}: {self.reason}" if self.field else f"{where}: {self.reason}"

    def problem(self) -> RowProblem:
        """Return the same as it is reported to users."""
        return RowProblem(message=str(self), code=self.code, line=self.line, field=self.field, file=self.file)


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """One file of an input."""

    path: str
    start: int  #: Its first byte in the input.
    end: int  #: The byte after its last one.
    name: str | None = None  #: What it is called in reports about its lines; None where the input has no other file.
    feed: bool = False  #: Whether its last byte is a line feed that the file itself lacks.

    @property
    def size(self) -> int:
        """Bytes of the file itself."""
        return self.end - self.start - self.feed


class IndexRow(msgspec.Struct, frozen=True):
    """One row of a shard's index."""

    custom_id: str
    offset: int
    length: int
    refusal: Refusal | None = None


class ShardRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One shard of a plan."""

    shard: int
    input: str  #: Path of the input in the store; of `input.json`, where that has several files.
    rows: int  #: Rows, refused ones included.
    sendable: int  #: Rows that can be sent.
    start: int  #: First byte in the input.
    end: int  #: Byte after the last one.
    bytes: int  #: Bytes of the rows as they are sent.
    tokens: int  #: Estimated input tokens.
    verbatim: bool  #: Whether the bytes from start to end are just what is sent.
    digest: str  #: Of the rows as they are sent.
    model: str = ""  #: The model that all of them ask for; "" where they differ, or name none.
    several: bool = False  #: Whether the input has several files.
    cut: str = ""  #: Digest of what the cut depended on: shards of two cuts do not belong together.
    models: dict[str, int] = {}  #: Estimated input tokens by model, "" where a row names none.


class PlanRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A whole plan."""

    #: The batch's id and the store that it was planned in (`contract.names.scoped`), as names at providers begin.
    scoped_id: str
    spec_digest: str
    planned_at: str
    rows: int
    invalid_rows: int
    shards: int
    tokens: dict[str, int]  #: Estimated input tokens by model.
    problems: list[Refusal]  #: The first rows that cannot be sent.
    asked: str  #: Digest of what was asked for, whatever the input and the provider's limits were then.
    input: str  #: Digest of that and of the files that were found.
    execution: str  #: The run that was started and last went by this plan.
    store: str  #: The identity of the store that it was planned in.
    mode: Mode = Mode.BATCH  #: How its shards are run, for good: what was bought is looked for where it was bought.
    #: What the provider's batches cost of the list price, such as "1/2"; "" where it runs none, and in plans of older
    #: versions. It is for clients, which may not have the provider's configuration.
    batch_share: str = ""
    kind: str = ""  #: Of the provider: which adapter reads its results; "" in plans of older versions.
    #: What was asked for, as JSON and without rows given inline, so that a retry can ask for the same when Temporal has
    #: forgotten the batch; empty in plans of older versions.
    spec: dict[str, Any] = {}


class SettledRecord(Settled):
    """The accounts of a shard whose results are written, and how large those are; settled.json."""

    results_bytes: int
    errors_bytes: int
    models: dict[str, ModelShare] = {}  #: What each model answered, as in BatchResult.


# Made once, here: two threads that decode a type for the first time at once crash msgspec 0.22.
_row = msgspec.json.Decoder(list[Any]).decode
_shard = msgspec.json.Decoder(ShardRecord).decode
_numbers = msgspec.json.Decoder(list[int]).decode
_segments = msgspec.json.Decoder(list[Segment]).decode
decode_plan = msgspec.json.Decoder(PlanRecord).decode


async def read_shard(store: Store, attempt: Attempt) -> ShardRecord:
    """Return the shard that an attempt belongs to."""
    data = await store.read(shard_path(store.path(attempt.root), attempt.shard))
    return _shard(data)


def read_shard_now(store: Store, root: str, shard: int) -> ShardRecord:
    """Return a shard's record. Blocks: call it from a thread."""
    return _shard(b"".join(store.stream(shard_path(root, shard))))


def read_segments(store: Store, record: ShardRecord) -> list[Segment]:
    """Return the files of the input that a shard was cut from. Blocks: call it from a thread."""
    if not record.several:
        return [Segment(record.input, 0, record.end)]
    return _segments(b"".join(store.stream(record.input)))


def read_index(store: Store, path: str) -> Iterator[IndexRow]:
    """Yield a shard's rows in input order. Blocks: call it from a thread."""
    for line in split_lines(store.stream(path)):
        custom_id, offset, length, *refusal = _row(line)
        yield IndexRow(custom_id, offset, length, Refusal(**refusal[0]) if refusal else None)


async def read_picked(store: Store, path: str) -> list[int]:
    """Return the numbers of the rows that an attempt after the first takes."""
    return _numbers(await store.read(path))
