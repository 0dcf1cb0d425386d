"""Downloads: streamed from disk, resumable by `Range`, and cut short on demand."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from .faults import TRUNCATE, Fault
from .provider import provider_of

_CHUNK = 1 << 18  # bytes
#: In a request whose answer names no content type.
_UNTYPED = web.RequestKey("untyped", bool)


async def download(
    request: web.Request, op: str, path: Path, media_type: str, *, final_newline: bool = True
) -> web.StreamResponse:
    """A file's content, or the part of it that a `Range` header asks for.

    Args:
        request: The request to answer.
        op: The operation, for the `truncate` fault.
        path: Where the content lies.
        media_type: What to call it.
        final_newline: Whether a plain download ends in a newline; one that does not names no type either.
    """
    headers = {"Content-Type": media_type}
    fault = provider_of(request).faults.take(op, TRUNCATE)
    if provider_of(request).settings.plain_downloads and fault is None:
        return await _plainly(request, path, headers, final_newline)
    if fault is not None:
        return await _cut_short(request, fault, path, headers)
    return web.FileResponse(path, chunk_size=_CHUNK, headers=headers)


async def untyped(request: web.Request, response: web.StreamResponse) -> None:
    """Drop the content type that aiohttp gives every answer, where the real one has none."""
    if _UNTYPED in request:
        response.headers.popall("Content-Type", None)


async def _plainly(
    request: web.Request, path: Path, headers: dict[str, str], final_newline: bool
) -> web.StreamResponse:
    """The whole content in chunks, whatever range is asked for."""
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    if not final_newline:
        request[_UNTYPED] = True
    await response.prepare(request)
    left = path.stat().st_size - (0 if final_newline else 1)
    with path.open("rb") as file:
        while left > 0:
            chunk = file.read(min(left, _CHUNK))
            await response.write(chunk)
            left -= len(chunk)
    await response.write_eof()
    return response


async def _cut_short(request: web.Request, fault: Fault, path: Path, headers: dict[str, str]) -> web.StreamResponse:
    size = path.stat().st_size
    start, stop, _ = request.http_range.indices(size)
    response = web.StreamResponse(headers=headers)
    if "Range" in request.headers:
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    response.content_length = stop - start
    await response.prepare(request)
    left = int((stop - start) * fault.fraction)
    with path.open("rb") as file:
        file.seek(start)
        while left:
            chunk = file.read(min(left, _CHUNK))
            await response.write(chunk)
            left -= len(chunk)
    # Closed, not aborted: what was written arrives, and nothing after it.
    if request.transport is not None:
        request.transport.close()
    return response
