"""Notes of who follows a provider batch: the steps remove them, and what a killed worker has left goes by its age."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from ...activities.store import Entry
from ...contract.follower_names import is_follower

#: Longer than the longest deadline of a batch.
REST = timedelta(days=35)


def unneeded(entries: Iterable[Entry], now: datetime) -> list[Entry]:
    """Return the notes among the objects of a store that nobody needs any more."""
    return [entry for entry in entries if is_follower(entry.path) and now - entry.modified >= REST]
