"""What batches leave behind at providers, and whether it may go: decided from facts alone, as `decisions` does for the
store.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from ...contract.names import parse_upload
from .decisions import ABANDONED_REST, Execution, TemporalState


def uploader(name: str) -> str | None:
    """Return whose rows a file at a provider holds, by its name; None if it is none of Durabatch's.

    Returns:
        The batch's name at providers, as `contract.names.scoped`.
    """
    found = parse_upload(name)
    return found.batch if found else None


class Upload(StrEnum):
    """What is to become of a file at a provider."""

    NEEDED = "their batches run"
    AT_WORK = "the provider still works on them"
    YOUNG = "nothing tells that their batches have ended, and they are young"
    ELSEWHERE = "not of this store"
    LEFT = "uploads of batches that do not run"


def upload(
    state: TemporalState | None, has_result: bool, at_work: bool, written: datetime | None, now: datetime
) -> Upload:
    """Decide what is to become of a file that was uploaded for a batch.

    Args:
        state: of the batch, None where this store has none of that id.
        has_result: whether the store has its result.json.
        at_work: whether a provider batch of it is under way.
        written: when it was uploaded, where the provider says so.
    """
    if state is None:
        return Upload.ELSEWHERE
    if state.busy or state.execution is Execution.ANOTHER:
        return Upload.NEEDED
    if at_work:
        return Upload.AT_WORK
    ended = has_result or state.execution is Execution.ENDED
    if not ended and (written is None or now - written < ABANDONED_REST):
        return Upload.YOUNG
    return Upload.LEFT


class OpenBatch(StrEnum):
    """What a provider batch under way is."""

    FOLLOWED = "followed by a batch that runs, or that goes on once somebody asks for it"
    ELSEWHERE = "not of this store"
    ORPHAN = "followed by nobody"


def open_batch(state: TemporalState | None, same_rows: bool) -> OpenBatch:
    """Decide what a provider batch under way is.

    Args:
        state: of the batch that its marker names, None where this store has none of that id.
        same_rows: whether it was made of just the rows that this store has for that marker.
    """
    if state is None:
        return OpenBatch.ELSEWHERE
    if state.busy:
        return OpenBatch.FOLLOWED
    return OpenBatch.ORPHAN if same_rows else OpenBatch.ELSEWHERE
