"""Lines of files that come in pieces."""

from __future__ import annotations

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
            yield from whole
            held = []
        held.append(rest)
    if last := b"".join(held):
        yield last
