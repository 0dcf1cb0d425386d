"""What the step that sends rows reports to Temporal in direct mode: its answers by now, and why it waits."""

from __future__ import annotations

from typing import Any

from temporalio.client import Client, WorkflowExecutionDescription

from ..contract import BatchProgress, Phase
from ..contract.steps import RUN_ROWS


async def with_rows(
    client: Client, description: WorkflowExecutionDescription, progress: BatchProgress
) -> BatchProgress:
    """Return a workflow's progress, with what the step that sends its rows reports: answers kept, and why it waits.

    The workflow hears of it only when that step ends, which may be hours later; its heartbeats say it all the time.
    """
    if progress.phase is not Phase.RUNNING:
        return progress
    reported = await _reported(client, description)
    why = reported.get("waiting_for")
    if isinstance(why, str) and not progress.waiting_for:
        progress = progress.model_copy(update={"waiting_for": why})
    rows, counts = reported.get("rows"), progress.counts
    if not isinstance(rows, int) or rows <= counts.settled:
        return progress
    # Good ones and bad ones: which is which is known once they are settled.
    succeeded = rows - (counts.settled - counts.succeeded)
    return progress.model_copy(update={"counts": counts.model_copy(update={"succeeded": succeeded})})


async def _reported(client: Client, description: WorkflowExecutionDescription) -> dict[str, Any]:
    for pending in description.raw_description.pending_activities:
        if pending.activity_type.name != RUN_ROWS.name or not pending.heartbeat_details.payloads:
            continue
        details = await client.data_converter.decode(pending.heartbeat_details.payloads)
        if details and isinstance(details[0], dict):
            return details[0]
    return {}
