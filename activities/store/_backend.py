"""What a kind of storage must offer, and the writer that both kinds hand out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import NamedTuple, Protocol

#: Bytes gathered before they go to the disk or the network, so that a row's few hundred bytes cost no system call. No
#: more, as every step under way has some of them: with four times as much a million rows took 10 MiB more, and longer.
BUFFER = 256 * 1024

#: Names that begin so are Durabatch's own temporary objects: never listed, never addressed.
RESERVED = ".durabatch-"


class Entry(NamedTuple):
    """One object of a listing."""

    path: str
    size: int  #: Bytes.
    modified: datetime  #: When it was written, UTC, by the storage's own clock.


class Writer:
    """Takes the bytes of one new object, in order."""

    __slots__ = ("_buffer", "_sink", "bytes_written")

    def __init__(self, sink: Callable[[bytearray], object]) -> None:
        self._sink = sink
        self._buffer = bytearray()
        #: Bytes taken so far, those still in the buffer included.
        self.bytes_written = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append data.

        Raises:
            StoreError: the store failed; the object will not appear.
        """
        self._buffer += data
        self.bytes_written += len(data)
        if len(self._buffer) >= BUFFER:
            self.flush()

    def flush(self) -> None:
        """Pass on what is buffered; the object still appears only when its block ends."""
        if self._buffer:
            buffer, self._buffer = self._buffer, bytearray()
            self._sink(buffer)


class Backend(Protocol):
    """One kind of storage. Every method blocks, takes checked paths, and raises StoreError or ObjectNotFound only."""

    #: Of many small objects, how many one thread reads, one after the other.
    reads: int = 1

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, data: bytes, durable: bool = True) -> None: ...

    def in_place(self, path: str, data: bytes) -> FileIO | None:
        """Make or replace an object and open it, to be changed in place; None where storage has no such objects."""
        return None

    def create(self, path: str, data: bytes) -> bool:
        """Make an object, all or nothing, unless there is one; return whether this call made it."""
        ...

    def entry(self, path: str) -> Entry | None: ...

    def delete(self, path: str) -> None: ...

    def page(self, folder: str, after: str | None, limit: int, backwards: bool) -> list[str]:
        """Return the paths below a folder in order, or in the reverse one, behind `after`; at most `limit`."""
        ...

    def list(self, prefix: str) -> list[Entry]: ...

    def stream(self, path: str, start: int, end: int | None, chunk: int) -> Iterator[bytes]: ...

    def writer(self, path: str, durable: bool) -> AbstractContextManager[Writer]: ...

    def sync(self, paths: Sequence[str]) -> None:
        """Make objects outlive a power cut that were written without, where storage does not do so by itself."""
        ...

    def local(self, path: str) -> AbstractContextManager[Path]: ...

    def duplicate(self, target: str, source: str) -> bool:
        """Make target another copy of source without moving the bytes through here; False where that cannot be."""
        ...

    def join(self, target: str, sources: Sequence[str], report: Callable[[int], object]) -> int:
        """Write target from the bytes of the sources and return its size; report how many were written on the way."""
        with self.writer(target, durable=True) as out:
            for source in sources:
                for data in self.stream(source, 0, None, BUFFER):
                    out.write(data)
                    report(len(data))
        return out.bytes_written

    def prune(self, prefix: str) -> None:
        """Clear away what holds no object: empty folders, and what killed processes left, where storage has such."""
        ...
