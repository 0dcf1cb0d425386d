"""Compressed files: recognized by their first bytes, expanded piece by piece, and refused where they are not whole."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard

from durabatch.activities.compression import compression, expanded
from durabatch.contract import InvalidInput

TEXT = b"".join(b'{"custom_id":"r-%d","input":"Say %d."}\n' % (n, n * n) for n in range(5000))
SKIPPED = bytes.fromhex("502a4d18") + (5).to_bytes(4, "little") + b"abcde"
zstd = zstandard.ZstdCompressor().compress


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


WHOLE: dict[str, tuple[bytes, bytes]] = {
    "plain": (TEXT, TEXT),
    "nothing": (b"", b""),
    "shorter than any mark": (b"{}", b"{}"),
    "gzip": (gzip.compress(TEXT), TEXT),
    "gzip of nothing": (gzip.compress(b""), b""),
    "several gzip members": (gzip.compress(TEXT) + gzip.compress(b"") + gzip.compress(TEXT), TEXT * 2),
    "gzip filled up with zeros": (gzip.compress(TEXT) + b"\0" * 700, TEXT),
    "zstd": (zstd(TEXT), TEXT),
    "zstd of nothing": (zstd(b""), b""),
    "several zstd frames": (zstd(TEXT) + zstd(b"") + zstd(TEXT), TEXT * 2),
    "zstd with frames to skip": (SKIPPED + zstd(TEXT) + SKIPPED, TEXT),
}


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize(("data", "inside"), WHOLE.values(), ids=WHOLE)
def test_what_is_in_a_file_is_found_however_it_comes(data: bytes, inside: bytes, size: int) -> None:
    assert b"".join(expanded(pieces(data, size), "It")) == inside


def test_the_first_bytes_tell() -> None:
    assert compression(gzip.compress(b"x")[:4]) == "gzip"
    assert compression(zstd(b"x")[:4]) == compression(SKIPPED[:4]) == "zstd"
    for head in (b"", b"{", b'{"cu', b"\x1f", b"\xef\xbb\xbf{", b"(\xb5/"):
        assert compression(head) is None


@pytest.mark.parametrize(("kind", "compress"), [("gzip", gzip.compress), ("zstd", zstd)])
def test_a_file_that_is_cut_off_anywhere_is_refused(kind: str, compress: Callable[[bytes], bytes]) -> None:
    data = compress(TEXT[:600])
    for end in range(4, len(data)):
        with pytest.raises(InvalidInput, match=rf"^The file f is cut off: its {kind} data ends in the middle"):
            list(expanded([data[:end]], "The file f"))
    second = data + data[: len(data) // 2]
    with pytest.raises(InvalidInput, match="is cut off"):
        list(expanded([second], "The file f"))


@pytest.mark.parametrize(("kind", "compress"), [("gzip", gzip.compress), ("zstd", zstd)])
def test_damaged_data_is_refused_without_a_word_of_it(kind: str, compress: Callable[[bytes], bytes]) -> None:
    data = compress(TEXT)
    # In the middle, at the checksum that gzip ends with, and behind the end.
    broken = [data + b"garbage"]
    if kind == "gzip":
        broken += [data[:-8] + b"\0\0\0\0" + data[-4:], data[:200] + b"\xff" * 50 + data[250:]]
    else:
        broken.append(data[:20] + b"\xff" * 50 + data[70:])
    for one in broken:
        with pytest.raises(InvalidInput) as caught:
            list(expanded([one], "The file f"))
        assert caught.value.message == f"The file f is damaged: its {kind} data cannot be read; write it again."


def test_zstd_that_needs_too_much_memory_is_told_apart() -> None:
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=28, enable_ldm=True)
    made = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    with pytest.raises(InvalidInput, match="more than 128 MiB of memory"):
        list(expanded([made.compress(TEXT) + made.flush()], "The file f"))


@pytest.mark.slow
@pytest.mark.parametrize("compress", [lambda data: gzip.compress(data, 9), zstandard.ZstdCompressor(level=19).compress])
def test_a_file_that_grows_a_thousandfold_takes_little_memory(compress: Callable[[bytes], bytes]) -> None:
    data = compress(bytes(300 << 20))
    assert len(data) < 1 << 20
    tracemalloc.start()
    try:
        size = sum(len(piece) for piece in expanded([data], "It"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 300 << 20
    assert peak < 80 << 20
