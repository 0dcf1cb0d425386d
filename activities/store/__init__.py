"""Object storage, and nothing about batches."""

from ...contract.layout import IDENTITY
from ._backend import Entry, Writer
from ._identity import identify, identity_of
from ._store import Store

__all__ = ["IDENTITY", "Entry", "Store", "Writer", "identify", "identity_of"]
