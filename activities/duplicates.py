"""Duplicate ids in an input, found without keeping any id in memory: first by their hashes, and then for certain.

64-bit hashes show which ids may be duplicates. Only if there are any is the input read again, to compare just those.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left

from .rows import Line, place

#: Hashes are kept in this many pieces, and one at a time is searched.
_PIECES = 256


class IdHashes:
    """The hashes of an input's ids, 8 bytes each."""

    def __init__(self) -> None:
        self._pieces = [array("q") for _ in range(_PIECES)]

    def add(self, custom_id: str) -> None:
        """Add an id."""
        number = hash(custom_id)
        self._pieces[number % _PIECES].append(number)

    def repeated(self) -> list[array[int]]:
        """Return the hashes that occur more than once, sorted, piece by piece; empties each piece on the way."""
        found = []
        for piece in self._pieces:
            seen: set[int] = set()
            again: set[int] = set()
            for number in piece:
                (again if number in seen else seen).add(number)
            del piece[:]
            found.append(array("q", sorted(again)))
        return found


class FirstOccurrences:
    """Where each id that may be a duplicate occurred first, in 28 bytes an id: all ids of an input may be such.

    Args:
        pieces: the hashes of ids that occur more than once, piece by piece, each one sorted.
    """

    def __init__(self, pieces: list[array[int]]) -> None:
        self._hashes = array("q")
        self._starts = [0]
        for piece in pieces:
            self._hashes.extend(piece)
            self._starts.append(len(self._hashes))
        # One of each for each hash; a line of 0 means that none was seen.
        self._lines = array("q", [0]) * len(self._hashes)
        self._digests = array("q", [0]) * len(self._hashes)
        self._files = array("I", [0]) * len(self._hashes)
        self._names: list[str | None] = []  #: Of the files, in the order in which they are read.
        self._others: dict[str, str] = {}  #: Ids that share their hash with another one: hardly ever any.

    def earlier(self, custom_id: str, line: Line) -> str | None:
        """Return the place where an id occurred before; None if it did not, and from now on this line is that place."""
        number = hash(custom_id)
        piece = number % _PIECES
        end = self._starts[piece + 1]
        at = bisect_left(self._hashes, number, self._starts[piece], end)
        if at == end or self._hashes[at] != number:
            return None
        digest = int.from_bytes(hashlib.blake2b(custom_id.encode(), digest_size=8).digest(), signed=True)
        if not self._lines[at]:
            if not self._names or self._names[-1] != line.file:
                self._names.append(line.file)
            self._lines[at], self._digests[at], self._files[at] = line.number, digest, len(self._names) - 1
            return None
        if self._digests[at] == digest:
            return place(self._lines[at], self._names[self._files[at]])
        if custom_id in self._others:
            return self._others[custom_id]
        self._others[custom_id] = line.place
        return None
