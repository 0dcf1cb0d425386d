"""Anthropic's Message Batches.

Protocol: https://platform.claude.com/docs/en/api/messages/batches and the types of the `anthropic` package (2026). The
rows go inline with the create; there are no files and no metadata, so the ids of the rows are the only place for a
marker, and they are seen again only in the results. A batch whose create was lost is therefore found provisionally:
as one of the right time and size, until the ids in its results tell.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

from ....contract import BatchSpec, ProviderNotFound, ProviderRefused, ProviderStatus, ProviderUnavailable
from ....contract.steps import Search, Snapshot
from ...rows import Row
from .. import parsing
from ..base import Capabilities, Content, Creation, Download, MarkedBatch, Outcome, StoredFile, Wanted
from ..http import Http
from ..pagination import ListingIncomplete, page, pages
from ..settings import ProviderSettings
from ..status import state_of
from . import results, rows

#: The newer version, 2026-10-21, only takes away: it refuses temperature, top_p and top_k, which rows may carry
#: (https://platform.claude.com/docs/en/api/migration-2026-10-21).
VERSION = "2023-06-01"
BATCHES = "/v1/messages/batches"
#: What becomes of a batch's rows, as its counts name it.
COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
#: Limits of a batch: https://platform.claude.com/docs/en/build-with-claude/batch-processing (100,000 requests, 256 MB).
MAX_ROWS = 100_000
MAX_BYTES = 256 * 1000 * 1000
#: What a create's body has around its rows.
HEAD, TAIL = b'{"requests":[', b"]}"
#: Clocks differ, so a search looks a little further back than the batch is old; no more, because each batch of the same
#: size in that time is a candidate.
CLOCK_SLACK = timedelta(minutes=5)
#: Batches whose rows' owner is remembered; 100 bytes each.
MAX_KNOWN = 10_000
#: Words for `ended`, which is all that Anthropic itself says.
_ENDS = (ProviderStatus.COMPLETED, ProviderStatus.EXPIRED, ProviderStatus.CANCELED)
#: Results whose first bytes hold no id are given up on.
MAX_HEAD = 1 << 20


class AnthropicProvider:
    """One workspace at Anthropic: a key belongs to one, and sees its batches only."""

    def __init__(self, settings: ProviderSettings) -> None:
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        self._name = settings.name
        self._http = Http(settings, {"x-api-key": key, "anthropic-version": VERSION})
        self._capabilities = Capabilities(
            search=Search.PROVISIONAL,
            uploads=False,
            endpoints=frozenset({rows.CHAT, rows.MESSAGES}),
            max_rows=min(settings.max_rows or MAX_ROWS, MAX_ROWS),
            max_bytes=min(settings.max_bytes or MAX_BYTES, MAX_BYTES) - len(HEAD + TAIL),
            max_tokens=settings.max_enqueued_tokens,
            keeps_ids=False,
            one_model=False,
        )
        # Whose rows a batch holds never changes, so what was seen once need not be asked again: a search by the next
        # shard is then not misled by the batches of the shards before it.
        self._known: dict[str, str] = {}

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def prepare(self, row: Row, spec: BatchSpec) -> bytes:
        return rows.prepare(row, spec)

    def wire(self, prepared: bytes, custom_id: str) -> bytes:
        return rows.wire(prepared, custom_id)

    def join(self, row: bytes | None, first: bool) -> bytes:
        if row is None:
            return HEAD + TAIL if first else TAIL
        return (HEAD if first else b",") + row

    def wire_id(self, custom_id: str, seal: str, row: int) -> str:
        return rows.wire_id(seal, row)

    def owns(self, line: bytes, seal: str) -> bool | None:
        return rows.owns(line, seal)

    def model_of(self, prepared: bytes) -> str | None:
        return rows.model_of(prepared)

    def inputs_of(self, prepared: bytes) -> int:
        return 1  # no endpoint of Anthropic's limits them

    def outcome(self, line: bytes) -> Outcome:
        return results.outcome(line)

    async def upload(self, content: Content) -> str:
        # Never called, because capabilities.uploads is false; and there is nothing that it could do.
        raise ProviderRefused("Anthropic takes a batch's rows with its create, not as a file.")

    async def find_files(self, prefix: str, since: datetime, whole: bool = False) -> list[tuple[str, str]]:
        return []  # there never are any

    async def list_files(self, prefix: str, since: datetime, whole: bool = False) -> list[StoredFile]:
        return []

    async def delete_file(self, file_id: str) -> None:
        return  # it is absent already

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
                if _rows(item) not in (wanted.rows, None) or not parsing.word(item.get("id")):
                    continue
                batch = snapshot(item)
                if batch.id in wanted.strangers:
                    continue
                found = await self._name_in(batch)
                if found == name:
                    ours = batch  # the oldest of them is the one that everybody adopts
                elif found is None:
                    candidate = batch
        except ListingIncomplete as error:
            if ours is None and candidate is None:
                # What cannot be seen may be ours and paid for, so nothing is created in its place (promise G1).
                raise ProviderUnavailable(
                    f"{error} A batch of ours may be there, so none is created; report it to whoever runs the provider."
                ) from None
        return ours or candidate

    async def list_batches(self, since: datetime) -> list[MarkedBatch]:
        return []  # none carries a marker

    async def create(self, creation: Creation) -> Snapshot:
        content = creation.content
        if content is None:
            raise ProviderRefused("Anthropic takes a batch's rows with its create, and there were none.")
        batch = await self._http.call(
            "POST",
            BATCHES,
            read=snapshot,
            content=content.chunks,
            headers={"Content-Type": "application/json", "Content-Length": str(content.size)},
            creates=True,
        )
        self._remember(batch.id, rows.name_of(creation.seal))
        return batch

    async def retrieve(self, batch_id: str) -> Snapshot:
        return await self._http.call("GET", _path(batch_id), read=partial(_batch, batch_id))

    async def cancel(self, batch_id: str) -> Snapshot:
        try:
            answer = await self._http.send("POST", f"{_path(batch_id)}/cancel")
            return _batch(batch_id, parsing.decode(answer))
        except (ProviderRefused, parsing.Unreadable):
            # It has ended meanwhile (400), or was told to end and the answer is odd: how it is, retrieve shows.
            return await self.retrieve(batch_id)

    async def downloads(self, batch: Snapshot) -> list[Download]:
        return [Download(reference=batch.id, name="output")] if batch.output else []

    async def download(self, download: Download, start: int) -> AsyncGenerator[bytes, None]:
        # From the configured host: a results_url could send the key anywhere.
        async with self._http.stream(f"{_path(download.reference)}/results", start) as chunks:
            async for chunk in chunks:
                yield chunk

    async def probe(self) -> datetime | None:
        await self._http.call("GET", "/v1/models", params={"limit": 1}, read=parsing.present)
        return self._http.clock

    async def close(self) -> None:
        await self._http.close()

    def _pages(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the workspace's batches, the newest first; whoever iterates stops when it has seen enough."""
        return pages(
            self._name,
            f"GET {BATCHES}",
            "after_id",
            lambda after: self._http.call("GET", BATCHES, params={"limit": 100, **after}, read=page),
        )

    async def _name_in(self, batch: Snapshot) -> str | None:
        """Return the name that a batch's rows carry, None as long as nobody can tell."""
        if batch.id not in self._known and batch.output:
            name = await self._read_name(batch.id)
            if name is None:
                return None
            self._remember(batch.id, name)
        return self._known.get(batch.id)

    async def _read_name(self, batch_id: str) -> str | None:
        """Return the name in the first id of a batch's results, and read no further."""
        name, head = None, b""
        async with contextlib.aclosing(self.download(Download(reference=batch_id, name="output"), 0)) as chunks:
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


def snapshot(answer: Any) -> Snapshot:
    """Return a message batch object in the contract's words; only its id is needed.

    Raises:
        parsing.Unreadable: it is no object, or has no id.
    """
    item = parsing.fields(answer)
    told = parsing.mapping(item.get("request_counts"))
    counts = {name: parsing.count(told.get(name)) or 0 for name in COUNTS}
    state = state_of(
        parsing.word(item.get("processing_status")),
        answered=any(counts.values()) and not counts["processing"] and bool(item.get("results_url")),
    )
    return Snapshot(
        id=parsing.needed(item, "id"),
        status=_ended(counts) if state.status in _ENDS else state.status,
        raw_status=state.raw,
        known=state.known,
        total=sum(counts.values()),
        completed=counts["succeeded"],
        # Each of them is a line of the results, so that a download can be counted.
        failed=sum(counts[name] for name in ("errored", "canceled", "expired")),
        output="results" if item.get("results_url") else None,
        created_at=parsing.instant(item.get("created_at")),
    )


def _batch(batch_id: str, answer: Any) -> Snapshot:
    """Return the batch that was asked for, as it is now.

    Raises:
        parsing.Unreadable: the answer does not say how it is, or is about another one.
    """
    parsing.needed(parsing.fields(answer), "processing_status")
    found = snapshot(answer)
    if found.id != batch_id:
        raise parsing.Unreadable("field `id` names another batch than was asked for")
    return found


def _rows(item: Mapping[str, Any]) -> int | None:
    """Return how many rows a batch has; None if that cannot be read."""
    told = item.get("request_counts")
    if not isinstance(told, dict):
        return None
    counts = [parsing.count(told[name]) for name in COUNTS if told.get(name) is not None]
    return None if None in counts or not counts else sum(one for one in counts if one is not None)


def _path(batch_id: str) -> str:
    return f"{BATCHES}/{quote(batch_id, safe='')}"


def _ended(counts: dict[str, int]) -> ProviderStatus:
    """Return how a batch ended. `ended` says only that it did; the rows say what ended it."""
    # A cancel that found nothing left to cancel changed nothing, so the rows decide rather than cancel_initiated_at.
    if counts.get("canceled"):
        return ProviderStatus.CANCELED
    return ProviderStatus.EXPIRED if counts.get("expired") else ProviderStatus.COMPLETED
