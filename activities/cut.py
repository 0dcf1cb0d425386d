"""The cut: one reading of the input, which checks every row and cuts shards by the provider's limits."""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec

from ..contract import BatchSpec
from ._boundary import Pulse
from .estimate import estimate_tokens
from .providers import Provider
from .records import Refusal, ShardRecord, index_path, shard_path
from .rows import Line, Row, RowRefused, lines, parse
from .store import Store

#: How many rows that cannot be sent are told one by one; the others are counted.
MAX_PROBLEMS = 100
#: Ids are told apart by 64-bit hashes in this many sorted pieces: 8 bytes a row, so 10 million rows take 80 MB.
_PIECES = 256

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
        self.rows = self.sendable = self.bytes = self.tokens = 0
        self.verbatim = True
        self.hash = hashlib.sha256()


class Cut:
    """One reading of the input. Blocks: runs in a thread, one line in memory at a time."""

    def __init__(self, store: Store, provider: Provider, spec: BatchSpec, root: str, source: str, pulse: Pulse) -> None:
        self._store = store
        self._provider = provider
        self._spec = spec
        self._root = root
        self._source = source
        self._pulse = pulse
        limits, able = spec.limits, provider.capabilities
        self._max_rows = min(limits.max_rows or able.max_rows, able.max_rows)
        self._max_bytes = min(limits.max_bytes or able.max_bytes, able.max_bytes)
        self._max_tokens = limits.max_tokens
        self._one_model = able.one_model
        self._models: dict[tuple[str, bytes | None], str | None] = {}
        self._first: tuple[int, str | None] | None = None  # the first line that can be sent, and its model

    def run(self) -> Found:
        """Read the input; read it once more if two rows share an id, now knowing which."""
        found, doubtful = self._read(set(), {})
        if doubtful:
            repeated = self._repeated(doubtful)
            found, _ = self._read(doubtful, repeated)
        return found

    def _lines(self) -> Iterator[Line]:
        return lines(self._store.stream(self._source), self._max_bytes)

    def _read(self, doubtful: set[int], repeated: dict[int, int]) -> tuple[Found, set[int]]:
        """Cut the shards. `repeated` maps the line of a second id to the line of the first one."""
        found = Found()
        hashes = [array("q") for _ in range(_PIECES)]
        self._first = None
        shard: _Shard | None = None
        with contextlib.ExitStack() as stack:
            index: Any = None
            for line in self._lines():
                self._pulse.rows += 1
                if not found.rows % 1024:
                    self._pulse.check()
                found.rows += 1
                custom_id, prepared, model, refusal = self._prepare(line, repeated)
                number = hash(custom_id)
                hashes[number % _PIECES].append(number)
                if refusal is not None:
                    found.invalid += 1
                    if len(found.problems) < MAX_PROBLEMS:
                        found.problems.append(refusal)
                tokens = estimate_tokens(len(prepared)) if prepared else 0
                if shard is None or self._full(shard, len(prepared), tokens):
                    if shard is not None:
                        self._close(shard, stack)
                    shard = _Shard(found.shards, line.offset)
                    found.shards += 1
                    opened: AbstractContextManager[Any] = self._store.writer(index_path(self._root, shard.number))
                    index = stack.enter_context(opened)
                row: list[Any] = [custom_id, line.offset, line.length]
                index.write(_encode(row if refusal is None else [*row, refusal]) + b"\n")
                self._add(shard, line, prepared, tokens, refusal is None)
                if refusal is None:
                    found.tokens[model or ""] += tokens
            if shard is not None:
                self._close(shard, stack)
        return found, _twice(hashes) if not doubtful else set()

    def _prepare(self, line: Line, repeated: dict[int, int]) -> tuple[str, bytes, str | None, Refusal | None]:
        """Return the row's id, the row as it is sent, the model it asks for, and why it cannot be sent."""
        try:
            if not line.data:
                raise RowRefused(None, f"has {line.length:,} bytes, more than the {self._max_bytes:,} a batch may have")
            row = parse(line.data)
            if line.number in repeated:
                raise RowRefused("custom_id", f"is the same as on line {repeated[line.number]}", row.custom_id)
            prepared = self._provider.prepare(row, self._spec)
            if len(prepared) + 1 > self._max_bytes:
                raise RowRefused(None, f"has more than the {self._max_bytes:,} bytes a batch may have", row.custom_id)
            model = self._model_of(row, prepared)
            if self._one_model:
                self._same_model(line, model, row.custom_id)
        except RowRefused as refused:
            # Each row has a result, so one without an id of its own is named by its line.
            name = refused.custom_id or f"line:{line.number}"
            return name, b"", None, Refusal(line.number, refused.field, refused.reason)
        return row.custom_id, prepared, model, None

    def _model_of(self, row: Row, prepared: bytes) -> str | None:
        # Rows that name the same model ask for the same one, so few of them are read once more.
        named = row.shape, row.model
        if named not in self._models:
            self._models[named] = self._provider.model_of(prepared)
        return self._models[named]

    def _same_model(self, line: Line, model: str | None, custom_id: str) -> None:
        if self._first is None:
            self._first = line.number, model
        elif model != self._first[1]:
            raise RowRefused(
                "body.model",
                f"differs from that of line {self._first[0]}, and this provider takes one model a batch",
                custom_id,
            )

    def _full(self, shard: _Shard, size: int, tokens: int) -> bool:
        return (
            shard.rows >= self._max_rows
            or shard.bytes + size + 1 > self._max_bytes
            or (self._max_tokens is not None and shard.sendable > 0 and shard.tokens + tokens > self._max_tokens)
        )

    def _add(self, shard: _Shard, line: Line, prepared: bytes, tokens: int, sendable: bool) -> None:
        # Verbatim: the shard's bytes are the rows just as they are sent, each with one line feed between.
        gap = line.offset - shard.end
        if not sendable or prepared is not line.data or gap != (1 if shard.rows else 0):
            shard.verbatim = False
        shard.rows += 1
        shard.end = line.offset + line.length
        if sendable:
            shard.sendable += 1
            shard.bytes += len(prepared) + 1
            shard.tokens += tokens
            shard.hash.update(prepared)
            shard.hash.update(b"\n")

    def _close(self, shard: _Shard, stack: contextlib.ExitStack) -> None:
        stack.close()
        record = ShardRecord(
            shard=shard.number,
            input=self._source,
            rows=shard.rows,
            sendable=shard.sendable,
            start=shard.start,
            end=shard.end,
            bytes=shard.bytes,
            tokens=shard.tokens,
            verbatim=shard.verbatim,
            digest=shard.hash.hexdigest()[:16],
        )
        with self._store.writer(shard_path(self._root, shard.number)) as out:
            out.write(_encode(record))

    def _repeated(self, doubtful: set[int]) -> dict[int, int]:
        """Return for each second and later line of one id the line of the first."""
        first: dict[str, int] = {}
        repeated: dict[int, int] = {}
        for line in self._lines():
            try:
                custom_id = parse(line.data).custom_id if line.data else None
            except RowRefused as refused:
                custom_id = refused.custom_id  # it has a result, too
            if custom_id is None or hash(custom_id) not in doubtful:
                continue
            if custom_id in first:
                repeated[line.number] = first[custom_id]
            else:
                first[custom_id] = line.number
        return repeated


def _twice(pieces: list[array[int]]) -> set[int]:
    """Return the hashes that occur more than once, holding one sorted piece at a time."""
    found: set[int] = set()
    for piece in pieces:
        ordered = sorted(piece)
        found.update(one for one, other in pairwise(ordered) if one == other)
    return found
