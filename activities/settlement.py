"""The settlement of a shard: what every attempt said about every row, and the results that follow from it."""

from __future__ import annotations

import contextlib
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator

import msgspec

from ..contract import AccountingError, Counts, DirectShare, ErrorClass, Mode, RowStatus, StoreError, Strays
from ..contract.errors import ObjectNotFound
from ..contract.layout import (
    ERROR,
    ERRORS,
    OUTPUT,
    RESULTS,
    answers_path,
    attempt_folder,
    index_path,
    part_name,
    picked_path,
    settled_path,
    unmatched_name,
)
from ..contract.steps import AttemptRecord, Settled, SettleRequest
from .answers import Answers
from .attempt_rows import AttemptRows, Bought
from .bill import Bill, sensible
from .budget import Budget
from .lease import Lease
from .lines import Text, split_lines
from .prices import Prices, dollars
from .providers import Outcome, Provider
from .providers.outcome import RowFailure
from .records import Refusal, SettledRecord, ShardRecord, read_index
from .repair import ids
from .results import STATUS_OF, ResultRow, result_line, unanswered, unread
from .spool import Spool
from .store import Store, Writer

_encode = msgspec.json.Encoder().encode


class Settlement:
    """One shard's rows, and what every attempt said about them. Blocks: runs in a thread.

    Memory holds the id of each row and a few numbers; the rows themselves are in a spool on disk, each written when it
    is read, and found again by its offset.
    """

    def __init__(
        self,
        store: Store,
        provider: Provider,
        prices: Prices,
        request: SettleRequest,
        shard: ShardRecord,
        sent: list[tuple[AttemptRecord, AttemptRows]],
        bought: Bought | None,
        budget: Budget | None,
        lease: Lease,
    ) -> None:
        self._store = store
        self._format = provider.rows
        self._bill = Bill(prices, shard.model)
        self._request = request
        self._record = shard
        self._sent = sent
        self._bought = bought
        self._budget = budget
        self._lease = lease
        self._root = store.path(request.attempt.root)
        self._shard = request.attempt.shard
        rows = shard.rows
        self._ids: list[str] = []
        self._refusals: dict[int, Refusal] = {}
        self._classes: list[ErrorClass | None] = [None] * rows  # of the last answer to each row
        self._statuses: list[RowStatus | None] = [None] * rows
        self._absent: list[AttemptRecord | None] = [None] * rows  # the last one to take it, if it brought nothing
        self._offsets = array("q", [0]) * rows
        self._lengths = array("q", [0]) * rows  # 0: not in the spool
        self._attempts = bytearray(rows)
        self._direct = bytearray(rows)  # 1: its last answer is one of direct mode
        self._answered = 0  # rows answered by the attempt that is being read
        self._paid_unseen = set[int]()  # attempts of which fewer rows came back than the provider answered
        self._strays = Counter[str]()
        self._open = contextlib.ExitStack()
        self._unmatched: Writer | None = None

    def settle(self) -> Settled:
        for row in read_index(self._store, index_path(self._root, self._shard)):
            if row.refusal is not None:
                self._refusals[len(self._ids)] = row.refusal
            self._ids.append(row.custom_id)
        if len(self._ids) != self._record.rows:
            raise AccountingError(f"The shard's index has {len(self._ids):,} rows, and its plan {self._record.rows:,}.")
        with contextlib.ExitStack() as self._open:
            file = self._open.enter_context(tempfile.TemporaryFile(prefix="durabatch-settle-", buffering=0))
            spool = Spool(file)
            for past, taken in self._sent:
                self._read(past, taken, spool)
            again = self._again() if self._request.unfinished is None else []
            if self._bought and self._bought.rows:
                settled = self._settled(Counts(total=len(self._ids)), len(self._bought.rows))
                other = self._bought.rows != again
                return settled.model_copy(update={"only_if_bought": other, "mode": self._bought.mode})
            mode = Mode.DIRECT if self._finishes_directly(again) else None
            too_dear = self._too_dear(again) if mode else None
            if again and not too_dear:
                self._write_picked(again)
                return self._settled(Counts(total=len(self._ids)), len(again)).model_copy(update={"mode": mode})
            counts, results_bytes, errors_bytes = self._write(spool)
        settled = self._settled(counts, 0).model_copy(update={"too_dear": too_dear})
        record = SettledRecord(
            **dict(settled), results_bytes=results_bytes, errors_bytes=errors_bytes, models=self._bill.models
        )
        with self._store.writer(settled_path(self._root, self._shard)) as out:
            out.write(record.model_dump_json().encode())
        return settled

    def _read(self, past: AttemptRecord, taken: AttemptRows, spool: Spool) -> None:
        """Read the results of one attempt; they replace those of earlier ones."""
        seal = taken.seal
        wanted: dict[str, int] = {}
        for number in range(len(self._ids)) if taken.picked is None else taken.picked:
            if number not in self._refusals:
                wanted[self._format.sent_id(self._ids[number], seal, number)] = number
                self._attempts[number] += past.counted
                if self._statuses[number] is not RowStatus.SUCCEEDED:
                    self._absent[number] = past
                    self._classes[number] = None
        seen = bytearray(len(self._ids))
        unread: dict[int, str] = {}  # rows whose lines cannot be read but for the id, and the file they are in

        def set_aside(line: bytes) -> None:
            self._stray("unreadable", line)
            unread.update({wanted[found]: name for found in ids(line) if found in wanted})

        self._answered = lines = 0
        for name in (OUTPUT, ERROR) if past.fetched else ():
            answers = Answers(self._format.outcome, set_aside)
            text = Text(self._stream(answers_path(self._root, self._shard, past.number, name)))
            for line, found in answers.read(split_lines(text)):
                lines += 1
                self._lease.rows += 1
                if not lines % 1024:
                    self._lease.check()
                if found is not None:
                    self._take(found, line, wanted, seen, past, spool)
            lines += text.extra
        lost = {number: name for number, name in unread.items() if not seen[number]}
        self._take_unread([one for one in lost if self._statuses[one] is not RowStatus.SUCCEEDED], past, spool)
        # Of those only the ones in the output are surely answers, which is what the provider counts here.
        if self._answered + list(lost.values()).count(OUTPUT) < past.answered:
            self._paid_unseen.add(past.number)
        if past.lines is not None and lines < past.lines:
            # Rows whose results are lost here must not look like ones the provider lost: those are bought again.
            folder = f"{self._root}/{attempt_folder(self._shard, past.number)}"
            raise StoreError(
                f"The results of attempt {past.number} have {lines:,} lines in the store, and {past.lines:,} were "
                f"fetched: bring {folder} back, or reset the workflow to before the fetch."
            )

    def _take(
        self,
        outcome: Outcome,
        line: bytes,
        wanted: dict[str, int],
        seen: bytearray,
        past: AttemptRecord,
        spool: Spool,
    ) -> None:
        number = wanted.get(outcome.custom_id)
        if number is None:
            self._stray("unknown", line)
            return
        tokens = sensible(outcome.tokens)
        # Whatever the provider answered it bills, so a second answer for one row is counted as well.
        cost = self._bill.add(outcome, tokens, past.mode)
        if seen[number]:
            self._stray("duplicate", line)
            if self._statuses[number] is RowStatus.SUCCEEDED or outcome.status is not RowStatus.SUCCEEDED:
                return
        elif outcome.response is not None and 200 <= outcome.response.status_code < 300:
            self._answered += 1
        seen[number] = True
        # A success is not taken back by a later failure, not even by one of an attempt that did not know of it.
        if self._statuses[number] is RowStatus.SUCCEEDED and outcome.status is not RowStatus.SUCCEEDED:
            return
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
            mode=past.mode,
        )
        self._keep(number, row, spool)

    def _take_unread(self, numbers: list[int], past: AttemptRecord, spool: Spool) -> None:
        """Fail the rows whose results came back unreadable: they are paid for, so they are not missing."""
        self._bill.add_unread(len(numbers))
        for number in numbers:
            self._absent[number] = None
            row = ResultRow(
                custom_id=self._ids[number],
                status=RowStatus.FAILED,
                error=unread(unmatched_name(self._shard)),
                attempts=self._attempts[number],
                provider_batch_id=past.provider_batch_id,
                mode=past.mode,
            )
            self._keep(number, row, spool)

    def _keep(self, number: int, row: ResultRow, spool: Spool) -> None:
        """Keep a row's latest result."""
        data = result_line(row)
        self._offsets[number] = spool.append(data)
        self._lengths[number] = len(data)
        self._statuses[number] = row.status
        self._classes[number] = row.error.type if row.error else None
        self._direct[number] = row.mode is Mode.DIRECT

    def _stray(self, what: str, line: bytes) -> None:
        self._strays[what] += 1
        if self._unmatched is None:
            self._unmatched = self._open.enter_context(
                self._store.writer(f"{self._root}/{unmatched_name(self._shard)}")
            )
        self._unmatched.write(line + b"\n")

    def _stream(self, path: str) -> Iterator[bytes]:
        """Yield a provider's file in pieces; none if there is no such file."""
        with contextlib.suppress(ObjectNotFound):
            yield from self._store.stream(path)

    def _again(self) -> list[int]:
        """Return the rows worth another try."""
        retry = set(self._request.retry.classes)
        if self._request.retry.on_expired is Mode.DIRECT:
            retry.add(ErrorClass.EXPIRED)
        found = []
        for number, past in enumerate(self._absent):
            if past and past.number in self._paid_unseen:
                continue  # it may be one of those that were answered, and it would be bought again
            last = past.absent if past else self._classes[number]
            if last in retry and number not in self._refusals:
                found.append(number)
        return found

    def _finishes_directly(self, again: list[int]) -> bool:
        """Return whether direct mode takes the rows to try again: a provider batch has expired on any of them."""
        if self._request.retry.on_expired is not Mode.DIRECT:
            return False
        if any(past.mode is Mode.DIRECT for past, _ in self._sent):
            return True
        return any((p.absent if (p := self._absent[n]) else self._classes[n]) is ErrorClass.EXPIRED for n in again)

    def _too_dear(self, again: list[int]) -> str | None:
        if self._budget is None or not again:
            return None
        tokens = AttemptRows(attempt=self._request.attempt, shard=self._record, picked=again).estimate_tokens(
            self._store
        )
        return self._budget.refuses(len(again), tokens, self._bill.paid)

    def _write_picked(self, again: list[int]) -> None:
        attempt = self._request.attempt
        with self._store.writer(picked_path(self._root, attempt.shard, attempt.number + 1)) as out:
            out.write(_encode(again))

    def _write(self, spool: Spool) -> tuple[Counts, int, int]:
        """Write results and errors in input order; return the rows by status, and the bytes of both."""
        counts: Counter[RowStatus] = Counter()
        spool.flush()
        with (
            self._store.writer(f"{self._root}/{part_name(self._shard, RESULTS)}") as results,
            self._store.writer(f"{self._root}/{part_name(self._shard, ERRORS)}") as errors,
        ):
            for number, past in enumerate(self._absent):
                if not number % 1024:
                    self._lease.check()
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
            mode=past.mode if past else None,
        )
        return status, result_line(row)

    def _settled(self, counts: Counts, again: int) -> Settled:
        classes = Counter(str(found) for found in self._classes if found is not None)
        if again:
            classes.update(str(past.absent) for past in self._absent if past)
        direct = any(past.mode is Mode.DIRECT for past, _ in self._sent)
        return Settled(
            counts=counts,
            usage=self._bill.usage,
            cost_usd=self._bill.cost_usd,
            list_cost_usd=self._bill.list_cost_usd,
            unpriced=self._bill.unpriced,
            strays=Strays(**self._strays),
            repeated=sum(past.repeated for past, _ in self._sent),
            direct=DirectShare(rows=sum(self._direct), cost_usd=self._bill.direct_cost_usd) if direct else None,
            retry_rows=again,
            classes=dict(classes),
        )
