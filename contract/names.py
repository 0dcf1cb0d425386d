"""Names that must be the same everywhere: ids, markers, paths, task queue."""

from __future__ import annotations

import re

from .errors import InvalidSpec

#: The task queue that workers poll unless told otherwise.
TASK_QUEUE = "durabatch"
#: The workflow type that Temporal knows.
BATCH_WORKFLOW = "BatchWorkflow"
#: The workflow type of its shards, where it has more than one.
SHARD_WORKFLOW = "DurabatchShard"
#: The metadata key under which a provider batch carries its marker, where the provider has metadata.
MARKER_KEY = "durabatch_marker"

#: The field of a workflow's memo in which a client writes the identity of the store that it used.
STORE_MEMO = "durabatch_store"

#: A batch id is a workflow id, a folder in the store and part of the marker. 200 characters leave room for the rest
#: of the marker in OpenAI's 512-character metadata values, and for a file name of 255 bytes.
_BATCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,199}")


def check_batch_id(batch_id: str) -> str:
    """Return the id if it can name a batch.

    Raises:
        InvalidSpec: it has characters that could not name a folder in every store, or is too long.
    """
    if not _BATCH_ID.fullmatch(batch_id):
        raise InvalidSpec(
            f"The batch id {batch_id[:80]!r} cannot be used: begin with a letter or digit, go on with letters, digits "
            "and . _ : @ + = - only, 200 characters at most."
        )
    return batch_id


#: Digits of a store's identity in the names of what its batches leave at a provider.
_SCOPE_DIGITS = 8


def scoped(batch_id: str, store: str) -> str:
    """Return a batch's name at providers, "nightly~1f0a93c2": its id, and which store it was planned in.

    Two deployments may share a provider's account and an id. No batch id has a tilde.

    Args:
        store: the identity of the store, "" where the plan knows none: then it is the id alone.
    """
    return f"{batch_id}~{store[:_SCOPE_DIGITS]}" if store else batch_id


def marker(batch: str, shard: int, attempt: int) -> str:
    """Return the deterministic name by which a provider batch can be found again.

    Args:
        batch: the batch's name at providers, as `scoped`.
    """
    return f"{batch}/{shard}/{attempt}"


def shard_folder(shard: int) -> str:
    """Return the folder of a shard, relative to the batch's own: "shards/00000"."""
    return f"shards/{shard:05d}"


def attempt_folder(shard: int, attempt: int) -> str:
    """Return the folder of an attempt, relative to the batch's own: "shards/00000/attempt-1"."""
    return f"{shard_folder(shard)}/attempt-{attempt}"


def batch_of(marker: str) -> str:
    """Return the id of the batch that a marker, or a name as `scoped`, belongs to; no id has a slash or a tilde."""
    return marker.partition("/")[0].partition("~")[0]


def scope_of(marker: str) -> str:
    """Return the digits of the store in a marker, or in a name as `scoped`; "" where it has none."""
    return marker.partition("/")[0].partition("~")[2]
