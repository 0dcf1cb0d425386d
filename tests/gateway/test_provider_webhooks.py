"""Webhooks of a provider: a batch has its results as soon as the provider has ended it, and nobody else wakes it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from standardwebhooks import Webhook
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from durabatch.contract import BatchStatus, ConfigurationError, Phase
from durabatch.contract.follower_names import FOLLOWERS
from durabatch.gateway.inbox import inboxes
from durabatch.workers import Settings
from support.gateway import open_gateway
from support.house import House, connect, open_house
from support.webhooks import OTHER_SECRET, SECRET

#: Nothing but a webhook ends a wait of this batch within the test.
SELDOM = {"first": "1h", "maximum": "1h"}
NEVER = {"finish_after_polls": 100_000}
KEYS = f'[[gateway.keys]]\ntenant = "search"\nsha256 = "{hashlib.sha256(b"search").hexdigest()}"\n'


@pytest.fixture
async def house(server: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(await connect(server), tmp_path, {"listing_lag": "1s", "timeout": "5s"}) as house:
        config = house.settings.source
        assert config is not None
        named = '[providers.sandbox]\nwebhook_secret_env = "SECRET"\n'
        config.write_text(config.read_text().replace("[providers.sandbox]\n", named))
        yield house


@pytest.fixture
async def gateway(house: House) -> AsyncIterator[str]:
    """Serve a gateway with keys, which a provider has none of; return its URL."""
    async with open_gateway(house, KEYS, environ={"SECRET": SECRET}) as client:
        yield str(client.base_url).removesuffix("/v1/")


def followers(house: House) -> list[Path]:
    folder = house.store / FOLLOWERS
    # What is being written has a name of its own, which ends with # and a number.
    return [path for path in folder.iterdir() if "#" not in path.name] if folder.exists() else []


async def until_followed(house: House, count: int) -> None:
    while len(followers(house)) < count:
        await asyncio.sleep(0.05)


def message(data: Any, secret: str = SECRET, *, id: str = "wh_1", age: float = 0) -> tuple[bytes, dict[str, str]]:
    """Return a body and its headers as OpenAI sends them."""
    body, at = json.dumps(data).encode(), datetime.fromtimestamp(time.time() - age, UTC)
    signature = Webhook(secret).sign(id, at, body.decode())
    stamp = str(int(at.timestamp()))
    return body, {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": signature}


def event(batch_id: str, type: str = "batch.completed") -> dict[str, Any]:
    return {"id": "evt_1", "object": "event", "created_at": int(time.time()), "type": type, "data": {"id": batch_id}}


async def signals(handle: WorkflowHandle[Any, Any]) -> int:
    wanted = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    return sum([event.event_type == wanted async for event in handle.fetch_history_events()])


async def until_signaled(handle: WorkflowHandle[Any, Any]) -> int:
    """Wait until a signal is in the history: one that comes during a workflow task is written when that has ended."""
    while not (count := await signals(handle)):
        await asyncio.sleep(0.05)
    return count


async def until_it_waits(house: House, handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until a batch is at the provider and its workflow has nothing to do but wait."""
    await until_followed(house, 1)
    await house.until(handle, lambda progress: progress.phase is Phase.POLLING)


async def test_a_batch_and_each_of_its_shards_are_woken_at_the_providers_end(house: House, gateway: str) -> None:
    await house.admin.settings(**NEVER, webhook_url=f"{gateway}/webhooks/sandbox", webhook_secret=SECRET)
    async with house.worker():
        one = await house.start(2, poll=SELDOM)
        several = await house.start(6, poll=SELDOM, limits={"max_rows": 2})
        await until_followed(house, 4)
        await house.admin.settings(finish_after_polls=None)
        for handle in (one, several):
            assert (await handle.result()).status is BatchStatus.COMPLETED
    assert followers(house) == []


async def test_only_what_the_provider_has_signed_wakes_a_batch(house: House, gateway: str) -> None:
    await house.admin.settings(**NEVER)
    async with house.worker(), httpx2.AsyncClient(base_url=gateway, timeout=60) as http:
        handle = await house.start(2, poll=SELDOM)
        await until_it_waits(house, handle)
        (batch,) = await house.batches()
        about, busy = event(batch["id"]), 0

        async def post(body: bytes, headers: dict[str, str], provider: str = "sandbox") -> int:
            nonlocal busy
            while (
                answer := await http.post(f"/webhooks/{provider}", content=body, headers=headers)
            ).status_code == 503:
                busy += 1  # Temporal took more than two seconds: a provider sends the event again, and so does this
            return answer.status_code

        body, headers = message(about)
        refused = [
            (body, {}, "sandbox"),
            (*message(about, OTHER_SECRET), "sandbox"),
            (*message(about, age=400), "sandbox"),
            (*message(about, age=-400), "sandbox"),
            (body + b" ", headers, "sandbox"),
            (body, {**headers, "webhook-id": "wh_2"}, "sandbox"),
            (body, {**headers, "webhook-signature": "v1"}, "sandbox"),
            (body, {**headers, "webhook-signature": "v1,%%%"}, "sandbox"),
            (body, {**headers, "webhook-timestamp": "nan"}, "sandbox"),
            (b"\xff", headers, "sandbox"),
            (body, headers, "openai"),
            (body, headers, "nobody"),
        ]
        assert [await post(*one) for one in refused] == [401] * len(refused)
        assert await post(b"x" * 65_537, headers) == 413
        harmless = [event("batch_of_another_program"), event(batch["id"], "response.completed"), [1], {"data": 7}]
        for number, data in enumerate(harmless):
            assert await post(*message(data, id=f"wh_harmless_{number}")) == 200
        assert await signals(handle) == 0
        assert [await post(body, headers) for _ in range(3)] == [200] * 3
        assert await until_signaled(handle) <= 1 + busy
        await handle.terminate()
        assert await post(*message(about, id="wh_late")) == 200


async def test_a_store_that_does_not_answer_has_the_provider_send_it_again(house: House, gateway: str) -> None:
    await house.admin.settings(**NEVER)
    async with house.worker(), httpx2.AsyncClient(base_url=gateway, timeout=60) as http:
        handle = await house.start(2, poll=SELDOM)
        await until_it_waits(house, handle)
        (batch,), (note,) = await house.batches(), followers(house)
        body, headers = message(event(batch["id"]))
        kept = note.read_bytes()
        note.unlink()
        note.symlink_to(note)  # a loop, which nobody can read
        first = (await http.post("/webhooks/sandbox", content=body, headers=headers)).status_code
        note.unlink()
        note.write_bytes(kept)
        sent = 1
        while (await http.post("/webhooks/sandbox", content=body, headers=headers)).status_code == 503:
            sent += 1  # Temporal took more than two seconds
        assert first == 503
        assert await until_signaled(handle) <= sent
        await handle.terminate()


@pytest.mark.parametrize("secret", ["", "sk-a-key", "whsec_", "whsec_%%%"])
def test_a_gateway_does_not_start_without_the_secret_that_is_named(tmp_path: Path, secret: str) -> None:
    config = tmp_path / "durabatch.toml"
    config.write_text('[providers.openai]\nwebhook_secret_env = "SECRET"\n')
    config.write_text(config.read_text() + 'kind = "openai"\n')
    with pytest.raises(
        ConfigurationError, match=r"SECRET \(providers.openai.webhook_secret_env\) must hold"
    ) as refused:
        inboxes(Settings.load(config, {"SECRET": secret}).providers)
    assert not secret or secret not in refused.value.message.replace("begins with whsec_", "")


def test_either_of_two_secrets_is_taken_while_one_takes_the_place_of_the_other(tmp_path: Path) -> None:
    config = tmp_path / "durabatch.toml"
    config.write_text('[providers.openai]\nkind = "openai"\nwebhook_secret_env = "SECRET"\n')
    found = inboxes(Settings.load(config, {"SECRET": f"{OTHER_SECRET} {SECRET}"}).providers)
    for secret in (SECRET, OTHER_SECRET):
        opened = found["openai"].opened(*message(event("batch_1"), secret))
        assert opened is not None and opened.data.id == "batch_1"


def test_a_provider_that_sends_none_cannot_be_configured_to(tmp_path: Path) -> None:
    config = tmp_path / "durabatch.toml"
    config.write_text('[providers.claude]\nkind = "anthropic"\nwebhook_secret_env = "SECRET"\n')
    with pytest.raises(ConfigurationError, match="send no webhooks"):
        Settings.load(config, {})
