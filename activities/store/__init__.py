"""Object storage, and nothing about batches."""

from ._backend import Entry, Writer
from ._identity import IDENTITY, identify, identity_of
from ._store import Store

__all__ = ["IDENTITY", "Entry", "Store", "Writer", "identify", "identity_of"]
