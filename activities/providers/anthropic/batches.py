"""Anthropic's Message Batches: the rows go inline with the create, and come back with an id that carries the marker.

There are no files and no metadata, so the ids of the rows are the only place for a marker, and they are seen again only
in the results. A batch whose create was lost is therefore found provisionally: as one of the right time and size, until
the ids in its results decide.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from ....contract import ProviderNotFound, ProviderRefused, ProviderUnavailable
from ....contract.steps import Snapshot
from .. import parsing
from ..base import Creation, ResultFile, Wanted
from ..http import Http, path_part
from ..pagination import ListingIncomplete, listed
from . import batch_object, rows

BATCHES = "/v1/messages/batches"
#: Clocks differ, so a search looks a little further back than the batch is old; no more, because each batch of the same
#: size in that time is a candidate.
CLOCK_SLACK = timedelta(minutes=5)
#: Batches whose rows' owner is remembered; 100 bytes each.
MAX_KNOWN = 10_000
#: Results whose first bytes hold no id are given up on.
MAX_HEAD = 1 << 20


class AnthropicBatches:
    """The batches of one workspace."""

    def __init__(self, http: Http) -> None:
        self._http = http
        # Whose rows a batch holds never changes, so what was seen once need not be asked again: a search by the next
        # shard is then not misled by the batches of the shards before it.
        self._known: dict[str, str] = {}

    async def find(self, wanted: Wanted) -> Snapshot | None:
        """Return the batch with this seal's ids in its results, else the oldest that may turn out to have them."""
        name = rows.name_of(wanted.seal)
        ours: Snapshot | None = None
        candidate: Snapshot | None = None
        try:
            async for item in self._pages():
                created = parsing.instant(item.get("created_at"))
                if created is not None and created < wanted.since - CLOCK_SLACK:
                    break
                # One whose rows nobody can count may be ours as well.
                counted = batch_object.rows_of(item)
                if (counted is not None and counted > wanted.rows) or not parsing.text(item.get("id")):
                    continue
                batch = batch_object.snapshot(item)
                if batch.id in wanted.strangers:
                    continue
                found = await self._name_in(batch)
                if found == name:
                    ours = batch  # the oldest of them is the one that everybody adopts
                elif found is None and counted in (wanted.rows, None):
                    # One that counts fewer rows is ours only if its results say so.
                    candidate = batch
        except ListingIncomplete as error:
            if ours is None and candidate is None:
                # What cannot be seen may be ours and paid for, so nothing is created in its place (promise G1).
                raise ProviderUnavailable(
                    f"{error} A batch of ours may be there, so none is created; report it to whoever runs the provider."
                ) from None
        return ours or candidate

    async def create(self, creation: Creation) -> Snapshot:
        content = creation.content
        if content is None:
            raise ProviderRefused("Anthropic takes a batch's rows with its create, and there were none.")
        batch = await self._http.call(
            "POST",
            BATCHES,
            read=batch_object.snapshot,
            content=content.chunks,
            headers={"Content-Type": "application/json", "Content-Length": str(content.size)},
            creates=True,
        )
        self._remember(batch.id, rows.name_of(creation.seal))
        return batch

    async def retrieve(self, batch_id: str) -> Snapshot:
        return await self._http.call("GET", _path(batch_id), read=partial(batch_object.batch, batch_id))

    async def cancel(self, batch_id: str) -> Snapshot:
        try:
            answer = await self._http.send("POST", f"{_path(batch_id)}/cancel")
            return batch_object.batch(batch_id, parsing.decode(answer))
        except (ProviderRefused, parsing.Unreadable):
            # It has ended meanwhile (400), or the answer is odd: retrieve shows how it is.
            return await self.retrieve(batch_id)

    async def result_files(self, batch: Snapshot) -> list[ResultFile]:
        return [ResultFile(reference=batch.id, name="output")] if batch.output else []

    async def download(self, file: ResultFile, start: int) -> AsyncGenerator[bytes, None]:
        # From the configured host: a results_url could send the key anywhere.
        async with self._http.stream(f"{_path(file.reference)}/results", start) as chunks:
            async for chunk in chunks:
                yield chunk

    def _pages(self) -> AsyncIterator[Mapping[str, Any]]:
        return listed(self._http, BATCHES, "after_id", {"limit": 100})

    async def _name_in(self, batch: Snapshot) -> str | None:
        """Return the name that a batch's rows carry, None while that cannot be known."""
        if batch.id not in self._known and batch.output:
            name = await self._read_name(batch.id)
            if name is None:
                return None
            self._remember(batch.id, name)
        return self._known.get(batch.id)

    async def _read_name(self, batch_id: str) -> str | None:
        """Return the name in the first id of a batch's results, and read no further."""
        name, head = None, b""
        async with contextlib.aclosing(self.download(ResultFile(reference=batch_id, name="output"), 0)) as chunks:
            with contextlib.suppress(ProviderNotFound):  # deleted meanwhile, or past its 29 days
                async for chunk in chunks:
                    head += chunk
                    name = rows.name_on(head)
                    if name is not None or len(head) > MAX_HEAD:
                        break
        return name

    def _remember(self, batch_id: str, name: str) -> None:
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[batch_id] = name


def _path(batch_id: str) -> str:
    return f"{BATCHES}/{path_part(batch_id)}"
