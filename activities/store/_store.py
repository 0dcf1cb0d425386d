"""The store: a folder, or a bucket and a prefix, and the objects in it by path."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TypeVar

from ...contract import ConfigurationError, InvalidSpec, ObjectNotFound, StoreError
from ._backend import BUFFER, RESERVED, Backend, Entry, Writer
from ._bucket import Bucket
from ._failures import disk
from ._folder import Folder
from ._number import ZERO, StoredNumber
from ._paths import check, file_path, file_uri, is_temporary, problem, shown

T = TypeVar("T")

_CLOUDS = ("s3", "gs", "az")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+(.*)", re.DOTALL)
#: A bucket's or container's name. Services are stricter; this keeps ports, credentials and queries out.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
#: Threads for small objects. Of the store's own, so that they never wait behind the long row loops of a worker.
_THREADS = 32


class Store:
    """Objects by path ("folder/name", no leading slash), below one URL.

    The methods for small objects are async. Those for large ones block and keep memory flat: call them from a thread.
    A path that could lead out of the store raises InvalidSpec everywhere; a failure of the storage raises StoreError,
    a missing object ObjectNotFound.
    """

    def __init__(self, url: str, backend: Backend) -> None:
        #: The canonical URL, without a slash at the end.
        self.url = url
        self._backend = backend
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="durabatch-store")

    @classmethod
    def open(cls, url: str) -> Store:
        """Open the store at "a/folder", "file:///…", "s3://bucket/prefix", "gs://bucket/prefix" or "az://container/prefix".

        A folder is made where it is absent; a relative one is taken from the working directory. Credentials, region and
        endpoint of a cloud come from its usual environment variables (AWS_*, GOOGLE_*, AZURE_*).

        Raises:
            ConfigurationError: the URL cannot name a store, or the environment lacks what opening needs.
            StoreError: the folder cannot be made.
        """
        match = _URL.match(url)
        if match is None:
            return cls._open_folder(os.path.expanduser(url))
        scheme, rest = match[1].lower(), match[2]
        if not url[len(scheme) :].startswith("://"):
            raise ConfigurationError(f"The store's URL has too few slashes after {scheme}: write {scheme}://….")
        if scheme == "file":
            location = file_path(url)
            if location is None:
                raise ConfigurationError("A store's file URL is absolute and names no host: file:///a/folder.")
            return cls._open_folder(location)
        if scheme not in _CLOUDS:
            raise ConfigurationError(
                f"A store cannot live at {scheme}://: use a folder, file:///…, s3://…, gs://… or az://…."
            )
        name, _, prefix = rest.partition("/")
        prefix = prefix.strip("/")
        if not _BUCKET.fullmatch(name) or url[len(scheme) + 3 :][:1] == "/" or (prefix and problem(prefix)):
            # The URL is not repeated: what is wrong with it may be a key that somebody put there.
            raise ConfigurationError(
                f"The store's {scheme} URL is wrong: write {scheme}://bucket or {scheme}://bucket/prefix, with plain "
                "folder names, and put credentials into the environment."
            )
        canonical = f"{scheme}://{name}/{prefix}".rstrip("/")
        return cls(canonical, Bucket(canonical, scheme, name, prefix))

    @classmethod
    def _open_folder(cls, location: str) -> Store:
        if not location.strip() or "\0" in location:
            raise ConfigurationError("The store's URL is empty: name a folder or a bucket.")
        root = os.path.abspath(location)
        if root == os.path.dirname(root):
            raise ConfigurationError("The store cannot be the root of the file system: name a folder.")
        with disk("make the folder", file_uri(root)):
            os.makedirs(root, exist_ok=True)
        return cls(file_uri(root), Folder(root))

    def uri(self, path: str) -> str:
        """Return the full URI of a path; path() turns it back. "" is the store itself."""
        if not path:
            return self.url
        check(path)
        return self.url + (file_uri(f"/{path}")[len("file://") :] if self._is_folder else f"/{path}")

    def path(self, uri: str) -> str:
        """Return the path of a URI in this store, without a slash at the end; "" for the store itself.

        Raises:
            InvalidSpec: the URI leads outside this store, or to nothing that can be in it.
        """
        root, location = (file_path(self.url), file_path(uri)) if self._is_folder else (self.url, uri)
        if root is None or location is None or not f"{location}/".startswith(f"{root}/"):
            raise InvalidSpec(
                f"The URI {shown(uri)} is outside the store {self.url}: name something in it, or give a "
                "client the path of a local file."
            )
        path = location[len(root) + 1 :].removesuffix("/")
        if path:
            check(path)
        return path

    @property
    def _is_folder(self) -> bool:
        return self.url.startswith("file:")

    async def _run(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    async def read(self, path: str) -> bytes:
        """Return a small object's bytes."""
        return await self._run(self._backend.read, check(path))

    async def read_each(self, paths: Sequence[str]) -> list[bytes | None]:
        """Return the bytes of many small objects in the order of their paths, None for each that is absent."""
        size = self._backend.reads
        parts = [[check(path) for path in paths[first : first + size]] for first in range(0, len(paths), size)]
        found = await asyncio.gather(*(self._run(self._read_some, part) for part in parts))
        return [data for part in found for data in part]

    def _read_some(self, paths: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for path in paths:
            try:
                found.append(self._backend.read(path))
            except ObjectNotFound:
                found.append(None)
        return found

    async def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Make or replace a small object, all or nothing.

        Args:
            path: what is made or replaced.
            data: its bytes.
            durable: as for `writer`.
        """
        await self._run(self._backend.write, check(path), data, durable)

    async def number(self, path: str) -> StoredNumber:
        """Make or replace an object that holds a number which is written often; whoever calls closes it."""
        file = await self._run(self._backend.in_place, check(path), ZERO)
        return StoredNumber(self.uri(path), file, partial(self.write, path, durable=False))

    async def create(self, path: str, data: bytes) -> bool:
        """Make a small object, all or nothing, unless there is one already; of any number of callers one succeeds.

        Returns:
            Whether this call made it. False is certain to mean that there is one; where a cloud's answer was lost and
            the request was repeated, it may be this call's own. Data that no other caller writes can tell.
        """
        return await self._run(self._backend.create, check(path), data)

    async def size(self, path: str) -> int | None:
        """Return an object's size in bytes, None if there is no such object."""
        entry = await self.entry(path)
        return entry.size if entry else None

    async def entry(self, path: str) -> Entry | None:
        """Return an object's size and when it was written, None if there is no such object."""
        return await self._run(self._backend.entry, check(path))

    async def delete(self, path: str) -> None:
        """Delete an object; one that is absent already is fine."""
        await self._run(self._backend.delete, check(path))

    async def entries(self, prefix: str = "", wanted: Callable[[str], bool] | None = None) -> list[Entry]:
        """Return every object below the folder prefix ("" for all), sorted by path.

        Objects of other programs may have names that no path can hold; they are passed over.

        Args:
            wanted: which objects must not be passed over, by path.

        Raises:
            InvalidSpec: an object that is wanted has such a name.
        """
        folder = prefix.removesuffix("/")
        return await self._run(self._entries, check(folder) if folder else "", wanted)

    def _entries(self, folder: str, wanted: Callable[[str], bool] | None) -> list[Entry]:
        found = []
        for entry in sorted(self._backend.list(folder)):
            wrong = problem(entry.path)
            if wrong is None:
                found.append(entry)
            elif wanted and not is_temporary(entry.path) and wanted(entry.path):
                raise InvalidSpec(f"The object {entry.path[:300]!r} cannot be read: its name {wrong}; rename it.")
        return found

    async def page(self, folder: str, *, after: str | None = None, limit: int, backwards: bool = False) -> list[str]:
        """Return the paths below a folder that come next in the order of names, at most `limit`.

        It reads no more than it has to: of a folder in a file system, those folders in it that the page is in; of a
        bucket, a request for every thousand names.

        Args:
            after: the path that came last; it need not be there any more.
            backwards: from the last name to the first.
        """
        check(folder)
        if after is not None:
            check(after)
        return await self._run(self._backend.page, folder, after, limit, backwards)

    async def list(self, prefix: str = "", wanted: Callable[[str], bool] | None = None) -> list[tuple[str, int]]:
        """Return path and size in bytes of every object below the folder prefix ("" for all), as `entries`."""
        return [(entry.path, entry.size) for entry in await self.entries(prefix, wanted)]

    async def prune(self, prefix: str) -> None:
        """Clear away what holds no object below the folder prefix. Nobody may be writing there."""
        await self._run(self._backend.prune, check(prefix))

    async def check(self) -> None:
        """Write, read and delete a small object, to see that the store works.

        Raises:
            StoreError: it does not; the message says what to do.
        """
        path, probe = f"{RESERVED}check-{secrets.token_hex(8)}", secrets.token_bytes(16)
        try:
            await self._run(self._backend.create, path, probe)
            seen = await self._run(self._backend.read, path)
            again = await self._run(self._backend.create, path, probe)
            await self._run(self._backend.delete, path)
        except StoreError as error:
            advice = (
                "Name a folder that this user may write"
                if self._is_folder
                else "Check the bucket's name, region and endpoint, and that the credentials may write, read and delete"
            )
            raise StoreError(f"The store {self.url} does not work. {error.message} {advice}.") from error
        if seen != probe:
            raise StoreError(f"The store {self.url} does not return what was written to it; use another one.")
        if again:
            raise StoreError(
                f"The store {self.url} ignores If-None-Match, so two creates at once could both be sent; use a service "
                "that has conditional writes."
            )

    def stream(self, path: str, start: int = 0, end: int | None = None, chunk: int = BUFFER) -> Iterator[bytes]:
        """Yield the bytes [start, end) of an object in pieces of chunk bytes, the last one shorter. Blocks.

        An end past the object's own is the object's own; None reads to it. The object is opened at the first piece,
        and errors come from there.
        """
        if start < 0 or chunk < 1:
            raise ValueError("start must not be negative, and chunk must be at least 1")
        return self._backend.stream(check(path), start, end, chunk)

    def writer(self, path: str, *, durable: bool = True) -> AbstractContextManager[Writer]:
        """Open a new object for writing. Blocks.

        The object appears, or replaces the one before it, when the block ends well, and only whole. An exception leaves
        no trace of it; neither does a killed process, as far as any reader can see.

        Args:
            path: what is made or replaced.
            durable: whether it outlives a power cut from then on. Many small objects are faster without, and `sync`
                behind the last of them; until then a power cut may leave one empty or with other bytes.
        """
        return self._backend.writer(check(path), durable)

    def sync(self, paths: Sequence[str]) -> None:
        """Make objects outlive a power cut that were written without `durable`. Blocks."""
        self._backend.sync([check(path) for path in paths])

    def local(self, path: str) -> AbstractContextManager[Path]:
        """Offer an object as a file to read from: the file itself, or a download that is deleted afterwards. Blocks."""
        return self._backend.local(check(path))

    def concat(self, target: str, sources: Sequence[str], report: Callable[[int], object] = lambda count: None) -> int:
        """Join objects into one, all or nothing, and return its size in bytes. Blocks.

        The target is independent of the sources: they may be deleted at once.

        Args:
            target: what is made or replaced.
            sources: what it is made of, in order.
            report: called from time to time with the bytes joined since the last call; what it raises ends the joining.
        """
        check(target)
        for source in sources:
            check(source)
        if len(sources) == 1 and (sources[0] == target or self._backend.duplicate(target, sources[0])):
            entry = self._backend.entry(target)
            return entry.size if entry else 0
        return self._backend.join(target, sources, report)

    def put_file(self, path: str, file: Path) -> int:
        """Copy a local file into the store, all or nothing, and return its size in bytes. Blocks."""
        check(path)
        shown = file_uri(os.path.abspath(file))
        with disk("read", shown):
            source = file.open("rb", buffering=0)
        with source, self._backend.writer(path, durable=True) as out:
            while True:
                with disk("read", shown):
                    data = source.read(BUFFER)
                if not data:
                    break
                out.write(data)
        return out.bytes_written
