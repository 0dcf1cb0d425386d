"""A store's identity: a small object with a random id, made once, which tells the store from an empty mount point.

It is made where something new begins, and never where something of a planned batch is expected: a folder that is not
mounted for a moment must not become another store.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

from ...contract import ObjectNotFound, StoreError
from ...contract.layout import IDENTITY
from ._store import Store


async def identity_of(store: Store) -> str | None:
    """Return the id of a store, 32 hexadecimal digits; None where it has none: it is new, or not mounted.

    Raises:
        StoreError: the storage failed, or the object cannot be read.
    """
    try:
        found = json.loads(await store.read(IDENTITY))["id"]
        if len(found) == 32 and int(found, 16) >= 0:
            return str(found)
    except ObjectNotFound:
        return None
    except (ValueError, TypeError, KeyError):
        pass
    raise StoreError(
        f"The object {store.uri(IDENTITY)} does not hold the store's identity: bring it back from a backup. Without it "
        "nobody can tell whether this is the store that batches were planned in."
    )


async def identify(store: Store) -> str:
    """Return the id of a store; give it one where it has none.

    Raises:
        StoreError: the storage failed.
    """
    found = await identity_of(store)
    if found is None:
        made = {"id": uuid.uuid4().hex, "made_at": datetime.now(UTC).isoformat(timespec="seconds")}
        await store.create(IDENTITY, json.dumps(made).encode() + b"\n")
        found = await identity_of(store)  # whoever came first
    if found is None:
        raise StoreError(f"The store {store.url} does not keep what is written to it; use another one.")
    return found
