"""Anthropic's inline batch input: received on disk, checked, and kept as one request a line."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import msgspec
from aiohttp import web

from ..errors import Refusal
from ..settings import Settings

_CHUNK = 1 << 18  # bytes
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class _Request(msgspec.Struct):
    custom_id: str
    params: msgspec.Raw


class _Requests(msgspec.Struct):
    requests: list[_Request]


# Made on import: several batches may come in at once, each in a thread; see `decode_batch`.
_decode_requests = msgspec.json.Decoder(_Requests).decode


async def receive(request: web.Request, target: Path, settings: Settings) -> None:
    """Write a request's body to a file.

    Raises:
        Refusal: 413 when it is larger than a batch may be.
    """
    size = 0
    with target.open("wb") as file:
        async for chunk in request.content.iter_chunked(_CHUNK):
            size += len(chunk)
            if size > settings.anthropic_max_bytes:
                raise Refusal(413, f"Request exceeds the maximum size of {settings.anthropic_max_bytes} bytes.")
            file.write(chunk)


def split(source: Path, target: Path, settings: Settings) -> int:
    """Check the requests in a received body and write them one a line; returns how many there are.

    Raises:
        Refusal: 400 when the batch as a whole is refused.
    """
    if not source.stat().st_size:
        raise Refusal(400, "requests: Field required")
    with source.open("rb") as file:
        # Never closed by hand: the decoded requests, also those in a traceback, point into the mapping.
        body = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return _write(body, target, settings)


def _write(body: mmap.mmap, target: Path, settings: Settings) -> int:
    try:
        requests = _decode_requests(body).requests
    except msgspec.ValidationError as error:
        raise Refusal(400, f"requests: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refusal(400, "The request body is not valid JSON.") from None
    if not requests:
        raise Refusal(400, "requests: List should have at least 1 item after validation, not 0")
    if len(requests) > settings.anthropic_max_rows:
        most = settings.anthropic_max_rows
        raise Refusal(400, f"requests: List should have at most {most} items after validation, not {len(requests)}")
    seen: set[str] = set()
    with target.open("wb") as file:
        for index, request in enumerate(requests):
            params = bytes(request.params)
            _check(index, request.custom_id, params, seen)
            if b"\n" in params:
                params = msgspec.json.format(params, indent=-1)
            file.write(b'{"custom_id":"%b","params":%b}\n' % (request.custom_id.encode(), params))
    return len(requests)


def _check(index: int, custom_id: str, params: bytes, seen: set[str]) -> None:
    where = f"requests.{index}"
    if not _CUSTOM_ID.fullmatch(custom_id):
        if len(custom_id) > 64:
            raise Refusal(400, f"{where}.custom_id: String should have at most 64 characters")
        raise Refusal(400, f"{where}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
    if custom_id in seen:
        raise Refusal(400, f"{where}.custom_id: the custom_id is a duplicate of another request's")
    seen.add(custom_id)
    # What an object of parameters says is the row's own affair: one that is refused becomes an errored row.
    if not params.startswith(b"{"):
        raise Refusal(400, f"{where}.params: Input should be an object")
