"""Webhooks to tenants: from a batch's end to a receiver over real HTTP, by a durable workflow."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI, NotFoundError
from temporalio.client import Client

from durabatch.activities.task_queues import worker_polls
from durabatch.activities.webhooks.announce import wake
from durabatch.contract.webhooks import DELIVER, webhook_workflow_id
from support.gateway import jsonl, line, open_gateway
from support.house import House, asked
from support.webhooks import OTHER_SECRET, SECRET, Receiver, receiving

ORDER: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
SECRETS = {"HOOK": SECRET, "OTHER_HOOK": OTHER_SECRET}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def name() -> str:
    """A webhook's name of the test's own: the workflow of one of that name may still run for another test's store."""
    return f"hook-{secrets.token_hex(4)}"


def webhook(url: str, *, secret_env: str = "HOOK", allow_private: bool = True, **fields: str) -> str:
    lines = {"url": url, "secret_env": secret_env, **fields}
    text = "".join(f'{name} = "{value}"\n' for name, value in lines.items())
    return f"[[gateway.webhooks]]\n{text}allow_private = {str(allow_private).lower()}\n"


async def order(client: AsyncOpenAI, rows: int = 1) -> str:
    file = await client.files.create(file=jsonl([line(f"r{n}") for n in range(rows)]), purpose="batch")
    return (await client.batches.create(input_file_id=file.id, **ORDER)).id


async def deliveries(client: AsyncOpenAI) -> list[dict[str, Any]]:
    page: Any = await client.get("/webhooks/deliveries", cast_to=object)
    assert page["has_more"] is False
    found: list[dict[str, Any]] = page["data"]
    return found


async def until(client: AsyncOpenAI, status: str) -> dict[str, Any]:
    """Wait until the newest event is as wanted; the test's own time limit bounds it."""
    while not (found := await deliveries(client)) or found[0]["status"] != status:
        await asyncio.sleep(0.1)
    return found[0]


async def history(client: Client, tenant: str, name: str) -> str:
    handle = client.get_workflow_handle(webhook_workflow_id(tenant, name))
    return json.dumps((await handle.fetch_history()).to_json_dict())


async def test_an_event_is_sent_at_a_batchs_end_and_can_be_sent_again_by_hand(
    house: House, receiver: Receiver, name: str
) -> None:
    lines = webhook(f"{receiver.url}/in?token=t", name=name)
    async with open_gateway(house, lines, environ=SECRETS) as client, house.worker():
        batch_id = await order(client)
        (message,) = await receiver.until(1)
        event = message.unwrapped()
        assert (event.type, event.data.id, message.id) == ("batch.completed", batch_id, event.id)
        batch = await client.batches.retrieve(batch_id)  # what it reports is there already
        assert (batch.status, batch.completed_at) == ("completed", event.created_at) and batch.output_file_id
        shown = await until(client, "delivered")
        assert (shown["id"], shown["batch_id"], shown["response_status"]) == (event.id, batch_id, 204)
        again: Any = await client.post(f"/webhooks/deliveries/{event.id}/resend", cast_to=object)
        assert (again["id"], again["status"]) == (event.id, "pending")
        assert (await receiver.until(2))[1].id == event.id
        await until(client, "delivered")
        failed = (await client.batches.create(input_file_id="file-none", **ORDER)).id
        third = (await receiver.until(3))[2].unwrapped()
        assert (third.type, third.data.id) == ("batch.failed", failed)
        assert [one["batch_id"] for one in await deliveries(client)] == [failed, batch_id]
        told = await history(house.client, "default", name)
    for hidden in ("token", receiver.url, SECRET, batch_id, event.id):
        assert hidden not in told


async def test_a_webhook_on_a_task_queue_that_workers_have_left_is_sent_from_where_they_are(
    house: House, receiver: Receiver, name: str
) -> None:
    await wake(house.client, "nobody", "default", name)
    async with open_gateway(house, webhook(receiver.url, name=name), environ=SECRETS) as client, house.worker():
        batch_id = await order(client)
        assert (await receiver.until(1))[0].unwrapped().data.id == batch_id
        await until(client, "delivered")


async def test_a_webhook_is_not_moved_to_a_task_queue_without_workers(house: House, name: str) -> None:
    async with house.worker(without={DELIVER.name}):  # so that it goes on
        await wake(house.client, house.task_queue, "default", name)
        webhook = house.client.get_workflow_handle(webhook_workflow_id("default", name))
        before = await webhook.describe()
        while not await worker_polls(house.client, house.task_queue):
            await asyncio.sleep(0.1)
        await wake(house.client, "nobody", "default", name)  # as a gateway does that has not been restarted yet
        after = await webhook.describe()
        assert (after.run_id, after.task_queue) == (before.run_id, house.task_queue)
        await webhook.terminate()


@pytest.mark.slow
async def test_each_tenant_is_sent_the_events_of_its_own_batches_only(
    house: House, receiver: Receiver, name: str
) -> None:
    keys = "".join(
        f'[[gateway.keys]]\ntenant = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
        for name in ("search", "ads")
    )
    hooks = webhook(f"{receiver.url}/search", tenant="search", name=name) + webhook(
        f"{receiver.url}/ads", tenant="ads", name=name, secret_env="OTHER_HOOK"
    )
    async with open_gateway(house, keys + hooks, key="search", environ=SECRETS) as search, house.worker():
        ads = search.with_options(api_key="ads")
        theirs = {"/search": await order(search), "/ads": await order(ads)}
        for message in await receiver.until(2):
            event = message.unwrapped(SECRET if message.path == "/search" else OTHER_SECRET)
            assert event.data.id == theirs[message.path]
        for client, path in ((search, "/search"), (ads, "/ads")):
            await until(client, "delivered")
            (shown,) = await deliveries(client)
            assert shown["batch_id"] == theirs[path]
            listed: Any = await client.get("/webhooks", cast_to=object)
            assert [(one["name"], one["status"]) for one in listed["data"]] == [(name, "enabled")]
            other = ads if client is search else search
            with pytest.raises(NotFoundError):
                await other.post(f"/webhooks/deliveries/{shown['id']}/resend", cast_to=object)
        # Each at least once.
        assert {
            message.unwrapped(SECRET if message.path == "/search" else OTHER_SECRET).data.id
            for message in receiver.messages
        } == set(theirs.values())


@pytest.mark.slow
async def test_a_private_address_is_refused_and_a_webhook_that_is_gone_is_enabled_by_hand(
    house: House, receiver: Receiver, name: str
) -> None:
    gone_name = f"{name}-gone"
    private = webhook(receiver.url.replace("http://127.0.0.1", "https://localhost"), allow_private=False, name=name)
    lines = private + webhook(receiver.url, name=gone_name)
    receiver.answers = lambda message: 410
    async with open_gateway(house, lines, environ=SECRETS) as client, house.worker():
        await order(client)
        await receiver.until(1)

        async def statuses() -> dict[str, str]:
            listed: Any = await client.get("/webhooks", cast_to=object)
            return {one["name"]: one["status"] for one in listed["data"]}

        async def by_name() -> dict[str, dict[str, Any]]:
            return {one["webhook"]: one for one in await deliveries(client)}

        while (await statuses())[gone_name] != "disabled" or not (await by_name())[name]["attempts"]:
            await asyncio.sleep(0.1)
        assert "not one of the internet" in (await by_name())[name]["error"]
        receiver.answers = lambda message: 200
        gone = (await by_name())[gone_name]
        assert (gone["status"], gone["response_status"]) == ("pending", 410)
        enabled: Any = await client.post(f"/webhooks/{gone_name}/enable", cast_to=object)
        assert enabled["status"] == "enabled"
        with pytest.raises(NotFoundError, match="No webhook found with name 'none'"):
            await client.post("/webhooks/none/enable", cast_to=object)
        assert (await receiver.until(2))[1].id == gone["id"]


@pytest.mark.slow
async def test_a_receiver_that_is_down_is_tried_until_it_is_there(house: House, receiver: Receiver, name: str) -> None:
    receiver.answers = lambda message: 503
    async with open_gateway(house, webhook(receiver.url, name=name), environ=SECRETS) as client:
        async with house.worker():
            await order(client)
            await receiver.until(1)
        # The worker is gone, and what it knew is in the store.
        receiver.answers = lambda message: 200
        async with house.worker():
            first, *_, last = await receiver.until(2)
            assert (first.id, first.body) == (last.id, last.body)
            # A worker that ends between the answer and its note does not count the attempt.
            assert 1 <= (await until(client, "delivered"))["attempts"] <= len(receiver.messages)
            ended = house.client.get_workflow_handle(webhook_workflow_id("default", name))
            await asked(ended.result)  # nothing is left to deliver
