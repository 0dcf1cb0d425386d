"""Names that must be the same everywhere: ids, markers, files at providers, task queue.

Paths in the store are in `layout`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import InvalidSpec

#: The task queue that workers poll by default.
TASK_QUEUE = "durabatch"
#: The workflow type that Temporal knows.
BATCH_WORKFLOW = "BatchWorkflow"
#: The workflow type of its shards, where it has more than one.
SHARD_WORKFLOW = "DurabatchShard"
_SHARDS = "/shards/"
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


def parse_marker(marker: str) -> tuple[str, int, int] | None:
    """Return the batch's name at providers, the shard and the attempt of a marker; None if it is not one."""
    batch, _, rest = marker.partition("/")
    shard, _, attempt = rest.partition("/")
    return (batch, int(shard), int(attempt)) if shard.isdecimal() and attempt.isdecimal() else None


def shards_name(first: int, last: int) -> str:
    """Return what consecutive shards that one workflow takes are called: "00007", or "00010-00019"."""
    return f"{first:05d}" if first == last else f"{first:05d}-{last:05d}"


def shard_workflow_id(batch_id: str, shards: str) -> str:
    """Return the id of the workflow that takes shards of a batch.

    Args:
        shards: as `shards_name`.
    """
    return f"{batch_id}{_SHARDS}{shards}"


def shards_of(workflow_id: str) -> str:
    """Return which shards a workflow takes, as `shards_name`; "" where it is not that of shards."""
    return workflow_id.partition(_SHARDS)[2]


def batch_of(marker: str) -> str:
    """Return the id of the batch that a marker, a name as `scoped`, or the id of a workflow of its shards belongs to.

    No id has a slash or a tilde.
    """
    return marker.partition("/")[0].partition("~")[0]


def scope_of(marker: str) -> str:
    """Return the digits of the store in a marker, or in a name as `scoped`; "" where it has none."""
    return marker.partition("/")[0].partition("~")[2]


#: How the name of every file that Durabatch uploads to a provider begins.
UPLOADS = "durabatch~"
_UPLOAD = re.compile(r"durabatch~([^~/]+(?:~[0-9a-fA-F]{8})?)~(\d+)~(\d+)~([^~]*)~g(\d+)\.jsonl")


@dataclass(frozen=True, kw_only=True)
class UploadName:
    """The name of a file of an attempt's rows at a provider.

    No batch id has a tilde, so no two attempts share one.
    """

    batch: str  #: The batch's name at providers, as `scoped`.
    shard: int
    attempt: int
    digest: str  #: Of the rows.
    generation: int  #: Counts the files of one attempt, from 1.

    def __str__(self) -> str:
        return f"{upload_prefix(self.batch, self.shard, self.attempt)}{self.digest}~g{self.generation}.jsonl"


def upload_prefix(batch: str, shard: int, attempt: int) -> str:
    """Return how the names of an attempt's files at a provider begin."""
    return f"{UPLOADS}{batch}~{shard}~{attempt}~"


def parse_upload(name: str) -> UploadName | None:
    """Take apart the name of a file at a provider; None for one that Durabatch does not give."""
    found = _UPLOAD.fullmatch(name)
    if found is None:
        return None
    batch, shard, attempt, digest, generation = found.groups()
    return UploadName(batch=batch, shard=int(shard), attempt=int(attempt), digest=digest, generation=int(generation))
