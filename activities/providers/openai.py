"""OpenAI's Files and Batches, and every server that speaks them.

Protocol: https://platform.openai.com/docs/api-reference/batch and the types of the `openai` package (2026). A batch
names an uploaded file, carries the marker in its metadata, and ends with an output file and an error file.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from ...contract import (
    BatchSpec,
    ProviderError,
    ProviderNotFound,
    ProviderRefused,
    ProviderStatus,
    ProviderUnavailable,
    Usage,
)
from ...contract.names import MARKER_KEY
from ...contract.steps import Search, Snapshot
from ..rows import Row
from . import openai_results, openai_rows
from .base import Capabilities, Content, Creation, Download, MarkedBatch, Outcome, StoredFile, Wanted
from .http import Http
from .listing import Listed, Listing
from .settings import ProviderSettings

#: Limits of a batch: https://platform.openai.com/docs/guides/batch (50,000 requests, 200 MB).
MAX_ROWS = 50_000
MAX_BYTES = 200 * 1000 * 1000
#: Inputs over all rows of a batch (the `openai` package, BatchCreateParams.endpoint).
MAX_EMBEDDING_INPUTS = 50_000
#: Files remove themselves after this long at the latest (the API takes 1 hour to 30 days), should we not come back.
FILE_LIFE = timedelta(days=30)
#: Clocks differ, so a search looks a little further back than the batch is old.
CLOCK_SLACK = timedelta(minutes=15)
#: The metadata key beside the marker that tells which rows the batch was made of.
DIGEST_KEY = "durabatch_rows"

#: How servers refuse a create whose input file they have not read yet (Azure: an upload is `pending` before it is
#: `processed`), and one whose file they do not have.
_FILE_PENDING = re.compile(
    r"\bfile\b.*\b(not (yet )?(been )?(ready|processed)|(still|being) process|pending)", re.I | re.S
)
_FILE_MISSING = re.compile(r"no such file|\bfile\b.*\b(not found|not exist)", re.I | re.S)

#: What an error about a missing input file names.
_FILE_PARAMS = ("input_file_id", "file_id")

_STATUS = {
    "validating": ProviderStatus.SUBMITTED,
    "in_progress": ProviderStatus.IN_PROGRESS,
    "finalizing": ProviderStatus.FINALIZING,
    "completed": ProviderStatus.COMPLETED,
    "failed": ProviderStatus.FAILED,
    "expired": ProviderStatus.EXPIRED,
    "cancelling": ProviderStatus.CANCELING,
    "cancelled": ProviderStatus.CANCELED,
}


class OpenAIProvider:
    """One account at OpenAI, or at a server with the same API."""

    def __init__(self, settings: ProviderSettings) -> None:
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        self._http = Http(settings, {"Authorization": f"Bearer {key}"}, explain)
        self._listing = Listing(self._listed, settings.settle)
        self._azure = openai_rows.is_azure(settings.url)
        self._capabilities = Capabilities(
            search=Search.MARKER,
            uploads=True,
            endpoints=frozenset(openai_rows.REQUIRED),
            max_rows=min(settings.max_rows or MAX_ROWS, MAX_ROWS),
            max_bytes=min(settings.max_bytes or MAX_BYTES, MAX_BYTES),
            max_tokens=settings.max_enqueued_tokens,
            max_inputs={openai_rows.EMBEDDINGS: MAX_EMBEDDING_INPUTS},
            keeps_ids=True,
            one_model=True,
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def prepare(self, row: Row, spec: BatchSpec) -> bytes:
        return openai_rows.prepare(row, spec, azure=self._azure)

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
        return openai_rows.model_of(prepared)

    def inputs_of(self, prepared: bytes) -> int:
        return openai_rows.inputs_of(prepared)

    def outcome(self, line: bytes) -> Outcome:
        return openai_results.outcome(line)

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

        answer = await self._http.call(
            "POST",
            "/files",
            content=body(),
            headers={
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(head.encode()) + content.size + len(tail)),
            },
        )
        return str(answer["id"])

    async def find_files(self, prefix: str, since: datetime) -> list[tuple[str, str]]:
        return [(file.id, file.name) for file in await self.list_files(prefix, since)]

    async def list_files(self, prefix: str, since: datetime) -> list[StoredFile]:
        oldest = (since - CLOCK_SLACK).timestamp()
        found: list[StoredFile] = []
        async for item in self._pages("/files", {"purpose": "batch", "limit": 1000, "order": "desc"}):
            if item.get("created_at", 0) < oldest:
                break
            if str(item.get("filename")).startswith(prefix):
                found.append(
                    StoredFile(
                        id=item["id"],
                        name=item["filename"],
                        bytes=item.get("bytes") or 0,
                        created_at=_moment(item.get("created_at")),
                    )
                )
        return found

    async def delete_file(self, file_id: str) -> None:
        try:
            await self._http.call("DELETE", f"/files/{file_id}")
        except ProviderNotFound:
            return

    async def find(self, wanted: Wanted) -> Snapshot | None:
        if not wanted.sent and not await self._listing.shows(wanted.marker, wanted.since - CLOCK_SLACK):
            return None
        oldest = (wanted.since - CLOCK_SLACK).timestamp()
        found = None
        async for item in self._pages("/batches", {"limit": 100}):
            if item.get("created_at", 0) < oldest:
                break
            metadata = item.get("metadata") or {}
            ours = metadata.get(MARKER_KEY) == wanted.marker and metadata.get(DIGEST_KEY) == wanted.digest
            if ours and not _fenced_off(item):
                found = item  # the oldest of them is the one that everybody adopts
        return snapshot(found) if found else None

    async def list_batches(self, since: datetime) -> list[MarkedBatch]:
        oldest = (since - CLOCK_SLACK).timestamp()
        found: list[MarkedBatch] = []
        async for item in self._pages("/batches", {"limit": 100}):
            if item.get("created_at", 0) < oldest:
                break
            metadata = item.get("metadata") or {}
            if marker := metadata.get(MARKER_KEY):
                found.append(MarkedBatch(marker=marker, digest=metadata.get(DIGEST_KEY, ""), batch=snapshot(item)))
        return found

    async def create(self, creation: Creation) -> Snapshot:
        body = {
            "input_file_id": creation.file_id,
            "endpoint": creation.endpoint,
            "completion_window": creation.completion_window,
            "metadata": {MARKER_KEY: creation.marker, DIGEST_KEY: creation.digest},
            "output_expires_after": {"anchor": "created_at", "seconds": int(FILE_LIFE.total_seconds())},
        }
        try:
            return snapshot(await self._http.call("POST", "/batches", json=body, creates=True))
        except ProviderRefused as error:
            raise _about_the_file(error) from None

    async def retrieve(self, batch_id: str) -> Snapshot:
        return snapshot(await self._http.call("GET", f"/batches/{batch_id}"))

    async def cancel(self, batch_id: str) -> Snapshot:
        try:
            return snapshot(await self._http.call("POST", f"/batches/{batch_id}/cancel"))
        except ProviderRefused:  # it has ended meanwhile (409), which retrieve shows
            return await self.retrieve(batch_id)

    async def downloads(self, batch: Snapshot) -> list[Download]:
        # Not described first: what a server says of a file's size may be wrong or refused, and nothing hangs on it.
        named = ((batch.output, "output"), (batch.errors, "error"))
        return [Download(reference=reference, name=name) for reference, name in named if reference]

    async def download(self, download: Download, start: int) -> AsyncGenerator[bytes, None]:
        async with self._http.stream(f"/files/{download.reference}/content", start) as chunks:
            async for chunk in chunks:
                yield chunk

    async def probe(self) -> None:
        await self._http.call("GET", "/models")

    async def close(self) -> None:
        await self._http.close()

    async def _listed(self) -> AsyncIterator[Listed]:
        async for item in self._pages("/batches", {"limit": 100}):
            yield Listed(item.get("created_at", 0), (item.get("metadata") or {}).get(MARKER_KEY))

    async def _pages(self, path: str, params: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield a listing's items, page after page; whoever iterates stops when it has seen enough."""
        after: dict[str, str] = {}
        while True:
            page = await self._http.call("GET", path, params={**params, **after})
            items = page.get("data") or []
            for item in items:
                yield item
            if not items or not page.get("has_more"):
                return
            after = {"after": items[-1]["id"]}


def explain(body: Any) -> tuple[str | None, str | None]:
    """Return (code, message) of OpenAI's error envelope, `{"error": {message, type, param, code}}`."""
    error = body["error"]
    return (error, None) if isinstance(error, str) else (error.get("code") or error.get("type"), error.get("message"))


def snapshot(item: dict[str, Any]) -> Snapshot:
    """Return a batch object in the contract's words."""
    raw = str(item.get("status") or "")
    counts = item.get("request_counts") or {}
    errors = (item.get("errors") or {}).get("data") or []
    usage = item.get("usage") or {}
    return Snapshot(
        id=item["id"],
        # A word that nobody knows yet must not end a batch that is paid for: it is asked about again.
        status=_STATUS.get(raw, ProviderStatus.IN_PROGRESS),
        raw_status=raw,
        total=counts.get("total") or 0,
        completed=counts.get("completed") or 0,
        failed=counts.get("failed") or 0,
        output=item.get("output_file_id") or None,  # some servers send "" for none
        errors=item.get("error_file_id") or None,
        error=_errors(errors),
        error_code=errors[0].get("code") if errors else None,
        created_at=_moment(item.get("created_at")),
        usage=Usage(
            input_tokens=usage.get("input_tokens") or 0,
            cached_input_tokens=(usage.get("input_tokens_details") or {}).get("cached_tokens") or 0,
            output_tokens=usage.get("output_tokens") or 0,
            reasoning_tokens=(usage.get("output_tokens_details") or {}).get("reasoning_tokens") or 0,
        )
        if usage.get("total_tokens")
        else None,
    )


def _about_the_file(error: ProviderRefused) -> ProviderError:
    """Return what a refused create means: its file is not ready yet, or is not there, or the refusal itself."""
    if _FILE_PENDING.search(error.message):
        return ProviderUnavailable(error.message, retry_after=error.retry_after)
    return ProviderNotFound(error.message) if _FILE_MISSING.search(error.message) else error


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _fenced_off(item: dict[str, Any]) -> bool:
    """Return whether a batch failed only because its file was deleted before it could be read: it ran nothing."""
    errors = (item.get("errors") or {}).get("data") or []
    return item.get("status") == "failed" and any(error.get("param") in _FILE_PARAMS for error in errors)


def _errors(errors: list[dict[str, Any]]) -> str | None:
    """Return the first of a failed batch's errors, in a sentence of bounded length."""
    told = []
    for error in errors[:3]:
        where = f"line {error['line']}: " if error.get("line") else ""
        told.append(f"{where}{str(error.get('message') or error.get('code'))[:200]}")
    more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
    return "; ".join(told) + more if told else None
