"""What the steps write down for one another in the store, beside what the design shows to users.

`plan.json` and `shards/…/shard.json` describe the cut; `shards/…/rows.jsonl` is the shard's index, one JSON array a
row: `[custom_id, offset, length]`, with `{"line", "field", "reason"}` as a fourth element where the row cannot be
sent. Offsets and lengths are bytes of the input. `shards/…/attempt-N/rows.json` lists the rows (from 0, within the
shard) that an attempt after the first takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from ..contract.names import attempt_folder, shard_folder
from ..contract.steps import Attempt
from .store import Store


class Refusal(msgspec.Struct, frozen=True):
    """Why the plan refused a row."""

    line: int
    field: str | None
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.field}: {self.reason}" if self.field else f"line {self.line}: {self.reason}"


class IndexRow(msgspec.Struct, frozen=True):
    """One row of a shard's index."""

    custom_id: str
    offset: int
    length: int
    refusal: Refusal | None = None


class ShardRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One shard of a plan."""

    shard: int
    input: str  #: Path of the input in the store.
    rows: int  #: Rows, refused ones included.
    sendable: int  #: Rows that can be sent.
    start: int  #: First byte in the input.
    end: int  #: Byte after the last one.
    bytes: int  #: Bytes of the rows as they are sent.
    tokens: int  #: Estimated input tokens.
    verbatim: bool  #: Whether the bytes from start to end are just what is sent.
    digest: str  #: Of the rows as they are sent.


class PlanRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A whole plan."""

    batch_id: str
    spec_digest: str
    planned_at: str
    rows: int
    invalid_rows: int
    shards: int
    tokens: dict[str, int]  #: Estimated input tokens by model.
    problems: list[str]  #: The first rows that cannot be sent, and why.


# Made once, here: two threads that decode a type for the first time at once crash msgspec 0.22.
_row = msgspec.json.Decoder(list[Any]).decode
_shard = msgspec.json.Decoder(ShardRecord).decode
_numbers = msgspec.json.Decoder(list[int]).decode
decode_plan = msgspec.json.Decoder(PlanRecord).decode


def plan_path(root: str) -> str:
    return f"{root}/plan.json"


def shard_path(root: str, shard: int) -> str:
    return f"{root}/{shard_folder(shard)}/shard.json"


def index_path(root: str, shard: int) -> str:
    return f"{root}/{shard_folder(shard)}/rows.jsonl"


def picked_path(root: str, shard: int, attempt: int) -> str:
    return f"{root}/{attempt_folder(shard, attempt)}/rows.json"


async def read_shard(store: Store, attempt: Attempt) -> ShardRecord:
    """Return the shard that an attempt belongs to."""
    data = await store.read(shard_path(store.path(attempt.root), attempt.shard))
    return _shard(data)


def read_index(store: Store, path: str) -> Iterator[IndexRow]:
    """Yield a shard's rows in input order. Blocks: call it from a thread."""
    pending = b""
    for chunk in store.stream(path):
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            custom_id, offset, length, *refusal = _row(line)
            yield IndexRow(custom_id, offset, length, Refusal(**refusal[0]) if refusal else None)


async def read_picked(store: Store, attempt: Attempt) -> list[int] | None:
    """Return the rows that an attempt takes, None for all."""
    if attempt.number == 1:
        return None
    data = await store.read(picked_path(store.path(attempt.root), attempt.shard, attempt.number))
    return _numbers(data)


def attempt_digest(record: ShardRecord, picked: list[int] | None) -> str:
    """Return what tells the rows of one attempt from all others."""
    if picked is None:
        return record.digest
    return hashlib.sha256(f"{record.digest}\n{picked}".encode()).hexdigest()[:16]
