"""An object of the store as an answer, whole or a range of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..activities.store import Store
from .errors import ApiError

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


async def download(
    request: Request,
    store: Store,
    path: str,
    *,
    size: int,
    etag: str,
    filename: str,
    media: str = "application/octet-stream",
) -> Response:
    """Answer with an object that never changes.

    Args:
        size: bytes of it.
        etag: what identifies its content.
        filename: what it is called where it is saved.

    Raises:
        ApiError: 416 for a range outside of it.
        ObjectNotFound: it is gone.
    """
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{etag}"',
        "Content-Type": media,
        "Content-Disposition": f"attachment; filename*=utf-8''{quote(filename, safe='')}",
        # What a stranger uploaded is never a page of this server's.
        "X-Content-Type-Options": "nosniff",
    }
    start, end = 0, size
    status = 200
    condition = request.headers.get("if-range")
    wanted = request.headers.get("range")
    if wanted is not None and (condition is None or condition == headers["ETag"]):
        asked = _asked(wanted, size)
        if asked is not None:
            (start, end), status = asked, 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD" or start == end:
        return Response(status_code=status, headers=headers)
    pieces = store.stream(path, start, end)
    # The first piece before the first header: an object that is gone is then still an error, and no broken answer.
    first = await run_in_threadpool(next, pieces, None)
    return StreamingResponse(_rest(first, pieces), status, headers)


def _asked(wanted: str, size: int) -> tuple[int, int] | None:
    """Return the first byte and the one behind the last; None where the whole is to be sent (RFC 9110, 14.2).

    Raises:
        ApiError: no byte of the object is in the range.
    """
    found = _RANGE.fullmatch(wanted.replace(" ", ""))
    if found is None or found[1] == found[2] == "":
        return None  # several ranges, or another unit: a server may ignore them
    first, last = found.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < int(first):
        return None
    if start >= end:
        raise ApiError(
            416,
            "The requested range is outside of the file.",
            code="invalid_range",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


async def _rest(piece: bytes | None, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while piece is not None:
        yield piece
        piece = await run_in_threadpool(next, pieces, None)
