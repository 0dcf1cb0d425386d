"""What must be true once a batch has ended, whatever was killed on its way: read from the sandbox's books, the store
and Temporal's history, never from what the worker says of itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from temporalio.service import RPCError, RPCStatusCode

from durabatch.contract import BatchResult, BatchStatus
from durabatch.contract.names import batch_of
from durabatch.sandbox.prompt import Prompt, conversation

from .lab import Lab
from .orders import ENDS, MODEL, Order, Row

#: Promise G6.
LARGEST_PAYLOAD = 64 * 1024
MOST_EVENTS = 4_000
_ENDED = frozenset({"completed", "failed", "expired", "cancelled", "ended"})


@dataclass
class Tally:
    """What was found."""

    violations: list[str] = field(default_factory=list)
    batches: int = 0
    rows: int = 0
    duplicate_provider_batches: int = 0
    fenced_off_batches: int = 0  #: Late creates whose file was gone: they ran nothing and cost nothing.
    rows_lost: int = 0
    rows_twice: int = 0
    orphans: int = 0
    adopted: int = 0
    calls_repeated: int = 0  #: Of direct mode, as the results count them.


async def audit(lab: Lab, ended: dict[Order, BatchResult]) -> Tally:
    """Check batches that have ended."""
    tally = Tally()
    books = await _settled_books(lab, ended)
    for order, result in ended.items():
        book = _Book(lab, order, result, books, tally)
        if order.direct:
            book.calls()
        else:
            book.provider()
        book.results(lab)
        await _history(lab, order, tally)
        tally.batches += 1
        tally.rows += len(order.rows)
        tally.adopted += sum(batch.adopted for batch in result.provider_batches)
    return tally


async def _settled_books(lab: Lab, ended: Iterable[Order]) -> dict[str, Any]:
    """Return the books once the provider has looked at all of these: a late create may only just have come."""
    names = {order.batch_id for order in ended}
    accounts = {_account(order) for order in ended}
    for _ in range(100):
        books = await lab.books()
        mine = [
            batch
            for batch in books["batches"]
            if batch_of(str(batch["marker"])) in names
            or (batch["protocol"] == "anthropic" and batch["account"] in accounts)
        ]
        if all(batch["status"] in _ENDED for batch in mine):
            break
        await asyncio.sleep(0.1)
    return books


def _account(order: Order) -> str:
    """Return what the sandbox's books calls the account that pays for an order."""
    return hashlib.sha256(order.key.encode()).hexdigest()[:8]


class _Book:
    """One batch against the books and the store."""

    def __init__(self, lab: Lab, order: Order, result: BatchResult, books: dict[str, Any], tally: Tally) -> None:
        self.lab = lab
        self.order = order
        self.result = result
        self.tally = tally
        self.account = _account(order)
        self.books = books
        self.uploads = order.provider != "claude"
        self.mine = [
            {**batch, "marker": marker} for batch in books["batches"] if (marker := self._marker(batch)) is not None
        ]
        self.by_marker: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for batch in self.mine:
            self.by_marker[batch["marker"]].append(batch)

    def _marker(self, batch: dict[str, Any]) -> str | None:
        """Return what tells an attempt's provider batch from all others, None if it is not of this order."""
        if batch["protocol"] != "anthropic":
            marker = str(batch["marker"])
            return marker if batch_of(marker) == self.order.batch_id else None
        # Anthropic's batches have no markers: the ids of their rows carry a name that each attempt has for itself, and
        # the rows' texts say whose they are.
        first = batch["first_row"]
        if batch["account"] != self.account or first is None:
            return None
        if first["billed_as"].rpartition("-")[0] != self.order.batch_id:
            return None
        return f"{self.order.batch_id}/{first['custom_id'].rpartition('-')[0]}"

    def wrong(self, words: str) -> None:
        self.tally.violations.append(f"{self.order.batch_id}: {words}")

    def billed(self, row: Row) -> int:
        if self.order.direct:  # the books know a call by what it says
            said = Prompt(MODEL, conversation({"messages": [{"role": "user", "content": row.text}]}, "messages"))
            return int(self.books["live"]["rows"].get(f"{self.account}/{said.digest}", 0))
        return int(self.books["rows"].get(f"{self.account}/{row.custom_id}", 0))

    def calls(self) -> None:
        """Direct mode leaves no provider batch; what was billed twice is counted, unless the server itself died."""
        if self.mine:
            self.wrong(f"a batch of direct mode has provider batches: {[batch['id'] for batch in self.mine]}")
        again = sum(max(0, self.billed(row) - 1) for row in self.order.rows)
        self.tally.calls_repeated += self.result.repeated
        if again > self.result.repeated + self.lab.sandbox_deaths * len(self.order.rows):
            self.wrong(f"{again} calls were billed again, and {self.result.repeated} are counted as repeated")

    def provider(self) -> None:
        """One provider batch for each marker, no row billed twice within one, nothing under way, no file left."""
        for marker, batches in self.by_marker.items():
            fenced = [b for b in batches if b["status"] == "failed" and not b["rows_billed"]]
            real = [b for b in batches if b not in fenced]
            self.tally.fenced_off_batches += len(fenced)
            if len(real) > 1:
                self.tally.duplicate_provider_batches += len(real) - 1
                self.wrong(f"{marker} has {len(real)} provider batches: {[(b['id'], b['status']) for b in real]}")
            for batch in real:
                if batch["status"] not in _ENDED:
                    self.wrong(f"{marker}: provider batch {batch['id']} is still {batch['status']}")
                if batch["rows_billed"] > batch["rows"]:
                    self.wrong(f"{marker}: {batch['rows']} rows, {batch['rows_billed']} billed")
        told = {batch.id for batch in self.result.provider_batches}
        if unknown := told - {batch["id"] for batch in self.mine}:
            self.wrong(f"the result names provider batches that are not in the books: {unknown}")
        for row in self.order.rows:
            times = self.billed(row)
            if times > 1:
                self.tally.rows_twice += 1
                self.wrong(f"{row.custom_id} ({row.marker}) was billed {times} times")
        if not self.uploads:
            return
        mine = f"durabatch~{self.order.batch_id}~"
        left = [f for f in self.books["files"] if f["filename"].startswith(mine) and not f["deleted"]]
        left = [f for f in left if f["purpose"] == "batch"]
        if left:
            self.tally.orphans += len(left)
            self.wrong(f"files left at the provider: {[f['filename'] for f in left]}")

    def results(self, lab: Lab) -> None:
        """One result for each request, in order, its own; and the counts are those of the rows."""
        folder = lab.folder / "store" / self.order.batch_id
        if self.result.results is None:
            if self.result.status is not BatchStatus.CANCELED or self.mine:
                self.wrong(f"no results: {self.result.status}: {self.result.error}")
            return
        found = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
        ids = [row["custom_id"] for row in found]
        wanted = [row.custom_id for row in self.order.rows]
        lost = len(set(wanted) - set(ids))
        if ids != wanted:
            self.tally.rows_lost += lost
            self.wrong(f"{len(ids)} results for {len(wanted)} rows, {lost} lost, or not in order")
            return
        for row, got in zip(self.order.rows, found, strict=True):
            self._row(row, got)
        counts = self.result.counts.model_dump()
        tallied = Counter(row["status"] for row in found)
        if counts != {name: len(found) if name == "total" else tallied[name] for name in counts}:
            self.wrong(f"the counts {counts} are not those of the rows: {dict(tallied)}")
        errors = [json.loads(line)["custom_id"] for line in (folder / "errors.jsonl").read_text().splitlines()]
        if errors != [row["custom_id"] for row in found if row["status"] != "succeeded"]:
            self.wrong("errors.jsonl does not hold the rows that did not succeed")
        if json.loads((folder / "result.json").read_text()) != self.result.model_dump(mode="json"):
            self.wrong("result.json is not the result")

    def _row(self, row: Row, got: dict[str, Any]) -> None:
        """One result against its request and against what was billed."""
        status = got["status"]
        if status == "succeeded" and row.canary not in (got["text"] or ""):
            self.wrong(f"{row.custom_id} has another row's answer: {got['text']!r}")
        # A batch that is told to stop leaves rows undone, and tries none again.
        stopped = self.result.canceled_by is not None and (status == "canceled" or "times=" in row.marker)
        if status != ENDS[row.marker] and not stopped:
            self.tally.rows_lost += 1
            self.wrong(f"{row.custom_id} ({row.marker}) is {status}: {got['error']}")
        # A call of direct mode that is dropped by a cancel may have been billed.
        if status == "canceled" and self.billed(row) and not self.order.direct:
            self.tally.rows_lost += 1
            self.wrong(f"{row.custom_id} was paid for and its result thrown away")
        if status == "succeeded" and not self.billed(row):
            self.wrong(f"{row.custom_id} has a result that nobody was billed for")


async def _history(lab: Lab, order: Order, tally: Tally) -> None:
    """No row and no key in Temporal's history, of the batch and of its shards; and nothing large."""
    # One canary's beginning is in all of them.
    secrets = {"a row's text": order.rows[0].canary.partition("x0x")[0].encode(), "the key": order.key.encode()}
    names = [order.batch_id, *(f"{order.batch_id}/shards/{number:05d}" for number in range(len(order.rows)))]
    for name in names:
        handle = lab.client.get_workflow_handle(name)
        try:
            history = await lab.ask(handle.fetch_history)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return  # shards are numbered without a gap
            raise
        if len(history.events) > MOST_EVENTS:
            tally.violations.append(f"{name}: {len(history.events)} events")
        for event in history.events:
            data = event.SerializeToString()
            if len(data) > LARGEST_PAYLOAD:
                tally.violations.append(f"{name}: event {event.event_id} has {len(data)} bytes")
            for what, secret in secrets.items():
                if secret in data:
                    tally.violations.append(f"{name}: event {event.event_id} holds {what}")
