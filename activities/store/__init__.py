"""Object storage, and nothing about batches."""

from ...contract.layout import IDENTITY
from ._backend import Entry, Writer
from ._identity import identify, identity_of
from ._number import StoredNumber
from ._store import Store

__all__ = ["IDENTITY", "Entry", "Store", "StoredNumber", "Writer", "identify", "identity_of"]
