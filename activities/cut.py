"""The cut: one reading of the input, which checks every row and cuts shards by their limits.

A cut that was killed goes on behind the last shard it had closed: the counts are in the shards' records, and the ids in
their indexes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from ..contract import BatchSpec
from ..contract.errors import ObjectNotFound
from ..contract.layout import file_list_path, index_path, shard_path
from .duplicates import FirstOccurrences, IdHashes
from .estimate import estimate_tokens
from .input import Input
from .lease import Lease
from .providers import Provider
from .records import Refusal, ShardRecord, read_index, read_shard_now
from .rows import Line, Problem, Row, RowRefused, parse, place
from .shard_limits import ShardLimits
from .store import Store

#: How many rows that cannot be sent are reported one by one; the others are counted.
MAX_PROBLEMS = 100
#: Shards that are flushed to disk at a time: one by one, as they are closed, it takes several times as long.
_SYNCED = 500

_encode = msgspec.json.Encoder().encode


@dataclass
class Found:
    """What a reading of the input found."""

    rows: int = 0
    invalid: int = 0
    shards: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    problems: list[Refusal] = field(default_factory=list)


class _Shard:
    """A shard while it is being cut."""

    def __init__(self, number: int, start: int) -> None:
        self.number = number
        self.start = self.end = start
        self.line = 0  # of the last row, in its file
        self.rows = self.sendable = self.bytes = self.tokens = self.inputs = 0
        self.models: dict[str, int] = {}
        self.verbatim = True
        self.hash = hashlib.sha256()


class _First(NamedTuple):
    """The first row that can be sent."""

    line: int
    file: str | None
    model: str | None


class _Reading:
    """What a reading of the input has gathered so far."""

    def __init__(self) -> None:
        self.found = Found()
        self.ids = IdHashes()
        self.first: _First | None = None
        self.end = 0  #: The byte behind the last row of the last closed shard.
        self.line = 0  #: The number of that row's line.

    def add_refusal(self, refusal: Refusal) -> None:
        self.found.invalid += 1
        if len(self.found.problems) < MAX_PROBLEMS:
            self.found.problems.append(refusal)


class _NotThere(Exception):
    """A shard that an earlier run of the step reported as closed is not in the store, or not whole."""


class Cut:
    """One reading of the input. Blocks: runs in a thread, one line in memory at a time.

    Args:
        input: what is cut.
        digest: of all that the cut depends on; shards of another one are never gone on from.
        lease: says where an earlier run of the step got to.
    """

    def __init__(
        self,
        store: Store,
        provider: Provider,
        spec: BatchSpec,
        limits: ShardLimits,
        root: str,
        input: Input,
        digest: str,
        lease: Lease,
    ) -> None:
        self._store = store
        self._format = provider.rows
        self._spec = spec
        self._root = root
        self._input = input
        self._digest = digest[:16]
        self._lease = lease
        self._provider = provider
        self._limits = limits
        self._max_rows, self._max_bytes = limits.max_rows, limits.max_bytes
        self._max_tokens, self._max_inputs = limits.max_tokens, limits.max_inputs
        self._one_model = limits.one_model
        self._models: dict[tuple[str, bytes | None], str | None] = {}

    def run(self) -> Found:
        """Read the input; read it once more if two rows share an id, now knowing which."""
        reading = self._resume() or self._begin()
        self._read(reading, None)
        repeated = reading.ids.repeated()
        if any(repeated):
            del reading  # two of them would be twice the memory
            firsts = FirstOccurrences(repeated)
            del repeated
            reading = self._begin()
            self._read(reading, firsts)
        self._sync(reading.found.shards)
        return reading.found

    def _sync(self, shards: int) -> None:
        """Flush the shards to disk, so that they survive a power cut, before the plan says that they are there."""
        for first in range(0, shards, _SYNCED):
            self._lease.check()
            some = range(first, min(first + _SYNCED, shards))
            self._store.sync([path(self._root, shard) for shard in some for path in (index_path, shard_path)])

    def _begin(self) -> _Reading:
        """Return a reading from the first row on; from here nobody goes on from shards that were there before."""
        self._lease.check()
        self._lease.resume_from = {}
        self._lease.rows = 0
        with self._store.writer(shard_path(self._root, 0)):
            pass  # shards are taken over from the first one on, and an empty record is none
        return _Reading()

    def _resume(self) -> _Reading | None:
        """Return what an earlier run of this step had gathered; None if there is nothing to resume from."""
        reported = self._lease.resume_from
        shards, line, first = (reported.get(name) for name in ("shards", "line", "first"))
        if reported.get("cut") != self._digest or not (
            isinstance(shards, int) and isinstance(line, int) and isinstance(first, int)
        ):
            return None
        reading = _Reading()
        try:
            for shard in range(shards):
                self._take_over(reading, shard, first)
        except (_NotThere, ObjectNotFound, msgspec.DecodeError, TypeError, ValueError):
            return None
        reading.line = line
        self._lease.rows = reading.found.rows
        return reading

    def _take_over(self, reading: _Reading, shard: int, first: int) -> None:
        """Add a shard that was closed before. It was not flushed to disk then, so a power cut may have damaged it."""
        self._lease.check()
        record = read_shard_now(self._store, self._root, shard)
        if record.cut != self._digest or record.start < reading.end:
            raise _NotThere
        found = reading.found
        rows = 0
        start = end = record.start
        for row in read_index(self._store, index_path(self._root, shard)):
            start, end = start if rows else row.offset, row.offset + row.length
            rows += 1
            reading.ids.add(row.custom_id)
            if row.refusal is not None:
                reading.add_refusal(row.refusal)
            elif reading.first is None:
                model = next(iter(record.models))
                reading.first = _First(first, self._input.name_at(row.offset), model or None)
        if (rows, start, end) != (record.rows, record.start, record.end):
            raise _NotThere
        found.rows += rows
        found.shards += 1
        found.tokens.update(record.models)
        reading.end = record.end

    def _read(self, reading: _Reading, firsts: FirstOccurrences | None) -> None:
        """Cut the shards; the first time, gather the ids, and the second time refuse duplicates."""
        found = reading.found
        shard: _Shard | None = None
        with contextlib.ExitStack() as stack:
            index: Any = None
            for line in self._input.lines(self._max_bytes, reading.end, max(0, reading.line - 1)):
                self._lease.rows += 1
                if not found.rows % 1024:
                    self._lease.check()
                found.rows += 1
                custom_id, prepared, model, inputs, refusal = self._prepare(line, reading, firsts)
                if firsts is None:
                    reading.ids.add(custom_id)
                if refusal is not None:
                    reading.add_refusal(refusal)
                tokens = estimate_tokens(len(prepared)) if prepared else 0
                another = refusal is None and self._is_another(shard, model)
                if shard is None or another or self._full(shard, len(prepared), tokens, inputs):
                    if shard is not None:
                        self._close(shard, reading, stack)
                    shard = _Shard(found.shards, line.offset)
                    opened: AbstractContextManager[Any] = self._store.writer(
                        index_path(self._root, shard.number), durable=False
                    )
                    index = stack.enter_context(opened)
                row: list[Any] = [custom_id, line.offset, line.length]
                index.write(_encode(row if refusal is None else [*row, refusal]) + b"\n")
                self._add(shard, line, prepared, tokens, model, refusal is None)
                shard.inputs += inputs
            if shard is not None:
                self._close(shard, reading, stack)

    def _prepare(
        self, line: Line, reading: _Reading, firsts: FirstOccurrences | None
    ) -> tuple[str, bytes, str | None, int, Refusal | None]:
        """Return the row's id, the row as it is sent, its model, its counted inputs, and why it cannot be sent."""
        inputs = 0
        try:
            if not line.data:
                reason = f"has {line.length:,} bytes, more than the {self._max_bytes:,} a batch may have"
                raise RowRefused(None, reason, code=Problem.TOO_LARGE)
            row = parse(line.data) if firsts is None else _parse_once(line, firsts)
            prepared = self._format.prepare(row, self._spec)
            if len(prepared) + 1 > self._max_bytes:
                reason = f"has more than the {self._max_bytes:,} bytes a batch may have"
                raise RowRefused(None, reason, row.custom_id, Problem.TOO_LARGE)
            if self._max_inputs is not None:
                inputs = self._format.inputs_of(prepared)
                if inputs > self._max_inputs:
                    reason = f"has {inputs:,} inputs, more than the {self._max_inputs:,} a batch may have"
                    raise RowRefused("body.input", reason, row.custom_id, Problem.TOO_LARGE)
            self._limits.check_rate(self._provider, prepared, row.custom_id)
            model = self._model_of(row, prepared)
            if reading.first is None:
                reading.first = _First(line.number, line.file, model)
            elif self._one_model and model != reading.first.model:
                first = place(reading.first.line, reading.first.file)
                raise RowRefused(
                    "body.model",
                    f"differs from that of {first}, and this provider takes one model a batch",
                    row.custom_id,
                    Problem.MODEL,
                )
        except RowRefused as refused:
            # Each row has a result, so one without an id of its own is named by its line.
            name = refused.custom_id or f"{line.file or 'line'}:{line.number}"
            return name, b"", None, 0, Refusal(line.number, refused.field, refused.reason, line.file, refused.code)
        return row.custom_id, prepared, model, inputs, None

    def _model_of(self, row: Row, prepared: bytes) -> str | None:
        # Rows that name the same model ask for the same one, so few of them are read once more.
        named = row.shape, row.model
        if named not in self._models:
            self._models[named] = self._format.model_of(prepared)
        return self._models[named]

    def _is_another(self, shard: _Shard | None, model: str | None) -> bool:
        """Return whether a row asks for another model than its shard, where a shard has one only."""
        return (
            self._limits.split_models and shard is not None and bool(shard.models) and (model or "") not in shard.models
        )

    def _full(self, shard: _Shard, size: int, tokens: int, inputs: int) -> bool:
        return (
            shard.rows >= self._max_rows
            or shard.bytes + size + 1 > self._max_bytes
            or (self._max_tokens is not None and shard.sendable > 0 and shard.tokens + tokens > self._max_tokens)
            or (self._max_inputs is not None and shard.inputs + inputs > self._max_inputs)
        )

    def _add(self, shard: _Shard, line: Line, prepared: bytes, tokens: int, model: str | None, sendable: bool) -> None:
        # Verbatim: the shard's bytes are the rows just as they are sent, each with one line feed between.
        gap = line.offset - shard.end
        if not sendable or prepared is not line.data or gap != (1 if shard.rows else 0):
            shard.verbatim = False
        shard.rows += 1
        shard.end = line.offset + line.length
        shard.line = line.number
        if sendable:
            shard.sendable += 1
            shard.bytes += len(prepared) + 1
            shard.tokens += tokens
            shard.models[model or ""] = shard.models.get(model or "", 0) + tokens
            shard.hash.update(prepared)
            shard.hash.update(b"\n")

    def _close(self, shard: _Shard, reading: _Reading, stack: contextlib.ExitStack) -> None:
        self._lease.check()
        stack.close()
        segments = self._input.segments
        record = ShardRecord(
            shard=shard.number,
            input=segments[0].path if len(segments) == 1 else file_list_path(self._root),
            several=len(segments) > 1,
            rows=shard.rows,
            sendable=shard.sendable,
            start=shard.start,
            end=shard.end,
            bytes=shard.bytes,
            tokens=shard.tokens,
            verbatim=shard.verbatim,
            digest=shard.hash.hexdigest()[:16],
            model=next(iter(shard.models)) if len(shard.models) == 1 else "",
            cut=self._digest,
            models=shard.models,
        )
        with self._store.writer(shard_path(self._root, shard.number), durable=False) as out:
            out.write(_encode(record))
        reading.found.shards += 1
        reading.found.tokens.update(shard.models)
        self._lease.resume_from = {
            "cut": self._digest,
            "shards": reading.found.shards,
            "line": shard.line,
            "first": reading.first.line if reading.first else 0,
        }


def _parse_once(line: Line, firsts: FirstOccurrences) -> Row:
    """Return the request on a line, as `parse` does, and refuse it if its id occurred on an earlier one."""
    try:
        row = parse(line.data)
    except RowRefused as refused:
        if refused.custom_id is not None:
            firsts.earlier(refused.custom_id, line)  # it has a result as well
        raise
    if (first := firsts.earlier(row.custom_id, line)) is not None:
        raise RowRefused("custom_id", f"is the same as on {first}", row.custom_id, Problem.DUPLICATE_ID)
    return row
