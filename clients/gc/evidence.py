"""What is known of a batch: by the records in its folder, and by Temporal. Gathered here, judged in `decisions`."""

from __future__ import annotations

import contextlib
import re

import msgspec
from pydantic import ValidationError
from temporalio.client import Client, WorkflowExecutionStatus

from ...activities.attempt_rows import AttemptRows
from ...activities.gateway.expiry import is_needed
from ...activities.input import input_location
from ...activities.providers import MarkedBatch
from ...activities.records import decode_plan
from ...activities.store import Store
from ...contract import BATCH_WORKFLOW, BatchNotFound, BatchResult, BatchStatus, InvalidSpec
from ...contract.errors import ObjectNotFound
from ...contract.gateway_batch import outer_id
from ...contract.layout import plan_path, result_path
from ...contract.names import SHARD_WORKFLOW, batch_of, check_batch_id, parse_marker
from ...contract.steps import Attempt
from ..connection import translated
from ..start import spec_of
from .decisions import Execution, FolderRecords, TemporalState
from .reporter import Reporter

#: Where an input that names several files stops being a plain path.
_PATTERN = re.compile(r"[*?]")


class Evidence:
    """What the store and Temporal say of batches."""

    def __init__(self, client: Client, store: Store, reporter: Reporter) -> None:
        self._client = client
        self._store = store
        self._reporter = reporter

    async def records(self, root: str) -> FolderRecords | None:
        """Return what a folder's records say, None where they are not Durabatch's."""
        try:
            plan_id, planned_in = await self._planned(root)
            result = BatchResult.model_validate_json(await self._store.read(result_path(root)))
            check_batch_id(result.batch_id)
        except ObjectNotFound:
            return FolderRecords(plan_id, store=planned_in) if plan_id else None
        except (msgspec.DecodeError, UnicodeDecodeError, ValidationError, InvalidSpec):
            return None  # somebody else's, or of a later version: not to be touched
        if plan_id not in (None, result.batch_id):
            return None
        where = None
        with contextlib.suppress(InvalidSpec):
            where = self._store.path(result.results) if result.results else None
        # A batch that gave up, because its store was away for example, accounts for nothing of what it bought.
        gave_up = result.status is BatchStatus.FAILED and not result.results
        ended_at = None if gave_up else result.ended_at or result.started_at
        return FolderRecords(result.batch_id, ended_at, where, planned_in)

    async def _planned(self, root: str) -> tuple[str | None, str]:
        """Return the id of the batch that a folder was planned for, and the identity of the store that it was."""
        try:
            plan = decode_plan(await self._store.read(plan_path(root)))
        except ObjectNotFound:
            return None, ""
        return check_batch_id(batch_of(plan.scoped_id)), plan.store

    async def state(self, batch_id: str) -> TemporalState:
        """Return where a batch is; one of the gateway's runs for as long as its files are not written."""
        outer = outer_id(batch_id)
        if outer is not None and await self._runs(outer):
            return TemporalState(Execution.RUNNING)
        found = await self._found(batch_id)
        if outer is None or found.execution is Execution.RUNNING:  # its rows outlive the gateway's workflow
            return found
        needed = await is_needed(self._store, *batch_id.split(".", 1))
        return TemporalState(Execution.NEEDED) if needed else found

    async def _found(self, batch_id: str) -> TemporalState:
        try:
            with translated(self._client, batch_id):
                found = await self._client.get_workflow_handle(batch_id).describe()
        except BatchNotFound:
            return TemporalState(Execution.UNKNOWN)
        if found.workflow_type != BATCH_WORKFLOW:
            return TemporalState(Execution.ANOTHER)
        if found.status is WorkflowExecutionStatus.RUNNING:
            return TemporalState(Execution.RUNNING)
        return TemporalState(Execution.ENDED, found.close_time)

    async def _runs(self, workflow_id: str) -> bool:
        try:
            with translated(self._client, workflow_id):
                found = await self._client.get_workflow_handle(workflow_id).describe()
        except BatchNotFound:
            return False
        return found.status is WorkflowExecutionStatus.RUNNING

    async def busy(self) -> set[str]:
        """Return the batches of which a shard runs: it may outlive its batch for a while."""
        with translated(self._client):
            running = self._client.list_workflows(f"WorkflowType = '{SHARD_WORKFLOW}' AND ExecutionStatus = 'Running'")
            return {batch_of(execution.id) async for execution in running}

    async def needed(self) -> set[str]:
        """Return the paths that batches under way read their rows from: they may be in the folder of another one."""
        with translated(self._client):
            query = f"WorkflowType = '{BATCH_WORKFLOW}' AND ExecutionStatus = 'Running'"
            running = [execution async for execution in self._client.list_workflows(query)]
            specs = await self._reporter.each(running, lambda execution: spec_of(self._client, execution))
        found: set[str] = set()
        for spec in specs:
            with contextlib.suppress(InvalidSpec):
                if spec is not None and spec.input:
                    path = input_location(self._store, spec.input)
                    plain = _PATTERN.split(path)[0]
                    found |= {path, f"{path}/*"} if plain == path else {f"{plain}*"}
        return found

    async def same_rows(self, found: MarkedBatch, provider: str, root: str) -> bool:
        """Whether a provider batch was made of the rows that this store has for its marker."""
        named = parse_marker(found.marker)
        if named is None:
            return False
        batch, shard, number = named
        where = self._store.uri(root)
        attempt = Attempt(scoped_id=batch, provider=provider, root=where, shard=shard, number=number, store="")
        try:
            return (await AttemptRows.read(self._store, attempt)).digest == found.digest
        except (ObjectNotFound, msgspec.DecodeError):
            return False
