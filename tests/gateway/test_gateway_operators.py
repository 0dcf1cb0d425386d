"""The gateway's steps, paused and reset by an operator, and unknown to an older worker at first."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client

from durabatch.contract.gateway_batch import PUBLISH, GatewayStatus
from durabatch.contract.gateway_limits import TURN, TenantLimits
from durabatch.contract.webhooks import DELIVER, webhook_workflow_id
from support.gateway import Desk, line, open_gateway
from support.house import House
from support.operator import pause_activity, reset_activity, unpause_activity
from support.webhooks import Message, receiving

from .test_tenant_webhooks import SECRETS, deliveries, order, until, webhook

pytestmark = pytest.mark.slow
PAUSED = PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED
LIMITS = TenantLimits(max_batches=1)


async def pending(client: Client, workflow_id: str, step: str) -> Any:
    """Wait until a step is under way or waits for its next try; return what Temporal says of it."""
    while True:
        found = (await client.get_workflow_handle(workflow_id).describe()).raw_description.pending_activities
        for one in found:
            if one.activity_type.name == step:
                return one
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("step", [TURN.name, PUBLISH.name])
async def test_a_step_that_is_paused_and_reset_goes_on(house: House, step: str) -> None:
    desk = Desk(house, f"tenant-{secrets.token_hex(4)}")
    batch = desk.batch(await desk.upload([line("r0")]), limits=LIMITS)
    async with house.worker(without={step}):  # so it fails, and is tried again
        handle = await desk.start(batch)
        found = await pending(house.client, handle.id, step)
        await pause_activity(house.client, handle.id, found.activity_id)
    async with house.worker():
        await asyncio.sleep(1)
        assert (await pending(house.client, handle.id, step)).paused and await desk.final(batch) is None
        await reset_activity(house.client, handle.id, found.activity_id)
        await unpause_activity(house.client, handle.id, found.activity_id)
        ended = await handle.result()
    assert (ended.status, ended) == (GatewayStatus.COMPLETED, await desk.final(batch))
    assert len(await house.batches()) == 1


@pytest.mark.parametrize("how", ["pause", "reset"])
async def test_a_delivery_that_is_paused_or_reset_is_made_again(house: House, how: str) -> None:
    name = f"hook-{secrets.token_hex(4)}"
    async with receiving() as receiver:
        held = asyncio.Event()

        async def answer(message: Message) -> int:
            if len(receiver.messages) == 1:
                await held.wait()
            return 204

        receiver.answers = answer
        async with open_gateway(house, webhook(receiver.url, name=name), environ=SECRETS) as client, house.worker():
            await order(client)
            await receiver.until(1)
            workflow_id = webhook_workflow_id("default", name)
            found = await pending(house.client, workflow_id, DELIVER.name)
            if how == "pause":
                await pause_activity(house.client, workflow_id, found.activity_id)
                while (
                    await pending(house.client, workflow_id, DELIVER.name)
                ).state != PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED:
                    await asyncio.sleep(0.1)
                assert len(receiver.messages) == 1
                await unpause_activity(house.client, workflow_id, found.activity_id)
            else:
                await reset_activity(house.client, workflow_id, found.activity_id)
            first, second, *_ = await receiver.until(2)
            held.set()
            assert (first.id, first.body) == (second.id, second.body)
            await until(client, "delivered")
            (shown,) = await deliveries(client)
            assert shown["id"] == first.id
