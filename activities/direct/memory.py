"""The memory that answers take in one worker process, over all its runs and providers.

Short answers never wait. A long one is read only while there is room for it, and the server waits meanwhile; what
answers take is given back when they are in the store. One answer at a time may go beyond the bound, so each is read in
the end, also one that is longer than all the room there is, and no two wait for each other.
"""

from __future__ import annotations

import asyncio
from collections import deque

#: Bytes of answers that are being read, or wait to be kept. An answer takes two to three times its length meanwhile.
MOST = 64 << 20
#: Bytes of answers that wait to be kept, from which on no more calls are begun: as many as are in flight may follow.
_MOST_WAITING = 16 << 20
#: Bytes of an answer that is read without asking.
SHORT = 1 << 16


class Memory:
    """What answers may take, and what they have. Made in the event loop that uses it.

    Args:
        most: bytes of answers that are being read, or wait to be kept.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held = 0
        self._unkept = 0  # of that, what waits to be kept
        self._beyond: Share | None = None  # the answer that may go beyond the bound
        self._queue: deque[tuple[Share, int, asyncio.Future[None]]] = deque()
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def held(self) -> int:
        """Bytes that answers have."""
        return self._held

    @property
    def crowded(self) -> bool:
        """Whether no more calls may be begun."""
        return not self._quiet.is_set()

    async def quiet(self) -> None:
        """Wait until calls may be begun."""
        await self._quiet.wait()

    def keeping(self, size: int) -> None:
        """Take note that an answer waits to be kept, which is in memory already."""
        self._held += size
        self._unkept += size
        if self._unkept >= _MOST_WAITING:
            self._quiet.clear()

    def kept(self, size: int) -> None:
        """Give that back."""
        self._held -= size
        self._unkept -= size
        if self._unkept < _MOST_WAITING:
            self._quiet.set()
        self._serve()

    def take(self, share: Share, size: int) -> bool:
        """Return whether an answer has more room now."""
        if self._held + size > self._most and share is not self._beyond:
            if self._beyond is not None:
                return False
            self._beyond = share
        self._held += size
        share.size += size
        return True

    def wait(self, share: Share, size: int) -> asyncio.Future[None]:
        """Return what is done once an answer has more room."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((share, size, future))
        return future

    def leave(self, share: Share) -> None:
        """Take back all that an answer has."""
        self._held -= share.size
        share.size = 0
        if share is self._beyond:
            self._beyond = None
        self._serve()

    def _serve(self) -> None:
        while self._queue:
            share, size, future = self._queue[0]
            if not future.done() and not self.take(share, size):
                return
            self._queue.popleft()
            if not future.done():
                future.set_result(None)


class Share:
    """What one answer has of it."""

    __slots__ = ("_future", "_memory", "_since", "_waited", "size")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._future: asyncio.Future[None] | None = None
        self._since = self._waited = 0.0
        self.size = 0  #: Bytes.

    def take(self, size: int) -> asyncio.Future[None] | None:
        """Take more; None: it is taken. Otherwise it is when the future is done."""
        if self._memory.take(self, size):
            return None
        self._since = asyncio.get_running_loop().time()
        self._future = self._memory.wait(self, size)
        self._future.add_done_callback(self._taken)
        return self._future

    def _taken(self, future: asyncio.Future[None]) -> None:
        self._waited += future.get_loop().time() - self._since
        self._future = None

    def waited(self, now: float) -> float:
        """Return for how many seconds the answer was not read for want of room: the server is not to blame for them.

        Args:
            now: by the event loop's clock.
        """
        return self._waited + (0.0 if self._future is None else now - self._since)

    def free(self) -> None:
        """Give everything back."""
        if self._future is not None:
            self._future.cancel()
        if self.size or self._future is not None:
            self._memory.leave(self)
