"""An object of the store as an answer, whole or a range of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from .context import context_of, tenant_of
from .errors import ApiError

#: For what a route with downloads says of itself.
BUSY = {429: "Too many downloads at a time."}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


async def download(
    request: Request,
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
        ApiError: 416 for a range outside of it, 429 where too many are sent at a time.
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
    context, tenant = context_of(request), tenant_of(request).name
    async with AsyncExitStack() as place:
        await place.enter_async_context(context.downloads.one(tenant))
        pieces = context.store.stream(path, start, end)
        # The first piece before the first header: an object that is gone is then still an error, and no broken answer.
        first = await run_in_threadpool(next, pieces, None)
        return _Sent(_rest(first, pieces), status, headers, place.pop_all())


class _Sent(StreamingResponse):
    """An answer that holds a place until it is sent, or its client is gone."""

    def __init__(
        self, content: AsyncIterator[bytes], status: int, headers: Mapping[str, str], place: AsyncExitStack
    ) -> None:
        super().__init__(content, status, headers)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._place:
            await super().__call__(scope, receive, send)


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
