"""The rows of a batch that has ended which did not succeed, as its input has them: what a retry sends again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from ..contract import AccountingError, InvalidInput, InvalidSpec, NotRetryable, ObjectNotFound, RowStatus, StoreError
from ..contract.layout import RESULTS, index_path, inline_path, part_name, plan_path, settled_path
from .content import with_data
from .input import File, find_files
from .lines import split_lines
from .plan_inputs import input_digest
from .records import IndexRow, PlanRecord, SettledRecord, decode_plan, read_index, read_shard_now
from .rows import RowRefused, parse
from .store import Store

#: Rows between two looks whether anybody still waits for them.
_ROWS_A_CHECK = 1024


class _Ended(msgspec.Struct):
    """What is looked at in a line of results."""

    custom_id: str
    status: RowStatus


_ended = msgspec.json.Decoder(_Ended).decode


class LeftRows:
    """What a batch has left over.

    Rows that its plan refused are not part of it: they would be refused again. `open` makes one.
    """

    def __init__(self, store: Store, batch_id: str, root: str, plan: PlanRecord) -> None:
        self._store = store
        self._batch_id = batch_id
        self._root = root
        self.plan = plan
        self.rows = 0  #: Rows that were yielded so far.
        self.refused = 0  #: Rows that were passed over so far because the plan refused them.

    @classmethod
    async def open(cls, store: Store, batch_id: str, root: str) -> LeftRows:
        """Find what a batch has left over.

        Args:
            batch_id: for messages.
            root: path of its folder.

        Raises:
            NotRetryable: its input has changed or is gone, or what is known of its rows was cleared away.
            StoreError: the store failed.
        """
        try:
            plan = decode_plan(await store.read(plan_path(root)))
        except (ObjectNotFound, msgspec.MsgspecError):
            raise _cleared(batch_id) from None
        self = cls(store, batch_id, root, plan)
        await self._check_input()
        return self

    async def _check_input(self) -> None:
        """See that the input is what was planned, as far as its files' names, sizes and dates show it."""
        spec, store = self.plan.spec, self._store
        try:
            if uri := spec.get("input"):
                files = await find_files(store, str(uri))
            elif spec:
                path = inline_path(self._root)
                files = (File(path, await store.size(path) or 0, None),)
            else:
                return  # an older version's plan; each row is compared when it is read
        except (InvalidInput, InvalidSpec):
            raise NotRetryable(
                f"The input of the batch {self._batch_id!r} is gone, so its rows cannot be retried: bring it back, or "
                "give the requests again as a new batch."
            ) from None
        if input_digest(self.plan.asked, files) != self.plan.input:
            raise self._changed()

    def lines(self, check: Callable[[], object] = lambda: None) -> Iterator[bytes]:
        """Yield the rows in input order, each with a line break. Blocks: call it from a thread.

        A shard of which every row succeeded costs one small read; of the others, results and input are read once, with
        a piece of each in memory.

        Args:
            check: called now and then; what it raises ends it.

        Raises:
            NotRetryable: as `open`.
            StoreError: the store failed, or the results do not fit the plan.
        """
        try:
            for shard in range(self.plan.shards):
                check()
                yield from self._shard(shard, check)
        except ObjectNotFound:
            raise _cleared(self._batch_id) from None
        except AccountingError:  # it has become shorter
            raise self._changed() from None

    def _shard(self, shard: int, check: Callable[[], object]) -> Iterator[bytes]:
        store = self._store
        settled = SettledRecord.model_validate_json(b"".join(store.stream(settled_path(self._root, shard))))
        if settled.counts.succeeded == settled.counts.total:
            return
        record = read_shard_now(store, self._root, shard)
        for _, row, data in with_data(store, record, self._unfinished(shard, check)):
            try:
                same = parse(data).custom_id == row.custom_id
            except RowRefused:
                same = False
            if not same:
                raise self._changed()
            self.rows += 1
            yield data + b"\n"

    def _unfinished(self, shard: int, check: Callable[[], object]) -> Iterator[tuple[int, IndexRow]]:
        """Yield the rows of a shard that did not succeed, by its index and its results, which have the same order."""
        store, place = self._store, f"{self._root}/{part_name(shard, RESULTS)}"
        results = split_lines(store.stream(place))
        for number, row in enumerate(read_index(store, index_path(self._root, shard))):
            if not number % _ROWS_A_CHECK:
                check()
            try:
                ended = _ended(next(results, b""))
            except msgspec.MsgspecError:
                ended = None
            if ended is None or ended.custom_id != row.custom_id:
                raise StoreError(
                    f"Row {number + 1} of {store.uri(place)} is not that of the request {number + 1}: bring the file "
                    "back as it was."
                )
            if ended.status is RowStatus.SUCCEEDED:
                continue
            if row.refusal is not None:
                self.refused += 1
            else:
                yield number, row

    def _changed(self) -> NotRetryable:
        return NotRetryable(
            f"The input of the batch {self._batch_id!r} has changed since it was run, so its rows cannot be retried: "
            "bring it back as it was, or give the requests again as a new batch."
        )


def _cleared(batch_id: str) -> NotRetryable:
    return NotRetryable(
        f"The input of the batch {batch_id!r}, or what was known of its rows, was removed, so they cannot be retried: "
        "give the requests again as a new batch."
    )
