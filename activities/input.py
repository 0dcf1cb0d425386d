"""The input of a batch: one file, a folder of them or a pattern, read as if all were one.

Files follow one another in the order of their paths, so that a shard is a range of bytes that may span files.
Byte ranges cannot point into compressed data, so compressed files are expanded into the batch's folder first.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ..contract import InvalidInput, InvalidSpec
from ..contract.layout import copy_path, parse_brought
from .compression import compression, expanded
from .formats import SAMPLE, check_format, checked
from .lease import Lease
from .records import Segment, ShardRecord, read_segments
from .rows import Line, lines
from .selection import Selection, check_names, shown
from .step import in_thread
from .store import Entry, Store

#: Files that are looked at at a time.
_LOOKS = 16


class File(NamedTuple):
    """One object of an input."""

    path: str
    size: int  #: Bytes, as stored.
    name: str | None  #: Its path below the folder or the pattern's fixed part; None where the URI names it itself.
    #: When it was written, in whole seconds, as some listings have no more; None where its path is made of its content.
    modified: int | None = None


def wild_path(store: Store, uri: str) -> str:
    """Return the path of a URI that may hold wildcards.

    Raises:
        InvalidSpec: it is outside the store.
    """
    # To a file URI a question mark would be the beginning of a query.
    return store.path(uri.replace("?", "%3F") if uri.startswith("file:") else uri)


def input_location(store: Store, uri: str) -> str:
    """Return the path of an input's URI, wildcards and all.

    Raises:
        InvalidSpec: it is outside the store, or the whole of it.
    """
    path = wild_path(store, uri)
    if not path:
        raise InvalidSpec(f"The input {uri} is the whole store: name a file, a folder in it, or a pattern.")
    return path


async def find_files(store: Store, uri: str) -> tuple[File, ...]:
    """Return the files that an input's URI names, in the order of their paths.

    Raises:
        InvalidSpec: the URI is outside the store, or the whole of it.
        InvalidInput: there are none, or a folder holds something else.
    """
    path = input_location(store, uri)
    alone = None if uri.endswith("/") else await store.entry(path)
    if alone is not None:
        return (File(path, alone.size, None, _modified(alone)),)
    selection = Selection(path)
    entries = await store.entries(selection.folder, selection.takes)
    taken = await asyncio.to_thread(lambda: [entry for entry in entries if selection.takes(entry.path)])
    found = [File(entry.path, entry.size, selection.name(entry.path), _modified(entry)) for entry in taken]
    if selection.pattern and not found:
        raise InvalidInput(f"There is no file that matches {uri}: check the pattern and the folder it names.")
    if uri.endswith("/") and not found:
        raise InvalidInput(f"There is no file of requests in {uri}: check the URI, or put the files there.")
    if not found:
        raise InvalidInput(f"There is no input at {uri}: check the URI, or submit the file again.")
    if not selection.pattern:
        check_names(uri, (selection.name(file.path) for file in found))
    return tuple(found)


def _modified(entry: Entry) -> int | None:
    return None if parse_brought(entry.path) else int(entry.modified.timestamp())


class Input:
    """Files behind one another, as one run of bytes. Blocks: call it from a thread."""

    def __init__(self, store: Store, segments: list[Segment]) -> None:
        self._store = store
        self.segments = segments

    def lines(self, limit: int, start: int = 0, number: int = 0) -> Iterator[Line]:
        """Yield the lines that are not blank; one of more than `limit` bytes without its data.

        Args:
            limit: bytes of a line that is kept.
            start: the byte to begin at, where a line or the rest of a blank one begins.
            number: how many line breaks come before it in its file.
        """
        for segment in self.segments:
            if segment.end <= start:
                continue
            skip = max(0, start - segment.start)
            chunks = self._store.stream(segment.path, skip, segment.size)
            yield from lines(chunks, limit, segment.name, segment.start + skip, number if skip else 0)

    def stream(self, start: int, end: int, chunk: int) -> Iterator[bytes]:
        """Yield the bytes [start, end) in pieces of at most chunk bytes."""
        for segment in self.segments:
            if segment.end <= start or segment.start >= end:
                continue
            first, last = max(start - segment.start, 0), min(end - segment.start, segment.size)
            if first < last:
                yield from self._store.stream(segment.path, first, last, chunk)
            if segment.feed and end >= segment.end:
                yield b"\n"

    def name_at(self, offset: int) -> str | None:
        """Return the name of the file that a byte is in."""
        return next((segment.name for segment in self.segments if segment.start <= offset < segment.end), None)


def shard_bytes(store: Store, record: ShardRecord, chunk: int) -> Iterator[bytes]:
    """Yield a shard's part of the input in pieces of at most chunk bytes. Blocks: call it from a thread."""
    yield from Input(store, read_segments(store, record)).stream(record.start, record.end, chunk)


async def open_input(store: Store, root: str, files: tuple[File, ...], lease: Lease) -> Input:
    """Return the files as one input, compressed ones by their expanded copies, which are made where they are missing.

    Raises:
        InvalidInput: compressed data is cut off or damaged, or a file is not JSONL at all.
    """
    several = len(files) > 1
    names = _names(files)
    segments: list[Segment] = []
    start = 0
    for first in range(0, len(files), _LOOKS):
        some = files[first : first + _LOOKS]
        looks = await asyncio.gather(*(asyncio.to_thread(_look, store, file, several) for file in some))
        for number, (file, (compressed, feed)) in enumerate(zip(some, looks, strict=True), first):
            lease.check()
            path, size = file.path, file.size
            if compressed:
                path, size = await _expanded_copy(store, root, number, file, lease)
            if size:
                end = start + size + feed
                segments.append(Segment(path, start, end, names[number] if several else None, feed))
                start = end
    return Input(store, segments)


def _names(files: tuple[File, ...]) -> list[str | None]:
    """Return what each file is called in reports about its lines: as its user calls it, unless two have that name."""
    own = [shown(_own_name(file)) if file.name else None for file in files]
    often = Counter(own)
    return [shown(file.name) if file.name and often[name] > 1 else name for file, name in zip(files, own, strict=True)]


def _own_name(file: File) -> str:
    """Return what the user calls a file, whatever a client that brought it calls it in the store."""
    brought = parse_brought(file.path)
    return brought.own if brought and brought.own else file.name or ""


def _look(store: Store, file: File, several: bool) -> tuple[bool, bool]:
    """Return whether a file is compressed, and whether it needs a line feed behind it."""
    head = b"".join(store.stream(file.path, 0, SAMPLE))
    if compression(head):
        return True, False
    check_format(head, file.size <= SAMPLE, f"The file {store.uri(file.path)}")
    if not several or not file.size:
        return False, False
    return False, b"".join(store.stream(file.path, file.size - 1, file.size)) != b"\n"


async def _expanded_copy(store: Store, root: str, number: int, file: File, lease: Lease) -> tuple[str, int]:
    """Return path and size of a compressed file's expanded copy."""
    path = copy_path(root, number, f"{file.size} {file.modified} {file.path}")
    size = await store.size(path)
    if size is None:
        # It appears whole or not at all, so one that is there was finished, by whichever worker.
        size = await in_thread(lease, lambda: _expand(store, file, path, lease))
    return path, size


def _expand(store: Store, file: File, path: str, lease: Lease) -> int:
    last = b"\n"
    with store.writer(path) as out:
        what = f"The file {store.uri(file.path)}"
        for data in checked(expanded(store.stream(file.path), what), what):
            lease.check()
            lease.bytes += len(data)
            out.write(data)
            last = data[-1:]
        if last != b"\n":
            out.write(b"\n")
    return out.bytes_written
