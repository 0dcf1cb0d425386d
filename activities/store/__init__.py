"""Object storage, and nothing about batches."""

from ._backend import Entry, Writer
from ._store import Store

__all__ = ["Entry", "Store", "Writer"]
