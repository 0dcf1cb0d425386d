"""The spool: rows on disk while a shard is settled, because all of them at once would not fit into memory."""

from __future__ import annotations

from io import FileIO

#: Bytes gathered before they go to the disk.
_BUFFER = 1 << 18


class Spool:
    """Rows in a file, each found again by its place."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._buffer = bytearray()
        self._end = 0

    def append(self, data: bytes) -> int:
        """Return the row's offset."""
        offset = self._end
        self._buffer += data
        self._end += len(data)
        if len(self._buffer) >= _BUFFER:
            self.flush()
        return offset

    def flush(self) -> None:
        """Write down what is buffered; before it, rows cannot be read."""
        buffer, self._buffer = self._buffer, bytearray()
        left = memoryview(buffer)
        while left:
            left = left[self._file.write(left) :]

    def read(self, offset: int, length: int) -> bytes:
        """Return a row's bytes, once they are flushed."""
        self._file.seek(offset)
        return self._file.read(length)
