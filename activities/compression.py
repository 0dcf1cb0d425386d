"""Compressed files: which are, and what is in them. Pure; memory stays flat whatever a file grows to."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Literal

import zstandard

from ..contract import InvalidInput

Kind = Literal["gzip", "zstd"]

#: The first bytes of a file that show how it is compressed.
HEAD_BYTES = 4

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
#: Frames that every reader skips, and with which parallel compressors begin a file (RFC 8878, 3.1.2).
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
#: zlib's value for data with a gzip header and trailer.
_GZIP_BITS = 16 + zlib.MAX_WBITS
#: Bytes that come out of gzip at a time at most.
_OUT = 1 << 20
#: Bytes that go into zstd at a time: it has no such bound, and 4 bytes may become 128 KiB, so these become 32 MiB.
_IN = 1 << 10


def compression(head: bytes) -> Kind | None:
    """Return how a file that begins so is compressed, None if it is not; the name of a file says nothing."""
    if head.startswith(_GZIP):
        return "gzip"
    return "zstd" if head.startswith(_ZSTD) or _ZSTD_SKIPPABLE.match(head) else None


def expanded(chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Yield what is in a file: its own bytes if it is not compressed.

    Files of several gzip members or zstd frames, one after the other, are read to their end.

    Args:
        chunks: the file's bytes.
        what: the file, for messages.

    Raises:
        InvalidInput: the compressed data is cut off or damaged. It comes after what could be read.
    """
    pieces = iter(chunks)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= HEAD_BYTES:
            break
    kind = compression(head)
    whole = _chain(head, pieces)
    if kind is None:
        yield from whole
        return
    try:
        finished = yield from (_gunzipped(whole) if kind == "gzip" else _unzstd(whole))
    except (zlib.error, zstandard.ZstdError) as error:
        if "too much memory" in str(error):
            raise InvalidInput(
                f"{what} needs more than 128 MiB of memory to expand: compress it again without --long or --ultra."
            ) from None
        raise InvalidInput(f"{what} is damaged: its {kind} data cannot be read; write it again.") from None
    if not finished:
        raise InvalidInput(f"{what} is cut off: its {kind} data ends in the middle; write it again.")


def _chain(head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from pieces


def _gunzipped(pieces: Iterator[bytes]) -> Generator[bytes, None, bool]:
    """Yield what is in the members; return whether the last one is whole."""
    member = zlib.decompressobj(_GZIP_BITS)
    begun = False  # whether the member under way has any bytes
    between = False  # whether a member has ended, after which zeros may fill a block
    for piece in pieces:
        while piece:
            if between:
                piece = piece.lstrip(b"\0")
                if not piece:
                    break
                between = False
            begun = True
            if data := member.decompress(piece, _OUT):
                yield data
            piece = member.unconsumed_tail
            if member.eof:
                piece, member, begun, between = member.unused_data, zlib.decompressobj(_GZIP_BITS), False, True
    return not begun


def _unzstd(pieces: Iterator[bytes]) -> Generator[bytes, None, bool]:
    """Yield what is in the frames; return whether the last one is whole."""
    new: Callable[[], zstandard.ZstdDecompressionObj] = zstandard.ZstdDecompressor().decompressobj
    frame, begun = new(), False
    for whole in pieces:
        for start in range(0, len(whole), _IN):
            piece = whole[start : start + _IN]
            while piece:
                begun = True
                if data := frame.decompress(piece):
                    yield data
                piece = b""
                if frame.eof:
                    piece, frame, begun = frame.unused_data, new(), False
    return not begun
