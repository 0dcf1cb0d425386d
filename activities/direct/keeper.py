"""Keeps answers in the store while more come in: soon, and not one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...contract import StoreError
from ...contract.object_name import Run
from ..lease import Lease, lost_step
from .kept import KeptRows

#: Seconds that an answer waits at most, and bytes of answers that are kept at once.
_SECONDS = 2.0
_BYTES = 2 << 20
#: Answers that are kept at once, at least, where that is not for the time.
_LEAST = 4
#: Bytes that may wait while others are being written; then no more calls are begun.
_MOST_BYTES = 4 << 20
#: Seconds between two tries to write into a store that is away.
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
#: Seconds between two looks whether Temporal is there again.
_LOOK_SECONDS = 0.25


async def patiently(lease: Lease, write: Callable[[], Awaitable[None]]) -> None:
    """Write something, and try again while the store is away: what is in memory would be lost with the step.

    Raises:
        StoreError: it is away for too long, or the step is to end.
    """
    for wait in _WAITS:
        try:
            return await write()
        except StoreError as error:
            if not error.retryable or lease.unwanted or not lease.sure():
                raise
            await asyncio.sleep(wait)
    await write()


class Keeper:
    """The answers of one run on their way to the store.

    Args:
        kept: where they go.
        run: whose they are.
        lease: of the step. What another worker may be doing by now is not kept.
        in_flight: how many calls there may be at a time. An eighth as many answers are kept as soon as they are there,
            and while half as many wait no more calls are begun: a kill would have them sent again.
    """

    def __init__(self, kept: KeptRows, run: Run, lease: Lease, in_flight: int) -> None:
        self._kept = kept
        self._run = run
        self._lease = lease
        self._at_once = max(_LEAST, in_flight // 8)
        self._most = max(4 * _LEAST, in_flight // 2)
        self._writing = 0
        self._waiting: list[tuple[int, int, bytes]] = []
        self._bytes = 0
        self._files = 0
        self._lock = asyncio.Lock()
        self._came = asyncio.Event()
        self._enough = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.rows = 0  #: Answers that are in the store.

    def add(self, row: int, status: int, line: bytes) -> None:
        """Take an answer: the row, its status, and its line of results."""
        if not self._waiting:
            self._came.set()
        self._waiting.append((row, status, line))
        self._bytes += len(line)
        if len(self._waiting) >= self._at_once or self._bytes >= _BYTES:
            self._enough.set()
            self._look()

    def _look(self) -> None:
        if len(self._waiting) + self._writing >= self._most or self._bytes >= _MOST_BYTES:
            self._room.clear()
        else:
            self._room.set()

    @property
    def behind(self) -> bool:
        """Whether so many answers wait that no more calls may be begun."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Wait until fewer answers wait."""
        await self._room.wait()

    async def work(self) -> None:
        """Keep answers until cancelled.

        Raises:
            StoreError: the store failed.
            ProviderUnavailable: the step is another worker's by now.
        """
        while True:
            await self._came.wait()
            try:
                async with asyncio.timeout(_SECONDS):
                    await self._enough.wait()
            except TimeoutError:
                pass
            await self.write()

    async def write(self) -> None:
        """Keep what waits.

        Raises:
            StoreError: the store failed.
            ProviderUnavailable: the step is another worker's by now.
        """
        async with self._lock:
            await self._write()
            while self._waiting:
                await self._write()

    def _some(self) -> tuple[list[tuple[int, int, bytes]], int]:
        """Return what is written at once, and its bytes: a file of it is in memory twice."""
        count = size = 0
        for _, _, line in self._waiting:
            count += 1
            size += len(line)
            if size >= _BYTES:
                break
        return self._waiting[:count], size

    async def _write(self) -> None:
        while not self._lease.sure():  # Temporal may only be away
            if self._lease.taken or self._lease.lost or self._lease.unwanted:
                raise lost_step()
            await asyncio.sleep(_LOOK_SECONDS)
        lines, size = self._some()
        self._waiting = self._waiting[len(lines) :]
        self._bytes -= size
        if not self._waiting:
            self._came.clear()
            self._enough.clear()
        if not lines:
            return
        self._writing = len(lines)
        number, self._files = self._files, self._files + 1
        try:
            await patiently(self._lease, lambda: self._kept.keep(self._run, number, lines))
        except BaseException:
            self._waiting = lines + self._waiting
            self._bytes += size
            raise
        finally:
            self._writing = 0
            self._look()
        self.rows += len(lines)
        self._lease.rows += len(lines)
