"""Keeps answers in the store while more come in: as soon as the store allows, and many of them in one object.

Answers that are only in memory when a worker is killed were paid for, and their rows are sent again. So an answer is
written at once, or some time after the last write: 50 ms into a folder, 2 s into a bucket where a write takes 100 ms.
An object is written again with more answers until it is large enough, so that a model that answers once a second for a
day leaves no more objects than a fast one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from ...contract import StoreError
from ...contract.object_name import Run
from ..lease import Lease, lost_step
from .kept import WHOLE, KeptRows
from .memory import Memory

#: Seconds between two writes, at most and at least, and how many times as long as a write takes lately.
_LONGEST, _SHORTEST, _TIMES = 2.0, 0.05, 20.0
#: The part of the last write in what a write takes lately.
_NEWEST = 0.2
#: Bytes of answers that are kept at once. In memory they are twice meanwhile, for each of a worker's shards.
_BYTES = 1 << 20
#: Answers that are kept at once, at least, where that is not for the time.
_LEAST = 4
#: Bytes that may wait while others are being written; then no more calls are begun.
_MOST_BYTES = 2 << 20
#: Seconds after which what was written is to outlive a power cut as well.
_SYNC_SECONDS = 2.0
#: Seconds between two tries to write into a store that is away.
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
#: Seconds between two looks whether Temporal is there again.
_LOOK_SECONDS = 0.25

Kept = tuple[int, int, bytes]  #: A row, its status, and its line of results.


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
        in_flight: how many calls there may be at a time. A quarter as many answers are kept as soon as they are there,
            and while half as many wait no more calls are begun: a kill would have them sent again.
        memory: what answers may take in this process, over all runs.
    """

    def __init__(self, kept: KeptRows, run: Run, lease: Lease, in_flight: int, memory: Memory) -> None:
        self._kept = kept
        self._run = run
        self._lease = lease
        self._memory = memory
        self._at_once = max(_LEAST, in_flight // 4)
        self._most = max(4 * _LEAST, in_flight // 2)
        self._writing = 0
        self._waiting: list[Kept] = []
        self._bytes = 0
        self._unkept = 0  # with those that are being written
        self._closed = False
        self._file = 0  # the object that is written next
        self._in_file: list[Kept] = []  # what it has already
        self._file_bytes = 0
        self._took = 0.0  # what a write takes lately
        self._written_at = -math.inf
        self._synced_at = time.monotonic()
        self._unsynced: set[int] = set()
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
        self._bytes += len(line) + 1
        if not self._closed:
            self._unkept += len(line) + 1
            self._memory.keeping(len(line) + 1)
        if self._many():
            self._enough.set()
            self._look()

    def _many(self) -> bool:
        """Return whether so many answers wait that they are kept at once."""
        return len(self._waiting) >= self._at_once or self._bytes >= _BYTES

    def _look(self) -> None:
        if len(self._waiting) + self._writing >= self._most or self._bytes >= _MOST_BYTES:
            self._room.clear()
        else:
            self._room.set()

    @property
    def behind(self) -> bool:
        """Whether so many answers wait that no more calls may be begun."""
        return not self._room.is_set() or self._memory.crowded

    @property
    def pause(self) -> float:
        """Seconds between two writes."""
        return min(max(_TIMES * self._took, _SHORTEST), _LONGEST)

    async def room(self) -> None:
        """Wait until fewer answers wait."""
        while self.behind:
            await self._room.wait()
            await self._memory.quiet()

    def close(self) -> None:
        """Give back the memory of what was not kept."""
        self._memory.kept(self._unkept)
        self._unkept, self._closed = 0, True

    async def work(self) -> None:
        """Keep answers until cancelled.

        Raises:
            StoreError: the store failed.
            ProviderUnavailable: the step is another worker's by now.
        """
        try:
            while True:
                if not await _within(self._came, self._unsafe_for()):
                    await self._sync()
                    continue
                await _within(self._enough, max(0.0, self._written_at + self.pause - time.monotonic()))
                async with self._lock:
                    await self._write()
                if self._unsafe_for() == 0.0:
                    await self._sync()
        finally:
            self.close()

    def _unsafe_for(self) -> float | None:
        """Return for how many seconds what was written may wait until it is made safe from power cuts; None: it is."""
        return max(0.0, self._synced_at + _SYNC_SECONDS - time.monotonic()) if self._unsynced else None

    async def write(self) -> None:
        """Keep what waits, so that it outlives a power cut.

        Raises:
            StoreError: the store failed.
            ProviderUnavailable: the step is another worker's by now.
        """
        async with self._lock:
            await self._write()
            while self._waiting:
                await self._write()
        await self._sync()

    async def _sync(self) -> None:
        async with self._lock:
            files, self._unsynced = self._unsynced, set()
            self._synced_at = time.monotonic()
            if files:
                await patiently(self._lease, lambda: self._kept.sync(self._run, sorted(files)))

    def _some(self) -> tuple[list[Kept], int]:
        """Return what is written at once, and its bytes: a file of it is in memory twice."""
        count = size = 0
        for _, _, line in self._waiting:
            count += 1
            size += len(line) + 1
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
        if not self._many():  # those that come meanwhile wait for their time again
            self._enough.clear()
        if not lines:
            return
        self._writing = len(lines)
        number, whole = self._file, self._in_file + lines
        if not self._unsynced:
            self._synced_at = time.monotonic()
        self._unsynced.add(number)
        try:
            await patiently(self._lease, lambda: self._timed(self._kept.keep(self._run, number, whole)))
        except BaseException:
            self._waiting = lines + self._waiting
            self._bytes += size
            raise
        finally:
            self._writing = 0
            self._look()
        if not self._closed:
            self._unkept -= size
            self._memory.kept(size)
        self._in_file = whole
        self._file_bytes += size
        if self._file_bytes >= WHOLE:  # it is never written again, and may be read in parts
            self._file, self._in_file, self._file_bytes = number + 1, [], 0
        self.rows += len(lines)
        self._lease.rows += len(lines)

    async def _timed(self, write: Awaitable[None]) -> None:
        began = time.monotonic()
        await write
        self._written_at = time.monotonic()
        self._took += _NEWEST * (self._written_at - began - self._took)


async def _within(event: asyncio.Event, seconds: float | None) -> bool:
    """Return whether something happens within so many seconds; None: however long it takes."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
