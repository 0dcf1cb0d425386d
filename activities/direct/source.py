"""The rows that a run sends, from the input to what is posted, with a bounded part of them in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...contract import BatchSpec
from ..attempt_rows import AttemptRows
from ..content import prepare_row, with_data
from ..estimate import bounded, estimate_input, sure_input
from ..providers import Provider
from ..providers.base import LiveCalls
from ..store import Store
from .judgement import breaks, given_up
from .lane import Ticket
from .memory import Share

#: Rows, and bytes of them, that are read at a time; as many again wait to be sent.
_PIECE_ROWS = 256
_PIECE_BYTES = 1 << 20


@dataclass(slots=True, eq=False)
class Call:
    """One row on its way to an answer."""

    row: int  #: Its number within the shard.
    sent_id: str  #: How its answer is named in the results.
    request_id: str  #: The same each time that the row is sent.
    body: bytes
    tokens: int  #: What it may use at most, as far as that can be estimated.
    least: int  #: What of that is sure.
    place: int = 0  #: Its place in the order of the run, from 0.
    tries: int = 0  #: Failures since the last outage,
    outages: int = 0  #: and how many outages the run knew of by then.
    spent: int = 0  #: Those by which a server may have worked on it, and bill it.
    lone: int = 0  #: Those when nothing else was sent, which are not forgiven.
    broke: int = 0  #: Connections that broke while it was in flight.
    given_up: bool = False  #: Whether earlier runs have made too many doubts about it.
    marked: bool = False  #: Whether it is below the run's mark.
    rejections: int = 0  #: Answers that there were too many calls.
    signs: int = 0  #: Good answers when it was sent, those to check calls included.
    seen: int = 0  #: Good answers of other rows when it was sent,
    first_seen: int | None = None  #: and when it was sent for the first time that it failed.
    ticket: Ticket | None = None  #: Leave to send it.
    number: tuple[int, int] = (0, 0)  #: Its number among all calls, and good answers by then (`Room`).
    crowded: int = 0  #: How often its time was over because of others before it.
    due: float = 0.0  #: When its time is over, by the event loop's clock.
    share: Share | None = None  #: What its answer has of the memory.
    timed_out: bool = False

    @property
    def leave(self) -> Ticket:
        """The leave to send a call that has one."""
        assert self.ticket is not None
        return self.ticket


def request_name(rows: AttemptRows) -> str:
    """Return how the ids of the calls of a shard begin: the same in each of its attempts."""
    shard = f"{rows.attempt.scoped_id}/{rows.attempt.shard}#{rows.shard.digest}"
    return hashlib.sha256(shard.encode()).hexdigest()[:24]


def in_order(rows: Iterable[int], doubts: Mapping[int, int]) -> list[int]:
    """Return rows in the order in which a run sends them: those in doubt come last, the most doubted at the end."""
    return sorted(rows, key=lambda row: (doubts.get(row, 0), row))


class Source:
    """Reads rows in a thread, a piece ahead of whoever sends them.

    Args:
        answered: rows that have an answer already, and so are passed over.
        doubts: about others, which come last (`in_order`).
    """

    def __init__(
        self,
        store: Store,
        provider: Provider,
        live: LiveCalls,
        rows: AttemptRows,
        spec: BatchSpec,
        answered: Container[int],
        doubts: Mapping[int, int],
    ) -> None:
        self._store = store
        self._doubts = doubts
        self._calls = self._read(provider, live, rows, spec, answered)

    async def pieces(self) -> AsyncGenerator[list[Call], None]:
        """Yield the rows in order, some at a time.

        Raises:
            AccountingError: the input is not what was planned.
            StoreError: it cannot be read.
        """
        ahead = asyncio.create_task(self._piece())
        try:
            while calls := await ahead:
                ahead = asyncio.create_task(self._piece())
                yield calls
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _piece(self) -> list[Call]:
        # Not among the threads that work on rows for minutes: a piece takes milliseconds, and calls wait for it.
        return await asyncio.to_thread(self._take)

    def _take(self) -> list[Call]:
        calls: list[Call] = []
        size = 0
        for call in self._calls:
            calls.append(call)
            size += len(call.body)
            if len(calls) >= _PIECE_ROWS or size >= _PIECE_BYTES:
                break
        return calls

    def _read(
        self,
        provider: Provider,
        live: LiveCalls,
        rows: AttemptRows,
        spec: BatchSpec,
        answered: Container[int],
    ) -> Iterator[Call]:
        # The input is read once more for each number of doubts, which few rows have.
        for doubts in sorted({0, *self._doubts.values()}):
            yield from self._read_some(provider, live, rows, spec, answered, doubts)

    def _read_some(
        self,
        provider: Provider,
        live: LiveCalls,
        rows: AttemptRows,
        spec: BatchSpec,
        answered: Container[int],
        doubts: int,
    ) -> Iterator[Call]:
        store, format, seal, doubted = self._store, provider.rows, rows.seal, self._doubts.get
        name = request_name(rows)
        left = (
            (number, row)
            for number, row in rows.read_sent(store)
            if number not in answered and doubted(number, 0) == doubts
        )
        for number, row, data in with_data(store, rows.shard, left):
            prepared = prepare_row(format, row, data, spec)
            body = live.body(prepared)
            cap = bounded(live.output_cap(body) or 0)
            yield Call(
                row=number,
                sent_id=format.sent_id(row.custom_id, seal, number),
                request_id=f"{name}-{number}",
                body=body,
                tokens=estimate_input(prepared) + cap,
                least=sure_input(prepared) + cap,
                broke=breaks(doubts),
                given_up=given_up(doubts),
            )
