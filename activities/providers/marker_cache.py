"""The markers of an account's batches, so that a search need not read a whole listing again."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from .pagination import ListingIncomplete

#: Markers that are kept, of 100 bytes or so each; with more than that the listing is read from its beginning again.
_MOST = 100_000


class Listed(NamedTuple):
    """One batch of a listing."""

    created_at: float | None  #: Seconds since 1970, by the provider's clock; None if nobody can read it.
    marker: str | None


@dataclass
class _Known:
    markers: set[str] = field(default_factory=set)
    first: float = math.inf  #: Every batch created from here on is known …
    last: float = -math.inf  #: … up to here; later ones may still appear.

    def join(self, first: float, last: float) -> None:
        """Take in what was read from one moment to another; others may have read as well meanwhile."""
        if first <= self.last and self.first <= last:
            self.first, self.last = min(self.first, first), max(self.last, last)
        else:  # nobody has read what lies between the two
            self.first, self.last = first, last


class MarkerCache:
    """Which markers an account's batches carry, kept up to date by the newest part of the provider's listing.

    A batch's marker never changes, and once `lag` has passed since its creation every listing shows it. So what is
    further back than that needs no second look.

    Args:
        read: begins to read the listing, newest first.
        lag: how long until a listing surely shows a new batch.
    """

    def __init__(self, read: Callable[[], AsyncIterator[Listed]], lag: timedelta) -> None:
        self._read = read
        self._lag = lag.total_seconds()
        self._known = _Known()

    async def shows(self, marker: str, since: datetime) -> bool:
        """Return whether a batch that was created since then carries this marker, according to the listing now.

        Raises:
            ListingIncomplete: unknown: the listing has no end, and what could be seen does not carry it.
        """
        if len(self._known.markers) > _MOST:
            self._known = _Known()
        known, wanted = self._known, since.timestamp()
        oldest = known.last if known.first <= wanted else wanted
        newest = oldest
        found = set[str]()
        try:
            async for batch in self._read():
                # One without a readable time may be any: it neither ends the search nor moves its bounds.
                if batch.created_at is not None:
                    if batch.created_at < oldest:
                        break
                    newest = max(newest, batch.created_at)
                if batch.marker:
                    found.add(batch.marker)
        except ListingIncomplete:
            if marker in found:
                return True
            raise
        # Not before here: a listing that broke off has a hole.
        known.markers |= found
        # A batch that a provider dates to the future says nothing about those that are made until then.
        known.join(oldest, max(oldest, math.floor(min(newest, time.time()) - self._lag)))
        return marker in known.markers
