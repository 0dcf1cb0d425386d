"""Settle: account for every row of a shard; choose rows to try again, or write the results in input order."""

from __future__ import annotations

import contextlib
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from ..contract import AccountingError, Counts, ErrorClass, RowStatus, Strays, Usage
from ..contract.errors import ObjectNotFound
from ..contract.steps import SETTLE, AttemptRecord, Settled, SettleRequest
from ._boundary import Pulse, in_thread, step
from .prices import Prices, dollars
from .providers import Outcome, Provider
from .providers.base import RowFailure, RowResponse, RowTokens
from .records import IndexRow, ShardRecord, index_path, picked_path, read_index, read_picked, read_shard
from .resources import Resources
from .store import Store, Writer

_CHUNK = 1 << 20
_encode = msgspec.json.Encoder().encode

#: What a row is whose last word is of this class; every other class means that it failed.
_STATUS_OF = {ErrorClass.EXPIRED: RowStatus.EXPIRED, ErrorClass.CANCELED: RowStatus.CANCELED}
#: What the rest is told when a cancel or the deadline came first.
_UNFINISHED = {
    RowStatus.CANCELED: (ErrorClass.CANCELED, "The batch was cancelled before this row was finished."),
    RowStatus.EXPIRED: (ErrorClass.EXPIRED, "The batch's deadline came before this row was finished."),
    RowStatus.FAILED: (ErrorClass.OTHER, "The batch ended before this row was submitted."),
}


class _ResultRow(msgspec.Struct, kw_only=True):
    """A line of results.jsonl; the contract's ResultRow describes it."""

    custom_id: str
    status: RowStatus
    text: str | None = None
    model: str | None = None
    usage: RowTokens | None = None
    cost_usd: str | None = None
    response: RowResponse | None = None
    error: RowFailure | None = None
    attempts: int = 0
    provider_batch_id: str | None = None


class Settle:
    """The step that makes promise G2 true: every row once."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(SETTLE)
    async def settle(self, request: SettleRequest, pulse: Pulse) -> Settled:
        """Return the shard's accounts after its newest attempt.

        Where rows are worth another try and another attempt may follow, they are written down for it. Otherwise the
        shard's results are written: exactly one row per request.

        Raises:
            AccountingError: the rows do not add up.
        """
        store, attempt = self._resources.store, request.attempt
        record = await read_shard(store, attempt)
        sent = [
            (past, await read_picked(store, attempt.model_copy(update={"number": past.number})))
            for past in request.attempts
            if past.provider_batch_id is not None
        ]
        accounts = _Accounts(
            store,
            self._resources.provider(attempt.provider),
            self._resources.prices(attempt.provider),
            request,
            record,
            sent,
            pulse,
        )
        return await in_thread(pulse, accounts.settle)


class _Accounts:
    """One shard's rows and what every attempt said of them. Blocks: runs in a thread.

    Memory holds a few numbers and the id of each row; the rows themselves lie in a spool on disk, each one written when
    it is read and found again by its place.
    """

    def __init__(
        self,
        store: Store,
        provider: Provider,
        prices: Prices,
        request: SettleRequest,
        record: ShardRecord,
        sent: list[tuple[AttemptRecord, list[int] | None]],
        pulse: Pulse,
    ) -> None:
        self._store = store
        self._provider = provider
        self._prices = prices
        self._request = request
        self._record = record
        self._sent = sent
        self._pulse = pulse
        self._root = store.path(request.attempt.root)
        self._folder = f"{self._root}/{request.attempt.shard_folder}"
        rows = record.rows
        self._classes: list[ErrorClass | None] = [None] * rows  # of each row's last word
        self._statuses: list[RowStatus | None] = [None] * rows
        self._absent: dict[int, AttemptRecord] = {}  # rows whose last word is that there was none
        self._offsets = array("q", [0]) * rows
        self._lengths = array("q", [0]) * rows  # 0: not in the spool
        self._attempts = bytearray(rows)
        self._usage = [0, 0, 0, 0]
        self._cost: int | None = 0
        self._strays = Counter[str]()
        self._open = contextlib.ExitStack()
        self._unmatched: Writer | None = None

    def settle(self) -> Settled:
        index = list(read_index(self._store, index_path(self._root, self._request.attempt.shard)))
        if len(index) != self._record.rows:
            raise AccountingError(f"The shard's index has {len(index):,} rows, and its plan {self._record.rows:,}.")
        with contextlib.ExitStack() as self._open, tempfile.TemporaryFile(prefix="durabatch-settle-") as spool:
            for past, picked in self._sent:
                self._read(past, picked, index, spool)
            again = self._again(index) if self._request.unfinished is None else []
            if again:
                self._write_picked(again)
                return self._settled(Counts(total=len(index)), len(again))
            counts = self._write(index, spool)
        settled = self._settled(counts, 0)
        with self._store.writer(f"{self._folder}/settled.json") as out:
            out.write(settled.model_dump_json().encode())
        return settled

    def _read(self, past: AttemptRecord, picked: list[int] | None, index: list[IndexRow], spool: BinaryIO) -> None:
        """Read what one attempt brought; its word replaces an earlier one's."""
        marker = self._request.attempt.model_copy(update={"number": past.number}).marker
        numbers = range(len(index)) if picked is None else picked
        wanted = {
            self._provider.wire_id(index[number].custom_id, marker, number): number
            for number in numbers
            if index[number].refusal is None
        }
        attempt_folder = f"{self._folder}/attempt-{past.number}"
        for number in wanted.values():
            self._absent[number] = past
            self._attempts[number] += past.counted
        seen: set[int] = set()
        for name in ("output", "error"):
            for line in self._result_lines(f"{attempt_folder}/{name}.jsonl"):
                self._pulse.rows += 1
                self._take(line, wanted, seen, past, index, spool)

    def _take(
        self,
        line: bytes,
        wanted: dict[str, int],
        seen: set[int],
        past: AttemptRecord,
        index: list[IndexRow],
        spool: BinaryIO,
    ) -> None:
        try:
            outcome = self._provider.outcome(line)
        except (ValueError, RecursionError):
            self._stray("unreadable", line)
            return
        number = wanted.get(outcome.custom_id)
        if number is None:
            self._stray("unknown", line)
            return
        # Whatever the provider answered it bills, so a second answer for one row is counted as well.
        cost = self._bill(outcome)
        if number in seen:
            self._stray("duplicate", line)
            # A success is not taken back by a later failure.
            if self._statuses[number] is RowStatus.SUCCEEDED or outcome.status is not RowStatus.SUCCEEDED:
                return
        seen.add(number)
        self._absent.pop(number, None)
        failure = outcome.failure
        if failure and failure.type is ErrorClass.CANCELED and past.absent is ErrorClass.EXPIRED:
            # It was the deadline that had the provider cancel it.
            failure = RowFailure(type=ErrorClass.EXPIRED, code=failure.code, message=failure.message)
        status = _STATUS_OF.get(failure.type, outcome.status) if failure else outcome.status
        row = _ResultRow(
            custom_id=index[number].custom_id,
            status=status,
            text=outcome.text,
            model=outcome.model,
            usage=outcome.tokens,
            cost_usd=None if cost is None else dollars(self._prices.paid(cost)),
            response=outcome.response,
            error=failure,
            attempts=self._attempts[number],
            provider_batch_id=past.provider_batch_id,
        )
        data = _encode(row) + b"\n"
        self._offsets[number] = spool.tell()
        self._lengths[number] = len(data)
        spool.write(data)
        self._statuses[number] = status
        self._classes[number] = failure.type if failure else None

    def _bill(self, outcome: Outcome) -> int | None:
        """Count a row's tokens and return its list price."""
        tokens = outcome.tokens
        if tokens is None:
            return 0 if outcome.failure else None
        self._usage[0] += tokens.input_tokens
        self._usage[1] += tokens.cached_input_tokens
        self._usage[2] += tokens.output_tokens
        self._usage[3] += tokens.reasoning_tokens
        cost = self._prices.list_cost(outcome.model, tokens)
        # One unknown price makes the sum unknown; a part of it would look like the whole.
        self._cost = None if self._cost is None or cost is None else self._cost + cost
        return cost

    def _stray(self, what: str, line: bytes) -> None:
        self._strays[what] += 1
        if self._unmatched is None:
            self._unmatched = self._open.enter_context(self._store.writer(f"{self._folder}/unmatched.jsonl"))
        self._unmatched.write(line + b"\n")

    def _result_lines(self, path: str) -> Iterator[bytes]:
        """Yield the lines of a provider's file; none if there is no such file."""
        pending = b""
        try:
            for chunk in self._store.stream(path, chunk=_CHUNK):
                self._pulse.check()
                *whole, pending = (pending + chunk).split(b"\n")
                for line in whole:
                    if line.strip():
                        yield line
        except ObjectNotFound:
            return
        if pending.strip():
            yield pending

    def _again(self, index: list[IndexRow]) -> list[int]:
        """Return the rows worth another try."""
        retry = set(self._request.retry.classes)
        found = []
        for number, row in enumerate(index):
            if row.refusal is None:
                past = self._absent.get(number)
                last = past.absent if past else self._classes[number]
                if last in retry:
                    found.append(number)
        return found

    def _write_picked(self, again: list[int]) -> None:
        attempt = self._request.attempt
        with self._store.writer(picked_path(self._root, attempt.shard, attempt.number + 1)) as out:
            out.write(_encode(again))

    def _write(self, index: list[IndexRow], spool: BinaryIO) -> Counts:
        """Write results and errors in input order; return the rows by status."""
        counts: Counter[RowStatus] = Counter()
        spool.flush()
        with (
            self._store.writer(f"{self._folder}/results.jsonl") as results,
            self._store.writer(f"{self._folder}/errors.jsonl") as errors,
        ):
            for number, row in enumerate(index):
                if not number % 1024:
                    self._pulse.check()
                past = self._absent.get(number)
                status = self._statuses[number]
                if past is None and self._lengths[number] and status is not None:
                    spool.seek(self._offsets[number])
                    data = spool.read(self._lengths[number])
                else:
                    status, data = self._unanswered(number, row, past)
                counts[status] += 1
                results.write(data)
                if status is not RowStatus.SUCCEEDED:
                    errors.write(data)
        found = Counts(
            total=self._record.rows,
            succeeded=counts[RowStatus.SUCCEEDED],
            failed=counts[RowStatus.FAILED],
            canceled=counts[RowStatus.CANCELED],
            expired=counts[RowStatus.EXPIRED],
        )
        if found.settled != found.total:
            raise AccountingError(f"The shard has {found.total:,} rows, and {found.settled:,} of them have ended.")
        return found

    def _unanswered(self, number: int, row: IndexRow, past: AttemptRecord | None) -> tuple[RowStatus, bytes]:
        """Return the result of a row that no provider answered."""
        if row.refusal is not None:
            refusal = row.refusal
            failure = RowFailure(type=ErrorClass.INVALID_ROW, code=refusal.field, message=str(refusal))
            status = RowStatus.FAILED
        elif past is not None and past.absent not in (ErrorClass.CANCELED, ErrorClass.EXPIRED):
            failure = RowFailure(type=past.absent, code=past.absent.value, message=past.message)
            status = RowStatus.FAILED
        else:
            # Why it is unfinished: as the provider said, or as the batch ended.
            status = self._request.unfinished or RowStatus.FAILED
            if past is not None and status is RowStatus.FAILED:
                status = _STATUS_OF[past.absent]
            kind, message = _UNFINISHED[status]
            told = past.message if past and past.message else self._request.message or message
            failure = RowFailure(type=kind, code=kind.value, message=told)
        self._classes[number] = failure.type
        result = _ResultRow(
            custom_id=row.custom_id,
            status=status,
            error=failure,
            attempts=self._attempts[number],
            provider_batch_id=past.provider_batch_id if past else None,
        )
        return status, _encode(result) + b"\n"

    def _settled(self, counts: Counts, again: int) -> Settled:
        classes = Counter(str(found) for found in self._classes if found is not None)
        if again:
            classes.update(str(past.absent) for past in self._absent.values())
        cost = self._cost
        return Settled(
            counts=counts,
            usage=Usage(
                input_tokens=self._usage[0],
                cached_input_tokens=self._usage[1],
                output_tokens=self._usage[2],
                reasoning_tokens=self._usage[3],
            ),
            cost_usd=None if cost is None else dollars(self._prices.paid(cost)),
            list_cost_usd=None if cost is None else dollars(cost),
            strays=Strays(**self._strays),
            retry_rows=again,
            classes=dict(classes),
        )
