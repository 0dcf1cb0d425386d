"""The books of live calls: each call with its row's id, when it came and how it ended. In memory, and in a log."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

#: Ids that a summary names; the rest is in the pages.
_NAMED = 1_000


class How(StrEnum):
    """How a call ended."""

    OPEN = "open"  # not yet
    ANSWERED = "answered"
    REFUSED = "refused"  # with a status of 400 or more
    DROPPED = "dropped"  # the client closed the connection first
    RESET = "reset"  # the sandbox cut the connection: by a fault or a directive, or since it stopped or died


class LiveCall(msgspec.Struct, gc=False):
    """One live call. It counts from the moment in which its handler begins; times are monotonic seconds."""

    number: int  # its place among all calls, by arrival
    id: str  # of the row: the header X-Client-Request-Id, else the prompt's digest
    op: str
    account: str
    arrived: float
    key: str | None = None  # the header Idempotency-Key
    model: str = ""
    digest: str = ""  # of model and texts; empty: the body was not understood, or did not come
    taken: float | None = None  # when the served limits let it pass; None: they did not, or were never asked
    ended: float | None = None
    how: How = How.OPEN
    status: int = 0  # 0: no answer
    reserved: int = 0  # estimated input tokens and the most output tokens that it asks for
    input_tokens: int = 0  # billed
    output_tokens: int = 0  # billed
    billed: bool = False


class Times(msgspec.Struct, gc=False):
    """How often an id was called."""

    called: int = 0
    answered: int = 0
    refused: int = 0


class Calls:
    """The live calls of a sandbox, from its first start on its folder.

    Args:
        path: The file that they are written to, one a line: when they end, before their answers are sent; and before
            that, when they are open for longer than a turn of the event loop. The last line of a call counts.
    """

    def __init__(self, path: Path) -> None:
        self.all: list[LiveCall] = []
        self.open: dict[int, LiveCall] = {}
        self.most_open = 0
        self.ids: dict[str, Times] = {}
        self.by_op: Counter[str] = Counter()
        self.by_how: Counter[str] = Counter()
        self.by_status: Counter[int] = Counter()
        self.billed: Counter[str] = Counter()
        self.billed_rows: dict[str, int] = {}
        self.most_billed = 0
        self._again: set[str] = set()
        self._begun: list[LiveCall] = []
        self._encode = msgspec.json.Encoder().encode_lines
        self._read(path)
        # Unbuffered: what is written outlives the process, whatever kills it.
        self._file: FileIO | None = path.open("ab", buffering=0)

    def begin(self, op: str, account: str, id: str | None, key: str | None) -> LiveCall:
        """Enter a call whose handler begins; without an id, `name` gives it one when its body has come."""
        number, opened = len(self.all), self.open
        call = LiveCall(number, id or "", op, account, time.monotonic(), key)
        self.all.append(call)
        self._count(call)
        opened[number] = call
        if len(opened) > self.most_open:
            self.most_open = len(opened)
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._write_begun)
        self._begun.append(call)
        return call

    def name(self, call: LiveCall, model: str, digest: str) -> None:
        """Say what a call asks for; the prompt's digest is the id of one that came without."""
        call.model, call.digest = model, digest
        if not call.id:
            call.id = digest
            self._count_id(digest)

    def bill(self, call: LiveCall, input_tokens: int, output_tokens: int) -> None:
        """Bill a call, before its answer is sent."""
        call.input_tokens, call.output_tokens, call.billed = input_tokens, output_tokens, True
        self._count_bill(call)

    def end(self, call: LiveCall, how: How, status: int = 0) -> None:
        """Enter the end of a call."""
        call.ended, call.how, call.status = time.monotonic(), how, status
        del self.open[call.number]
        self._count_end(call)
        self._write([call])

    def _write_begun(self) -> None:
        begun, self._begun = self._begun, []
        self._write([call for call in begun if call.ended is None])

    def _write(self, calls: list[LiveCall]) -> None:
        if calls and self._file is not None:
            self._file.write(self._encode(calls))

    def close(self) -> None:
        """Write nothing from now on."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def summary(self) -> dict[str, Any]:
        """Totals, the ids that were called more than once, and the calls open now; cheap, however many there are."""
        again = {id: self.ids[id] for id in self._again}
        return {
            "now": time.monotonic(),
            "calls": len(self.all),
            "open": len(self.open),
            "most_open": self.most_open,
            "how": {**{how.value: self.by_how[how] for how in How}, How.OPEN.value: len(self.open)},
            "status": {str(status): times for status, times in sorted(self.by_status.items())},
            "ids": len(self.ids),
            "repeated": sum(times.called - 1 for times in again.values()),
            "repeated_unrefused": sum(max(0, times.called - times.refused - 1) for times in again.values()),
            "answered_again": sum(max(0, times.answered - 1) for times in again.values()),
            "called_again": {id: times.called for id, times in islice(again.items(), _NAMED)},
        }

    def page(
        self, after: int, limit: int, *, id: str | None = None, how: str | None = None
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Some calls in the order of their arrival, from a place on; and the place where the next page begins."""
        found: list[dict[str, Any]] = []
        for place in range(after, len(self.all)):
            call = self.all[place]
            if id not in (None, call.id) or how not in (None, call.how.value):
                continue
            if len(found) == limit:
                return found, place
            found.append(msgspec.structs.asdict(call))
        return found, None

    def id_page(self, after: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
        """Some ids in the order of their first call, with how often they were called; and the next page's place."""
        found = [{"id": id, **msgspec.structs.asdict(times)} for id, times in self._ids(after, limit)]
        return found, after + limit if after + limit < len(self.ids) else None

    def _ids(self, after: int, limit: int) -> Iterator[tuple[str, Times]]:
        return islice(self.ids.items(), after, after + limit)

    def _count(self, call: LiveCall) -> None:
        self.by_op[call.op] += 1
        if call.id:
            self._count_id(call.id)

    def _count_id(self, id: str) -> None:
        times = self.ids.get(id)
        if times is None:
            self.ids[id] = Times(1)
        else:
            times.called += 1
            self._again.add(id)

    def _count_bill(self, call: LiveCall) -> None:
        self.billed[call.op] += 1
        self.billed["input_tokens"] += call.input_tokens
        self.billed["output_tokens"] += call.output_tokens
        row = f"{call.account}/{call.digest}"
        times = self.billed_rows[row] = self.billed_rows.get(row, 0) + 1
        if times > self.most_billed:
            self.most_billed = times

    def _count_end(self, call: LiveCall) -> None:
        self.by_how[call.how] += 1
        if call.status:
            self.by_status[call.status] += 1
        times = self.ids.get(call.id)
        if times is not None and call.how is How.ANSWERED:
            times.answered += 1
        elif times is not None and call.how is How.REFUSED:
            times.refused += 1

    def _read(self, path: Path) -> None:
        """Read what an earlier sandbox on this folder wrote; calls that were open when it died were reset by that."""
        if not path.exists():
            return
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
        calls = {call.number: call for call in msgspec.json.Decoder(LiveCall).decode_lines(data[:whole])}
        self.all = sorted(calls.values(), key=lambda call: call.number)
        for number, call in enumerate(self.all):
            call.number = number
            if call.ended is None:
                call.how = How.RESET
            self._count(call)
            if call.billed:
                self._count_bill(call)
            self._count_end(call)
