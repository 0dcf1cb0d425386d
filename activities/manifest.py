"""The manifest: results that are too large for one file stay in parts, and it lists them in order.

`results.manifest.json` is `{"rows", "bytes", "parts": [{"path", "rows", "bytes"}, …]}`. Paths are relative to the
manifest's own folder. The parts one after another are what `results.jsonl` would be; `errors.manifest.json` is the same
for `errors.jsonl`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ..contract import InvalidSpec, ObjectNotFound, StoreError
from ..contract.layout import is_manifest
from .store import Store


class Part(msgspec.Struct, frozen=True):
    """One of the files that results are in."""

    path: str  #: Relative to the manifest's folder.
    rows: int
    bytes: int


class _Manifest(msgspec.Struct, frozen=True):
    rows: int
    bytes: int
    parts: Sequence[Part]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Manifest).decode


async def write_manifest(store: Store, path: str, parts: Sequence[Part]) -> None:
    """Write the manifest of these parts, without the empty ones."""
    filled = [part for part in parts if part.bytes]
    manifest = _Manifest(sum(part.rows for part in filled), sum(part.bytes for part in filled), filled)
    await store.write(path, _encode(manifest) + b"\n")


def stream_results(store: Store, uri: str) -> Iterator[bytes]:
    """Yield the bytes of a file of results, or of all its parts if it is a manifest, in pieces. Blocks.

    Raises:
        StoreError: the store failed, or the manifest or a part of it is damaged or gone.
    """
    path = store.path(uri)
    if not is_manifest(path):
        yield from store.stream(path)
        return
    for part, place in _parts(store, path):
        yield from _stream_part(store, place, part.bytes, uri)


def _parts(store: Store, path: str) -> list[tuple[Part, str]]:
    """Return what a manifest lists, each part with its path in the store."""
    data = b"".join(store.stream(path))
    folder = path.rpartition("/")[0]
    try:
        found = _decode(data)
        # To name a part is to check its path: none leads out of the batch's folder.
        places = [store.path(store.uri(f"{folder}/{part.path}")) for part in found.parts]
    except (ValueError, InvalidSpec):  # msgspec's errors are ValueErrors
        found = None
    if found is None or found.bytes != sum(part.bytes for part in found.parts):
        raise StoreError(
            f"The manifest {store.uri(path)} is damaged: bring it back from a copy, or read the parts, "
            "shards/*/*.jsonl beside it, in order."
        )
    return list(zip(found.parts, places, strict=True))


def _stream_part(store: Store, path: str, size: int, uri: str) -> Iterator[bytes]:
    found = 0
    try:
        for piece in store.stream(path):
            found += len(piece)
            if found > size:
                break
            yield piece
    except ObjectNotFound:
        raise StoreError(f"The part {store.uri(path)} is gone, and {uri} lists it: bring it back.") from None
    if found != size:
        raise StoreError(
            f"The part {store.uri(path)} does not have the {size:,} bytes that {uri} lists: bring back what it was."
        )
