"""Lines, however the pieces of a file happen to be cut."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from durabatch.activities.lines import split_lines


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([], []),
        ([b""], []),
        ([b"\n"], [b""]),
        ([b"a"], [b"a"]),
        ([b"a\n"], [b"a"]),
        ([b"a\n\nb"], [b"a", b"", b"b"]),
        ([b"a", b"b", b"", b"c\nd", b"\n"], [b"abc", b"d"]),
        ([b"a\r\n", b"b\r"], [b"a\r", b"b\r"]),
    ],
)
def test_pieces_make_lines(pieces: list[bytes], lines: list[bytes]) -> None:
    assert list(split_lines(pieces)) == lines


def test_lines_are_the_same_however_the_file_is_cut() -> None:
    chance = random.Random(7)
    data = b"".join(bytes(chance.choices(b"ab\n", k=50)) for _ in range(20))
    expected = data.split(b"\n") if not data.endswith(b"\n") else data.split(b"\n")[:-1]
    for size in (1, 2, 3, 7, 50, 999, 5000):
        assert list(split_lines(data[at : at + size] for at in range(0, len(data), size))) == expected


def test_a_long_line_is_in_memory_once_while_it_is_looked_at() -> None:
    size, pieces = 1 << 16, 64

    def stream() -> Iterator[bytes]:
        for number in range(2 * pieces):
            yield b"x" * (size - 1) + (b"\n" if number == pieces - 1 else b"y")

    tracemalloc.start()
    try:
        for line in split_lines(stream()):
            taken, _ = tracemalloc.get_traced_memory()
            assert taken < 1.5 * size * pieces
            assert len(line) >= size * pieces - 1
            del line
    finally:
        tracemalloc.stop()
