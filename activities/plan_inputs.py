"""What a plan depends on, as digests: by them a plan that is there is known to be the one that is asked for."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from ..contract import BatchSpec
from .input import File
from .shard_limits import ShardLimits

#: The fields of a spec that its plan depends on.
_PLANNED = {"input", "requests", "endpoint", "model", "params", "limits", "mode"}


class PlanInputs(NamedTuple):
    """What a plan depends on, as digests."""

    asked: str  #: What the spec asks for.
    input: str  #: That, and the files that it finds.
    digest: str  #: All that, and how much the provider takes at a time.


def request_digest(spec: BatchSpec, kind: str) -> str:
    """Return the digest of what was asked for."""
    return _sha256({"spec": spec.model_dump(mode="json", include=_PLANNED), "kind": kind})


def input_digest(asked: str, files: tuple[File, ...]) -> str:
    """Return the digest of what was asked for and of the files found."""
    return _sha256({"asked": asked, "files": _facts(files)})


def plan_inputs(asked: str, files: tuple[File, ...], limits: ShardLimits) -> PlanInputs:
    """Return the digests of all that a plan depends on: what was asked for, the files found, the limits of a shard."""
    return PlanInputs(
        asked,
        input_digest(asked, files),
        _sha256({"asked": asked, "files": _facts(files), "limits": list(limits.facts)}),
    )


def _facts(files: tuple[File, ...]) -> list[list[str | int | None]]:
    return [[file.path, file.size, file.modified] for file in files]


def _sha256(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
