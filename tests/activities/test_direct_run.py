"""The rows of an attempt, run directly: RUN_ROWS and COLLECT against the sandbox, over real HTTP."""

from __future__ import annotations

from durabatch.contract import Mode
from durabatch.contract.steps import AttemptRecord, Collected, Ran

from .conftest import Desk, chat


async def test_a_shard_runs_from_its_rows_to_its_results(desk: Desk) -> None:
    await desk.plan(*(chat(f"row {number}") for number in range(300)))
    assert await desk.run_rows() == Ran(rows=300, kept=300)
    assert await desk.collect() == Collected(lines=300, succeeded=300)
    desk.sent.append(AttemptRecord(number=1, provider_batch_id=None, lines=300, mode=Mode.DIRECT))
    assert (await desk.settle()).counts.succeeded == 300
    assert [row["custom_id"] for row in desk.rows()] == [f"row {number}" for number in range(300)]
    assert (await desk.sandbox.books())["live"]["billed"]["chat"] == 300
