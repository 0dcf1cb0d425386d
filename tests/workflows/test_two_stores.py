"""Two deployments, a staging and a production for example: two Temporals, two stores, one provider account, one id."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from durabatch.activities.store import Store
from durabatch.clients.gc.at_providers import Upload
from durabatch.clients.gc.sweep import Sweep
from durabatch.contract import BatchStatus
from durabatch.workers import Settings
from support.house import KEY, House

pytestmark = pytest.mark.slow

#: The provider works on, for as long as the test wants; or ends at once.
HELD, LET_GO = {"finish_after_polls": 100_000}, {"finish_after_polls": 0}
both = pytest.mark.parametrize("provider", ["sandbox", "claude"])
Handles = list[WorkflowHandle[Any, Any]]


@pytest.fixture
async def houses(house: House, server: str, tmp_path: Path) -> tuple[House, House]:
    """A deployment, and another one: all that they share is the provider, its account and the ids of their batches."""
    namespace = f"staging-{uuid.uuid4().hex[:8]}"
    service = house.client.workflow_service
    day = Duration(seconds=24 * 3600)
    await service.register_namespace(
        RegisterNamespaceRequest(namespace=namespace, workflow_execution_retention_period=day)
    )
    client = await Client.connect(server, namespace=namespace, data_converter=pydantic_data_converter)
    while True:  # until every part of the server knows it
        with contextlib.suppress(RPCError):
            await service.describe_namespace(DescribeNamespaceRequest(namespace=namespace))
            await client.count_workflows()
            break
        await asyncio.sleep(0.1)
    config = tmp_path / "staging.toml"
    config.write_text((tmp_path / "durabatch.toml").read_text().replace(str(house.store), str(tmp_path / "staging")))
    settings = Settings.load(config, {"KEY": KEY})
    return house, replace(house, client=client, settings=settings, store=tmp_path / "staging", handles=[])


async def started(houses: tuple[House, House], provider: str) -> Handles:
    """Start the same batch in one, and in the other once the first has bought; wait until the second has as well."""
    handles = []
    for house in houses:
        handles.append(await house.start(3, id="nightly", provider=provider))
        await house.until(handles[-1], lambda p: p.provider_batch_id and p.next_poll_at)
    return handles


async def statuses(houses: tuple[House, House], handles: Handles) -> list[str]:
    """Return what the provider says of the batch that each of the two follows."""
    known = {batch["id"]: batch["status"] for batch in await houses[0].batches()}
    followed = [(await house.progress(handle)).provider_batch_id for house, handle in zip(houses, handles, strict=True)]
    return [known[str(batch_id)] for batch_id in followed]


@both
async def test_two_deployments_that_share_an_account_and_an_id_each_buy_their_own(
    houses: tuple[House, House], provider: str
) -> None:
    await houses[0].admin.settings(**HELD)
    async with houses[0].worker(), houses[1].worker():
        handles = await started(houses, provider)
        await houses[0].admin.settings(**LET_GO)
        results = [await handle.result() for handle in handles]
    ends = [(one.status, one.counts.succeeded, len(one.provider_batches)) for one in results]
    assert ends == [(BatchStatus.COMPLETED, 3, 1)] * 2
    (first,), (second,) = (one.provider_batches for one in results)
    assert (first.id == second.id, first.adopted, second.adopted) == (False, False, False)
    assert [first.marker, second.marker] == [house.marker("nightly") for house in houses]
    assert {batch["id"]: batch["rows_billed"] for batch in await houses[0].batches()} == {first.id: 3, second.id: 3}
    for house, one in zip(houses, (first, second), strict=True):
        rows = [(row["custom_id"], row["provider_batch_id"]) for row in house.results("nightly")]
        assert rows == [(f"r{n}", one.id) for n in range(3)]


@both
async def test_a_cancel_in_one_deployment_leaves_the_batch_of_another_alone(
    houses: tuple[House, House], provider: str
) -> None:
    await houses[0].admin.settings(**HELD)
    async with houses[0].worker(), houses[1].worker():
        handles = await started(houses, provider)
        await handles[0].signal("cancel")
        while (await statuses(houses, handles))[0] == "in_progress":
            await asyncio.sleep(0.05)
        assert (await statuses(houses, handles))[1] == "in_progress"
        await houses[0].admin.settings(**LET_GO)
        results = [await handle.result() for handle in handles]
    assert [(one.status, one.counts.canceled, one.counts.succeeded) for one in results] == [
        (BatchStatus.CANCELED, 3, 0),
        (BatchStatus.COMPLETED, 0, 3),
    ]


@both
async def test_a_clean_up_of_one_store_counts_what_is_of_another_and_leaves_it_alone(
    houses: tuple[House, House], provider: str
) -> None:
    ours, theirs = houses
    await ours.admin.settings(**HELD)
    async with ours.worker(), theirs.worker():
        for handle in await started(houses, provider):
            await handle.terminate()
        clearing = Sweep(
            ours.client,
            Store.open(str(ours.store)),
            [ours.settings.provider(provider)],
            rest=timedelta(0),
            results=True,
            say=lambda words: None,
        )
        found = await clearing.look()
        removed = await clearing.remove(found, orphans=True)
        left = {batch["status"] for batch in await ours.batches() if batch["id"] not in removed.canceled}
        assert left == {"in_progress"}
        if provider == "sandbox":
            assert [one.found.marker for one in found.orphans] == [ours.marker("nightly")]
            assert removed.canceled == [found.orphans[0].found.batch.id]
            assert found.elsewhere == {provider: 1}
            files = {kind: len(files) for kind, files in found.uploads[provider].items()}
            assert files == {Upload.AT_WORK: 1, Upload.ELSEWHERE: 1}
        else:  # Anthropic's batches have no markers, so none is ever found to be followed by nobody
            assert (found.orphans, removed.canceled) == ([], [])
        await ours.admin.settings(**LET_GO)
        again = await theirs.start(3, id="nightly", provider=provider)
        result = await again.result()
    assert (result.status, result.counts.succeeded, len(await ours.batches())) == (BatchStatus.COMPLETED, 3, 2)
