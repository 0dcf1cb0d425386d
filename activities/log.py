"""The log: one logger, and a closed list of actions, so that a batch's life can be followed in a worker's log alone.

Each record has an `action`, and where they are known `batch_id`, `shard` and `attempt`, beside facts such as `rows`,
`bytes` and `provider_batch_id`: counts, ids and our own sentences, never a row's text, a prompt or a key. They are
attributes of the record (`extra`), so any formatter can use them; `workers/logs.py` has ours.

INFO has what happens once or rarely in a batch's life; what is repeated (polls, looks) and each step's start are at
DEBUG. What fails, or is refused, is at WARNING with its code; a fault of our own is at ERROR.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from temporalio import activity

from ..contract import DurabatchError, WorkerBusy
from ..contract.gateway_batch import IntakeRequest, JoinRequest, PublishRequest, inner_id
from ..contract.ledger_steps import CENSUS, RELEASE, Reserved
from ..contract.names import batch_of
from ..contract.steps import (
    CANCEL,
    TIDY,
    Applied,
    ApplyRequest,
    Attempt,
    Collected,
    CreateAnswer,
    Created,
    Fetched,
    FinishRequest,
    Found,
    PlanRequest,
    PlanSummary,
    Ran,
    Recalled,
    Settled,
    Snapshot,
    Uploaded,
)

logger = logging.getLogger("durabatch")

#: How an answer is recorded: the level, the action, and the facts.
Described = tuple[int, "Action", dict[str, Any]]


class Action(StrEnum):
    """What a record is about."""

    STARTED = "started"  #: A step began.
    PLANNED = "planned"  #: The input was checked and cut, or an earlier plan was kept.
    RECALLED = "recalled"  #: It was looked up whether an earlier run left a plan.
    UPLOADED = "uploaded"  #: An attempt's rows are at the provider as a file.
    LOOKED = "looked"  #: The provider was searched for the attempt's batch, and shows none.
    ADOPTED = "adopted"  #: A provider batch that an earlier create made was found.
    CREATED = "created"  #: A provider batch was created.
    REFUSED = "refused"  #: The provider refused to create one.
    DEFERRED = "deferred"  #: The provider, or the worker, has no room now; it is tried again.
    LOST = "lost"  #: The answer to a create was lost: it is looked for before anything is paid again.
    POLLED = "polled"  #: The provider batch is not finished yet.
    ENDED = "ended"  #: The provider has ended its batch, whatever as.
    CANCELED = "canceled"  #: The provider was asked to cancel its batch.
    FETCHED = "fetched"  #: Results are in the store.
    RAN = "ran"  #: Rows were sent one by one, as far as it went.
    COLLECTED = "collected"  #: The answers to rows that were sent one by one are the attempt's output.
    SETTLED = "settled"  #: Every row of a shard is accounted for, or is to be tried again.
    APPLIED = "applied"  #: The batch's results are written.
    FINISHED = "finished"  #: The batch has ended, and its result is written.
    RESERVED = "reserved"  #: The account's ledger was asked for room.
    RELEASED = "released"  #: Room was given back.
    TIDIED = "tidied"  #: An attempt's files were deleted at the provider.
    COUNTED = "counted"  #: It was looked up which of a ledger's holders are gone.
    INTERRUPTED = "interrupted"  #: A step was cancelled, or the worker stops.
    DONE = "done"  #: A step of another kind came to its end.
    FAILED = "failed"  #: A step failed; Temporal or the workflow tries it again, or ends the batch.


def log_start(name: str, request: BaseModel) -> None:
    """Record that a step begins."""
    if logger.isEnabledFor(logging.DEBUG):
        _record(logging.DEBUG, Action.STARTED, request, {"step": name})


def log_answer(name: str, request: BaseModel, answer: BaseModel | None, seconds: float) -> None:
    """Record what a step did."""
    level, action, facts = outcome(name, request, answer)
    if logger.isEnabledFor(level):
        _record(level, action, request, {**facts, "seconds": round(seconds, 3)})


def log_failure(name: str, request: BaseModel, error: DurabatchError) -> None:
    """Record that a step failed by an error of the contract, whose message never quotes a row."""
    if isinstance(error, WorkerBusy):  # it is offered again every few seconds, which is no news
        _record(logging.DEBUG, Action.DEFERRED, request, {"step": name, "code": error.code})
    else:
        facts = {"step": name, "code": error.code, "error": error.message, "try": _try()}
        _record(logging.WARNING, Action.FAILED, request, facts)


def log_defect(name: str, request: BaseModel, kind: str, words: str) -> None:
    """Record a fault of our own, in words that quote nothing of it."""
    facts = {"step": name, "code": kind, "error": words, "try": _try()}
    _record(logging.ERROR, Action.FAILED, request, facts)


def log_interruption(name: str, request: BaseModel) -> None:
    """Record that a step was cancelled."""
    _record(logging.INFO, Action.INTERRUPTED, request, {"step": name})


def outcome(name: str, request: BaseModel, answer: BaseModel | None) -> Described:
    """Return how a step's answer is recorded."""
    if isinstance(answer, Snapshot):
        return _shown(name, answer)
    if (describe := _ANSWERS.get(type(answer))) is not None:
        return describe(answer)
    if isinstance(request, FinishRequest):
        return logging.INFO, Action.FINISHED, {"status": request.result.status.value, **_accounts(request.result)}
    return logging.DEBUG, _SILENT.get(name, Action.DONE), {}


def _planned(answer: PlanSummary) -> Described:
    facts = {"provider": answer.provider.name, "rows": answer.rows, "invalid_rows": answer.invalid_rows}
    return logging.INFO, Action.PLANNED, {**facts, "shards": answer.shards, "bought": answer.bought}


def _recalled(answer: Recalled) -> Described:
    return logging.DEBUG, Action.RECALLED, {"found": answer.plan is not None}


def _uploaded(answer: Uploaded) -> Described:
    level = logging.DEBUG if answer.file_id is None else logging.INFO  # the rows go with the create
    return level, Action.UPLOADED, {"file_id": answer.file_id, "rows": answer.rows, "bytes": answer.bytes}


def _found(answer: Found) -> Described:
    if answer.batch is None:
        return logging.DEBUG, Action.LOOKED, {}
    return logging.INFO, Action.ADOPTED, {**_batch(answer.batch), "provisional": answer.provisional}


def _created(answer: Created) -> Described:
    if answer.answer is CreateAnswer.CREATED:
        return logging.INFO, Action.CREATED, _batch(answer.batch) if answer.batch else {}
    why = {"code": answer.code, "error": answer.reason}
    if answer.answer is CreateAnswer.DEFERRED:
        return logging.INFO, Action.DEFERRED, why
    return logging.WARNING, Action.REFUSED if answer.answer is CreateAnswer.REFUSED else Action.LOST, why


def _shown(name: str, batch: Snapshot) -> Described:
    if name == CANCEL.name:
        return logging.INFO, Action.CANCELED, _batch(batch)
    if batch.status.ended:
        return logging.INFO, Action.ENDED, _batch(batch)
    return logging.DEBUG, Action.POLLED, _batch(batch)


def _fetched(answer: Fetched) -> Described:
    facts = {"rows": answer.rows, "bytes": answer.bytes, "missing": len(answer.gone), "stranger": answer.stranger}
    return logging.INFO, Action.FETCHED, facts


def _ran(answer: Ran) -> Described:
    level = logging.INFO if answer.reason is None else logging.WARNING
    return level, Action.RAN, {"rows": answer.rows, "kept": answer.kept, "error": answer.reason}


def _collected(answer: Collected) -> Described:
    facts = {"lines": answer.lines, "succeeded": answer.succeeded, "repeated": answer.repeated}
    return logging.INFO, Action.COLLECTED, facts


def _settled(answer: Settled) -> Described:
    return logging.INFO, Action.SETTLED, {**_accounts(answer), "retry_rows": answer.retry_rows}


def _applied(answer: Applied) -> Described:
    return logging.INFO, Action.APPLIED, _accounts(answer)


def _reserved(answer: Reserved) -> Described:
    granted = answer.place.granted if answer.place else None
    return logging.DEBUG, Action.RESERVED, {"ledger": answer.ledger, "granted": granted}


_ANSWERS: dict[type[Any], Callable[[Any], Described]] = {
    PlanSummary: _planned,
    Recalled: _recalled,
    Uploaded: _uploaded,
    Found: _found,
    Created: _created,
    Fetched: _fetched,
    Ran: _ran,
    Collected: _collected,
    Settled: _settled,
    Applied: _applied,
    Reserved: _reserved,
}
#: Steps whose answers are not worth recording.
_SILENT = {TIDY.name: Action.TIDIED, RELEASE.name: Action.RELEASED, CENSUS.name: Action.COUNTED}


def _batch(batch: Snapshot) -> dict[str, Any]:
    done = batch.completed + batch.failed
    return {"provider_batch_id": batch.id, "status": batch.status.value, "rows": batch.total, "finished_rows": done}


def _accounts(found: Any) -> dict[str, Any]:
    counts = found.counts
    return {
        "rows": counts.total,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "canceled": counts.canceled,
        "expired": counts.expired,
        "cost_usd": found.cost_usd,
    }


def _subject(request: BaseModel) -> dict[str, Any]:
    """Return whose step it is."""
    attempt = getattr(request, "attempt", None)
    if isinstance(attempt, Attempt):
        return {"batch_id": batch_of(attempt.scoped_id), "shard": attempt.shard, "attempt": attempt.number}
    if isinstance(request, PlanRequest | ApplyRequest | JoinRequest):
        return {"batch_id": request.batch_id}
    if isinstance(request, IntakeRequest | PublishRequest):
        return {"batch_id": inner_id(request.batch.tenant, request.batch.id)}
    return {"batch_id": request.result.batch_id} if isinstance(request, FinishRequest) else {}


def _try() -> int:
    return activity.info().attempt if activity.in_activity() else 1


def _record(level: int, action: Action, request: BaseModel, facts: Mapping[str, Any]) -> None:
    known = {key: value for key, value in facts.items() if value is not None}
    logger.log(level, action.value, extra={"action": action.value, **_subject(request), **known})
