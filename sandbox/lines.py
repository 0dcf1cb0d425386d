"""The lines of a file, by number, without holding the file in memory."""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType


class Lines:
    """A memory-mapped text file as a sequence of lines; whitespace at the end of the file is no line."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            # An empty file cannot be mapped.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else None
        self._bounds = array("Q", [0])
        if self._map is not None:
            end = len(self._map)
            while end and self._map[end - 1] in b" \t\r\n":
                end -= 1
            position = 0
            while position < end:
                newline = self._map.find(b"\n", position, end)
                position = end + 1 if newline < 0 else newline + 1
                self._bounds.append(position)

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._map is not None:
            self._map.close()

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> bytes:
        if self._map is None or index >= len(self):
            raise IndexError(index)
        return self._map[self._bounds[index] : self._bounds[index + 1] - 1]

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))
