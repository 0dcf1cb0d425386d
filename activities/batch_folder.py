"""A batch's folder in the store, and the check that it is there before a step reads or writes in it.

A folder that is not mounted, or that somebody has moved away, looks like an empty one. A step that wrote into it would
leave a second, partial copy of the batch there, and one that read from it would find that nothing was ever bought. So
each step first reads the batch's own plan, which is in the same folder: one small object a step.
"""

from __future__ import annotations

import msgspec

from ..contract import InvalidSpec, ObjectNotFound, StoreMismatch
from ..contract.layout import plan_path
from ..contract.steps import PlanRequest
from .records import PlanRecord, decode_plan
from .store import Store, identity_of


def folder_path(store: Store, root: str) -> str:
    """Return the path of a batch's folder.

    Raises:
        StoreMismatch: it is outside of this store, so this is not the one that the batch was planned in.
    """
    try:
        return store.path(root)
    except InvalidSpec:
        raise StoreMismatch(
            f"The batch was planned in a folder outside the store {store.url} of the worker that tried: the url in "
            "[store] must be the same for all workers of a task queue."
        ) from None


async def find_folder(store: Store, root: str, identity: str) -> str:
    """Return the path of a batch's folder, once it is known to be there.

    Args:
        root: URI of the folder.
        identity: of the store that the batch was planned in.

    Raises:
        StoreMismatch: this is another store, it is not mounted, or the batch's folder is not in it.
    """
    path = folder_path(store, root)
    try:
        planned_in = decode_plan(await store.read(plan_path(path))).store
    except ObjectNotFound:
        if await identity_of(store) != identity:
            raise mismatch(store) from None
        raise StoreMismatch(
            f"The store has no object {store.uri(plan_path(path))}: the batch's folder is not there. Bring it back, or "
            "mount the store again; nothing is written until then."
        ) from None
    except msgspec.MsgspecError:
        raise StoreMismatch(
            f"The object {store.uri(plan_path(path))} is not a plan: bring the batch's own back."
        ) from None
    if planned_in != identity:
        raise mismatch(store)
    return path


def mismatch(store: Store) -> StoreMismatch:
    """Return the error that says that a store is not the one that is expected."""
    return StoreMismatch(
        f"The store {store.url} is not the one that this batch was planned in: its identity, the object ~store.json, "
        "is missing or another one. Is it mounted, and is the url in [store] right?"
    )


def check_store(plan: PlanRecord | None, identity: str | None, request: PlanRequest, store: Store) -> None:
    """Check that this is the store that an earlier run of the batch was planned in, if there was one.

    Args:
        identity: of this store; None if it has none.

    Raises:
        StoreMismatch: it is not.
    """
    if plan is None:
        # A store without an identity may not be mounted, and the batch's folder may be in the one that should be. A
        # reset can wait for it; a new plan would buy again what was bought by the old one.
        if request.reset and identity is None:
            raise mismatch(store)
    elif plan.store != identity:
        raise mismatch(store)
