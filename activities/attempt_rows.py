"""The rows of a shard that one attempt takes: the first one takes all of them, a later one those to try again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

from ..contract import Mode
from ..contract.layout import index_path, picked_path
from ..contract.steps import Attempt
from .estimate import estimate_tokens
from .providers.base import sealed
from .records import IndexRow, ShardRecord, read_index, read_picked, read_shard
from .store import Store


class Bought(NamedTuple):
    """An attempt as another run of its batch may have bought it."""

    rows: list[int]  #: Their numbers within the shard.
    mode: Mode


@dataclass(frozen=True, kw_only=True)
class AttemptRows:
    """Which rows an attempt takes, and the digests that identify them."""

    attempt: Attempt
    shard: ShardRecord
    picked: list[int] | None = None  #: Their numbers within the shard, from 0; None for all that can be sent.

    @classmethod
    async def read(cls, store: Store, attempt: Attempt, shard: ShardRecord | None = None) -> Self:
        """Return the rows of an attempt.

        Args:
            shard: the shard's record, where it has been read already.

        Raises:
            ObjectNotFound: the store has no record of the shard, or of what the attempt takes of it.
            StoreError: the store failed.
        """
        if shard is None:
            shard = await read_shard(store, attempt)
        picked = None
        if attempt.number > 1:
            picked = await read_picked(store, picked_path(store.path(attempt.root), attempt.shard, attempt.number))
        return cls(attempt=attempt, shard=shard, picked=picked)

    @property
    def count(self) -> int:
        """How many rows the attempt sends."""
        return self.shard.sendable if self.picked is None else len(self.picked)

    @cached_property
    def digest(self) -> str:
        """Identifies these rows, as they are sent: 16 hexadecimal digits."""
        if self.picked is None:
            return self.shard.digest
        return hashlib.sha256(f"{self.shard.digest}\n{self.picked}".encode()).hexdigest()[:16]

    @property
    def seal(self) -> str:
        """Identifies the attempt and its rows: the ids at a provider without markers are made of it."""
        return sealed(self.attempt.marker, self.digest)

    @property
    def verbatim(self) -> bool:
        """Whether the shard's part of the input is just what is sent, for a provider that keeps the rows' ids."""
        return self.shard.verbatim and self.picked is None

    def read_all(self, store: Store) -> Iterator[IndexRow]:
        """Yield the rows of the whole shard, in order. Blocks: call it from a thread."""
        yield from read_index(store, index_path(store.path(self.attempt.root), self.attempt.shard))

    def read_sent(self, store: Store) -> Iterator[tuple[int, IndexRow]]:
        """Yield the rows that the attempt sends, in order, each with its number. Blocks: call it from a thread."""
        wanted = None if self.picked is None else set(self.picked)
        for number, row in enumerate(self.read_all(store)):
            if row.refusal is None and (wanted is None or number in wanted):
                yield number, row

    def estimate_tokens(self, store: Store) -> int:
        """Return the estimated input tokens of the rows. Blocks: call it from a thread.

        A row's bytes are those of the input; as sent it may be longer, by as much as the shard is on the whole.
        """
        if self.picked is None:
            return self.shard.tokens
        lengths = [row.length for row in self.read_all(store)]
        grown = max(1.0, self.shard.bytes / max(1, sum(lengths)))
        return sum(estimate_tokens(int(lengths[number] * grown)) for number in self.picked)
