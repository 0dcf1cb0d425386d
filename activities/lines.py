"""Lines of files that come in pieces."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file without their breaks; after the last break only if something is there.

    A line that runs through many pieces is joined once, so it costs no more than its bytes.
    """
    held: list[bytes] = []
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        if whole:
            whole[0] = b"".join([*held, whole[0]])
            held = []  # before the line goes on: a long one would be in memory twice
            yield from whole
        held.append(rest)
    last, held = b"".join(held), []
    if last:
        yield last


class Text:
    """A file that comes in pieces, as UTF-8: one in UTF-16 is converted."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.extra = 0  #: Line feeds, as bytes are counted, that are none of the text's.

    def __iter__(self) -> Iterator[bytes]:
        decoder: codecs.IncrementalDecoder | None = None
        pieces = iter(self._pieces)
        first = next(pieces, b"")
        for mark, encoding in _UTF16.items():
            if first.startswith(mark):
                decoder = codecs.getincrementaldecoder(encoding)("replace")
        if decoder is None:
            yield first
            yield from pieces
            return
        for piece in itertools.chain([first], pieces):
            text = decoder.decode(piece).encode()
            self.extra += piece.count(b"\n") - text.count(b"\n")
            yield text
        self.extra += 1  # the file's last byte is no line feed, so what follows the last one is counted as a line
        yield decoder.decode(b"", True).encode()


#: How a file of JSON lines in UTF-16 begins: with a mark, or with a brace.
_UTF16 = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"{\0": "utf-16-le", b"\0{": "utf-16-be"}
