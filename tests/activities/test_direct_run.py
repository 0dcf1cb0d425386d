"""The rows of an attempt, run directly: RUN_ROWS and COLLECT against the sandbox, over real HTTP."""

from __future__ import annotations

from typing import Any

from durabatch.activities.direct.collect import Collect
from durabatch.activities.direct.run import RunRows
from durabatch.contract import Mode
from durabatch.contract.steps import AttemptRecord, Collected, CollectRequest, Ran, RunRequest

from .conftest import Desk, chat


async def run(desk: Desk, **info: Any) -> Ran:
    request = RunRequest(attempt=desk.attempt, account=desk.summary.provider.account, spec=desk.spec)
    return await desk.step(RunRows(desk.resources).run_rows, request, **info)


async def collect(desk: Desk) -> Collected:
    request = CollectRequest(attempt=desk.attempt, account=desk.summary.provider.account)
    return await desk.step(Collect(desk.resources).collect, request)


async def test_a_shard_runs_from_its_rows_to_its_results(desk: Desk) -> None:
    await desk.plan(*(chat(f"row {number}") for number in range(300)))
    assert await run(desk) == Ran(rows=300, kept=300)
    assert await collect(desk) == Collected(lines=300, succeeded=300)
    desk.sent.append(AttemptRecord(number=1, provider_batch_id=None, lines=300, mode=Mode.DIRECT))
    assert (await desk.settle()).counts.succeeded == 300
    assert [row["custom_id"] for row in desk.rows()] == [f"row {number}" for number in range(300)]
    assert (await desk.sandbox.books())["counts"]["live"]["openai.chat"] == 300
