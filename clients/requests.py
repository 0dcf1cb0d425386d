"""Requests on their way into the store: any shape a user may give them in, to objects named by their content."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from ..activities.input import File, find_files, input_location, wild_path
from ..activities.selection import has_wildcard, is_jsonl
from ..activities.store import Store
from ..contract import InvalidInput, InvalidSpec, ObjectNotFound
from ..contract.layout import brought_folder, brought_name, brought_path, measured_path, parse_brought
from .local_files import PIECE, Measured, local_files, local_path, measure, measure_file, opened

#: A request by its id: a prompt, a list of chat messages, or a whole body.
Body = str | Sequence[Mapping[str, Any]] | Mapping[str, Any]
#: Requests: by id; as rows of one of the input shapes; or as the path of a JSONL file, a folder of them or a pattern,
#: or as the URI of such in the store.
Requests = Mapping[str, Body] | Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]] | str | Path

#: Rows after which others on the event loop get their turn; about 5 ms.
_ROWS_A_TURN = 1000
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file that has been read once, and is to be copied into the store as it is."""

    file: Path
    digest: str  #: SHA-256 of its bytes, hexadecimal.
    size: int  #: Bytes.
    name: str  #: How its name in the store ends.


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The requests of one batch as bytes that have been read once: their digest is known, and where they are."""

    stem: str  #: What the batch may be called after.
    digest: str  #: Of what is in the files, and of the names where there are several; hexadecimal.
    count: int  #: Lines that are not blank.
    size: int  #: Bytes.
    files: tuple[LocalFile, ...] = ()  #: The local files that hold them, or
    uri: str | None = None  #: the URI of an object in the store, of a folder or of a pattern.
    folder: bool = False  #: Whether the files are kept as a folder, even if it is only one.

    def paths(self, batch_id: str) -> list[str]:
        """Return the paths of the local files in the store for a batch."""
        if self.folder:
            width = max(5, len(str(len(self.files) - 1)))  # so that they are in this order by their paths
            return [
                brought_path(batch_id, self.digest, number, width, file.name) for number, file in enumerate(self.files)
            ]
        return [f"{brought_folder(batch_id, self.digest)}{file.name}" for file in self.files]

    def location(self, store: Store, batch_id: str) -> str:
        """Return the URI that the rows have in the store, or will have once they are `put`."""
        if self.uri:
            return self.uri
        return (
            f"{store.uri(brought_folder(batch_id, self.digest))}/"
            if self.folder
            else store.uri(self.paths(batch_id)[0])
        )

    async def put(self, store: Store, batch_id: str) -> None:
        """Copy the rows into the store, unless they are there.

        Raises:
            InvalidInput: the file has changed since it was read first.
            StoreError: the store failed.
        """
        for path, local in zip(self.paths(batch_id), self.files, strict=True):
            if await store.size(path) != local.size:
                await asyncio.to_thread(_copy, store, path, local)
                if not self.folder:
                    await store.write(measured_path(path), _encode(_Recorded(self.digest, self.count, self.size)))


def _copy(store: Store, path: str, local: LocalFile) -> None:
    digest = hashlib.sha256()
    with opened(local.file) as source, store.writer(path) as out:
        while piece := source.read(PIECE):
            digest.update(piece)
            out.write(piece)
        if digest.hexdigest() != local.digest:
            # Raised within the writer's block, so that the object never appears.
            raise InvalidInput(
                f"The file {local.file} changed while it was being read: give it again when it is whole."
            )


class _Recorded(msgspec.Struct, frozen=True):
    """What is known of a file of rows in the store; kept beside one that a client brought, to save reading it again."""

    digest: str  #: As that of `Measured`.
    rows: int
    size: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Recorded).decode


@asynccontextmanager
async def gathered(requests: Requests | Rows, store: Store) -> AsyncIterator[Rows]:
    """Read the requests once and yield what is known about them; memory stays flat for files and iterables.

    What was gathered before is not read again.

    Raises:
        InvalidInput: there are none, a file cannot be read, or a request cannot be written as JSON.
        InvalidSpec: a URI leads outside the store.
    """
    if isinstance(requests, Rows):
        yield requests
        return
    if isinstance(requests, str | Path):
        uri = _store_uri(requests, store)
        if uri is not None:
            yield _filled(await _stored(uri, store), uri)
            return
        path = _local(requests)
        rows = await asyncio.to_thread(_on_disk, path)
        yield _filled(rows, f"{'The folder' if rows.folder else 'The file'} {path}")
        return
    # Beside the other temporary files, since the store may be a bucket.
    with tempfile.TemporaryDirectory(prefix="durabatch-") as folder:
        file = Path(folder, "requests.jsonl")
        with file.open("wb") as out:  # noqa: ASYNC230  buffered, and as local as memory
            written = 0
            async for line in _lines(requests):
                out.write(line)
                written += 1
                if written % _ROWS_A_TURN == 0:
                    await asyncio.sleep(0)
        yield _filled(await asyncio.to_thread(_on_disk, file), "The collection")


async def _stored(uri: str, store: Store) -> Rows:
    """Read what a URI in the store names."""
    files = await find_files(store, uri)
    found = [await _measured(store, file) for file in files]
    alone, path = files[0].name is None, input_location(store, uri)
    names = [file.name or "" for file in files]
    if not alone and not has_wildcard(path):
        uri = f"{store.uri(path)}/"  # with the slash or without, it is the same batch
    return Rows(
        stem=_stem(path.rpartition("/")[2] if alone else path),
        digest=found[0].digest if alone else _joint_digest(names, found),
        count=sum(one.rows for one in found),
        size=sum(one.size for one in found),
        uri=uri,
    )


async def _measured(store: Store, file: File) -> _Recorded:
    """Return what is in a file of the store: as it was recorded when a client brought it, or else by reading it."""
    if parse_brought(file.path):  # such an object is named by its content, so it never gets another one
        with contextlib.suppress(ObjectNotFound, msgspec.MsgspecError):
            recorded = _decode(await store.read(measured_path(file.path)))
            if recorded.size == file.size:
                return recorded
    found = await asyncio.to_thread(measure, store.stream(file.path), f"The file {store.uri(file.path)}")
    return _Recorded(found.digest, found.rows, found.size)


def _on_disk(path: Path) -> Rows:
    """Read a local file, a folder of them, or those that a pattern matches."""
    files, folder = local_files(path)
    found = [measure_file(file) for file, _ in files]
    names = [name for _, name in files]
    return Rows(
        stem=_stem(path.as_posix() if folder else path.name),
        digest=_joint_digest(names, found) if folder else found[0].digest,
        count=sum(one.rows for one in found),
        size=sum(one.size for one in found),
        files=tuple(
            LocalFile(
                file=file,
                digest=one.raw,
                size=one.size,
                name=_stored_name(name, one.suffix) if folder else one.suffix,
            )
            for (file, name), one in zip(files, found, strict=True)
        ),
        folder=folder,
    )


def _joint_digest(names: list[str], found: Sequence[Measured | _Recorded]) -> str:
    """Return a digest of several files' names and contents."""
    facts = [[name, one.digest] for name, one in zip(names, found, strict=True)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _stored_name(name: str, suffix: str) -> str:
    """Return what a file of a folder is called in the store, behind its number."""
    kept = brought_name(name)
    return kept if is_jsonl(kept) else kept + suffix  # a pattern takes files of any name


def _filled(rows: Rows, what: str) -> Rows:
    if not rows.count:
        raise InvalidInput(f"{what} is empty: it holds no requests.")
    return rows


async def _lines(requests: Any) -> AsyncIterator[bytes]:
    if isinstance(requests, Mapping):
        for custom_id, body in requests.items():
            yield _line(_row(custom_id, body), f"the request {str(custom_id)[:80]!r}")
    elif isinstance(requests, AsyncIterable):
        number = 0
        async for row in requests:
            number += 1
            yield _line(row, f"row {number}")
    elif isinstance(requests, Iterable):
        for number, row in enumerate(requests, 1):
            yield _line(row, f"row {number}")
    else:
        raise InvalidInput(
            f"Requests cannot be {_type(requests)}: give a dict by id, rows (dicts), the path of a file, or its "
            "URI in the store."
        )


def _row(custom_id: object, body: object) -> dict[str, Any]:
    if not isinstance(custom_id, str) or not custom_id.strip():
        raise InvalidInput(f"The id {custom_id!r} must be a string that is not empty.")
    if isinstance(body, Mapping):
        return {"custom_id": custom_id, "body": body}
    if isinstance(body, str) or (
        isinstance(body, Sequence) and body and all(isinstance(message, Mapping) for message in body)
    ):
        return {"custom_id": custom_id, "input": body}
    raise InvalidInput(
        f"The request {custom_id[:80]!r} cannot be {_type(body)}: give a string, a list of messages that is not "
        "empty, or a whole body (a dict)."
    )


def _line(row: object, what: str) -> bytes:
    if not isinstance(row, Mapping):
        raise InvalidInput(f"{what[0].upper()}{what[1:]} cannot be {_type(row)}: give a dict.")
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        # The cause may quote the row (promise G8), so only its kind is reported.
        kind = "text that is no Unicode" if isinstance(error, UnicodeError) else "a value that JSON does not have"
        raise InvalidInput(f"{what[0].upper()}{what[1:]} holds {kind}.") from None


def _type(value: object) -> str:
    return "empty" if isinstance(value, list | tuple) and not value else f"of type {type(value).__name__}"


def _store_uri(requests: str | Path, store: Store) -> str | None:
    """Return the URI if the requests are one in the store, None if they are the path of a local file."""
    if isinstance(requests, Path) or "://" not in requests:
        return None
    try:
        wild_path(store, requests)
    except InvalidSpec:
        if requests.startswith("file://"):
            return None
        raise
    return requests


def _local(requests: str | Path) -> Path:
    if isinstance(requests, str) and requests.startswith("file://"):
        # A question mark is a wildcard here, and not the beginning of a query.
        return Path(unquote(urlsplit(requests.replace("?", "%3F")).path))
    return local_path(requests)


def _stem(name: str) -> str:
    """Return the name of a file or folder, without its suffix, as a batch id may contain it."""
    for part in reversed(name.split("/")):
        # Where a pattern's last part is all wildcards, the folder's name says more.
        if stem := _UNSAFE.sub("-", part.split(".")[0]).strip("-._")[:80].rstrip("-._"):
            return stem
    return "requests"
