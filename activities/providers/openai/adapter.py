"""OpenAI's Files and Batches, and every server that speaks them.

Protocol: https://platform.openai.com/docs/api-reference/batch and the types of the `openai` package (2026). A batch
names an uploaded file, carries the marker in its metadata, and ends with an output file and an error file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from ....contract import (
    BatchSpec,
    ProviderError,
    ProviderNotFound,
    ProviderRefused,
    ProviderUnavailable,
)
from ....contract.names import MARKER_KEY
from ....contract.steps import Search, Snapshot
from ...rows import Row
from .. import parsing
from ..base import Capabilities, Content, Creation, Download, MarkedBatch, Outcome, StoredFile, Wanted
from ..http import Http
from ..marker_cache import Listed, Listing
from ..pagination import ListingIncomplete, page, pages
from ..settings import ProviderSettings
from . import batch_object, results, rows

#: Limits of a batch: https://platform.openai.com/docs/guides/batch (50,000 requests, 200 MB).
MAX_ROWS = 50_000
MAX_BYTES = 200 * 1000 * 1000
#: Inputs over all rows of a batch (the `openai` package, BatchCreateParams.endpoint).
MAX_EMBEDDING_INPUTS = 50_000
#: Files remove themselves after this long at the latest (the API takes 1 hour to 30 days), should we not come back.
FILE_LIFE = timedelta(days=30)
#: Clocks differ, so a search looks a little further back than the batch is old.
CLOCK_SLACK = timedelta(minutes=15)

#: How servers refuse a create whose input file they have not read yet (Azure: an upload is `pending` before it is
#: `processed`), and one whose file they do not have.
_FILE_PENDING = re.compile(
    r"\bfile\b.*\b(not (yet )?(been )?(ready|processed)|(still|being) process|pending)", re.I | re.S
)
_FILE_MISSING = re.compile(r"no such file|\bfile\b.*\b(not found|not exist)", re.I | re.S)

_log = logging.getLogger(__name__)


class OpenAIProvider:
    """One account at OpenAI, or at a server with the same API."""

    def __init__(self, settings: ProviderSettings) -> None:
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        self._name = settings.name
        self._http = Http(settings, {"Authorization": f"Bearer {key}"})
        self._listing = Listing(self._listed, settings.listing_lag)
        self._azure = rows.is_azure(settings.url)
        self._capabilities = Capabilities(
            search=Search.MARKER,
            uploads=True,
            endpoints=frozenset(rows.REQUIRED),
            max_rows=min(settings.max_rows or MAX_ROWS, MAX_ROWS),
            max_bytes=min(settings.max_bytes or MAX_BYTES, MAX_BYTES),
            max_tokens=settings.max_enqueued_tokens,
            max_inputs={rows.EMBEDDINGS: MAX_EMBEDDING_INPUTS},
            keeps_ids=True,
            one_model=True,
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def prepare(self, row: Row, spec: BatchSpec) -> bytes:
        return rows.prepare(row, spec, azure=self._azure)

    def wire(self, prepared: bytes, custom_id: str) -> bytes:
        # Any id is taken here, so rows keep theirs.
        return prepared

    def join(self, row: bytes | None, first: bool) -> bytes:
        return b"" if row is None else row + b"\n"

    def wire_id(self, custom_id: str, seal: str, row: int) -> str:
        return custom_id

    def owns(self, line: bytes, seal: str) -> bool | None:
        return True  # the metadata said so before it was adopted

    def model_of(self, prepared: bytes) -> str | None:
        return rows.model_of(prepared)

    def inputs_of(self, prepared: bytes) -> int:
        return rows.inputs_of(prepared)

    def outcome(self, line: bytes) -> Outcome:
        return results.outcome(line)

    async def upload(self, content: Content) -> str:
        boundary = uuid4().hex
        fields = {
            "purpose": "batch",
            "expires_after[anchor]": "created_at",
            "expires_after[seconds]": str(int(FILE_LIFE.total_seconds())),
        }
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{content.name}"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n"

        async def body() -> AsyncIterator[bytes]:
            yield head.encode()
            async for chunk in content.chunks:
                yield chunk
            yield tail.encode()

        return await self._http.call(
            "POST",
            "/files",
            read=_id,
            content=body(),
            headers={
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(head.encode()) + content.size + len(tail)),
            },
        )

    async def find_files(self, prefix: str, since: datetime, whole: bool = False) -> list[tuple[str, str]]:
        return [(file.id, file.name) for file in await self.list_files(prefix, since, whole)]

    async def list_files(self, prefix: str, since: datetime, whole: bool = False) -> list[StoredFile]:
        oldest = since - CLOCK_SLACK
        found: list[StoredFile] = []
        try:
            async for item in self._pages("/files", {"purpose": "batch", "limit": 1000, "order": "desc"}):
                created = parsing.instant(item.get("created_at"))
                if created is not None and created < oldest:
                    break
                name = parsing.word(item.get("filename"))
                if name is not None and name.startswith(prefix) and parsing.word(item.get("id")):
                    size = parsing.count(item.get("bytes")) or 0
                    found.append(StoredFile(id=_id(item), name=name, bytes=size, created_at=created))
        except ListingIncomplete as error:
            # A file that is not seen removes itself in the end, and its rows are uploaded again.
            if whole:
                raise ProviderUnavailable(str(error)) from None
        return found

    async def delete_file(self, file_id: str) -> None:
        try:
            await self._http.send("DELETE", f"/files/{_part(file_id)}")
        except ProviderNotFound:
            return

    async def find(self, wanted: Wanted) -> Snapshot | None:
        found: Snapshot | None = None
        try:
            if not wanted.sent and not await self._listing.shows(wanted.marker, wanted.since - CLOCK_SLACK):
                return None
            oldest = wanted.since - CLOCK_SLACK
            async for item in self._pages("/batches", {"limit": 100}):
                created = parsing.instant(item.get("created_at"))
                if created is not None and created < oldest:
                    break
                if batch_object.marks(item) == (wanted.marker, wanted.digest) and not batch_object.fenced_off(item):
                    found = self._ours(item)  # the oldest of them is the one that everybody adopts
        except ListingIncomplete as error:
            if found is None and wanted.sent:
                # What cannot be seen may be ours and paid for, so nothing is created in its place (promise G1).
                raise ProviderUnavailable(
                    f"{error} A batch of ours may be there, so none is created; report it to whoever runs the provider."
                ) from None
            if found is None:
                # No create of ours was ever about to be sent: a batch at such a provider could never begin otherwise.
                _log.warning(
                    "No batch of %s was ever sent to provider %s, so none is there.", wanted.marker, self._name
                )
        return found

    async def list_batches(self, since: datetime) -> list[MarkedBatch]:
        oldest = since - CLOCK_SLACK
        found: list[MarkedBatch] = []
        try:
            async for item in self._pages("/batches", {"limit": 100}):
                created = parsing.instant(item.get("created_at"))
                if created is not None and created < oldest:
                    break
                marker, digest = batch_object.marks(item)
                if marker and parsing.word(item.get("id")):
                    found.append(MarkedBatch(marker=marker, digest=digest or "", batch=batch_object.snapshot(item)))
        except ListingIncomplete as error:
            # Whoever asks deletes what no batch needs, so it has to know all of them.
            raise ProviderUnavailable(str(error)) from None
        return found

    async def create(self, creation: Creation) -> Snapshot:
        body = {
            "input_file_id": creation.file_id,
            "endpoint": creation.endpoint,
            "completion_window": creation.completion_window,
            "metadata": {MARKER_KEY: creation.marker, batch_object.DIGEST_KEY: creation.digest},
            "output_expires_after": {"anchor": "created_at", "seconds": int(FILE_LIFE.total_seconds())},
        }
        try:
            return await self._http.call("POST", "/batches", read=batch_object.snapshot, json=body, creates=True)
        except ProviderRefused as error:
            raise _about_the_file(error) from None

    async def retrieve(self, batch_id: str) -> Snapshot:
        return await self._http.call("GET", f"/batches/{_part(batch_id)}", read=partial(batch_object.batch, batch_id))

    async def cancel(self, batch_id: str) -> Snapshot:
        try:
            answer = await self._http.send("POST", f"/batches/{_part(batch_id)}/cancel")
            return batch_object.batch(batch_id, parsing.decode(answer))
        except (ProviderRefused, parsing.Unreadable):
            # It has ended meanwhile (409), or was told to end and the answer is odd: how it is, retrieve shows.
            return await self.retrieve(batch_id)

    async def downloads(self, batch: Snapshot) -> list[Download]:
        # Not described first: what a server says of a file's size may be wrong or refused, and nothing hangs on it.
        named = ((batch.output, "output"), (batch.errors, "error"))
        return [Download(reference=reference, name=name) for reference, name in named if reference]

    async def download(self, download: Download, start: int) -> AsyncGenerator[bytes, None]:
        async with self._http.stream(f"/files/{_part(download.reference)}/content", start) as chunks:
            async for chunk in chunks:
                yield chunk

    async def probe(self) -> datetime | None:
        await self._http.call("GET", "/models", read=parsing.present)
        return self._http.clock

    async def close(self) -> None:
        await self._http.close()

    async def _listed(self) -> AsyncIterator[Listed]:
        async for item in self._pages("/batches", {"limit": 100}):
            created = parsing.instant(item.get("created_at"))
            yield Listed(created.timestamp() if created else None, batch_object.marks(item)[0])

    def _ours(self, item: Mapping[str, Any]) -> Snapshot:
        try:
            return batch_object.snapshot(item)
        except parsing.Unreadable as error:  # to pass it over would be to buy it again
            raise ProviderUnavailable(
                f"Provider {self._name} lists a batch of ours at GET /batches that Durabatch cannot read: {error}."
            ) from None

    def _pages(self, path: str, params: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        """Yield a listing's items, the newest first; whoever iterates stops when it has seen enough."""
        return pages(
            self._name,
            f"GET {path}",
            "after",
            lambda after: self._http.call("GET", path, params={**params, **after}, read=page),
        )


def _id(answer: Any) -> str:
    return parsing.needed(parsing.fields(answer), "id")


def _about_the_file(error: ProviderRefused) -> ProviderError:
    """Return what a refused create means: its file is not ready yet, or is not there, or the refusal itself."""
    if _FILE_PENDING.search(error.message):
        return ProviderUnavailable(error.message, retry_after=error.retry_after)
    return ProviderNotFound(error.message) if _FILE_MISSING.search(error.message) else error


def _part(reference: str) -> str:
    """Return an id as one part of a path, whatever is in it."""
    return quote(reference, safe="")
