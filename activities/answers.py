"""A provider's lines on their way to being answers: as they are, repaired, joined, or set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .providers import Outcome
from .repair import MAX_DIGITS, ids, is_open, long_number, repaired

#: Lines, and bytes, of one result that was written over several: a text with raw line breaks, or indented JSON.
_MAX_LINES = 1000
_MAX_BYTES = 16 << 20


class Answers:
    """Reads the lines of one file.

    Args:
        outcome: what a line says; raises ValueError where it is no result.
        set_aside: takes each line that cannot be read.
    """

    def __init__(self, outcome: Callable[[bytes], Outcome], set_aside: Callable[[bytes], None]) -> None:
        self._read = outcome
        self._set_aside = set_aside
        self._torn: list[bytes] = []  # lines that may be one result together
        self._bytes = 0

    def read(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, Outcome | None]]:
        """Yield each line with what it says: None for one that is blank, or part of a result, or cannot be read.

        Of a result that was written over several lines, its last line says what it says.
        """
        read, torn = self._read, self._torn
        for line in lines:
            found = None
            try:
                # Of what the adapter passes on unread, msgspec checks everything but these two.
                if not line.isascii():
                    line.decode()
                if len(line) > MAX_DIGITS and long_number(line):
                    raise ValueError("an integer that few can read")
                found = read(line)
            except Exception:  # whatever a provider writes, it must not keep the other rows from their results
                if line.strip() or torn:
                    found = self._damaged(line)
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

    def _damaged(self, line: bytes) -> Outcome | None:
        if found := self._repaired(line):
            self._give_up()
            return found
        opens = is_open(line)
        if opens and line.startswith(b"{"):
            self._give_up()  # this is a result of its own, most likely
        if not opens and not self._torn:
            self._set_aside(line)
            return None
        self._torn.append(line)
        self._bytes += len(line)
        if len(self._torn) > 1 and b"}" in line and (found := self._joined()):
            self._torn.clear()
            self._bytes = 0
            return found
        if len(self._torn) >= _MAX_LINES or self._bytes > _MAX_BYTES:
            self._give_up()
        return None

    def _joined(self) -> Outcome | None:
        whole = b"\n".join(self._torn)
        # The end of one result may by chance fit the beginning of another one.
        return self._repaired(whole) if len(set(ids(whole))) == 1 else None

    def _repaired(self, line: bytes) -> Outcome | None:
        try:
            return self._read(repaired(line))
        except Exception:
            return None
