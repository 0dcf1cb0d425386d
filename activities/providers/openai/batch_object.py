"""OpenAI's batch object in the contract's words. Pure; only an id is needed of it, and everything else may be odd.

Protocol: https://platform.openai.com/docs/api-reference/batch/object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....contract import ProviderStatus, Usage
from ....contract.names import MARKER_KEY
from ....contract.steps import Snapshot
from .. import parsing, redaction, refusals
from ..status import State, status_of

#: The metadata key beside the marker that tells which rows the batch was made of.
DIGEST_KEY = "durabatch_rows"
#: Characters of a failed batch's errors that are reported.
_MOST_SAID = 700
#: Codes of a batch that failed unrun because the account's queue had no room for it.
_QUEUE_FULL = ("token_limit_exceeded", "batch_limit_exceeded")
#: What an error about a missing input file names.
_FILE_PARAMS = ("input_file_id", "file_id")


def snapshot(answer: Any) -> Snapshot:
    """Return a batch object in the contract's words; only its id is needed.

    Raises:
        parsing.Unreadable: it is not an object, or has no id.
    """
    item = parsing.fields(answer)
    counts = parsing.mapping(item.get("request_counts"))
    total, completed, failed = (parsing.count(counts.get(name)) or 0 for name in ("total", "completed", "failed"))
    output = parsing.text(item.get("output_file_id"))  # some servers send "" for none
    state = _state(item, answered=output is not None and 0 < total <= completed + failed)
    errors = _errors(item)
    code = errors[0].code if errors else None
    return Snapshot(
        id=parsing.required(item, "id"),
        status=state.status,
        raw_status=state.raw,
        known=state.known,
        total=total,
        completed=completed,
        failed=failed,
        output=output,
        errors=parsing.text(item.get("error_file_id")),
        error=_said(errors),
        error_code=code,
        queue_full=state.status is ProviderStatus.FAILED and code in _QUEUE_FULL,
        created_at=parsing.instant(item.get("created_at")),
        usage=_usage(parsing.mapping(item.get("usage"))),
    )


def batch(batch_id: str, answer: Any) -> Snapshot:
    """Return the batch that was asked for, as it is now.

    Raises:
        parsing.Unreadable: the answer does not say how it is, or is about another one.
    """
    parsing.required(parsing.fields(answer), "status")
    found = snapshot(answer)
    if found.id != batch_id:
        raise parsing.Unreadable("field `id` names another batch than was asked for")
    return found


def marks(item: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the marker and the digest that a batch carries."""
    metadata = parsing.mapping(item.get("metadata"))
    return parsing.text(metadata.get(MARKER_KEY)), parsing.text(metadata.get(DIGEST_KEY))


def _usage(usage: Mapping[str, Any]) -> Usage | None:
    if not parsing.count(usage.get("total_tokens")):
        return None
    details = parsing.mapping(usage.get("input_tokens_details")), parsing.mapping(usage.get("output_tokens_details"))
    return Usage(
        input_tokens=parsing.count(usage.get("input_tokens")) or 0,
        cached_input_tokens=parsing.count(details[0].get("cached_tokens")) or 0,
        output_tokens=parsing.count(usage.get("output_tokens")) or 0,
        reasoning_tokens=parsing.count(details[1].get("reasoning_tokens")) or 0,
    )


def fenced_off(item: Mapping[str, Any]) -> bool:
    """Return whether a batch failed only because its file was deleted before it could be read: it ran nothing."""
    return _state(item).status is ProviderStatus.FAILED and any(one.param in _FILE_PARAMS for one in _errors(item))


def _state(item: Mapping[str, Any], *, answered: bool = False) -> State:
    return status_of(parsing.text(item.get("status")), answered=answered)


def _errors(item: Mapping[str, Any]) -> list[refusals.ReportedError]:
    """Return why a batch failed as a whole: `errors: {data: […]}`, and what other servers make of it."""
    return refusals.reported_errors(item.get("errors")) or refusals.reported_errors(item.get("error"))


def _said(errors: list[refusals.ReportedError]) -> str | None:
    said = refusals.sentence(errors)
    return redaction.redacted(said, "", most=_MOST_SAID) if said else None
