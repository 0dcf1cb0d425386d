"""Object storage, and nothing about batches."""

from ._backend import Writer
from ._store import Store

__all__ = ["Store", "Writer"]
