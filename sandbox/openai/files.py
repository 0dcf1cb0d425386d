"""OpenAI's Files API."""

from __future__ import annotations

import asyncio
import codecs
import time
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import BodyPartReader, web

from ..batch import Batch, File, decode_file
from ..download import download
from ..errors import Refusal, missing
from ..provider import account_of, answer, int_param, new_id, provider_of
from ..settings import Settings
from ..state import State

#: How long output and error files are kept unless the batch says otherwise. Source: OpenAI's Files reference.
KEPT_SECONDS = 30 * 24 * 3600
_CHUNK = 1 << 18  # bytes
#: Whether it is JSON, whatever its numbers mean; made on import, see `decode_batch`.
_is_json = msgspec.json.Decoder(msgspec.Raw).decode
#: Source: the openai package, FileCreateParams.purpose.
_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
#: Seconds a file may live. Source: the openai package, FileCreateParams.ExpiresAfter.
SHORTEST_LIFE, LONGEST_LIFE = 3_600, 2_592_000
#: Bytes of one file. Source: OpenAI's Files reference (512 MB).
_MAX_BYTES = 512 * 1024 * 1024


async def create(request: web.Request) -> web.Response:
    """POST /v1/files: the content goes straight to disk."""
    if not request.content_type.startswith("multipart/"):
        raise Refusal(400, "Expected a multipart/form-data body.")
    provider = provider_of(request)
    file_id = new_id("file-")
    path = provider.state.file_path(file_id)
    incoming = path.with_suffix(".part")
    try:
        form, filename, size = await _receive(request, incoming)
        file = _described(form, filename, size, file_id, account_of(request))
        if file.purpose == "batch":
            await asyncio.to_thread(_check_jsonl, incoming)
        incoming.replace(path)
    except ValueError as error:  # what aiohttp says of a multipart body that is none
        raise Refusal(400, f"The multipart/form-data body could not be read: {error}.") from None
    finally:
        incoming.unlink(missing_ok=True)
    provider.state.add_file(file, provider.settings)
    return answer(wire(file))


async def _receive(request: web.Request, path: Path) -> tuple[dict[str, str], str | None, int]:
    form: dict[str, str] = {}
    filename: str | None = None
    size = 0
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader):
            raise Refusal(400, "Nested multipart bodies are not supported.")
        if part.name != "file":
            form[part.name or ""] = await part.text()
            continue
        filename = part.filename or "file"
        with path.open("wb") as target:
            while chunk := await part.read_chunk(_CHUNK):
                size += len(chunk)
                if size > _MAX_BYTES:
                    raise Refusal(413, f"The file exceeds the maximum of {_MAX_BYTES} bytes.")
                target.write(chunk)
    return form, filename, size


def _described(form: dict[str, str], filename: str | None, size: int, file_id: str, account: str) -> File:
    if filename is None:
        raise missing("file")
    purpose = form.get("purpose")
    if purpose is None:
        raise missing("purpose")
    if purpose not in _PURPOSES:
        values = ", ".join(f"'{known}'" for known in _PURPOSES)
        message = f"'{purpose}' is not one of [{values}] - 'purpose'"
        raise Refusal(400, message, param="purpose")
    now = time.time()
    life = _life(form)
    if life is None and purpose == "batch":
        life = KEPT_SECONDS
    return File(
        id=file_id,
        account=account,
        filename=filename,
        bytes=size,
        purpose=purpose,
        created_at=now,
        expires_at=None if life is None else now + life,
    )


def _check_jsonl(path: Path) -> None:
    """Check a batch's input by its content, as OpenAI does; what the lines say is checked by the batch.

    Raises:
        Refusal: 400 when it is not UTF-8, or does not begin with a line of JSON.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
            file.seek(0)
            _is_json(file.readline())
    except UnicodeDecodeError:
        raise Refusal(400, "Invalid file for Batch API. Must be utf-8 encoded") from None
    except msgspec.DecodeError:
        raise Refusal(400, "Invalid file format for Batch API. Must be .jsonl") from None


def _life(form: dict[str, str]) -> int | None:
    given = form.get("expires_after[seconds]")
    if given is None and "expires_after[anchor]" not in form:
        return None
    anchor = form.get("expires_after[anchor]")
    return lifetime({"anchor": anchor, "seconds": int(given) if given and given.isdigit() else given})


def lifetime(expires_after: object, field: str = "expires_after") -> int:
    """The seconds in an `expires_after` object.

    Raises:
        Refusal: 400 when it is not what OpenAI accepts.
    """
    if not isinstance(expires_after, dict) or expires_after.get("anchor") != "created_at":
        message = f"Invalid value for '{field}.anchor'. Supported values are: 'created_at'."
        raise Refusal(400, message, code="invalid_value", param=f"{field}.anchor")
    seconds = expires_after.get("seconds")
    if not isinstance(seconds, int) or not SHORTEST_LIFE <= seconds <= LONGEST_LIFE:
        message = f"Invalid '{field}.seconds': expected an integer from {SHORTEST_LIFE} to {LONGEST_LIFE}."
        raise Refusal(400, message, code="invalid_value", param=f"{field}.seconds")
    return seconds


async def listing(request: web.Request) -> web.Response:
    """GET /v1/files."""
    state, account = provider_of(request).state, account_of(request)
    limit = int_param(request, "limit", 10_000, 1, 10_000)
    order = request.query.get("order", "desc")
    if order not in ("asc", "desc"):
        message = f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'."
        raise Refusal(400, message, code="invalid_value", param="order")
    place = None
    if after := request.query.get("after"):
        place = state.place("files", after, account)
        if place is None:
            raise _not_found(after)
    found = state.page(
        "files",
        account,
        purpose=request.query.get("purpose"),
        older_than=place if order == "desc" else None,
        newer_than=place if order == "asc" else None,
        oldest_first=order == "asc",
        limit=limit + 1,
    )
    files = [decode_file(data) for data in found[:limit]]
    data = [wire(file) for file in files]
    return answer(page(data, len(found) > limit))


def page(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """OpenAI's page of a listing."""
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": ends[0], "last_id": ends[1], "has_more": has_more}


async def retrieve(request: web.Request) -> web.Response:
    """GET /v1/files/{file_id}."""
    return answer(wire(_file(request)))


async def content(request: web.Request) -> web.StreamResponse:
    """GET /v1/files/{file_id}/content."""
    path = provider_of(request).state.file_path(_file(request).id)
    return await download(request, "files.content", path, "application/octet-stream")


async def delete(request: web.Request) -> web.Response:
    """DELETE /v1/files/{file_id}."""
    file = _file(request)
    provider_of(request).state.delete_file(file)
    return answer({"id": file.id, "object": "file", "deleted": True})


def _file(request: web.Request) -> File:
    file_id = request.match_info["file_id"]
    file = provider_of(request).state.file(file_id, account_of(request))
    if file is None:
        raise _not_found(file_id)
    return file


def _not_found(file_id: str) -> Refusal:
    return Refusal(404, f"No such File object: {file_id}", param="id")


def publish(batch: Batch, state: State, settings: Settings) -> None:
    """Make files of the results of a batch that has ended."""
    if batch.ended_at is None:
        return
    kept = batch.output_expires_seconds or KEPT_SECONDS
    for kind, file_id, size in (
        ("output", batch.output_file_id, batch.tally.output_bytes),
        ("error", batch.error_file_id, batch.tally.error_bytes),
    ):
        if file_id is not None:
            file = File(
                id=file_id,
                account=batch.account,
                filename=f"{batch.id}_{kind}.jsonl",
                bytes=size,
                purpose="batch_output",
                created_at=batch.ended_at,
                expires_at=batch.ended_at + kept,
            )
            state.add_file(file, settings)


def wire(file: File) -> dict[str, Any]:
    """OpenAI's file object."""
    return {
        "object": "file",
        "id": file.id,
        "purpose": file.purpose,
        "filename": file.filename,
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "status": "processed",
        "status_details": None,
    }
