"""The events that the sandbox sends at the end of a batch, verified by OpenAI's own client."""

from __future__ import annotations

import openai
import pytest

from durabatch.sandbox import Sandbox
from support.webhooks import OTHER_SECRET, SECRET, receiving

from .conftest import chat_row, create


async def test_an_event_is_sent_at_a_batchs_end_and_again_until_it_is_taken(
    sandbox: Sandbox, gpt: openai.AsyncOpenAI
) -> None:
    async with receiving() as receiver:
        tries = iter((503, 200))
        receiver.answers = lambda message: next(tries, 200)
        await sandbox.settings(webhook_url=f"{receiver.url}/hook?t=1", webhook_secret=SECRET)
        batch = await create(gpt, chat_row("a"))
        first, second = await receiver.until(2)
    event = second.unwrapped()
    assert (event.type, event.data.id, event.object) == ("batch.completed", batch.id, "event")
    assert (first.id, first.body, second.path) == (second.id, second.body, "/hook?t=1")
    with pytest.raises(openai.InvalidWebhookSignatureError):
        second.unwrapped(OTHER_SECRET)


async def test_a_batch_that_fails_sends_an_event_too(sandbox: Sandbox, gpt: openai.AsyncOpenAI) -> None:
    async with receiving() as receiver:
        await sandbox.settings(webhook_url=receiver.url, webhook_secret=SECRET)
        batch = await create(gpt, {"custom_id": "a"})
        (message,) = await receiver.until(1)
    assert (message.unwrapped().type, message.unwrapped().data.id) == ("batch.failed", batch.id)
