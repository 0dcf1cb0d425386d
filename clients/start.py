"""Starting a batch: same id and same spec is the same batch, whoever asks and how often (promise G1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter, ValidationError
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.common import Priority, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from ..activities.store import Store, identify, identity_of
from ..contract import (
    BATCH_WORKFLOW,
    BatchConflict,
    BatchNotFound,
    BatchSpec,
    StoreError,
    StoreMismatch,
)
from ..contract.names import STORE_MEMO, check_batch_id
from ..contract.spec import PassedSpec
from .connection import translated
from .execution import Ending, ending_of
from .requests import Rows
from .spec_fields import spec_from

#: How often the provider is asked, and whose turn is first, is not part of what is bought: a batch may be joined with
#: another rhythm.
_HOW = {"poll", "priority", "fairness_key"}
#: Digits of an id that is made from the content: 48 bits, so that two of a million batches still differ.
_ID_DIGITS = 12
#: Temporal warns of a memo of 2 KiB.
_MEMO_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class Started:
    """A batch that was asked for."""

    id: str
    created: bool  #: False where it was there before.
    ended: bool  #: Whether it had ended already.


class _Verdict(StrEnum):
    JOIN = "join"  #: It is the batch that was asked for.
    START = "start"  #: The id is free, or free again.
    CONFLICT = "conflict"  #: The id belongs to another batch.


async def start(
    client: Client,
    store: Store,
    rows: Rows,
    fields: dict[str, Any],
    batch_id: str | None,
    task_queue: str,
    lives: timedelta | None = None,
) -> Started:
    """Start the batch, or join it if it was started before.

    Args:
        lives: when Temporal ends it, whatever it does and even without a worker; never by default, as what is bought
            would be lost.

    Raises:
        InvalidSpec: the spec or the id is wrong.
        BatchConflict: the id belongs to a batch with another spec.
    """
    batch_id, spec = _named(store, rows, fields, batch_id)
    with translated(client, batch_id):
        known = await _known(client, batch_id, spec, store)
        if known is not None:
            return known
        identity = await identify(store)
        await rows.put(store, batch_id)
        created = await _start(client, batch_id, spec, rows, task_queue, identity, lives)
        # Another start of the same id may have come first; the server decided, and here is what it decided.
        known = await _known(client, batch_id, spec)
    return Started(id=batch_id, created=created, ended=known is None or known.ended)


async def joined(
    client: Client, store: Store, rows: Rows, fields: dict[str, Any], batch_id: str | None
) -> Started | None:
    """Return the batch that `start` would join, None if it would start one.

    Raises:
        as `start`.
    """
    batch_id, spec = _named(store, rows, fields, batch_id)
    with translated(client, batch_id):
        return await _known(client, batch_id, spec, store)


def _named(store: Store, rows: Rows, fields: dict[str, Any], batch_id: str | None) -> tuple[str, BatchSpec]:
    if batch_id is not None:
        check_batch_id(batch_id)
    placeholder = spec_from({**fields, "input": rows.uri or "the rows"})
    batch_id = batch_id or _content_id(placeholder, rows)
    return batch_id, placeholder.model_copy(update={"input": rows.location(store, batch_id)})


def _content_id(spec: BatchSpec, rows: Rows) -> str:
    """Return an id that the same requests with the same spec always get, from this version and from later ones."""
    what = spec.model_dump(mode="json", exclude_defaults=True, exclude={"input", *_HOW})
    facts = json.dumps([what, rows.digest], sort_keys=True, separators=(",", ":"))
    return f"{rows.stem}-{hashlib.sha256(facts.encode()).hexdigest()[:_ID_DIGITS]}"


async def _start(
    client: Client,
    batch_id: str,
    spec: BatchSpec,
    rows: Rows,
    task_queue: str,
    identity: str,
    lives: timedelta | None,
) -> bool:
    memo: dict[str, Any] = {"durabatch_provider": spec.provider, STORE_MEMO: identity}
    if spec.metadata and len(json.dumps(spec.metadata)) <= _MEMO_BYTES:
        memo["durabatch_metadata"] = spec.metadata
    try:
        await client.start_workflow(
            BATCH_WORKFLOW,
            # Without what is left at its default, so that workers of an older version take it as well, as long as it
            # asks for nothing that they do not know.
            spec.model_dump(mode="json", exclude_defaults=True),
            id=batch_id,
            task_queue=task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            # A batch that failed may be tried again; _verdict has seen to it that nothing of it was submitted.
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            memo=memo,
            execution_timeout=lives,
            # The steps of a batch inherit it, so Temporal's own task queues keep the same order as the ledgers.
            priority=Priority(priority_key=spec.priority, fairness_key=spec.fairness_key),
            static_summary=f"{rows.count:,} row{'s' * (rows.count != 1)} → {spec.provider}",
            static_details=(
                f"**{rows.count:,} requests** ({rows.size:,} bytes) to `{spec.endpoint}` of provider "
                f"`{spec.provider}`{f', model `{spec.model}`' if spec.model else ''}\n\nInput: `{spec.input}`"
            ),
        )
    except WorkflowAlreadyStartedError:
        return False
    return True


async def _known(client: Client, batch_id: str, spec: BatchSpec, store: Store | None = None) -> Started | None:
    """Return the batch that has this id if it is the one that is asked for, None if the id is free.

    Args:
        store: where the rows would be put for a start; None where they are there.

    Raises:
        BatchConflict: the id belongs to a batch, or to something else, that is not to be touched.
        StoreMismatch: it is to go on, and began in another store.
    """
    try:
        with translated(client, batch_id):
            found = await client.get_workflow_handle(batch_id).describe()
    except BatchNotFound:
        return None
    if found.workflow_type != BATCH_WORKFLOW:
        raise BatchConflict(
            f"The id {batch_id!r} belongs to a workflow of type {found.workflow_type}: take another id."
        )
    differing = differences(spec, await spec_of(client, found))
    ended = await ending_of(client, found)
    verdict = judge(found.status, not differing, ended)
    if verdict is _Verdict.CONFLICT:
        raise BatchConflict(
            f"The id {batch_id!r} belongs to a batch with another spec (different: {', '.join(differing)}): "
            "take another id, or give the same requests and options again."
        )
    if verdict is _Verdict.START:
        if store is not None and not (ended is not None and ended.submitted is False):
            await _check_store(store, batch_id, await found.memo())
        return None
    return Started(id=batch_id, created=False, ended=ended is not None)


async def _check_store(store: Store, batch_id: str, memo: Mapping[str, Any]) -> None:
    """See that a batch that is to go on finds what it bought: in another store everything would be bought again."""
    began_in = memo.get(STORE_MEMO)
    if isinstance(began_in, str) and began_in != await identity_of(store):
        raise StoreMismatch(
            f"The batch {batch_id!r} began in another store than {store.url}, by the identity in its object "
            "~store.json: is it mounted, and is the url in [store] right? To buy it anew, take another id."
        )


def judge(status: WorkflowExecutionStatus | None, same: bool, ended: Ending | None) -> _Verdict:
    """Decide what a start means for an id that is known already.

    Args:
        status: what Temporal says of the workflow.
        same: whether its spec is the one that is asked for.
        ended: how it ended, where it did.
    """
    if status is WorkflowExecutionStatus.FAILED and ended is not None and ended.submitted is False:
        return _Verdict.START  # Nothing was bought, so anything may be asked for under this id.
    if not same:
        return _Verdict.CONFLICT
    if ended is not None and isinstance(ended.error, StoreError):
        return _Verdict.START  # It gave up on a store that did not have what it should; what it bought is found again.
    if ended is not None and ended.result is None:
        # Terminated, or failed without accounts: going on is safe, as provider batches are found by their markers.
        return _Verdict.START
    return _Verdict.JOIN


async def spec_of(client: Client, found: WorkflowExecution) -> BatchSpec | None:
    """Return the spec that a batch was started with, from the first event of its history; None if that is none."""
    handle = client.get_workflow_handle(found.id, run_id=found.run_id)
    async for event in handle.fetch_history_events(page_size=1):
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        try:
            return TypeAdapter(PassedSpec).validate_python((await client.data_converter.decode(payloads[:1]))[0])
        except (ValidationError, ValueError, TypeError, RuntimeError, IndexError):
            return None  # Started by hand, with something that is not a spec.
    return None


def differences(asked: BatchSpec, found: BatchSpec | None) -> list[str]:
    """Return the names of the fields in which two specs differ; never their values, which may hold prompts."""
    if found is None:
        return ["the whole spec"]
    return sorted(_differences(_identity(asked), _identity(found), ""))


def _identity(spec: BatchSpec) -> dict[str, Any]:
    return {name: value for name, value in spec.settings().items() if name not in _HOW}


def _differences(one: dict[str, Any], other: dict[str, Any], prefix: str) -> list[str]:
    found: list[str] = []
    for name in one.keys() | other.keys():
        mine, theirs = one.get(name), other.get(name)
        if mine == theirs:
            continue
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found += _differences(mine, theirs, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found
