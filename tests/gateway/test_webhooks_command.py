"""`durabatch webhooks`: what became of a tenant's events, sending one again, and enabling a webhook."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from support.gateway import jsonl, line, open_gateway
from support.house import KEY, House
from support.webhooks import SECRET, receiving
from support.workspace import Workspace

NAME = "command-hook"


async def command(house: House, server: str, *arguments: str) -> tuple[int | None, str, str]:
    """Run `durabatch webhooks` with the configuration of the house; return its exit code and what it printed."""
    config = house.settings.source
    assert config is not None
    if "task_queue" not in (text := config.read_text()):
        config.write_text(text.replace("[worker]\n", f'[worker]\ntask_queue = "{house.task_queue}"\n'))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "durabatch", "--config", str(config), "webhooks"),
        *arguments,
        cwd=config.parent,
        env=Workspace(config.parent).environment(TEMPORAL_ADDRESS=server, KEY=KEY, HOOK=SECRET),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def reply(house: House, server: str, *arguments: str) -> Any:
    code, out, err = await command(house, server, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.slow
async def test_events_are_listed_and_sent_again_and_a_webhook_that_was_disabled_is_enabled(
    house: House, server: str
) -> None:
    async with receiving() as receiver:
        receiver.answers = lambda message: 410
        lines = (
            f'[[gateway.webhooks]]\nname = "{NAME}"\nurl = "{receiver.url}"\nsecret_env = "HOOK"\nallow_private = true'
        )
        async with open_gateway(house, lines, environ={"HOOK": SECRET}) as client, house.worker():
            file = await client.files.create(file=jsonl([line("r0")]), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            (message,) = await receiver.until(1)
            while (found := await reply(house, server, "list"))["webhooks"] != {NAME: "disabled"}:
                await asyncio.sleep(0.1)
            (event,) = found["deliveries"]
            assert (event["id"], event["batch_id"], event["status"]) == (message.id, batch.id, "pending")
            receiver.answers = lambda message: 204
            assert await reply(house, server, "enable", NAME) == {"tenant": "default", "name": NAME}
            assert (await receiver.until(2))[1].id == event["id"]
            while (found := await reply(house, server, "list"))["deliveries"][0]["status"] != "delivered":
                await asyncio.sleep(0.1)
            assert found["webhooks"] == {NAME: "enabled"}
            again = await reply(house, server, "resend", event["id"])
            assert (again["id"], again["batch_id"]) == (event["id"], batch.id)
            assert (await receiver.until(3))[2].id == event["id"]
            code, out, err = await command(house, server, "list")
            assert (code, err) == (0, f"The webhook {NAME} of default is enabled.\n")
            assert out.startswith(f"{event['id']}  batch.completed  {batch.id}  {NAME}  ")
