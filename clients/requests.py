"""Requests on their way into the store: any shape a user may give them in, to one JSONL object named by its content."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from ..activities.store import Store
from ..contract import InvalidInput, InvalidSpec

#: A request by its id: a prompt, a list of chat messages, or a whole body.
Body = str | Sequence[Mapping[str, Any]] | Mapping[str, Any]
#: Requests: by id; as rows of one of the input shapes; or as the path of a JSONL file or its URI in the store.
Requests = Mapping[str, Body] | Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]] | str | Path

_PIECE = 1024 * 1024
#: Rows after which others on the event loop get their turn; about 5 ms.
_BREATH = 1000
#: Digits of the content's SHA-256 in an object's name: 64 bits, beyond any accident.
_NAME_DIGITS = 16
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The requests of one batch as bytes that have been read once: their digest is known, and where they are."""

    stem: str  #: What the batch may be called after.
    digest: str  #: SHA-256 of the bytes, hexadecimal.
    count: int  #: Lines that are not blank.
    size: int  #: Bytes.
    file: Path | None  #: A local file that holds them, or
    uri: str | None  #: the URI of an object in the store.

    def path(self, batch_id: str) -> str:
        """Return the object's path in the store for a batch."""
        return f"{batch_id}/input-{self.digest[:_NAME_DIGITS]}.jsonl"

    def location(self, store: Store, batch_id: str) -> str:
        """Return the URI that the rows have in the store, or will have once they are `put`."""
        return self.uri or store.uri(self.path(batch_id))

    async def put(self, store: Store, batch_id: str) -> None:
        """Copy the rows into the store, unless they are there.

        Raises:
            InvalidInput: the file has changed since it was read first.
            StoreError: the store failed.
        """
        if self.file is None:
            return
        path = self.path(batch_id)
        if await store.size(path) != self.size:
            await asyncio.to_thread(self._copy, store, path, self.file)

    def _copy(self, store: Store, path: str, file: Path) -> None:
        digest = hashlib.sha256()
        with _opened(file) as source, store.writer(path) as out:
            while piece := source.read(_PIECE):
                digest.update(piece)
                out.write(piece)
            if digest.hexdigest() != self.digest:
                # Raised within the writer's block, so that the object never appears.
                raise InvalidInput(f"The file {file} changed while it was being read: give it again when it is whole.")


def check_file(file: Path) -> None:
    """See that a local file can be read and is not empty, before anything is started for it.

    Raises:
        InvalidInput: it cannot, or it is.
    """
    with _opened(file) as source:
        if not source.read(1):
            raise InvalidInput(f"The file {file} is empty: it holds no requests.")


@asynccontextmanager
async def gathered(requests: Requests, store: Store) -> AsyncIterator[Rows]:
    """Read the requests once and yield what is known about them; memory stays flat for files and iterables.

    Raises:
        InvalidInput: there are none, a file cannot be read, or a request cannot be written as JSON.
        InvalidSpec: a URI leads outside the store.
    """
    if isinstance(requests, str | Path):
        uri = _store_uri(requests, store)
        if uri is not None:
            path = store.path(uri)
            digest, count, size = await asyncio.to_thread(lambda: _measure(store.stream(path)))
            yield _filled(Rows(stem=_stem(path), digest=digest, count=count, size=size, file=None, uri=uri), uri)
            return
        file = _local(requests)
        digest, count, size = await asyncio.to_thread(_measure_file, file)
        rows = Rows(stem=_stem(file.name), digest=digest, count=count, size=size, file=file, uri=None)
        yield _filled(rows, f"The file {file}")
        return
    # Beside the other temporary files, since the store may be a bucket.
    with tempfile.TemporaryDirectory(prefix="durabatch-") as folder:
        file = Path(folder, "requests.jsonl")
        with file.open("wb") as out:  # noqa: ASYNC230  buffered, and as local as memory
            written = 0
            async for line in _lines(requests):
                out.write(line)
                written += 1
                if written % _BREATH == 0:
                    await asyncio.sleep(0)
        digest, count, size = await asyncio.to_thread(_measure_file, file)
        yield _filled(
            Rows(stem="requests", digest=digest, count=count, size=size, file=file, uri=None), "The collection"
        )


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
        # The cause may quote the row (promise G8), so only its kind is told.
        kind = "text that is no Unicode" if isinstance(error, UnicodeError) else "a value that JSON does not have"
        raise InvalidInput(f"{what[0].upper()}{what[1:]} holds {kind}.") from None


def _type(value: object) -> str:
    return "empty" if isinstance(value, list | tuple) and not value else f"of type {type(value).__name__}"


def _store_uri(requests: str | Path, store: Store) -> str | None:
    """Return the URI if the requests are one in the store, None if they are the path of a local file."""
    if isinstance(requests, Path) or "://" not in requests:
        return None
    try:
        store.path(requests)
    except InvalidSpec:
        if requests.startswith("file://"):
            return None
        raise
    return requests


def _local(requests: str | Path) -> Path:
    if isinstance(requests, str) and requests.startswith("file://"):
        return Path(unquote(urlsplit(requests).path))
    return Path(requests).expanduser()


def _stem(name: str) -> str:
    """Return a file's name, without its suffix, as it may stand in a batch id."""
    stem = _UNSAFE.sub("-", name.rpartition("/")[2].split(".")[0]).strip("-._")
    return stem[:80].rstrip("-._") or "requests"


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        source = file.open("rb")
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {file}.") from None
    except IsADirectoryError:
        raise InvalidInput(f"{file} is a folder: give a file of requests, one JSON object a line.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the name is not usable"
        raise InvalidInput(f"The file {file} cannot be read: {reason}.") from None
    with source:
        yield source


def _measure_file(file: Path) -> tuple[str, int, int]:
    with _opened(file) as source:
        return _measure(iter(lambda: source.read(_PIECE), b""))


def _measure(pieces: Iterable[bytes]) -> tuple[str, int, int]:
    """Return the SHA-256 digest of the bytes, how many lines are not blank, and how many bytes there are."""
    digest, count, size = hashlib.sha256(), 0, 0
    begun = False  # whether the line under way holds anything yet
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        first, *others = piece.split(b"\n")
        begun = begun or not _blank(first)
        for line in others:
            count += begun
            begun = not _blank(line)
    return digest.hexdigest(), count + begun, size


def _blank(line: bytes) -> bool:
    return not line or line.isspace()
