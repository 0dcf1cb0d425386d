"""`durabatch gateway` killed in the middle of everything: with the worker that is in it, alone, and beside others."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from openai.types import Batch

from support.gateway import jsonl, line
from support.house import dev_server
from support.webhooks import SECRET, Message, receiving
from support.workspace import TIME_LIMIT, Workspace, finish


def begin(here: Workspace) -> tuple[openai.OpenAI, subprocess.Popen[str]]:
    process = here.start("gateway", "--port", "0", "--json", "--provider", "stub")
    assert process.stdout is not None
    printed = "".join(iter(process.stdout.readline, "}\n"))
    assert printed, process.communicate()
    url = json.loads(printed + "}")["base_url"]
    return openai.OpenAI(
        base_url=url, api_key="any", max_retries=0, timeout=60, _strict_response_validation=True
    ), process


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIME_LIMIT
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.mark.slow
def test_gateway_and_worker_that_are_killed_in_a_batch_buy_nothing_twice(workspace: Workspace) -> None:
    workspace.provider(finish_after_polls=100_000)
    first, process = begin(workspace)  # with the Temporal of its folder, and a worker
    file = first.files.create(file=jsonl([line(f"r{n}") for n in range(20)]), purpose="batch")
    made = first.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_headers={"Idempotency-Key": "nightly"},
    )
    workspace.until_bought(0)
    process.kill()
    assert finish(process).code == -signal.SIGKILL

    workspace.provider(finish_after_polls=0)
    second, process = begin(workspace)
    try:
        again = second.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_headers={"Idempotency-Key": "nightly"},
        )
        assert again.id == made.id
        until(lambda: second.batches.retrieve(made.id).status == "completed")
        ended = second.batches.retrieve(made.id)
        text = second.files.content(ended.output_file_id or "").text
        assert [json.loads(one)["custom_id"] for one in text.splitlines()] == [f"r{n}" for n in range(20)]
        assert [batch.id for batch in second.batches.list()] == [made.id]
    finally:
        process.send_signal(signal.SIGINT)
        assert finish(process).code == 0
    assert len(workspace.bought()) == 1


@contextlib.contextmanager
def town(workspace: Workspace) -> Iterator[tuple[Workspace, list[subprocess.Popen[str]]]]:
    """A Temporal of its own, beside which gateways and workers are processes apart; whichever are left are killed."""
    with dev_server() as address:
        processes: list[subprocess.Popen[str]] = []
        try:
            yield dataclasses.replace(workspace, environ={"TEMPORAL_ADDRESS": address}), processes
        finally:
            for process in processes:
                process.kill()
                finish(process)


def order(client: openai.OpenAI, file_id: str, key: str) -> Batch:
    return client.batches.create(
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_headers={"Idempotency-Key": key},
    )


@pytest.mark.slow
def test_any_gateway_and_any_worker_may_be_killed_at_any_time(workspace: Workspace) -> None:
    workspace.provider(finish_after_polls=100_000)
    with town(workspace) as (here, processes):

        def gateway() -> tuple[openai.OpenAI, subprocess.Popen[str]]:
            client, process = begin(here)
            processes.append(process)
            return client, process

        def worker() -> subprocess.Popen[str]:
            processes.append(here.start("worker"))
            return processes[-1]

        working = worker()
        (first, dying), (second, _) = gateway(), gateway()
        file = first.files.create(file=jsonl([line(f"r{n}", "word " * 200) for n in range(400)]), purpose="batch")

        # In a create: twenty at once at two gateways, of which one is killed meanwhile.
        def attempt(number: int) -> str | None:
            with contextlib.suppress(openai.APIConnectionError):
                return order((first, second)[number % 2], file.id, "nightly").id
            return None

        with ThreadPoolExecutor(20) as pool:
            asked = [pool.submit(attempt, number) for number in range(20)]
            time.sleep(0.1)
            dying.kill()
            ids = {one.result() for one in asked} - {None}
        assert len(ids) == 1
        made = order(second, file.id, "nightly")
        assert {made.id} == ids == {batch.id for batch in second.batches.list()}

        # In the batch: the worker alone, and then the worker and a gateway together.
        here.until_bought(0)
        working.kill()
        assert second.batches.retrieve(made.id).status in ("validating", "in_progress")
        working = worker()
        third, dying = gateway()
        until(lambda: third.batches.retrieve(made.id).status == "in_progress")
        working.kill()
        dying.kill()
        here.provider(finish_after_polls=0)
        worker()
        until(lambda: second.batches.retrieve(made.id).status == "completed")
        ended = second.batches.retrieve(made.id)
        assert ended.request_counts and ended.request_counts.completed == 400

        # In a download: who has a part of it knows that it is no more than that.
        fourth, dying = gateway()
        large = second.files.create(file=b"x" * 32_000_000, purpose="user_data")  # more than sockets hold
        url = f"{fourth.base_url}files/{large.id}/content"
        with pytest.raises(httpx2.TransportError), httpx2.stream("GET", url) as answer:
            for part in answer.iter_bytes(1024):
                assert part
                dying.kill()
        whole = second.files.content(ended.output_file_id or "").text
        assert [json.loads(one)["custom_id"] for one in whole.splitlines()] == [f"r{n}" for n in range(400)]
        assert second.files.content(large.id).read() == b"x" * 32_000_000
        assert {one.id for one in second.files.list()} == {file.id, ended.output_file_id, large.id}
    assert len(workspace.bought()) == 1


@pytest.mark.slow
async def test_a_delivery_that_a_kill_cuts_off_is_made_again_with_the_same_id(workspace: Workspace) -> None:
    killed = asyncio.Event()

    async def answer(message: Message) -> int:
        await killed.wait()
        return 204

    async with receiving() as receiver:
        receiver.answers = answer
        config = workspace.folder / "durabatch.toml"
        hook = f'[[gateway.webhooks]]\nurl = "{receiver.url}"\nsecret_env = "HOOK"\nallow_private = true\n'
        config.write_text(config.read_text() + hook)
        with town(workspace) as (there, processes):
            here = dataclasses.replace(there, environ={**there.environ, "HOOK": SECRET})
            working = here.start("worker")
            processes.append(working)
            client, process = await asyncio.to_thread(begin, here)
            processes.append(process)
            file = await asyncio.to_thread(client.files.create, file=jsonl([line("r0")]), purpose="batch")
            made = await asyncio.to_thread(order, client, file.id, "nightly")
            await receiver.until(1)
            working.kill()
            killed.set()
            processes.append(here.start("worker"))
            first, second, *_ = await receiver.until(2)

            def delivered() -> bool:
                page: Any = client.get("/webhooks/deliveries", cast_to=object)
                (shown,) = page["data"]
                return (shown["id"], shown["status"]) == (first.id, "delivered")

            await asyncio.to_thread(until, delivered)
    assert (first.id, first.body) == (second.id, second.body) and second.unwrapped().data.id == made.id
