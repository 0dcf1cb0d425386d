"""Rows that are tried before a batch is bought: at a real Temporal, and at the sandbox's ordinary endpoint."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus

from durabatch.activities.store import IDENTITY
from durabatch.clients import Trial
from durabatch.contract import BatchStatus, DurabatchError, ErrorClass, InvalidInput, InvalidSpec, Phase, RowStatus

from .conftest import Desk, unique


def written(folder: Path, *prompts: str) -> Path:
    """Return a file with a row for each prompt."""
    file = folder / f"{unique('rows')}.jsonl"
    rows = [json.dumps({"custom_id": f"r{number}", "input": prompt}) for number, prompt in enumerate(prompts)]
    file.write_text("\n".join(rows) + "\n")
    return file


async def left(desk: Desk) -> list[str]:
    """Return what is in the store, but for its identity, which always stays."""
    return [path for path, _ in await desk.client.store.list() if path != IDENTITY]


async def tried(desk: Desk, requests: Any, **fields: Any) -> Trial:
    return await desk.client.try_rows(requests, **desk.fields(**fields))


async def test_a_try_shows_answers_and_costs_and_leaves_nothing_of_which_the_batch_could_know(
    desk: Desk, tmp_path: Path
) -> None:
    file = written(tmp_path, *(f"Say {number}." for number in range(40)))
    trial = await tried(desk, file, rows=4)
    ids = [row.custom_id for row in trial.rows]
    assert [int(id[1:]) // 10 for id in ids] == [0, 1, 2, 3]  # one of each quarter
    assert [row.text is not None and f"Say {id[1:]}." in row.text for id, row in zip(ids, trial.rows, strict=True)]
    assert (trial.total, trial.result.counts.total, trial.result.counts.succeeded) == (40, 4, 4)
    assert trial.batch_cost and trial.direct_cost and trial.result.cost_usd
    assert float(trial.direct_cost.usd) == pytest.approx(10 * float(trial.result.cost_usd))
    assert float(trial.batch_cost.usd) == pytest.approx(float(trial.direct_cost.usd) / 2)
    assert trial.direct_cost.low and trial.direct_cost.high
    assert float(trial.direct_cost.low) <= float(trial.direct_cost.usd) <= float(trial.direct_cost.high)
    # Nothing is left, nothing was bought as a batch, and each row was sent once.
    assert await left(desk) == []
    assert (await desk.bought(), (await desk.sandbox.live())["calls"]) == (0, 4)
    assert await desk.client.find(file, **desk.fields()) is None
    id = await desk.start(file)
    assert (await desk.client.result(id)).counts.succeeded == 40
    assert (await desk.bought(), (await desk.sandbox.live())["calls"]) == (1, 4)
    # A second try is another one, also of a batch that has ended.
    again = await tried(desk, file, rows=4)
    assert (again.result.batch_id != trial.result.batch_id, [row.custom_id for row in again.rows]) == (True, ids)
    assert all(path.startswith(f"{id}/") for path in await left(desk))


async def test_a_try_takes_rows_as_they_come_and_all_of_them_where_there_are_no_more(desk: Desk) -> None:
    trial = await tried(
        desk, {"a": "Say one.", "b": "[[sandbox:invalid_request]]"}, rows=20, output="elsewhere", metadata={"x": "y"}
    )
    assert [row.custom_id for row in trial.rows] == ["a", "b"]
    assert (trial.rows[0].status, trial.rows[1].status) == (RowStatus.SUCCEEDED, RowStatus.FAILED)
    assert trial.rows[1].error and trial.rows[1].error.type is ErrorClass.INVALID_REQUEST
    # As if every row succeeded, and so with a range that says nothing: one row alone did.
    assert trial.direct_cost and trial.rows[0].cost_usd
    assert float(trial.direct_cost.usd) == pytest.approx(2 * float(trial.rows[0].cost_usd))
    assert trial.facts()["tried"] == 2
    assert await left(desk) == []


async def test_a_try_of_which_no_row_succeeds_says_why_and_names_no_file_that_is_gone(desk: Desk) -> None:
    trial = await tried(desk, {"a": "[[sandbox:invalid_request]]"})
    assert trial.result.error == "No row succeeded: 1 invalid_request."
    assert await left(desk) == []


async def test_a_price_that_is_not_known_makes_no_cost(desk: Desk) -> None:
    trial = await tried(desk, {"a": "Say one.", "b": "Say two."}, rows=1, first=True, model="a-model-of-our-own")
    assert [row.custom_id for row in trial.rows] == ["a"]
    assert (trial.batch_cost, trial.direct_cost) == (None, None)
    assert trial.result.unpriced.models == {"a-model-of-our-own": 1}


async def test_what_cannot_be_tried_is_refused_in_a_sentence_before_anything_is_sent(
    desk: Desk, tmp_path: Path
) -> None:
    good = written(tmp_path, "Say one.")
    for count in (0, 1001):
        with pytest.raises(InvalidSpec, match="between 1 and 1,000"):
            await tried(desk, good, rows=count)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(InvalidInput, match="is empty: it holds no requests"):
        await tried(desk, empty)
    with pytest.raises(DurabatchError, match="There is no provider 'nobody'"):
        await tried(desk, good, provider="nobody")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"custom_id": "a", "input": "x"}\n\n\n{"custom_id": "b"}\n')
    with pytest.raises(InvalidInput) as refused:
        await tried(desk, bad)
    assert [(one.line, str(one).partition(":")[0]) for one in refused.value.problems] == [(4, "line 4")]
    assert await left(desk) == []
    assert (await desk.sandbox.live())["calls"] == 0


async def test_a_try_that_is_broken_off_is_cancelled_and_leaves_nothing(desk: Desk, tmp_path: Path) -> None:
    await desk.sandbox.settings(live_seconds=600)
    running, id = asyncio.Event(), ""

    def seen(progress: Any) -> None:
        nonlocal id
        id = progress.batch_id
        if progress.phase is Phase.RUNNING:
            running.set()

    said: list[str] = []
    trying = asyncio.create_task(tried(desk, written(tmp_path, "Say one.", "Say two."), report=seen, say=said.append))
    await running.wait()
    while not (await desk.sandbox.live())["open"]:
        await asyncio.sleep(0.05)
    trying.cancel()
    while not said:
        await asyncio.sleep(0)
    trying.cancel()  # a second one does not interrupt the clean-up
    with pytest.raises(asyncio.CancelledError):
        await trying
    assert await left(desk) == []
    assert (await desk.client.result(id)).status is BatchStatus.CANCELED
    assert (await desk.sandbox.live())["how"].get("dropped") == 2
    assert said == [
        "Ending the try: calls under way are dropped, and what it has stored is removed.",
        "The try is over, and nothing of it is left. Rows that were answered by then are paid for.",
    ]


async def test_temporal_itself_ends_a_try_that_nobody_works_on(idle: Desk, tmp_path: Path) -> None:
    file = written(tmp_path, "Say one.")
    trying = asyncio.create_task(tried(idle, file, deadline="1s"))
    started = None
    while started is None:
        await asyncio.sleep(0.05)
        async for found in idle.client.temporal.list_workflows(f"TaskQueue = '{idle.client.task_queue}'"):
            started = await idle.client.temporal.get_workflow_handle(found.id).describe()
    limit = started.raw_description.execution_config.workflow_execution_timeout.ToTimedelta()
    assert (started.status, limit.total_seconds()) == (WorkflowExecutionStatus.RUNNING, 1801)
    assert any(path.endswith("/~try.json") for path in await left(idle))
    # Whoever terminates it has its folder removed as well.
    await idle.client.temporal.get_workflow_handle(started.id).terminate()
    with pytest.raises(DurabatchError, match="ended at Temporal"):
        await trying
    assert await left(idle) == []


@pytest.mark.slow  # its end is waited for for 15 s
async def test_what_is_left_of_a_try_that_cannot_be_ended_now_is_said(idle: Desk, tmp_path: Path) -> None:
    said: list[str] = []
    trying = asyncio.create_task(tried(idle, written(tmp_path, "Say one."), say=said.append))
    while not any(path.endswith("/~try.json") for path in await left(idle)):
        await asyncio.sleep(0.05)
    while not [one async for one in idle.client.temporal.list_workflows(f"TaskQueue = '{idle.client.task_queue}'")]:
        await asyncio.sleep(0.05)
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    assert "could not be cleared up (it has not ended within 15 s). It ends by itself within 1.5 hours" in said[1]
    assert any(path.endswith("/~try.json") for path in await left(idle))  # by which gc knows it
