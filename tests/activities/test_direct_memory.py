"""What answers take in one worker: long ones wait for each other, and each is read in the end."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from pydantic import SecretStr

from durabatch.activities.direct.answer import Answer
from durabatch.activities.direct.calls import Calls
from durabatch.activities.direct.memory import SHORT, Memory, Share
from durabatch.activities.providers import ProviderSettings

MIB = 1 << 20


async def test_one_answer_at_a_time_goes_beyond_the_bound() -> None:
    memory = Memory(10 * MIB)
    first, second, third = (Share(memory) for _ in range(3))
    assert first.take(25 * MIB) is None  # more than there is, and alone
    waiting, also = second.take(12 * MIB), third.take(MIB)
    assert waiting is not None
    assert also is not None
    assert first.take(25 * MIB) is None  # so that it never waits for those that wait for it
    first.free()
    await waiting
    assert not also.done()
    assert memory.held == 12 * MIB
    second.free()
    await also
    third.free()
    assert memory.held == 0


async def test_an_answer_that_is_given_up_lets_the_next_one_in() -> None:
    memory = Memory(10 * MIB)
    first, second, third = (Share(memory) for _ in range(3))
    assert first.take(20 * MIB) is None
    assert second.take(20 * MIB) is not None
    waiting = third.take(5 * MIB)
    assert waiting is not None
    second.free()
    first.free()
    await waiting
    assert memory.held == 5 * MIB
    third.free()
    assert memory.held == 0


@pytest.fixture
async def endpoint() -> AsyncIterator[str]:
    """A server that answers with as many bytes as the path says, and without a length where it says so."""

    async def answer(request: web.Request) -> web.StreamResponse:
        size = int(request.match_info["size"])
        if request.match_info["how"] == "whole":
            return web.Response(body=b"x" * size)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(size // SHORT):
            await response.write(b"x" * SHORT)
        return response

    app = web.Application()
    app.router.add_post("/{how}/{size}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("how", ["whole", "in-chunks"])
async def test_long_answers_wait_for_each_other_and_all_are_read(endpoint: str, how: str) -> None:
    settings = ProviderSettings(name="p", kind="openai", base_url=endpoint, api_key=SecretStr("k"))
    calls, memory, size = Calls(settings, {}), Memory(3 * MIB), 2 * MIB
    shares = [Share(memory) for _ in range(6)]
    most = 0

    async def call(share: Share) -> Answer:
        nonlocal most
        answer = await calls.post(f"{endpoint}/{how}/{size}", {}, b"{}", share)
        most = max(most, memory.held)
        share.free()
        return answer

    try:
        everything, beyond = Share(memory), Share(memory)
        assert everything.take(3 * MIB) is None
        assert beyond.take(MIB) is None
        tasks = [asyncio.create_task(call(share)) for share in shares]
        while not all(share.waited(time.monotonic()) for share in shares):
            await asyncio.sleep(0.01)
        # While they wait a short one is answered at once.
        assert (await calls.post(f"{endpoint}/whole/10", {}, b"{}", Share(memory))).body == b"x" * 10
        assert not any(task.done() for task in tasks)
        beyond.free()
        everything.free()
        answers = await asyncio.gather(*tasks)
    finally:
        await calls.close()
    assert [len(answer.body) for answer in answers] == [size] * 6
    # The bound, and one answer more; one in chunks may have taken up to twice its length.
    assert size <= most <= 3 * MIB + 2 * size
    assert memory.held == 0


async def test_answers_of_unknown_length_take_little_while_they_wait(endpoint: str) -> None:
    settings = ProviderSettings(name="p", kind="openai", base_url=endpoint, api_key=SecretStr("k"))
    calls, memory, count = Calls(settings, {}), Memory(MIB), 10
    everything, beyond = Share(memory), Share(memory)
    assert everything.take(MIB) is None
    assert beyond.take(MIB) is None
    shares = [Share(memory) for _ in range(count)]
    tracemalloc.start()
    try:
        url = f"{endpoint}/in-chunks/{8 * MIB}"
        tasks = [asyncio.create_task(calls.post(url, {}, b"{}", share)) for share in shares]
        while not all(share.waited(time.monotonic()) for share in shares):
            await asyncio.sleep(0.01)
        for _ in range(20):  # what the server sends until nobody reads any more
            await asyncio.sleep(0.01)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await calls.close()
    assert taken < 3 * count * MIB // 2  # what the server holds back included


async def test_a_call_that_is_dropped_while_it_waits_gives_everything_back(endpoint: str) -> None:
    settings = ProviderSettings(name="p", kind="openai", base_url=endpoint, api_key=SecretStr("k"))
    calls, memory = Calls(settings, {}), Memory(MIB)
    everything, beyond, share = Share(memory), Share(memory), Share(memory)
    assert everything.take(MIB) is None
    assert beyond.take(MIB) is None
    task = asyncio.create_task(calls.post(f"{endpoint}/whole/{2 * MIB}", {}, b"{}", share))
    try:
        while not share.waited(time.monotonic()):
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    finally:
        await calls.close()
    share.free()
    beyond.free()
    everything.free()
    assert memory.held == 0
