"""Replays for ever (promise G10): every recorded history replays with today's workflow code.

`record.py` beside this file makes the histories. A history that does not replay means that workflows which are running
now would be stuck after a deploy: put the change behind `workflow.patched`, do not record anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import NondeterminismError, _Definition

from durabatch.workers.plugin import PASSED_THROUGH, WORKFLOW_MODULES
from durabatch.workflows import WORKFLOWS

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))
NAMES = [path.stem for path in HISTORIES]
TYPES = {str(_Definition.must_from_class(found).name): found for found in WORKFLOWS}

#: The paths that promise G10 names; a recording of each must be there.
PATHS = {
    "completed",
    "completed_with_failed_rows",
    "retried_rows",
    "expired_with_partials",
    "canceled_while_polling",
    "canceled_by_temporal",
    "canceled_while_uploading",
    "canceled_while_submitting",
    "canceled_while_fetching",
    "adopted_after_a_lost_answer",
    "fenced_and_created_again",
    "continued_as_new-run-1",
    "continued_as_new-run-2",
    "failed_at_start",
    "several_shards",
    "several_shards-shard-0",
    "several_shards_refused_at_first",
    "several_shards_refused_at_first-shard-0",
    "several_shards_reset_and_canceled",
    "store_away_while_applying",
    "shard_terminated",
    "reset_with_children",
    "reset_with_children-child-run-1",
    "reset_with_children-child-run-2",
    "more_shards_than_children-child",
    "waited_for_its_turn",
    "waited_for_its_turn-ledger",
    "canceled_before_its_turn",
    "rate_leased-ledger",
    "gateway_completed",
    "webhook_delivered",
    "gateway_refused",
    "gateway_canceled",
    "gateway_that_joined_its_batch",
    "gateway_whose_batch_was_terminated",
    "gateway_canceled_when_it_was_started_again",
    "gateway_unwritten",
    "gateway_waited_for_its_turn",
    "gateway_waited_for_its_turn-ledger",
    "gateway_that_had_its_turn",
    "gateway_canceled_before_its_turn",
    "gateway_canceled_while_no_turn_could_be_had",
    "direct_completed",
    "direct_canceled",
    "direct_deadline_and_again",
    "direct_outage",
    "direct_key_refused_and_fixed",
    "direct_key_refused_at_first",
    "several_shards_direct",
    "several_shards_direct-shard-0",
    "expired_and_finished_directly",
    "ended_early_and_finished_directly",
    "not_submitted_and_run_directly",
}


def _replayer(history: dict[str, Any]) -> Replayer:
    started = history["events"][0]["workflowExecutionStartedEventAttributes"]
    # Workers share the workflows' modules. Here each run loads them anew, in the sandbox, which refuses clocks and I/O.
    shared = [name for name in PASSED_THROUGH if name != WORKFLOW_MODULES]
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*shared)
    return Replayer(
        workflows=[TYPES[started["workflowType"]["name"]]],  # a replayer loads each that it is given
        data_converter=pydantic_data_converter,
        workflow_runner=SandboxedWorkflowRunner(restrictions=restrictions),
    )


def _load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_every_path_is_recorded() -> None:
    assert set(NAMES) >= PATHS


@pytest.mark.parametrize("path", HISTORIES, ids=NAMES)
async def test_a_recorded_history_replays(path: Path) -> None:
    # Children are named after their parent, so the id must be the recorded one.
    history = _load(path)
    await _replayer(history).replay_workflow(WorkflowHistory.from_json(f"recorded-{path.stem}", history))


async def test_a_batch_whose_history_had_grown_long_beside_its_rows_replays() -> None:
    # It was signalled while its rows ran, and went on in the same run however long its history was.
    history = _load(next(path for path in HISTORIES if path.stem == "gateway_canceled"))
    for event in history["events"]:
        if (begun := event.get("workflowTaskStartedEventAttributes")) is not None:
            begun["suggestContinueAsNew"] = True
    await _replayer(history).replay_workflow(WorkflowHistory.from_json("long", history))


@pytest.mark.parametrize("path", HISTORIES, ids=NAMES)
def test_a_recorded_history_is_small_and_holds_no_row(path: Path) -> None:
    history = WorkflowHistory.from_json(path.stem, _load(path))
    assert len(history.events) <= 4000
    assert max(event.ByteSize() for event in history.events) < 64 * 1024
    assert "[[sandbox" not in path.read_text()


async def test_a_history_of_other_code_does_not_replay() -> None:
    # The test above can fail: a history in which one step had another name is refused.
    path = next(path for path in HISTORIES if path.stem == "completed")
    history = json.loads(path.read_text().replace('"durabatch.settle"', '"durabatch.another_step"'))
    with pytest.raises(NondeterminismError):
        await _replayer(history).replay_workflow(WorkflowHistory.from_json("changed", history))
