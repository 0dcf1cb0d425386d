"""Where a download's redirects lead, and which of our headers go there. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx2

#: Redirects of one download that are followed.
MAX_REDIRECTS = 5

_STATUSES = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def redirects(response: httpx2.Response) -> bool:
    """Return whether an answer says to ask elsewhere."""
    return response.status_code in _STATUSES and "location" in response.headers


def target(here: httpx2.URL, location: str) -> httpx2.URL | None:
    """Return where a redirect from here leads, None if it may not be followed.

    Never to http from https, where anybody on the way could read the rows, and never to a file or the like.
    """
    try:
        url = here.join(location)
    except httpx2.InvalidURL:
        return None
    return url if url.host and url.scheme in ("https", here.scheme) else None


def origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    """Return what a key belongs to: another port is another origin."""
    return url.scheme, url.host, url.port  # httpx2 leaves a scheme's own port out


def range_of(headers: Mapping[str, str], start: int) -> tuple[int, int | None]:
    """Return at which byte a part begins, and the bytes of the whole; as asked for, and None, where it does not say."""
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if found is None:
        return start, None
    return int(found[1]), None if found[2] == "*" else int(found[2])
