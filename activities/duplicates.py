"""Candidates that stand twice in an input, found without holding any id: first by their hashes, and then for certain.

64-bit hashes tell which ids may stand twice. Only where there are such is the input read again, and those looked at.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left

from .rows import Line, place

#: Hashes lie in this many pieces, of which one at a time is searched.
_PIECES = 256


class Candidates:
    """The ids of an input, in 8 bytes each."""

    def __init__(self) -> None:
        self._pieces = [array("q") for _ in range(_PIECES)]

    def add(self, custom_id: str) -> None:
        """Take an id in."""
        number = hash(custom_id)
        self._pieces[number % _PIECES].append(number)

    def doubtful(self) -> list[array[int]]:
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


class FirstPlaces:
    """Where each id that may stand twice stood first, in 28 bytes an id: it may be true of every id of an input.

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
        self._others: dict[str, str] = {}  #: Candidates that share their hash with another one: hardly ever any.

    def see(self, custom_id: str, line: Line) -> str | None:
        """Return the place where the id stood first, and None if that is here."""
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
