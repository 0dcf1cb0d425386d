"""The accounts of a shard: what every attempt said of every row, and the results that follow from it."""

from __future__ import annotations

import contextlib
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator

import msgspec

from ..contract import AccountingError, Counts, ErrorClass, RowStatus, StoreError, Strays, Usage
from ..contract.errors import ObjectNotFound
from ..contract.steps import AttemptRecord, Settled, SettleRequest
from ._boundary import Pulse
from .lines import split_lines
from .prices import Prices, dollars
from .providers import Outcome, Provider
from .providers.base import RowFailure, RowTokens, sealed
from .records import (
    Refusal,
    SettledRecord,
    ShardRecord,
    attempt_digest,
    index_path,
    picked_path,
    read_index,
    settled_path,
)
from .results import STATUS_OF, ResultRow, result_line, unanswered
from .spool import Spool
from .store import Store, Writer

_encode = msgspec.json.Encoder().encode


class Accounts:
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
        self._ids: list[str] = []
        self._refusals: dict[int, Refusal] = {}
        self._classes: list[ErrorClass | None] = [None] * rows  # of each row's last word
        self._statuses: list[RowStatus | None] = [None] * rows
        self._absent: list[AttemptRecord | None] = [None] * rows  # where a row's last word is that there was none
        self._offsets = array("q", [0]) * rows
        self._lengths = array("q", [0]) * rows  # 0: not in the spool
        self._attempts = bytearray(rows)
        self._usage = [0, 0, 0, 0]
        self._list_cost: int | None = 0
        self._paid = 0
        self._strays = Counter[str]()
        self._open = contextlib.ExitStack()
        self._unmatched: Writer | None = None

    def settle(self) -> Settled:
        for row in read_index(self._store, index_path(self._root, self._request.attempt.shard)):
            if row.refusal is not None:
                self._refusals[len(self._ids)] = row.refusal
            self._ids.append(row.custom_id)
        if len(self._ids) != self._record.rows:
            raise AccountingError(f"The shard's index has {len(self._ids):,} rows, and its plan {self._record.rows:,}.")
        with contextlib.ExitStack() as self._open:
            file = self._open.enter_context(tempfile.TemporaryFile(prefix="durabatch-settle-", buffering=0))
            spool = Spool(file)
            for past, picked in self._sent:
                self._read(past, picked, spool)
            again = self._again() if self._request.unfinished is None else []
            if again:
                self._write_picked(again)
                return self._settled(Counts(total=len(self._ids)), len(again))
            counts, results_bytes, errors_bytes = self._write(spool)
        settled = self._settled(counts, 0)
        record = SettledRecord(**dict(settled), results_bytes=results_bytes, errors_bytes=errors_bytes)
        with self._store.writer(settled_path(self._root, self._request.attempt.shard)) as out:
            out.write(record.model_dump_json().encode())
        return settled

    def _read(self, past: AttemptRecord, picked: list[int] | None, spool: Spool) -> None:
        """Read what one attempt brought; its word replaces an earlier one's."""
        marker = self._request.attempt.model_copy(update={"number": past.number}).marker
        seal = sealed(marker, attempt_digest(self._record, picked))
        wanted: dict[str, int] = {}
        for number in range(len(self._ids)) if picked is None else picked:
            if number not in self._refusals:
                wanted[self._provider.wire_id(self._ids[number], seal, number)] = number
                self._absent[number] = past
                self._classes[number] = None
                self._attempts[number] += past.counted
        attempt_folder = f"{self._folder}/attempt-{past.number}"
        seen = bytearray(len(self._ids))
        lines = 0
        for name in ("output", "error") if past.fetched else ():
            for line in self._lines(f"{attempt_folder}/{name}.jsonl"):
                lines += 1
                self._pulse.rows += 1
                if not lines % 1024:
                    self._pulse.check()
                if line.strip():
                    self._take(line, wanted, seen, past, spool)
        if past.lines is not None and lines < past.lines:
            # Rows whose results are lost here must not look like ones the provider lost: those are bought again.
            raise StoreError(
                f"The results of attempt {past.number} have {lines:,} lines in the store, and {past.lines:,} were "
                f"fetched: bring {attempt_folder} back, or reset the workflow to before the fetch."
            )

    def _take(
        self,
        line: bytes,
        wanted: dict[str, int],
        seen: bytearray,
        past: AttemptRecord,
        spool: Spool,
    ) -> None:
        try:
            outcome = self._provider.outcome(line)
        except Exception:  # whatever a provider writes, it must not keep the other rows from their results
            self._stray("unreadable", line)
            return
        number = wanted.get(outcome.custom_id)
        if number is None:
            self._stray("unknown", line)
            return
        tokens = _sensible(outcome.tokens)
        # Whatever the provider answered it bills, so a second answer for one row is counted as well.
        cost = self._bill(outcome, tokens)
        if seen[number]:
            self._stray("duplicate", line)
            # A success is not taken back by a later failure.
            if self._statuses[number] is RowStatus.SUCCEEDED or outcome.status is not RowStatus.SUCCEEDED:
                return
        seen[number] = True
        self._absent[number] = None
        failure = outcome.failure
        if failure and failure.type is ErrorClass.CANCELED and past.absent is ErrorClass.EXPIRED:
            # It was the deadline that had the provider cancel it.
            failure = RowFailure(type=ErrorClass.EXPIRED, code=failure.code, message=failure.message)
        status = STATUS_OF.get(failure.type, outcome.status) if failure else outcome.status
        row = ResultRow(
            custom_id=self._ids[number],
            status=status,
            text=outcome.text,
            model=outcome.model,
            usage=tokens,
            cost_usd=None if cost is None else dollars(cost),
            response=outcome.response,
            error=failure,
            attempts=self._attempts[number],
            provider_batch_id=past.provider_batch_id,
        )
        data = result_line(row)
        self._offsets[number] = spool.append(data)
        self._lengths[number] = len(data)
        self._statuses[number] = status
        self._classes[number] = failure.type if failure else None

    def _bill(self, outcome: Outcome, tokens: RowTokens | None) -> int | None:
        """Count a row's tokens and return what it cost, in picodollars."""
        if tokens is None and outcome.failure:
            return 0
        cost = self._prices.list_cost(outcome.model, tokens, outcome.cache_writes)
        if tokens is not None:
            self._usage[0] += tokens.input_tokens
            self._usage[1] += tokens.cached_input_tokens
            self._usage[2] += tokens.output_tokens
            self._usage[3] += tokens.reasoning_tokens
        if cost is None:
            self._list_cost = None  # a sum of the known ones would look like the whole
            return None
        if self._list_cost is not None:
            self._list_cost += cost
        paid = self._prices.paid(cost)
        self._paid += paid
        return paid

    def _stray(self, what: str, line: bytes) -> None:
        self._strays[what] += 1
        if self._unmatched is None:
            self._unmatched = self._open.enter_context(self._store.writer(f"{self._folder}/unmatched.jsonl"))
        self._unmatched.write(line + b"\n")

    def _lines(self, path: str) -> Iterator[bytes]:
        """Yield the lines of a provider's file; none if there is no such file."""
        with contextlib.suppress(ObjectNotFound):
            yield from split_lines(self._store.stream(path))

    def _again(self) -> list[int]:
        """Return the rows worth another try."""
        retry = set(self._request.retry.classes)
        found = []
        for number, past in enumerate(self._absent):
            last = past.absent if past else self._classes[number]
            if last in retry and number not in self._refusals:
                found.append(number)
        return found

    def _write_picked(self, again: list[int]) -> None:
        attempt = self._request.attempt
        with self._store.writer(picked_path(self._root, attempt.shard, attempt.number + 1)) as out:
            out.write(_encode(again))

    def _write(self, spool: Spool) -> tuple[Counts, int, int]:
        """Write results and errors in input order; return the rows by status, and the bytes of both."""
        counts: Counter[RowStatus] = Counter()
        spool.flush()
        with (
            self._store.writer(f"{self._folder}/results.jsonl") as results,
            self._store.writer(f"{self._folder}/errors.jsonl") as errors,
        ):
            for number, past in enumerate(self._absent):
                if not number % 1024:
                    self._pulse.check()
                status = self._statuses[number]
                if past is None and status is not None:
                    data = spool.read(self._offsets[number], self._lengths[number])
                else:
                    status, data = self._unanswered(number, past)
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
        return found, results.bytes_written, errors.bytes_written

    def _unanswered(self, number: int, past: AttemptRecord | None) -> tuple[RowStatus, bytes]:
        """Return the result of a row that no provider answered."""
        status, failure = unanswered(self._refusals.get(number), past, self._request)
        self._classes[number] = failure.type
        row = ResultRow(
            custom_id=self._ids[number],
            status=status,
            error=failure,
            attempts=self._attempts[number],
            provider_batch_id=past.provider_batch_id if past else None,
        )
        return status, result_line(row)

    def _settled(self, counts: Counts, again: int) -> Settled:
        classes = Counter(str(found) for found in self._classes if found is not None)
        if again:
            classes.update(str(past.absent) for past in self._absent if past)
        return Settled(
            counts=counts,
            usage=Usage(
                input_tokens=self._usage[0],
                cached_input_tokens=self._usage[1],
                output_tokens=self._usage[2],
                reasoning_tokens=self._usage[3],
            ),
            cost_usd=None if self._list_cost is None else dollars(self._paid),
            list_cost_usd=None if self._list_cost is None else dollars(self._list_cost),
            strays=Strays(**self._strays),
            retry_rows=again,
            classes=dict(classes),
        )


def _sensible(tokens: RowTokens | None) -> RowTokens | None:
    """Return a row's tokens, None where a provider counts fewer than none."""
    if tokens is None or tokens.input_tokens < 0 or tokens.output_tokens < 0:
        return None
    return tokens if tokens.cached_input_tokens >= 0 and tokens.reasoning_tokens >= 0 else None
