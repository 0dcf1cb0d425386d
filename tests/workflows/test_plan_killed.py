"""A plan of many rows whose worker is killed: another one goes on where it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from temporalio.client import WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import default
from temporalio.testing import WorkflowEnvironment

from durabatch.activities.store import Store
from durabatch.contract import BatchSpec, OnInvalidRow
from durabatch.contract.steps import PlanRequest, PlanSummary

#: A worker with the real step. Its workflow calls nothing else, with a heartbeat timeout that a test can wait for.
WORKER = """
import asyncio, sys
from datetime import timedelta
from pydantic import SecretStr
from temporalio import workflow
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from durabatch.activities.plan import Plan
from durabatch.activities.providers import ProviderSettings
from durabatch.activities.resources import Resources
from durabatch.activities.store import Store
from durabatch.contract.steps import PLAN, PlanRequest, PlanSummary

@workflow.defn(name="PlanOnly")
class PlanOnly:
    @workflow.run
    async def run(self, request: PlanRequest) -> PlanSummary:
        return await workflow.execute_activity(
            PLAN.name, request, result_type=PlanSummary,
            start_to_close_timeout=timedelta(minutes=2), heartbeat_timeout=timedelta(seconds=1.5),
        )

def settings(name):
    return ProviderSettings(name=name, kind="openai", base_url="http://127.0.0.1:9/v1", api_key=SecretStr("k"))

async def main(address, queue, store):
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    plan = Plan(Resources(Store.open(store), settings))
    async with Worker(
        client, task_queue=queue, workflows=[PlanOnly], activities=[plan.plan],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.contextmanager
def worker(*arguments: str) -> Iterator[None]:
    """Run a worker process; leaving the block kills it (SIGKILL)."""
    with subprocess.Popen([sys.executable, "-c", WORKER, *arguments]) as process:
        try:
            yield
        finally:
            process.kill()


async def closed_shards(handle: WorkflowHandle[object, PlanSummary]) -> int:
    """How many shards are closed, as the last heartbeat tells."""
    description = await handle.describe()
    for pending in description.raw_description.pending_activities:
        for payload in pending.heartbeat_details.payloads:
            (details,) = await default().decode([payload])
            return int((details.get("place") or {}).get("shards", 0))
    return 0


@pytest.mark.slow  # its input has to outlast a kill
async def test_a_plan_goes_on_where_a_killed_worker_was(tmp_path: Path) -> None:
    number, each = 250_000, 1_000
    store = Store.open(str(tmp_path / "store"))
    with (tmp_path / "store/input.jsonl").open("wb") as out:
        for n in range(number):
            out.write(b'{"custom_id":"r-%d","input":"Hi."}\n' % n)
        out.write(b"{\n")
    spec = BatchSpec(
        provider="gpt",
        input=store.uri("input.jsonl"),
        model="m",
        limits={"max_rows": each},  # type: ignore[arg-type]
        on_invalid_row=OnInvalidRow.FAIL_ROW,
    )
    request = PlanRequest(batch_id="b-1", spec=spec, now=datetime.now(UTC), execution="run-1")
    indexes = [tmp_path / f"store/b-1/shards/{shard:05d}/rows.jsonl" for shard in range(number // each)]
    queue = f"plan-{uuid.uuid4().hex[:8]}"
    binary = shutil.which("temporal")
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=binary, data_converter=pydantic_data_converter
    ) as environment:
        address = environment.client.service_client.config.target_host
        handle: WorkflowHandle[object, PlanSummary] = await environment.client.start_workflow(
            "PlanOnly", request, id=queue, task_queue=queue, result_type=PlanSummary
        )
        with worker(address, queue, str(tmp_path / "store")):
            while not (closed := await closed_shards(handle)):
                await asyncio.sleep(0.05)
        assert not (tmp_path / "store/b-1/plan.json").exists()
        before = [path.stat().st_ino for path in indexes[:closed]]
        with worker(address, queue, str(tmp_path / "store")):
            summary = await handle.result()
    assert (summary.rows, summary.invalid_rows) == (number + 1, 1)
    assert summary.shards == len(indexes) + 1
    # What was closed was not even written again, and the rest is there.
    assert 0 < closed < len(indexes)
    assert [path.stat().st_ino for path in indexes[:closed]] == before
    found = [json.loads(line)[0] for path in indexes for line in path.read_bytes().splitlines()]
    assert found == [f"r-{n}" for n in range(number)]
