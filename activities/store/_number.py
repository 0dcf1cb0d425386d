"""A number in the store that is written again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from io import FileIO

from ._failures import disk

#: What a file holds at first. Each number has as many digits, so that it takes the place of the one before.
ZERO = b"0" * 20


class StoredNumber:
    """A small object that holds a number, as decimal digits.

    In a folder it is changed in place, in some microseconds: with a new file, a rename and a thread's help, a worker
    that writes thousands of them would spend much of its time on that. It outlives the process, but not a power cut.

    Args:
        uri: the object's, for messages.
        file: the object, open for writing; None where storage has no such: then it is there with its first number.
        write: makes the object anew, where there is no file.
    """

    def __init__(self, uri: str, file: FileIO | None, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._uri = uri
        self._file = file
        self._write = write

    async def set(self, number: int) -> None:
        """Write a number.

        Raises:
            StoreError: the store failed; it has this number or the one before.
        """
        data = b"%0*d" % (len(ZERO), number)
        if self._file is None:
            return await self._write(data)
        with disk("write", self._uri):
            # Not in a thread: it is one system call, for which the page is there.
            self._file.seek(0)
            self._file.write(data)

    def close(self) -> None:
        """Let go of the file; the object stays."""
        if self._file is not None:
            self._file.close()
