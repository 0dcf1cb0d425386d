"""`/v1/files`: create, list, retrieve, content, delete."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..activities.gateway import files as tenant_files
from ..contract import ObjectNotFound
from ..contract.gateway import FileRecord
from ..contract.gateway_layout import Listed, content_path, is_purpose, make_id
from . import index
from .body import FORM_BYTES, announced, pieces
from .context import context_of, tenant_of
from .described import Described, Param
from .download import BUSY, download
from .errors import ApiError, not_found
from .form import read_form
from .incoming import Incoming
from .params import AFTER, ORDER, after_of, limit_of, limit_param, oldest_first
from .shapes import LONGEST_LIFE, SHORTEST_LIFE, FileDeleted, FileObject, FilePage, FileUpload, Purpose

#: Source: OpenAI's Files reference; it is the default as well.
_MOST_LISTED = 10_000
#: Files of one answer, whatever was asked for: a client reads on where there are more.
_LONGEST_PAGE = 1_000

_PURPOSE = Param("purpose", "Only files of this purpose.")
_RANGE = Param("range", "The bytes that are wanted, such as bytes=0-99.", where="header")
_IF_RANGE = Param("if-range", "The ETag of the file that the range is of.", where="header")
_PURPOSES = get_args(Purpose)
_NO_FILE = {404: "The caller has no such file."}


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [
        Route("/v1/files", create, methods=["POST"]),
        Route("/v1/files", listing, methods=["GET"]),
        Route("/v1/files/{file_id}", retrieve, methods=["GET"]),
        Route("/v1/files/{file_id}", delete, methods=["DELETE"]),
        Route("/v1/files/{file_id}/content", content, methods=["GET"]),
    ]


@Described(
    answer=FileObject,
    body=FileUpload,
    body_media="multipart/form-data",
    errors={413: "The file is too large.", 429: "Too many uploads at a time."},
)
async def create(request: Request) -> Response:
    """Take an upload: its bytes go straight into the store, and it is a file when all of them are there."""
    context, caller = context_of(request), tenant_of(request)
    tenant, most = caller.name, caller.max_file_bytes
    now = datetime.now(UTC)
    file_id = make_id(Listed.FILES, now, secrets.token_hex(8))
    async with (
        context.uploads.one(tenant),
        context.stored.room(caller, announced(request)) as room,
        tenant_files.uploading(context.store, tenant, file_id),
    ):
        async with Incoming(context.store, content_path(tenant, file_id)) as incoming:
            form = await read_form(request, pieces(request, most + FORM_BYTES), incoming.write)
            if incoming.size > most:
                raise ApiError(413, f"The file is too large: {most:,} bytes at most.", code="file_too_large")
            room.take(incoming.size)
            record = _described(file_id, now, incoming.size, form.filename, form.fields)
            if record.purpose == "batch" and (problem := await incoming.problem()):
                raise ApiError(400, problem, code="invalid_file_format")
            await incoming.flush()
        await tenant_files.register(context.store, tenant, record)
    return JSONResponse(wire(record))


def _described(file_id: str, now: datetime, size: int, filename: str | None, fields: Mapping[str, str]) -> FileRecord:
    for name, given in (("file", filename), ("purpose", fields.get("purpose"))):
        if given is None:
            raise ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    purpose = fields["purpose"]
    if purpose not in _PURPOSES:
        known = ", ".join(f"'{one}'" for one in _PURPOSES)
        raise ApiError(400, f"'{purpose[:100]}' is not one of [{known}] - 'purpose'", param="purpose")
    created_at = int(now.timestamp())
    life = _life(fields)
    return FileRecord(
        id=file_id,
        bytes=size,
        created_at=created_at,
        filename=filename or "",
        purpose=purpose,
        expires_at=None if life is None else created_at + life,
    )


def _life(fields: Mapping[str, str]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    return lifetime({"anchor": anchor, "seconds": int(seconds) if seconds and seconds.isdecimal() else seconds})


def lifetime(expires_after: object, field: str = "expires_after") -> int:
    """Return the seconds of an `expires_after` object.

    Raises:
        ApiError: it is not what OpenAI takes.
    """
    if not isinstance(expires_after, dict) or expires_after.get("anchor") != "created_at":
        raise ApiError(
            400,
            f"Invalid value for '{field}.anchor'. Supported values are: 'created_at'.",
            param=f"{field}.anchor",
            code="invalid_value",
        )
    seconds = expires_after.get("seconds")
    if isinstance(seconds, float) and seconds.is_integer():  # 3600.0 is an integer to JSON Schema
        seconds = int(seconds)
    if not isinstance(seconds, int) or not SHORTEST_LIFE <= seconds <= LONGEST_LIFE:
        raise ApiError(
            400,
            f"Invalid '{field}.seconds': expected an integer from {SHORTEST_LIFE} to {LONGEST_LIFE}.",
            param=f"{field}.seconds",
            code="invalid_value",
        )
    return seconds


@Described(answer=FilePage, takes=[AFTER, limit_param(_MOST_LISTED, _MOST_LISTED), ORDER, _PURPOSE])
async def listing(request: Request) -> Response:
    """List files, newest first unless asked otherwise."""
    context, tenant = context_of(request), tenant_of(request).name
    limit = min(limit_of(request, _MOST_LISTED, _MOST_LISTED), _LONGEST_PAGE)
    after, backwards = after_of(request, Listed.FILES), oldest_first(request)
    purpose = request.query_params.get("purpose")
    if purpose is not None and not is_purpose(purpose):  # no file has it
        return JSONResponse(as_list([], more=False))
    find = partial(tenant_files.find_each, context.store, tenant)
    records, more = await index.objects(
        find, context.store, tenant, Listed.FILES, after=after, limit=limit, oldest_first=backwards, purpose=purpose
    )
    return JSONResponse(as_list([wire(record) for record in records], more=more))


def as_list(data: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """Return a page of a list in OpenAI's shape."""
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}


@Described(answer=FileObject, errors=_NO_FILE)
async def retrieve(request: Request) -> Response:
    """Retrieve what is known of a file, without its content."""
    return JSONResponse(wire(await _file(request)))


@Described(
    media="application/octet-stream",
    statuses={200: "The whole file.", 206: "The bytes that were asked for."},
    takes=[_RANGE, _IF_RANGE],
    errors={**_NO_FILE, **BUSY, 416: "No byte of the file is in the range."},
)
async def content(request: Request) -> Response:
    """Send a file's bytes."""
    record = await _file(request)
    path = content_path(tenant_of(request).name, record.id)
    try:
        return await download(request, path, size=record.bytes, etag=record.id, filename=record.filename)
    except ObjectNotFound:  # deleted since
        raise not_found("File", record.id, "id") from None


@Described(answer=FileDeleted, errors=_NO_FILE)
async def delete(request: Request) -> Response:
    """Remove a file. A batch of its rows that has passed its validation keeps them, and one that has not fails."""
    record = await _file(request)
    context, tenant = context_of(request), tenant_of(request).name
    await tenant_files.remove(context.store, tenant, record.id)
    context.stored.forget(tenant)
    return JSONResponse({"id": record.id, "object": "file", "deleted": True})


async def _file(request: Request) -> FileRecord:
    file_id = request.path_params["file_id"]
    record = await tenant_files.find(context_of(request).store, tenant_of(request).name, file_id)
    if record is None:
        raise not_found("File", file_id, "id")
    return record


def wire(record: FileRecord) -> dict[str, Any]:
    """Return a file in OpenAI's shape."""
    return {
        "object": "file",
        "id": record.id,
        "purpose": record.purpose,
        "filename": record.filename,
        "bytes": record.bytes,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "status": "processed",
        "status_details": None,
    }
