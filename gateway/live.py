"""How a batch looks now: its workflow says it while it runs, and the tenant's index once it has ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta

from pydantic import ValidationError
from temporalio.client import WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.common import Priority, QueryRejectCondition, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ..activities.store import Store
from ..clients.children import with_children
from ..clients.client import BatchClient
from ..clients.connection import translated
from ..contract import BatchProgress
from ..contract.gateway_batch import (
    GATEWAY_WORKFLOW,
    BatchEntry,
    BatchObject,
    GatewayBatch,
    GatewayStatus,
    RequestCounts,
    Shape,
    inner_id,
    workflow_id,
)
from ..contract.gateway_layout import Listed, index_path, is_id, listed_as

#: A worker answers in milliseconds; where none does, the index says what is known.
_QUERY = timedelta(seconds=2)
#: Rows are counted while they run.
_RUNNING = frozenset({GatewayStatus.IN_PROGRESS, GatewayStatus.CANCELLING})


async def find_entry(store: Store, tenant: str, batch_id: str, listed: Listed = Listed.BATCHES) -> BatchEntry | None:
    """Return what a tenant's index holds of a batch; None where it has none of this id.

    Raises:
        StoreError: the store failed.
    """
    return (await find_entries(store, tenant, [batch_id], listed))[0]


async def find_entries(
    store: Store, tenant: str, ids: Sequence[str], listed: Listed = Listed.BATCHES
) -> list[BatchEntry | None]:
    """Return what a tenant's index holds of some batches, in the order of their ids; None as `find_entry`.

    Raises:
        StoreError: the store failed.
    """
    paths = {id: index_path(tenant, id) for id in ids if is_id(listed, id)}
    data = dict(zip(paths, await store.read_each(list(paths.values())), strict=True))
    return [as_entry(data.get(id)) for id in ids]


def as_entry(data: bytes | None) -> BatchEntry | None:
    """Return what an object of an index says; None where there is none, or it is no entry."""
    try:
        return None if data is None else BatchEntry.model_validate_json(data)
    except ValidationError:
        return None


async def begin(client: BatchClient, batch: GatewayBatch) -> None:
    """Start a batch's workflow, unless it runs or has come to its end.

    Raises:
        TemporalUnavailable: Temporal does not answer.
    """
    with translated(client.temporal, batch.id), contextlib.suppress(WorkflowAlreadyStartedError):
        await client.temporal.start_workflow(
            GATEWAY_WORKFLOW,
            # Without what is left at its default, so that workers of an older version take it as well.
            {"batch": batch.model_dump(mode="json", exclude_defaults=True)},
            id=workflow_id(batch.tenant, batch.id),
            task_queue=client.task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            # One that was terminated, or has given up on the store, goes on; what it bought is found.
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            priority=Priority(fairness_key=batch.tenant),
            static_summary=f"{batch.input_file_id} to {batch.endpoint} for {batch.tenant}",
        )


async def ask_to_stop(client: BatchClient, batch: GatewayBatch) -> None:
    """Ask a batch to stop; one that has ended is fine.

    Raises:
        TemporalUnavailable: Temporal does not answer.
    """
    handle = client.temporal.get_workflow_handle(workflow_id(batch.tenant, batch.id))
    with translated(client.temporal, batch.id):
        try:
            await handle.signal("cancel", {"requested_by": "gateway"})
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise


class Glance:
    """Looks at batches, for one request: when no worker answers once, none is asked again.

    Args:
        thorough: whether rows of a batch's many shards are added up as well, which asks a workflow for each.
    """

    def __init__(self, client: BatchClient, *, thorough: bool = False) -> None:
        self._client = client
        self._thorough = thorough
        self._silent = False

    async def at(self, entry: BatchEntry) -> BatchObject:
        """Return a batch as it looks now. One whose workflow was lost is started again.

        Raises:
            StoreError: the store failed.
            TemporalUnavailable: Temporal does not answer.
        """
        if entry.final is not None:
            return entry.final
        batch = entry.request
        if self._silent:
            return _noted(entry)
        handle = self._client.temporal.get_workflow_handle(workflow_id(batch.tenant, batch.id))
        try:
            # The SDK tries on for ten seconds where Temporal does not answer.
            async with asyncio.timeout(2 * _QUERY.total_seconds()):
                shown = await handle.query(
                    "batch",
                    result_type=BatchObject,
                    reject_condition=QueryRejectCondition.NOT_OPEN,
                    rpc_timeout=_QUERY,
                )
        except WorkflowQueryRejectedError:
            return await self._ended(entry)
        except WorkflowQueryFailedError:
            return _noted(entry)
        except TimeoutError:
            self._silent = True
            return _noted(entry)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return await self._ended(entry)
            self._silent = True
            return _noted(entry)
        counted = shown.status in _RUNNING and batch.shape is Shape.OPENAI  # Anthropic counts at the end
        return await self._counted(batch, shown) if counted else shown

    async def _ended(self, entry: BatchEntry) -> BatchObject:
        """Return a batch whose workflow does not run: it has just ended, or it goes on from here."""
        batch = entry.request
        again = await find_entry(self._client.store, batch.tenant, batch.id, listed_as(batch.id)) or entry
        if again.final is not None:
            return again.final
        await begin(self._client, batch)
        return _noted(again)

    async def _counted(self, batch: GatewayBatch, shown: BatchObject) -> BatchObject:
        """Return a batch with its rows as the batch that runs them counts them."""
        inner = self._client.temporal.get_workflow_handle(inner_id(batch.tenant, batch.id))
        try:
            answer = await inner.query("progress", result_type=dict, rpc_timeout=_QUERY)
            progress = BatchProgress.model_validate(answer)
            if self._thorough and progress.shards.total > 1:
                progress = await with_children(self._client.temporal, await inner.describe(), progress)
        except (RPCError, WorkflowQueryFailedError, ValidationError):
            return shown  # it has not begun, or nobody answers
        found = progress.counts
        counts = RequestCounts(
            total=found.total or shown.request_counts.total,
            completed=found.succeeded,
            failed=found.failed + found.canceled + found.expired,
        )
        return shown.model_copy(update={"request_counts": counts})


def _noted(entry: BatchEntry) -> BatchObject:
    """Return a batch as far as the index knows it."""
    shown = entry.request.beginning()
    if entry.intake is None:
        return shown
    known = {
        "status": GatewayStatus.IN_PROGRESS,
        "model": entry.intake.model,
        "request_counts": RequestCounts(total=entry.intake.rows),
    }
    return shown.model_copy(update=known)
