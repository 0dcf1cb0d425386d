"""OpenAI's Batches: each names an uploaded file, and carries its marker in its metadata, where a listing shows it."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ....contract import ProviderError, ProviderNotFound, ProviderRefused, ProviderUnavailable
from ....contract.names import MARKER_KEY
from ....contract.steps import Snapshot
from .. import parsing
from ..base import Creation, MarkedBatch, ResultFile, Wanted
from ..http import Http, path_part
from ..marker_cache import Listed, MarkerCache
from ..pagination import ListingIncomplete, listed
from . import batch_object
from .files import CLOCK_SLACK, FILE_LIFE

#: How servers refuse a create whose input file they have not read yet (Azure: an upload is `pending` before it is
#: `processed`), and one whose file they do not have.
_FILE_PENDING = re.compile(
    r"\bfile\b.*\b(not (yet )?(been )?(ready|processed)|(still|being) process|pending)", re.I | re.S
)
_FILE_MISSING = re.compile(r"no such file|\bfile\b.*\b(not found|not exist)", re.I | re.S)

_log = logging.getLogger(__name__)


class OpenAIBatches:
    """The batches of one account."""

    def __init__(self, http: Http, listing_lag: timedelta) -> None:
        self._http = http
        self._name = http.name
        self._markers = MarkerCache(self._listed, listing_lag)

    async def find(self, wanted: Wanted) -> Snapshot | None:
        found: Snapshot | None = None
        try:
            if not wanted.sent and not await self._markers.shows(wanted.marker, wanted.since - CLOCK_SLACK):
                return None
            oldest = wanted.since - CLOCK_SLACK
            async for item in self._pages():
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

    async def marked(self, since: datetime) -> list[MarkedBatch]:
        oldest = since - CLOCK_SLACK
        found: list[MarkedBatch] = []
        try:
            async for item in self._pages():
                created = parsing.instant(item.get("created_at"))
                if created is not None and created < oldest:
                    break
                marker, digest = batch_object.marks(item)
                if marker and parsing.text(item.get("id")):
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
        return await self._http.call(
            "GET", f"/batches/{path_part(batch_id)}", read=partial(batch_object.batch, batch_id)
        )

    async def cancel(self, batch_id: str) -> Snapshot:
        try:
            answer = await self._http.send("POST", f"/batches/{path_part(batch_id)}/cancel")
            return batch_object.batch(batch_id, parsing.decode(answer))
        except (ProviderRefused, parsing.Unreadable):
            # It has ended meanwhile (409), or the answer is odd: retrieve shows how it is.
            return await self.retrieve(batch_id)

    async def result_files(self, batch: Snapshot) -> list[ResultFile]:
        # Not described first: what a server says of a file's size may be wrong or refused, and nothing hangs on it.
        named = ((batch.output, "output"), (batch.errors, "error"))
        return [ResultFile(reference=reference, name=name) for reference, name in named if reference]

    async def download(self, file: ResultFile, start: int) -> AsyncGenerator[bytes, None]:
        async with self._http.stream(f"/files/{path_part(file.reference)}/content", start) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _listed(self) -> AsyncIterator[Listed]:
        async for item in self._pages():
            created = parsing.instant(item.get("created_at"))
            yield Listed(created.timestamp() if created else None, batch_object.marks(item)[0])

    def _ours(self, item: Mapping[str, Any]) -> Snapshot:
        try:
            return batch_object.snapshot(item)
        except parsing.Unreadable as error:  # to pass it over would be to buy it again
            raise ProviderUnavailable(
                f"Provider {self._name} lists a batch of ours at GET /batches that Durabatch cannot read: {error}."
            ) from None

    def _pages(self) -> AsyncIterator[Mapping[str, Any]]:
        return listed(self._http, "/batches", "after", {"limit": 100})


def _about_the_file(error: ProviderRefused) -> ProviderError:
    """Return what a refused create means: its file is not ready yet, or is not there, or the refusal itself."""
    if _FILE_PENDING.search(error.message):
        return ProviderUnavailable(error.message, retry_after=error.retry_after)
    return ProviderNotFound(error.message) if _FILE_MISSING.search(error.message) else error
