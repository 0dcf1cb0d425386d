"""Keys: each is an account of its own, and some are no good."""

from hashlib import sha256

import aiohttp
import anthropic
import openai
import pytest


async def test_what_is_another_accounts_is_not_found(gpt, claude, sandbox, steps, refusal):
    batch = await steps.end(gpt, (await steps.create(gpt, steps.chat_row("a"))).id)
    params = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    inline = await claude.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
    other = gpt.with_options(api_key="sk-other")
    for call in (
        other.batches.retrieve(batch.id),
        other.batches.cancel(batch.id),
        other.files.retrieve(batch.input_file_id),
        other.files.content(batch.output_file_id),
        other.files.delete(batch.input_file_id),
        gpt.batches.retrieve(inline.id),
    ):
        assert (await refusal(call)).status_code == 404
    assert (await other.files.list()).data == [] and (await other.batches.list()).data == []
    stranger = claude.with_options(api_key="sk-other")
    with pytest.raises(anthropic.NotFoundError):
        await stranger.messages.batches.retrieve(inline.id)
    assert (await stranger.messages.batches.list()).data == []
    stolen = await other.batches.create(
        input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    message = (await steps.end(other, stolen.id)).errors.data[0].message
    assert message.startswith(f"Cannot find file {batch.input_file_id}, or organization ")
    assert (await gpt.files.content(batch.input_file_id)).content


async def test_a_revoked_key_is_refused_until_it_is_restored(gpt, claude, sandbox):
    await sandbox.revoke("sk-test")
    with pytest.raises(openai.AuthenticationError) as caught:
        await gpt.batches.list()
    assert caught.value.code == "invalid_api_key" and "sk-test" not in str(caught.value)
    with pytest.raises(anthropic.AuthenticationError):
        await claude.messages.batches.list()
    await gpt.with_options(api_key="sk-other").batches.list()
    await sandbox.restore("sk-test")
    await gpt.batches.list()


async def test_no_key_is_no_account(sandbox):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{sandbox.url}/v1/batches") as openai_answer,
        session.get(
            f"{sandbox.url}/v1/messages/batches", headers={"anthropic-version": "2023-06-01"}
        ) as anthropic_answer,
    ):
        assert (openai_answer.status, anthropic_answer.status) == (401, 401)
        assert (await openai_answer.json())["error"]["type"] == "invalid_request_error"
        assert (await anthropic_answer.json())["error"]["type"] == "authentication_error"


async def test_the_ledger_names_accounts_files_batches_and_what_was_billed(gpt, sandbox, steps):
    rows = [steps.chat_row("a"), steps.chat_row("b", "[[sandbox:server_error]]")]
    for _ in range(2):
        batch = await steps.create(gpt, *rows, metadata={"durabatch_marker": "m/0/1", "more": "x"})
        await steps.end(gpt, batch.id)
    account = sha256(b"sk-test").hexdigest()[:8]
    books = await sandbox.books()
    assert books["rows"] == {f"{account}/a": 2}
    booked = books["batches"][1]
    assert booked["id"] == batch.id and booked["account"] == account and booked["protocol"] == "openai"
    assert booked["marker"] == "m/0/1" and booked["metadata"] == {"durabatch_marker": "m/0/1", "more": "x"}
    assert (booked["status"], booked["rows"], booked["rows_billed"]) == ("completed", 2, 1)
    assert booked["input_file_id"] == batch.input_file_id and booked["cancel_requested"] is False
    assert [file["purpose"] for file in books["files"]].count("batch") == 2
    assert books["requests"]["batches.create"] == 2
    summary = await sandbox.books(summary=True)
    assert "rows" not in summary and summary["batches"] == books["batches"]


async def test_a_reset_forgets_everything(gpt, sandbox, steps):
    await sandbox.settings(batch_seconds=3600)
    await sandbox.fault("files.list", "status", status=500)
    await steps.create(gpt, steps.chat_row("a"))
    await sandbox.revoke("sk-test")
    await sandbox.reset()
    assert (await sandbox.settings())["batch_seconds"] == 0
    assert (await gpt.files.list()).data == [] and (await gpt.batches.list()).data == []
    books = await sandbox.books()
    assert (books["files"], books["batches"], books["rows"]) == ([], [], {})
    batch = await steps.end(gpt, (await steps.create(gpt, steps.chat_row("a"))).id)
    assert batch.status == "completed"
