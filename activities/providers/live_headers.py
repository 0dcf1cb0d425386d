"""What the headers of ordinary calls say: those that go out, and what an answer's say about rate limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from .parsing import number
from .settings import ProviderSettings
from .status_errors import retry_after, seconds_of

#: Answers that may ask to be left alone for a while; on others the same headers only describe a bucket.
_ASKS_TO_WAIT = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
#: A limit whose bucket takes longer than this to fill (in seconds) is none of a minute: Groq and OpenAI's lower tiers
#: send that of the day under the same name.
_LONGEST_PERIOD = 300.0


def call_headers(settings: ProviderSettings, own: Mapping[str, str]) -> dict[str, str]:
    """Return what every call carries: the adapter's own headers, and those of the configuration, which win.

    Args:
        own: those of the protocol, the key included.
    """
    fixed = {"content-type": "application/json", "accept": "application/json"}
    return {name.lower(): value for part in (fixed, own, settings.headers) for name, value in part.items()}


def wait_asked(status: int, headers: Mapping[str, str]) -> float | None:
    """Return for how many seconds a provider asks to be left alone."""
    wait = retry_after(headers) if status in _ASKS_TO_WAIT else None
    return None if wait is None else wait.total_seconds()


def per_minute(limit: str | None, remaining: str | None, reset: str | None) -> float | None:
    """Return a limit if it counts by the minute, as far as its headers show.

    Args:
        limit: the size of a bucket.
        remaining: what is in it.
        reset: how long it takes to fill again, such as "1m2.5s" or "180ms"; without a unit, in seconds.
    """
    size, left, wait = number(limit), number(remaining), _duration(reset)
    if size is None or size <= 0:
        return None
    if left is None or wait is None or left >= size:
        return size
    return size if wait * size / (size - left) <= _LONGEST_PERIOD else None


def _duration(text: str | None) -> float | None:
    found = None if text is None else seconds_of(text)
    return number(text) if found is None else found
