"""Direct mode whose store is a bucket: what is kept there, by one worker and the next one."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator

import pytest
from temporalio.client import WorkflowHandle

from durabatch.activities.store import Store
from durabatch.contract import BatchResult, BatchSpec, BatchStatus
from durabatch.contract.layout import parse_name
from durabatch.workflows import BatchWorkflow
from support.bucket import open_bucket
from support.house import House

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

ROWS = 60


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with open_bucket(monkeypatch) as url:
        yield url


async def test_a_worker_that_stops_is_followed_by_one_that_sends_the_rest(house: House, bucket: str) -> None:
    here = house.settings.store.model_copy(update={"url": bucket})
    provider = house.settings.provider("sandbox").model_copy(update={"max_concurrent_requests": 4})
    house.settings = house.settings.model_copy(update={"store": here}).with_provider(provider)
    await house.admin.settings(live_seconds=0.1)
    spec = BatchSpec(
        provider="sandbox",
        model="gpt-4o-mini",
        mode="direct",
        requests=[{"custom_id": f"r{n}", "input": f"Row {n}."} for n in range(ROWS)],
    )
    id = f"bucket-{secrets.token_hex(5)}"
    async with house.worker():
        handle: WorkflowHandle[object, BatchResult] = await house.client.start_workflow(
            BatchWorkflow.run, spec, id=id, task_queue=house.task_queue
        )
        house.handles.append(handle)
        while (await house.admin.live())["how"].get("answered", 0) < 10:
            await asyncio.sleep(0.05)
    async with house.worker():
        result = await handle.result()
    assert (result.status, result.counts.succeeded, result.repeated) == (BatchStatus.COMPLETED, ROWS, 0)
    live = await house.admin.live()
    assert (live["calls"], live["ids"]) == (ROWS, ROWS)
    store = Store.open(bucket)
    rows = [json.loads(line) for line in (await store.read(f"{id}/results.jsonl")).splitlines()]
    assert [row["custom_id"] for row in rows] == [f"r{n}" for n in range(ROWS)]
    names = [parse_name(path.removeprefix(f"{id}/")) for path, _ in await store.list(id)]
    assert not [name for name in names if name is not None and name.run is not None]  # what the runs kept is joined
