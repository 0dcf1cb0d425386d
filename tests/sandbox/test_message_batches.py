"""Anthropic's protocol, as its own client sees it."""

import json

import aiohttp
import anthropic
import pytest

HEADERS = {"x-api-key": "sk-test", "anthropic-version": "2023-06-01"}


def request(custom_id="a", text="Tell me a joke. Please.", **params):
    params = {
        "model": "claude-haiku-4-5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": text}],
        **params,
    }
    return {"custom_id": custom_id, "params": {key: value for key, value in params.items() if value is not None}}


async def ended(claude, batch):
    while batch.processing_status != "ended":
        batch = await claude.messages.batches.retrieve(batch.id)
    return batch


async def results(claude, batch):
    return [line async for line in await claude.messages.batches.results(batch.id)]


REFUSED = [
    (
        {"messages": [{"role": "tool", "content": "x"}]},
        "messages.0.role: Input should be 'user', 'assistant' or 'system'",
    ),
    ({"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
    ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    ({"foo": 1}, "foo: Extra inputs are not permitted"),
    ({"temperature": 1.5}, "temperature: Input should be less than or equal to 1"),
    ({"top_k": "few"}, "top_k: Input should be a valid integer"),
    ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
]


async def post(sandbox, body, **headers):
    async with (
        aiohttp.ClientSession(headers={**HEADERS, **headers}) as session,
        session.post(f"{sandbox.url}/v1/messages", json=body) as response,
    ):
        return response.status, (await response.json()).get("error", {}).get("message")


@pytest.mark.parametrize(("odd", "message"), REFUSED)
async def test_a_row_that_a_live_call_would_refuse_is_an_errored_row(claude, sandbox, odd, message):
    rows = [request("good"), request("bad", **odd)]
    batch = await ended(claude, await claude.messages.batches.create(requests=rows))
    found = {line.custom_id: line.result for line in await results(claude, batch)}
    assert (found["good"].type, found["bad"].error.error.message) == ("succeeded", message)
    assert await post(sandbox, rows[1]["params"]) == (400, message)


async def test_what_only_a_live_call_may_ask_for_makes_an_errored_row(claude):
    rows = [request("good"), request("warm", max_tokens=0), request("stream", stream=True)]
    batch = await ended(claude, await claude.messages.batches.create(requests=rows))
    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 2)


async def test_the_version_decides_whether_a_temperature_is_taken(sandbox):
    body = {**request("a")["params"], "temperature": 0.5}
    assert (await post(sandbox, body))[0] == 200
    status, message = await post(sandbox, body, **{"anthropic-version": "2026-10-21"})
    assert (status, message) == (400, "`temperature` is deprecated for this model.")
    assert (await post(sandbox, body, **{"anthropic-version": "yesterday"}))[0] == 400


async def test_of_two_keys_the_one_of_anthropics_own_header_counts(sandbox):
    body = request("a")["params"]
    assert (await post(sandbox, body, Authorization="Bearer other"))[0] == 200
    (call,) = [call async for call in sandbox.calls()]
    await post(sandbox, body)
    assert [again["account"] async for again in sandbox.calls()] == [call["account"]] * 2


async def test_results_can_be_as_plain_as_anthropics(claude, sandbox):
    await sandbox.settings(plain_downloads=True)
    batch = await ended(claude, await claude.messages.batches.create(requests=[request(f"r{i}") for i in range(3)]))
    async with (
        aiohttp.ClientSession(headers=HEADERS) as session,
        session.get(batch.results_url, headers={"Range": "bytes=4-"}) as response,
    ):
        content = await response.read()
        assert response.status == 200 and len(content.split(b"\n")) == 3 and content.endswith(b"}")
        assert not {"Accept-Ranges", "Content-Length", "Content-Type"} & set(response.headers)
    assert len(await results(claude, batch)) == 3


async def test_instants_name_their_offset(claude, sandbox):
    batch = await claude.messages.batches.with_raw_response.create(requests=[request("a")])
    assert json.loads(await batch.text())["created_at"].endswith("+00:00")


async def test_a_batch_counts_as_processing_until_all_of_it_has_ended(claude, sandbox):
    await sandbox.settings(finish_after_polls=2)
    ids = [f"row_{i}" for i in range(9)]
    batch = await claude.messages.batches.create(requests=[request(id) for id in ids])
    for _ in range(2):
        batch = await claude.messages.batches.retrieve(batch.id)
        assert (batch.processing_status, batch.results_url, batch.ended_at) == ("in_progress", None, None)
        assert (batch.request_counts.processing, batch.request_counts.succeeded) == (9, 0)
    batch = await claude.messages.batches.retrieve(batch.id)
    assert batch.processing_status == "ended" and batch.created_at < batch.ended_at < batch.expires_at
    assert (batch.request_counts.processing, batch.request_counts.succeeded) == (0, 9)
    lines = await results(claude, batch)
    assert [line.custom_id for line in lines] != ids and sorted(line.custom_id for line in lines) == ids
    message = lines[0].result.message
    assert message.content[0].text.startswith("You said: Tell me a joke")
    assert (message.stop_reason, message.usage.service_tier) == ("end_turn", "batch")
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0


async def test_a_row_that_lacks_something_is_errored_and_the_others_are_not(claude):
    rows = [
        request("ok"),
        request("no_limit", max_tokens=None),
        request("no_model", model=None),
        request("no_messages", messages=None),
        request("odd_messages", messages="hi"),
    ]
    batch = await ended(claude, await claude.messages.batches.create(requests=rows))
    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 4)
    found = {line.custom_id: line.result for line in await results(claude, batch)}
    assert found["ok"].type == "succeeded"
    assert found["no_limit"].error.error.message == "max_tokens: Field required"
    assert found["no_model"].error.error.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([], "requests: List should have at least 1 item"),
        ([request("a"), request("a")], "requests.1.custom_id: .*duplicate"),
        ([request("a" * 65)], "requests.0.custom_id: String should have at most 64 characters"),
        ([request("a/b")], "requests.0.custom_id: String should match pattern"),
        ([request("")], "requests.0.custom_id: String should match pattern"),
        ([{"custom_id": "a", "params": []}], "requests.0.params"),
        ([{"custom_id": 7, "params": {}}], "requests: Expected `str`"),
        ([request(str(i)) for i in range(4)], "at most 3 items"),
    ],
)
async def test_a_batch_that_anthropic_would_refuse_is_refused(claude, sandbox, requests, message):
    await sandbox.settings(anthropic_max_rows=3)
    with pytest.raises(anthropic.BadRequestError, match=message) as caught:
        await claude.messages.batches.create(requests=requests)
    assert caught.value.body["type"] == "error" and caught.value.body["request_id"].startswith("req_")
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    assert (await sandbox.books())["batches"] == []


async def test_a_body_that_is_too_large_is_refused(claude, sandbox):
    await sandbox.settings(anthropic_max_bytes=1_000)
    with pytest.raises(anthropic.APIStatusError) as caught:
        await claude.messages.batches.create(requests=[request(text="x" * 2_000)])
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (413, "request_too_large")


async def test_a_body_may_be_written_over_several_lines(claude, sandbox):
    body = json.dumps({"requests": [request("a"), request("b")]}, indent=2)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        async with session.post(f"{sandbox.url}/v1/messages/batches", data=body) as response:
            assert response.status == 200 and response.headers["request-id"]
            created = await response.json()
        for nothing in (b"", b"{nope", b"[]"):
            async with session.post(f"{sandbox.url}/v1/messages/batches", data=nothing) as response:
                assert response.status == 400
    batch = await ended(claude, await claude.messages.batches.retrieve(created["id"]))
    assert batch.request_counts.succeeded == 2


async def test_batches_are_listed_newest_first_and_by_pages_both_ways(claude):
    create = claude.messages.batches.create
    ids = [(await create(requests=[request()])).id for _ in range(5)][::-1]
    assert [batch.id async for batch in claude.messages.batches.list(limit=2)] == ids
    page = await claude.messages.batches.list(limit=2, before_id=ids[3])
    assert ([batch.id for batch in page.data], page.has_more) == (ids[1:3], True)
    assert (page.first_id, page.last_id) == (ids[1], ids[2])
    for query in ({"limit": 0}, {"limit": 1_001}, {"after_id": "unknown"}):
        with pytest.raises(anthropic.BadRequestError):
            await claude.messages.batches.list(**query)


async def test_a_cancelled_batch_ends_with_its_finished_rows_and_the_others_canceled(claude, sandbox):
    await sandbox.settings(batch_seconds=3600, cancel_fraction=0.5, cancel_polls=1)
    batch = await claude.messages.batches.create(requests=[request(f"r{i}") for i in range(6)])
    batch = await claude.messages.batches.cancel(batch.id)
    assert batch.processing_status == "canceling" and batch.cancel_initiated_at
    assert (await claude.messages.batches.retrieve(batch.id)).processing_status == "canceling"
    batch = await claude.messages.batches.retrieve(batch.id)
    assert batch.processing_status == "ended" and batch.cancel_initiated_at
    assert (batch.request_counts.succeeded, batch.request_counts.canceled) == (3, 3)
    kinds = sorted(line.result.type for line in await results(claude, batch))
    assert kinds == ["canceled"] * 3 + ["succeeded"] * 3
    with pytest.raises(anthropic.BadRequestError, match="already ended"):
        await claude.messages.batches.cancel(batch.id)


@pytest.mark.parametrize(
    ("outcome", "rest"), [("expired", "expired"), ("cancelled", "canceled"), ("failed", "errored")]
)
async def test_the_next_batch_can_end_badly_with_part_of_its_rows(claude, sandbox, outcome, rest):
    await sandbox.fault("batches.create", "batch_outcome", outcome=outcome, fraction=0.25, times=1)
    batch = await claude.messages.batches.create(requests=[request(f"r{i}") for i in range(8)])
    batch = await ended(claude, batch)
    assert (batch.request_counts.succeeded, getattr(batch.request_counts, rest)) == (2, 6)
    assert sum(line.result.type == rest for line in await results(claude, batch)) == 6
    assert (batch.cancel_initiated_at is not None) == (outcome == "cancelled")


async def test_a_batch_can_be_deleted_only_when_it_has_ended(claude, sandbox):
    await sandbox.settings(batch_seconds=3600)
    batch = await claude.messages.batches.create(requests=[request()])
    with pytest.raises(anthropic.BadRequestError):
        await claude.messages.batches.delete(batch.id)
    with pytest.raises(anthropic.AnthropicError, match="No `results_url`"):
        await claude.messages.batches.results(batch.id)
    await sandbox.settings(batch_seconds=0)
    await ended(claude, batch)
    assert (await claude.messages.batches.delete(batch.id)).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        await claude.messages.batches.retrieve(batch.id)
    assert (await claude.messages.batches.list()).data == []
    assert (await sandbox.books())["batches"][0]["rows_billed"] == 1


async def test_results_can_be_resumed_and_cut_short(claude, sandbox):
    batch = await ended(claude, await claude.messages.batches.create(requests=[request(f"r{i}") for i in range(20)]))
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        async with session.get(batch.results_url) as response:
            whole = await response.read()
        await sandbox.fault("batches.results", "truncate", fraction=0.5, times=1)
        got = b""
        with pytest.raises(aiohttp.ClientPayloadError):
            async with session.get(batch.results_url) as response:
                async for chunk in response.content.iter_any():
                    got += chunk
        async with session.get(batch.results_url, headers={"Range": f"bytes={len(got)}-"}) as response:
            assert response.status == 206
            assert got + await response.read() == whole


async def test_a_message_is_answered_live(claude, sandbox):
    content = [{"type": "text", "text": "What is love?"}]
    ask = {"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": content}]}
    message = await claude.messages.create(max_tokens=100, system="Be kind.", **ask)
    assert "What is love" in message.content[0].text
    assert (message.stop_reason, message.usage.service_tier) == ("end_turn", "standard")
    assert (await claude.messages.create(max_tokens=2, **ask)).stop_reason == "max_tokens"
    assert (await sandbox.books())["live"]["billed"]["messages"] == 2
    with pytest.raises(anthropic.NotFoundError):
        await claude.messages.create(max_tokens=1, **{**ask, "model": "no-such-claude"})
    with pytest.raises(anthropic.APIStatusError) as caught:
        await claude.messages.create(
            model="claude", max_tokens=1, messages=[{"role": "user", "content": "[[sandbox:overloaded]]"}]
        )
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (529, "overloaded_error")


async def test_models_answer_in_the_shape_of_whoever_asks(claude, gpt):
    assert {model.type async for model in claude.models.list()} == {"model"}
    assert (await claude.models.retrieve("claude-x")).display_name == "claude-x"
    assert {model.object async for model in gpt.models.list()} == {"model"}


async def test_faults_on_batches_hit_claude_too(claude, sandbox):
    await sandbox.fault("batches.create", "lost_answer", times=1)
    with pytest.raises(anthropic.APIConnectionError):
        await claude.messages.batches.create(requests=[request()])
    assert len((await claude.messages.batches.list()).data) == 1
    await sandbox.fault("batches.list", "status", status=529, retry_after=3, times=1)
    with pytest.raises(anthropic.APIStatusError) as caught:
        await claude.messages.batches.list()
    assert caught.value.body["error"]["type"] == "overloaded_error"
    assert caught.value.response.headers["retry-after"] == "3"


async def test_the_version_header_is_required(sandbox):
    headers = {"x-api-key": "sk-test"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{sandbox.url}/v1/messages/batches") as response,
    ):
        assert response.status == 400
        assert "anthropic-version" in (await response.json())["error"]["message"]
