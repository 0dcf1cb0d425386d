"""Object storage, and nothing about batches."""

from ._store import Store

__all__ = ["Store"]
