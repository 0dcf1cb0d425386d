"""The rows of a batch as far as they are known, in input order, while it runs and after: a page at a time.

A shard that is settled has its results. Of one that is not, the successes are known that came with an attempt: from
the provider's output, or in direct mode from what is kept. A row that failed there may be tried again, so it is
*pending* until the shard is settled, as is one without an answer.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import NamedTuple, Self

import msgspec

from ..contract import Mode, ObjectNotFound, RowStatus
from ..contract.layout import (
    ERRORS,
    OUTPUT,
    RESULTS,
    answers_path,
    index_path,
    parse_name,
    part_name,
    plan_path,
    settled_path,
    shard_folder,
)
from ..contract.object_name import Kind
from ..contract.steps import Attempt
from .attempt_rows import AttemptRows
from .bill import sensible
from .direct.kept import KeptFile, KeptRows
from .lines import split_lines
from .providers import RowFormat, row_format
from .providers.kinds import KINDS
from .records import PlanRecord, SettledRecord, ShardRecord, decode_plan, read_index, read_shard_now
from .results import ResultRow, result_line
from .row_pages import PAGE_BYTES, PENDING, Place, RowSoFar, errors, results, some
from .store import Store

#: Rows that are read at a time.
_AT_ONCE = 32


class _Answer(NamedTuple):
    """Where a success is, as an attempt brought it."""

    attempt: int
    mode: Mode
    start: int
    end: int
    path: str
    kept: KeptFile | None = None


class SoFar:
    """The rows of one batch. `open` makes one."""

    def __init__(self, store: Store, root: str, plan: PlanRecord) -> None:
        self._store = store
        self._root = root
        self.plan = plan

    @classmethod
    async def open(cls, store: Store, root: str) -> Self | None:
        """Return the rows of the batch with this folder; None while it has no plan.

        Raises:
            StoreError: the store failed.
        """
        try:
            plan = decode_plan(await store.read(plan_path(root)))
        except (ObjectNotFound, msgspec.MsgspecError):
            return None
        return cls(store, root, plan) if plan.spec_digest else None

    async def page(
        self, after: Place | None, limit: int, wanted: frozenset[str] | None = None
    ) -> tuple[list[RowSoFar], bool]:
        """Return the rows that come next, at most `limit`, and whether there may be more behind them.

        It costs some small reads for each shard that it comes by. Of a shard that is settled, the rows of the page are
        read, and those before them only where `after` does not say where in the file it was; of one that is not, its
        index, and where there are such the indexes of what is kept, or the output of an attempt that has ended.

        Args:
            wanted: only rows with one of these statuses.

        Raises:
            StoreError: the store failed.
        """
        found: list[RowSoFar] = []
        for shard in range(after.shard if after else 0, self.plan.shards):
            start = after if after and after.shard == shard else None
            settled = await self._settled(shard)
            room = limit + 1 - len(found)
            if settled is not None:
                found += await asyncio.to_thread(self._of_settled, shard, settled, start, room, wanted)
            else:
                found += await self._of_running(shard, start, room, wanted)
            if len(found) > limit:
                return found[:limit], True
            if sum(len(row.result or b"") for row in found) >= PAGE_BYTES:
                return found, True
        return found, False

    async def settled(self) -> list[SettledRecord]:
        """Return the accounts of the shards that are settled."""
        found: list[SettledRecord] = []
        for first in range(0, self.plan.shards, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, self.plan.shards))
            found += [one for one in await asyncio.gather(*map(self._settled, numbers)) if one]
        return found

    async def _settled(self, shard: int) -> SettledRecord | None:
        try:
            return SettledRecord.model_validate_json(await self._store.read(settled_path(self._root, shard)))
        except ObjectNotFound:
            return None

    # --- a shard that is settled ---

    def _of_settled(
        self, shard: int, settled: SettledRecord, start: Place | None, room: int, wanted: frozenset[str] | None
    ) -> list[RowSoFar]:
        """Return rows of a shard's results. Blocks."""
        if wanted is not None and not any(getattr(settled.counts, status, 0) for status in wanted):
            return []
        if wanted is not None and RowStatus.SUCCEEDED not in wanted:
            path = f"{self._root}/{part_name(shard, ERRORS)}"
            return some(errors(self._store, path, index_path(self._root, shard), shard, start), room, wanted)
        path = f"{self._root}/{part_name(shard, RESULTS)}"
        return some(results(self._store, path, shard, start, "r"), room, wanted)

    # --- a shard that is not ---

    async def _of_running(
        self, shard: int, start: Place | None, room: int, wanted: frozenset[str] | None
    ) -> list[RowSoFar]:
        if wanted is not None and not wanted & {RowStatus.SUCCEEDED.value, PENDING}:
            return []
        try:
            record = await asyncio.to_thread(read_shard_now, self._store, self._root, shard)
        except ObjectNotFound:
            return []  # the plan is being made anew
        kind = KINDS.get(self.plan.kind)
        format = row_format(self.plan.kind) if kind else None
        answers = await self._answers(shard, record, format) if format else {}
        first = start.row + 1 if start else 0
        found: list[RowSoFar] = []
        rows = (
            (number, row.custom_id)
            for number, row in enumerate(read_index(self._store, index_path(self._root, shard)))
            if number >= first
            and (wanted is None or (number in answers) == (RowStatus.SUCCEEDED in wanted) or len(wanted) > 1)
        )
        size = 0
        while len(found) < room and size < PAGE_BYTES:
            batch = await asyncio.to_thread(_take, rows, min(_AT_ONCE, room - len(found)))
            if not batch:
                break
            read = await asyncio.gather(*(self._row(shard, *one, answers.get(one[0]), format) for one in batch))
            kept = [row for row in read if wanted is None or row.status in wanted]
            size += sum(len(row.result or b"") for row in kept)
            found += kept
        return found

    async def _row(
        self, shard: int, number: int, custom_id: str, answer: _Answer | None, format: RowFormat | None
    ) -> RowSoFar:
        pending = RowSoFar(Place(shard, number), custom_id, PENDING, None)
        if answer is None or format is None:
            return pending
        try:
            data = await asyncio.to_thread(self._read, answer)
            outcome = format.outcome(data.rstrip(b"\n"))
        except (ObjectNotFound, ValueError):
            return pending  # it is being joined with others just now; or settling finds out what it is
        if outcome.status is not RowStatus.SUCCEEDED:
            return pending
        row = ResultRow(
            custom_id=custom_id,
            status=outcome.status,
            text=outcome.text,
            model=outcome.model,
            usage=sensible(outcome.tokens),
            response=outcome.response,
            attempts=answer.attempt,
            mode=answer.mode,
        )
        return RowSoFar(pending.place, custom_id, outcome.status.value, result_line(row).rstrip(b"\n"))

    def _read(self, answer: _Answer) -> bytes:
        size = max(1, answer.end - answer.start)
        if answer.kept is not None:
            return b"".join(answer.kept.read(self._store, answer.start, answer.end, size))
        return b"".join(self._store.stream(answer.path, answer.start, answer.end, size))

    async def _answers(self, shard: int, record: ShardRecord, format: RowFormat) -> dict[int, _Answer]:
        """Return where the successes of a shard's attempts are, by the rows' numbers."""
        kinds: dict[int, set[Kind]] = {}
        for path, _ in await self._store.list(f"{self._root}/{shard_folder(shard)}"):
            name = parse_name(path[len(self._root) + 1 :])
            if name is not None and name.attempt is not None and (name.kind is not Kind.ANSWERS or name.stem == OUTPUT):
                kinds.setdefault(name.attempt, set()).add(name.kind)
        found: dict[int, _Answer] = {}
        for number, kind in sorted(kinds.items()):
            attempt = Attempt(
                scoped_id=self.plan.scoped_id,
                provider=str(self.plan.spec.get("provider", "")),
                root=self._store.uri(self._root),
                shard=shard,
                number=number,
                store=self.plan.store,
            )
            try:
                rows = await AttemptRows.read(self._store, attempt, record)
                if kind & {Kind.KEPT, Kind.RAN, Kind.SENT}:
                    await self._kept(rows, found)
                elif Kind.ANSWERS in kind:
                    await asyncio.to_thread(self._fetched, rows, format, found)
            except ObjectNotFound:
                continue  # another step is about to replace it
        return found

    async def _kept(self, rows: AttemptRows, found: dict[int, _Answer]) -> None:
        """Add what an attempt in direct mode has kept, and what is joined already."""
        number = rows.attempt.number
        kept = await KeptRows(self._store, rows.attempt, rows.digest).find()
        places: list[tuple[str, KeptFile | None, int, list[tuple[int, int, bool]]]] = [
            (file.path, file, file.start, [(line.row, line.length, line.succeeded) for line in file.lines])
            for file in kept.files
        ]
        if kept.ran is not None:
            output = answers_path(self._root, rows.attempt.shard, number, OUTPUT)
            lines = [(line.row, line.length, line.succeeded) for line in kept.ran.lines]
            places.append((output, None, 0, lines))
        for path, file, start, lines in places:
            for row, length, succeeded in lines:
                if succeeded:
                    found[row] = _Answer(number, Mode.DIRECT, start, start + length, path, file)
                start += length

    def _fetched(self, rows: AttemptRows, format: RowFormat, found: dict[int, _Answer]) -> None:
        """Add the successes in the output of a provider's batch. Blocks."""
        number = rows.attempt.number
        path = answers_path(self._root, rows.attempt.shard, number, OUTPUT)
        sent = {format.sent_id(row.custom_id, rows.seal, one): one for one, row in rows.read_sent(self._store)}
        start = 0
        for line in split_lines(self._store.stream(path)):
            end = start + len(line) + 1
            try:
                outcome = format.outcome(line)
            except ValueError:
                outcome = None
            row = sent.get(outcome.custom_id) if outcome else None
            if outcome is not None and row is not None and outcome.status is RowStatus.SUCCEEDED:
                found.setdefault(row, _Answer(number, Mode.BATCH, start, end, path))
            start = end


def _take(rows: Iterator[tuple[int, str]], count: int) -> list[tuple[int, str]]:
    return list(itertools.islice(rows, count))
