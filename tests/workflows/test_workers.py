"""What workers share, and what one broken provider means for the others."""

from __future__ import annotations

import asyncio
import logging

import pytest
from pydantic import SecretStr
from temporalio.client import WorkflowFailureError
from temporalio.worker import Worker

from durabatch.activities.providers import ProviderSettings
from durabatch.contract import BatchStatus
from durabatch.workers import BatchPlugin
from support.house import House


async def test_a_worker_that_stops_leaves_the_calls_of_another_one_with_its_plugin_alone(house: House) -> None:
    plugin = BatchPlugin(house.settings)
    await house.admin.fault("batches.create", "hold", times=1)
    async with Worker(house.client, task_queue=house.task_queue, plugins=[plugin]):
        async with Worker(house.client, task_queue=f"{house.task_queue}-other", plugins=[plugin]):
            handle = await house.start(2)
            while not any(fault["waiting"] for fault in await house.admin.faults()):
                await asyncio.sleep(0.05)
        await house.admin.clear()
        result = await handle.result()
        assert result.status is BatchStatus.COMPLETED
    # The create's answer came: had its connection been closed, it would be noted as lost.
    noted = [
        event.activity_task_completed_event_attributes.result.payloads[0].data
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_completed_event_attributes")
    ]
    assert any(b'"answer":"created"' in data for data in noted) and not any(
        b'"answer":"lost"' in data for data in noted
    )


async def test_a_worker_names_a_provider_that_cannot_be_set_up_and_serves_the_others(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    broken = ProviderSettings(
        name="broken",
        kind="openai",
        base_url=f"{house.sandbox.url}/v1",
        api_key=SecretStr("sk-abc\u2026xyz"),
        api_key_env="BROKEN_KEY",
    )
    house.settings = house.settings.with_provider(broken)
    caplog.set_level(logging.ERROR, "durabatch")
    async with house.worker():
        good = await (await house.start(2)).result()
        with pytest.raises(WorkflowFailureError) as caught:
            await (await house.start(2, provider="broken")).result()
    assert "character 7 of 10 is HORIZONTAL ELLIPSIS" in caplog.text and "BROKEN_KEY" in caplog.text
    assert good.status is BatchStatus.COMPLETED
    assert "HORIZONTAL ELLIPSIS" in str(caught.value.cause) and "abc" not in str(caught.value.cause)
