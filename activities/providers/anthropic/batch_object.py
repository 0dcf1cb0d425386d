"""Anthropic's message batch in the contract's words. Pure; only an id is needed of it, and everything else may be odd.

Protocol: https://platform.claude.com/docs/en/api/messages/batches and the types of the `anthropic` package (2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....contract import ProviderStatus
from ....contract.steps import Snapshot
from .. import parsing
from ..status import status_of

#: What becomes of a batch's rows, as its counts name it.
COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
#: Words for `ended`, which is all that Anthropic itself says.
_ENDS = (ProviderStatus.COMPLETED, ProviderStatus.EXPIRED, ProviderStatus.CANCELED)


def snapshot(answer: Any) -> Snapshot:
    """Return a message batch object in the contract's words; only its id is needed.

    Raises:
        parsing.Unreadable: it is not an object, or has no id.
    """
    item = parsing.fields(answer)
    listed = parsing.mapping(item.get("request_counts"))
    counts = {name: parsing.count(listed.get(name)) or 0 for name in COUNTS}
    state = status_of(
        parsing.text(item.get("processing_status")),
        answered=any(counts.values()) and not counts["processing"] and bool(item.get("results_url")),
    )
    return Snapshot(
        id=parsing.required(item, "id"),
        status=_ended(counts) if state.status in _ENDS else state.status,
        raw_status=state.raw,
        known=state.known,
        total=sum(counts.values()),
        completed=counts["succeeded"],
        # Each of them is a line of the results, so that a download can be counted.
        failed=sum(counts[name] for name in ("errored", "canceled", "expired")),
        output="results" if item.get("results_url") else None,
        created_at=parsing.instant(item.get("created_at")),
    )


def batch(batch_id: str, answer: Any) -> Snapshot:
    """Return the batch that was asked for, as it is now.

    Raises:
        parsing.Unreadable: the answer does not say how it is, or is about another one.
    """
    parsing.required(parsing.fields(answer), "processing_status")
    found = snapshot(answer)
    if found.id != batch_id:
        raise parsing.Unreadable("field `id` names another batch than was asked for")
    return found


def rows_of(item: Mapping[str, Any]) -> int | None:
    """Return how many rows a batch has; None if that cannot be read."""
    listed = item.get("request_counts")
    if not isinstance(listed, dict):
        return None
    counts = [parsing.count(listed[name]) for name in COUNTS if listed.get(name) is not None]
    return None if None in counts or not counts else sum(one for one in counts if one is not None)


def _ended(counts: dict[str, int]) -> ProviderStatus:
    """Return how a batch ended. `ended` says only that it did; the rows say what ended it."""
    # A cancel that found nothing left to cancel changed nothing, so the rows decide rather than cancel_initiated_at.
    if counts.get("canceled"):
        return ProviderStatus.CANCELED
    return ProviderStatus.EXPIRED if counts.get("expired") else ProviderStatus.COMPLETED
