"""How many answers the rows under way have by now, as the step that sends them reports to Temporal (direct mode)."""

from __future__ import annotations

from temporalio.client import Client, WorkflowExecutionDescription

from ..contract import BatchProgress, Phase
from ..contract.steps import RUN_ROWS


async def with_rows(
    client: Client, description: WorkflowExecutionDescription, progress: BatchProgress
) -> BatchProgress:
    """Return a workflow's progress, with what the step that sends its rows has kept since the workflow knew of any.

    The workflow hears of it only when that step ends, which may be hours later; its heartbeats say it all the time.
    """
    if progress.phase is not Phase.RUNNING:
        return progress
    rows = await _reported(client, description)
    counts = progress.counts
    if rows <= counts.settled:
        return progress
    # Good ones and bad ones: which is which is known once they are settled.
    succeeded = rows - (counts.settled - counts.succeeded)
    return progress.model_copy(update={"counts": counts.model_copy(update={"succeeded": succeeded})})


async def _reported(client: Client, description: WorkflowExecutionDescription) -> int:
    for pending in description.raw_description.pending_activities:
        if pending.activity_type.name != RUN_ROWS.name or not pending.heartbeat_details.payloads:
            continue
        details = await client.data_converter.decode(pending.heartbeat_details.payloads)
        rows = details[0].get("rows") if details and isinstance(details[0], dict) else None
        if isinstance(rows, int):
            return rows
    return 0
