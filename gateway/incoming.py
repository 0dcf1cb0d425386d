"""The content of an upload on its way into the store: checked as it passes, and there only when it is whole."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
import msgspec
from starlette.concurrency import run_in_threadpool

from ..activities.store import Store

#: Bytes that are gathered before a thread takes them to the store.
_GATHERED = 1024 * 1024
#: Bytes of the first line that are looked at; a longer one is left to the batch.
_FIRST_LINE = 4 * 1024 * 1024


class Incoming:
    """A new object of the store, for as long as the block lasts; a block that ends with an error leaves nothing.

    Args:
        store: where it is made.
        path: what it is called there.
        transform: makes the object's bytes of those that come, in a thread; they are the same if it is None.
    """

    def __init__(self, store: Store, path: str, transform: Callable[[bytes], bytes] | None = None) -> None:
        self._writer = store.writer(path)
        self._gathered = bytearray()
        self._check = _Check()
        self._transform = transform or self._check.feed
        #: Bytes so far.
        self.size = 0

    async def __aenter__(self) -> Self:
        self._out = await run_in_threadpool(self._writer.__enter__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Shielded: who is cancelled here would leave the temporary object behind.
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(self._writer.__exit__, kind, error, trace)

    async def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            StoreError: the store failed.
            Exception: as `transform`.
        """
        self.size += len(data)
        self._gathered += data
        if len(self._gathered) >= _GATHERED:
            await self.flush()

    async def flush(self) -> None:
        """Take to the store what is gathered."""
        gathered, self._gathered = bytes(self._gathered), bytearray()
        if gathered:
            await run_in_threadpool(self._pass, gathered)

    def _pass(self, data: bytes) -> None:
        self._out.write(self._transform(data))

    async def problem(self) -> str | None:
        """Say why the whole content cannot be a batch's input, None if it may be."""
        await self.flush()
        if not self.size:
            return "Invalid file format for Batch API. Must be .jsonl: the file is empty."
        return self._check.problem()


class _Check:
    """Whether a text is UTF-8 and begins like JSONL; rows are checked by the batch."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = True
        self._first = bytearray()
        self._looking = True

    def feed(self, data: bytes) -> bytes:
        if self._text:
            try:
                self._decoder.decode(data)
            except UnicodeDecodeError:
                self._text = False
        if self._looking:
            self._first += data
            stripped = self._first.removeprefix(codecs.BOM_UTF8).lstrip()
            self._looking = b"\n" not in stripped and len(stripped) < _FIRST_LINE
        return data

    def problem(self) -> str | None:
        try:
            self._decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            self._text = False
        if not self._text:
            return "Invalid file for Batch API. Must be utf-8 encoded."
        line, ended, _ = self._first.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")
        if not ended and self._looking is False:
            return None  # too long to be looked at here
        try:
            msgspec.json.decode(line, type=msgspec.Raw)
        except (msgspec.DecodeError, RecursionError):
            return "Invalid file format for Batch API. Must be .jsonl: the first line is not valid JSON."
        return None
