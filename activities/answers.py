"""A provider's lines on their way to being answers: as they are, repaired, joined, split, or set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .providers import Outcome
from .repair import MAX_DIGITS, ids, is_open, long_number, objects

#: Lines, and bytes, of one result that was written over several: a text with raw line breaks, or indented JSON.
_MAX_LINES = 1000
_MAX_BYTES = 16 << 20


class Answers:
    """Reads the lines of one file.

    Args:
        outcome: what a line says; raises ValueError where it is not a result.
        set_aside: takes each line that cannot be read.
    """

    def __init__(self, outcome: Callable[[bytes], Outcome], set_aside: Callable[[bytes], None]) -> None:
        self._read = outcome
        self._set_aside = set_aside
        self._torn: list[bytes] = []  # lines that may be one result together
        self._bytes = 0

    def read(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, Outcome | None]]:
        """Yield each line with what it says: None for one that is blank, or part of a result, or cannot be read.

        Of a result that was written over several lines, its last line says what it says. Several results on one line
        are yielded one by one.
        """
        read, torn = self._read, self._torn
        for line in lines:
            try:
                # Of what the adapter passes on unread, msgspec checks everything but these two.
                if not line.isascii():
                    line.decode()
                if len(line) > MAX_DIGITS and long_number(line):
                    raise ValueError("an integer that few can read")
                found = read(line)
            except Exception:  # whatever a provider writes, it must not keep the other rows from their results
                if line.strip() or torn:
                    yield from self._damaged(line)
                else:
                    yield line, None
            else:
                if torn:
                    self._give_up()
                yield line, found
        self._give_up()

    def _give_up(self) -> None:
        """Set aside what is held: nothing that follows belongs to it."""
        for line in self._torn:
            self._set_aside(line)
        self._torn.clear()
        self._bytes = 0

    def _damaged(self, line: bytes) -> Iterator[tuple[bytes, Outcome | None]]:
        found, whole = self._several(line)
        if found:
            self._give_up()
            yield from [(line, found[0][1])] if len(found) == 1 else found
            if not whole:
                self._set_aside(line)
            return
        opens = is_open(line)
        if opens and line.startswith(b"{"):
            self._give_up()  # this is a result of its own, most likely
        if opens or self._torn:
            yield line, self._continued(line)
        else:
            self._set_aside(line)
            yield line, None

    def _several(self, line: bytes) -> tuple[list[tuple[bytes, Outcome]], bool]:
        """Return the results on a line that can be read, and whether they are all that is there."""
        found: list[tuple[bytes, Outcome]] = []
        try:
            for part in objects(line):
                found.append((part, self._read(part)))
        except Exception:
            return found, False
        # What comes after the last object is dropped, unless there is an id in it.
        return found, {one.custom_id for _, one in found}.issuperset(ids(line))

    def _continued(self, line: bytes) -> Outcome | None:
        self._torn.append(line)
        self._bytes += len(line)
        found = self._joined() if len(self._torn) > 1 and b"}" in line else None
        if found:
            self._torn.clear()
            self._bytes = 0
        elif len(self._torn) >= _MAX_LINES or self._bytes > _MAX_BYTES:
            self._give_up()
        return found

    def _joined(self) -> Outcome | None:
        whole = b"\n".join(self._torn)
        # The end of one result may by chance fit the beginning of another one.
        found, complete = self._several(whole) if len(set(ids(whole))) == 1 else ([], False)
        return found[0][1] if complete and len(found) == 1 else None
