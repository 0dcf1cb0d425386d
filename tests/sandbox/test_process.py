"""The command, and what survives the death of the process."""

import asyncio
import os
import signal
import sys
from collections import Counter

import openai
import pytest

from durabatch.sandbox import Sandbox, SandboxError


@pytest.mark.parametrize("polls", [0, 3, 9])
async def test_a_kill_in_the_middle_of_a_batch_loses_nothing_and_bills_nothing_twice(process, steps, polls):
    ids = [f"r{i}" for i in range(10_000)]
    async with process.client() as gpt:
        batch = await steps.create(gpt, *(steps.chat_row(id) for id in ids), metadata={"durabatch_marker": "m"})
        for _ in range(polls):  # how far it is by then does not matter
            await gpt.batches.retrieve(batch.id)
    await process.stop(signal.SIGKILL)
    await process.start()
    async with process.client() as gpt:
        batch = await steps.end(gpt, batch.id)
        assert (batch.status, batch.request_counts.completed) == ("completed", 10_000)
        lines = await steps.read(gpt, batch.output_file_id)
        assert Counter(line["custom_id"] for line in lines) == Counter(ids)
        assert [listed.metadata async for listed in gpt.batches.list()] == [{"durabatch_marker": "m"}]
    books = await process.books()
    assert len(books["rows"]) == 10_000 and set(books["rows"].values()) == {1}
    assert books["batches"][0]["rows_billed"] == 10_000


async def test_settings_faults_keys_polls_and_submissions_survive_a_kill(process, steps):
    async with process.client() as gpt:
        row = steps.chat_row("a", "[[sandbox:rate_limited times=1]]")
        first = await steps.end(gpt, (await steps.create(gpt, row)).id)
        assert first.request_counts.failed == 1
        await process.settings(finish_after_polls=2)
        await process.fault("files.list", "status", status=500, times=2)
        with pytest.raises(openai.InternalServerError):
            await gpt.files.list()
        await process.revoke("sk-revoked")
        batch = await steps.create(gpt, row)
        await gpt.batches.retrieve(batch.id)
    await process.stop(signal.SIGKILL)
    await process.start()
    async with process.client() as gpt:
        with pytest.raises(openai.InternalServerError):
            await gpt.files.list()
        await gpt.files.list()
        with pytest.raises(openai.AuthenticationError):
            await gpt.with_options(api_key="sk-revoked").files.list()
        seen = [(await gpt.batches.retrieve(batch.id)) for _ in range(2)]
        assert [batch.status for batch in seen] == ["in_progress", "completed"]
        assert seen[1].request_counts.completed == 1
    assert (await process.books())["requests"]["batches.create"] == 2


async def test_a_cancelled_batch_is_cancelled_after_a_kill(process, steps):
    await process.settings(batch_seconds=3600, cancel_fraction=0.5, cancel_polls=1)
    async with process.client() as gpt:
        batch = await steps.create(gpt, *(steps.chat_row(f"r{i}") for i in range(4)))
        await gpt.batches.cancel(batch.id)
    await process.stop(signal.SIGKILL)
    await process.start("--cancel-polls", "0")
    async with process.client() as gpt:
        batch = await steps.end(gpt, batch.id)
    assert (batch.status, batch.request_counts.completed) == ("cancelled", 2)


async def test_the_books_of_live_calls_are_whole_after_a_sigterm(process):
    ask = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    async with process.client() as gpt:
        await asyncio.gather(*(gpt.chat.completions.create(**ask) for _ in range(20)))
    before = [call async for call in process.calls()]
    assert await process.stop(signal.SIGTERM) == 0
    await process.start()
    books = await process.books()
    assert books["live"]["billed"]["chat"] == books["live"]["most_times"] == books["requests"]["chat"] == 20
    assert [call async for call in process.calls()] == before
    summary = await process.live()
    assert (summary["calls"], summary["ids"], summary["repeated"], summary["how"]["answered"]) == (20, 1, 19, 20)


async def test_a_kill_loses_no_live_call_and_resets_the_open_ones(process):
    async with process.client() as gpt:
        held = asyncio.create_task(gpt.embeddings.create(model="m", input="[[sandbox:hang]]"))
        while not (await process.live())["open"]:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(gpt.embeddings.create(model="m", input=f"{n}") for n in range(20)))
        await process.stop(signal.SIGKILL)
        await asyncio.gather(held, return_exceptions=True)
    with (process.state / "calls.jsonl").open("ab") as file:
        file.write(b'{"number":21,"id":"cut')  # a line that the death of the machine cut short
    for _ in range(2):
        await process.start()
        async with process.client() as gpt:
            await gpt.embeddings.create(model="m", input="later")
        await process.stop(signal.SIGKILL)
    await process.start()
    assert [call["number"] async for call in process.calls()] == list(range(23))
    summary = await process.live()
    assert (summary["how"]["answered"], summary["how"]["reset"], summary["open"]) == (22, 1, 0)


async def test_a_sigterm_stops_it_cleanly_while_a_request_is_held(process):
    await process.fault("files.retrieve", "hold_before")
    async with process.client() as gpt:
        held = asyncio.create_task(gpt.files.retrieve("file-1"))
        while not (await process.faults())[0]["waiting"]:
            pass
        assert await process.stop(signal.SIGTERM) == 0
        await asyncio.gather(held, return_exceptions=True)


async def run(*options: str) -> tuple[int | None, str]:
    command = (sys.executable, "-m", "durabatch.sandbox", *options)
    started = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, told = await started.communicate()
    return started.returncode, told.decode()


async def test_what_hinders_the_start_is_told_in_one_sentence(process, tmp_path):
    port = process.url.rpartition(":")[2]
    blocked = tmp_path / "a-file"
    blocked.touch()
    told = await asyncio.gather(
        run("--state", str(tmp_path / "other"), "--port", port),
        run("--state", str(tmp_path / "state")),
        run("--state", str(blocked)),
        run("--state", str(tmp_path / "third"), "--batch-seconds", "-1"),
        run("--state", str(tmp_path / "fourth"), "--batch-seconds", "soon"),
    )
    words = ["already in use", "used by another sandbox", "not writable", "cannot be used", "cannot be used"]
    for (status, sentence), word in zip(told, words, strict=True):
        assert status and word in sentence and sentence.count("\n") == 1


async def test_a_sandbox_in_this_process_goes_on_on_the_same_folder(tmp_path, steps):
    async with Sandbox(tmp_path, finish_after_polls=1) as sandbox:
        async with openai.AsyncOpenAI(base_url=f"{sandbox.url}/v1", api_key="k") as gpt:
            batch = await steps.create(gpt, steps.chat_row("a"))
        with pytest.raises(SandboxError, match="used by another sandbox"):
            async with Sandbox(tmp_path):
                pass
    async with (
        Sandbox(tmp_path, finish_after_polls=0) as sandbox,
        openai.AsyncOpenAI(base_url=f"{sandbox.url}/v1", api_key="k") as gpt,
    ):
        assert (await gpt.batches.retrieve(batch.id)).status == "completed"
    assert not os.listdir(tmp_path / "stage")
