"""The books of live calls: who called, when, how often, and how it ended."""

import asyncio

import anthropic
import openai
import pytest

ENDPOINTS = {
    "chat": lambda gpt, **more: gpt.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "x"}], **more
    ),
    "responses": lambda gpt, **more: gpt.responses.create(model="m", input="x", **more),
    "embeddings": lambda gpt, **more: gpt.embeddings.create(model="m", input="x", **more),
    "completions": lambda gpt, **more: gpt.completions.create(model="m", prompt="x", **more),
    "moderations": lambda gpt, **more: gpt.moderations.create(model="m", input="x", **more),
}


def chat(gpt, text="x", **more):
    return gpt.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **more)


async def until(sandbox, wanted, **values):
    """Read the summary until it says so; says it."""
    while True:
        summary = await sandbox.live()
        if {key: summary[key] for key in values} == values and wanted(summary):
            return summary
        await asyncio.sleep(0.01)


async def all_calls(sandbox, **filters):
    return [call async for call in sandbox.calls(**filters)]


@pytest.mark.parametrize("op", ENDPOINTS)
async def test_a_call_is_entered_with_its_ids_its_model_and_its_tokens(gpt, sandbox, op):
    headers = {"X-Client-Request-Id": "row-1", "Idempotency-Key": "key-1"}
    begun = (await sandbox.live())["now"]
    await ENDPOINTS[op](gpt, extra_headers=headers)
    (call,) = await all_calls(sandbox)
    assert (call["id"], call["key"], call["op"], call["model"]) == ("row-1", "key-1", op, "m")
    assert (call["how"], call["status"], call["billed"]) == ("answered", 200, True)
    assert begun <= call["arrived"] <= call["taken"] <= call["ended"] <= (await sandbox.live())["now"]


async def test_a_message_of_anthropics_is_entered_too(claude, sandbox):
    await claude.messages.create(model="m", max_tokens=7, messages=[{"role": "user", "content": "x" * 40}])
    (call,) = await all_calls(sandbox)
    assert (call["op"], call["how"], call["reserved"]) == ("messages", "answered", 10 + 7)
    assert call["id"] == call["digest"] != ""


async def test_the_prompt_is_the_id_of_calls_that_bring_none(gpt, sandbox):
    await chat(gpt, "one")
    await chat(gpt, "one")
    await chat(gpt, "two")
    await chat(gpt, "two", extra_headers={"X-Client-Request-Id": "named"})
    ids = [found async for found in sandbox.ids()]
    assert [(found["called"], found["answered"]) for found in ids] == [(2, 2), (1, 1), (1, 1)]
    assert ids[2]["id"] == "named"
    summary = await sandbox.live()
    assert summary["called_again"] == {ids[0]["id"]: 2}
    assert (summary["ids"], summary["repeated"], summary["answered_again"]) == (3, 1, 1)


async def test_refused_calls_of_an_id_are_told_apart_from_repeated_ones(gpt, sandbox, refusal):
    again = {"X-Client-Request-Id": "a"}
    assert (await refusal(chat(gpt, "[[sandbox:rate_limited times=1]]", extra_headers=again))).status_code == 429
    await sandbox.fault("chat", "status", status=503, times=1)
    assert (await refusal(chat(gpt, "x", extra_headers=again))).status_code == 503
    await chat(gpt, "x", extra_headers=again)
    summary = await sandbox.live()
    assert (summary["calls"], summary["repeated"], summary["repeated_unrefused"]) == (3, 2, 0)
    assert summary["status"] == {"200": 1, "429": 1, "503": 1}
    assert [call["status"] for call in await all_calls(sandbox, how="refused")] == [429, 503]
    assert [found async for found in sandbox.ids()] == [{"id": "a", "called": 3, "answered": 1, "refused": 2}]


async def test_a_call_without_a_valid_key_or_body_is_entered_as_refused(gpt, sandbox, refusal):
    await sandbox.revoke("sk-gone")
    assert (await refusal(chat(gpt.with_options(api_key="sk-gone")))).status_code == 401
    assert (await refusal(gpt.post("/chat/completions", cast_to=object, content=b"{nope"))).status_code == 400
    calls = await all_calls(sandbox)
    assert [(call["status"], call["how"], call["taken"], call["id"]) for call in calls] == [
        (401, "refused", None, ""),
        (400, "refused", None, ""),
    ]


@pytest.mark.parametrize("directive", ["hang", "slow seconds=600"])
async def test_a_client_that_hangs_up_ends_its_call_at_once(gpt, sandbox, directive):
    waiting = asyncio.create_task(chat(gpt, f"[[sandbox:{directive}]]"))
    await until(sandbox, bool, open=1, calls=1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    summary = await until(sandbox, bool, open=0)
    assert summary["how"] == {"open": 0, "answered": 0, "refused": 0, "dropped": 1, "reset": 0}
    assert (await sandbox.books())["live"]["billed"] == {}


async def test_a_call_that_a_fault_holds_ends_with_its_client(gpt, sandbox):
    await sandbox.fault("chat", "hold_before")
    waiting = asyncio.create_task(chat(gpt))
    await until(sandbox, bool, open=1)
    assert [call["id"] for call in await all_calls(sandbox, how="open")] == [""]  # its body was not looked at
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await until(sandbox, lambda summary: summary["how"]["dropped"] == 1, open=0)
    assert (await sandbox.faults())[0]["waiting"] == 0


@pytest.mark.parametrize("directive", ["reset", "reset_answer", "hang"])
async def test_an_answer_that_does_not_come_comes_at_the_next_try(gpt, sandbox, directive):
    text = f"[[sandbox:{directive} times=1]]"
    with pytest.raises(openai.APIConnectionError):
        await chat(gpt, text, **({"timeout": 0.5} if directive == "hang" else {}))
    await chat(gpt, text)
    await until(sandbox, bool, open=0, repeated=1, repeated_unrefused=1, answered_again=0)
    assert [call["how"] for call in await all_calls(sandbox)] == [
        "dropped" if directive == "hang" else "reset",
        "answered",
    ]


async def test_a_message_can_be_told_to_misbehave_in_the_same_ways(claude, sandbox):
    for directive in ("reset", "reset_answer"):
        with pytest.raises(anthropic.APIConnectionError):
            messages = [{"role": "user", "content": f"[[sandbox:{directive}]]"}]
            await claude.messages.create(model="m", max_tokens=7, messages=messages)
    await sandbox.fault("messages", "status", status=529)
    with pytest.raises(anthropic.APIStatusError) as caught:
        await claude.messages.create(model="m", max_tokens=7, messages=[{"role": "user", "content": "x"}])
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (529, "overloaded_error")
    assert (await sandbox.live())["how"]["reset"] == 2


async def test_an_answer_is_cut_after_a_share_of_its_bytes(gpt, sandbox):
    whole = (await gpt.embeddings.with_raw_response.create(model="m", input="x")).content
    await sandbox.fault("embeddings", "reset_answer", fraction=0.75, times=1)
    got = b""
    with pytest.raises(Exception, match=r"peer closed|incomplete|disconnected|^$"):
        async with gpt.embeddings.with_streaming_response.create(model="m", input="x") as response:
            assert response.status_code == 200
            async for chunk in response.iter_bytes():
                got += chunk
    assert whole.startswith(got) and len(got) == int(len(whole) * 0.75)
    assert [call["how"] for call in await all_calls(sandbox)] == ["answered", "reset"]


async def test_answers_take_the_time_that_was_set(gpt, sandbox):
    await sandbox.settings(live_seconds=0.05, live_spread_seconds=0.05)
    await asyncio.gather(*(chat(gpt, str(number)) for number in range(20)))
    times = {call["ended"] - call["arrived"] for call in await all_calls(sandbox)}
    assert min(times) >= 0.05 and len(times) == 20


async def test_calls_come_in_pages(gpt, sandbox):
    await asyncio.gather(*(chat(gpt, str(number)) for number in range(7)))
    first = await sandbox._call("GET", "/admin/live/calls?limit=5")
    rest = await sandbox._call("GET", f"/admin/live/calls?limit=5&after={first['next']}")
    assert [call["number"] for call in first["calls"] + rest["calls"]] == list(range(7))
    assert rest["next"] is None
    ids = await sandbox._call("GET", "/admin/live/ids?limit=5")
    assert (len(ids["ids"]), ids["next"]) == (5, 5)
    assert [call["number"] async for call in sandbox.calls(after=3)] == [3, 4, 5, 6]


async def test_a_reset_empties_the_books_while_calls_are_open(gpt, sandbox):
    waiting = asyncio.create_task(chat(gpt, "[[sandbox:hang]]"))
    await until(sandbox, bool, open=1)
    await sandbox.reset()
    await chat(gpt)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await sandbox.live())["calls"] == 1
    assert (await sandbox.books())["live"]["billed"]["chat"] == 1
