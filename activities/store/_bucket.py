"""Storage at a cloud's object store, by obstore."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import AzureStore, GCSStore, S3Store

from ...contract import ConfigurationError, ObjectNotFound
from ._backend import RESERVED, Backend, Entry, Writer
from ._failures import cloud, disk

if TYPE_CHECKING:  # obstore has these for type checkers only
    from obstore.store import ClientConfig, RetryConfig

#: Bytes of a part of an upload and of a ranged read. S3 takes 10,000 parts, so objects of up to 80 GiB.
_PART = 8 * 1024 * 1024
#: Parts on their way at a time; with _PART it bounds the memory of an upload to about 40 MiB.
_PARALLEL = 4
#: Names of a listing that are asked for at a time: as many as S3 sends in one answer.
_LISTED = 1000
#: S3's largest object for a copy in one request (CopyObject).
_LARGEST_COPY = 5 * 1024**3

#: Plain HTTP is for services on the operator's own machine or network: only the environment can name an endpoint.
_CLIENT: ClientConfig = {"allow_http": True, "timeout": timedelta(minutes=2)}
#: About three seconds: whoever calls tries again later, and says meanwhile that it waits.
_RETRY: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}


class Bucket(Backend):
    """A bucket (or container) and a prefix in it. Credentials and endpoint come from the environment."""

    def __init__(self, url: str, scheme: str, name: str, prefix: str) -> None:
        self._url = url
        # Azure may finish a copy after it has answered, so there the bytes go through here.
        self._copies = scheme != "az"
        try:
            self._store = _connect(scheme, name, prefix or None)
        except Exception as error:
            if "Account must be specified" in str(error):
                reason = "set AZURE_STORAGE_ACCOUNT_NAME to the storage account's name"
            else:
                reason = "the storage service's environment variables are not usable"
            raise ConfigurationError(f"The store {url} cannot be opened: {reason}.") from error

    def _uri(self, path: str) -> str:
        return f"{self._url}/{path}"

    def read(self, path: str) -> bytes:
        with cloud("read", self._uri(path)):
            return bytes(obstore.get(self._store, path).bytes())

    def write(self, path: str, data: bytes, durable: bool = True) -> None:
        with cloud("write", self._uri(path)):
            obstore.put(self._store, path, data)

    def create(self, path: str, data: bytes) -> bool:
        with cloud("write", self._uri(path)):
            try:
                obstore.put(self._store, path, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def entry(self, path: str) -> Entry | None:
        try:
            with cloud("look at", self._uri(path)):
                meta = obstore.head(self._store, path)
        except ObjectNotFound:
            return None
        return Entry(path, meta["size"], meta["last_modified"])

    def delete(self, path: str) -> None:
        with suppress(ObjectNotFound), cloud("delete", self._uri(path)):
            obstore.delete(self._store, path)

    def page(self, folder: str, after: str | None, limit: int, backwards: bool) -> list[str]:
        if backwards:
            return self._page_backwards(folder, after, limit)
        found: list[str] = []
        with cloud("list", self._uri(folder)):
            for part in obstore.list(self._store, folder, offset=after, chunk_size=_LISTED):
                found += [meta["path"] for meta in part]
                # S3, Google and Azure list in order; a service that does not is read to its end.
                if len(found) >= limit and found == sorted(found):
                    break
        return sorted(path for path in found if after is None or path > after)[:limit]

    def _page_backwards(self, folder: str, after: str | None, limit: int) -> list[str]:
        # No service lists backwards: the folders in this one are read whole, from the last one on.
        found: list[str] = []
        with cloud("list", self._uri(folder)):
            level = obstore.list_with_delimiter(self._store, folder)
            loose = [meta["path"] for meta in level["objects"]]
            for inner in sorted(level["common_prefixes"], reverse=True):
                if after is None or inner < after:
                    paths = [meta["path"] for part in obstore.list(self._store, inner) for meta in part]
                    found += sorted((path for path in paths if after is None or path < after), reverse=True)
                if len(found) >= limit:
                    break
        found += [path for path in loose if after is None or path < after]
        return sorted(found, reverse=True)[:limit]

    def list(self, prefix: str) -> list[Entry]:
        with cloud("list", self._uri(prefix)):
            return [
                Entry(meta["path"], meta["size"], meta["last_modified"])
                for page in obstore.list(self._store, prefix or None, chunk_size=1000)
                for meta in page
            ]

    def stream(self, path: str, start: int, end: int | None, chunk: int) -> Iterator[bytes]:
        # One request a part, not one for the whole: a slow reader then holds no connection open, and a part that
        # fails is fetched again by itself. if_match keeps parts of two versions from being mixed.
        uri = self._uri(path)
        with cloud("read", uri):
            meta = obstore.head(self._store, path)
        end = meta["size"] if end is None else min(end, meta["size"])
        step = chunk * -(-_PART // chunk)
        for position in range(start, end, step):
            with cloud("read", uri):
                part = obstore.get(
                    self._store,
                    path,
                    options={"range": (position, min(position + step, end)), "if_match": meta["e_tag"]},
                ).bytes()
            view = memoryview(part)
            for offset in range(0, len(view), chunk):
                yield bytes(view[offset : offset + chunk])

    @contextmanager
    def writer(self, path: str, durable: bool) -> Iterator[Writer]:
        uri = self._uri(path)
        with cloud("write", uri):
            upload = obstore.open_writer(self._store, path, buffer_size=_PART, max_concurrency=_PARALLEL)

        def sink(data: bytearray) -> None:
            with cloud("write", uri):
                upload.write(data)

        try:
            writer = Writer(sink)
            yield writer
            writer.flush()
        except BaseException as error:
            # obstore is given the error and aborts the upload. Should that fail too, the first error is the one to see.
            with suppress(Exception):
                upload.__exit__(type(error), error, error.__traceback__)
            raise
        with cloud("write", uri):
            upload.close()

    def sync(self, paths: Sequence[str]) -> None:
        return  # an upload that was answered is safe

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        here = f"{self._uri(path)} into the temporary folder {tempfile.gettempdir()}"
        with disk("download", here):
            folder = tempfile.TemporaryDirectory(prefix=RESERVED)
        with folder as name:
            file = Path(name, "object")
            with disk("download", here), file.open("wb") as out:
                for data in self.stream(path, 0, None, _PART):
                    out.write(data)
            yield file

    def duplicate(self, target: str, source: str) -> bool:
        with cloud("read", self._uri(source)):
            size = obstore.head(self._store, source)["size"]
        if not self._copies or size > _LARGEST_COPY:
            return False
        with cloud("write", self._uri(target)):
            obstore.copy(self._store, source, target)
        return True

    def prune(self, prefix: str) -> None:
        return  # a bucket has no folders, and an upload that was broken off never shows


def _connect(scheme: str, name: str, prefix: str | None) -> S3Store | GCSStore | AzureStore:
    if scheme == "s3":
        return S3Store(name, prefix=prefix, client_options=_CLIENT, retry_config=_RETRY)
    if scheme == "gs":
        return GCSStore(name, prefix=prefix, client_options=_CLIENT, retry_config=_RETRY)
    return AzureStore(name, prefix=prefix, client_options=_CLIENT, retry_config=_RETRY)
