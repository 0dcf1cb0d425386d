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


def marker(batch_id: str, shard: int, attempt: int) -> str:
    """Return the deterministic name by which a provider batch can be found again."""
    return f"{batch_id}/{shard}/{attempt}"


def shard_folder(shard: int) -> str:
    """Return the folder of a shard, relative to the batch's own: "shards/00000"."""
    return f"shards/{shard:05d}"


def attempt_folder(shard: int, attempt: int) -> str:
    """Return the folder of an attempt, relative to the batch's own: "shards/00000/attempt-1"."""
    return f"{shard_folder(shard)}/attempt-{attempt}"


def batch_of(marker: str) -> str:
    """Return the batch id that a marker begins with; no batch id has a slash."""
    return marker.partition("/")[0]
