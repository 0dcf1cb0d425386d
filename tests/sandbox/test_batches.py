"""OpenAI's Batch API, as its own client sees it."""

import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse, ImagesResponse, ModerationCreateResponse, Video
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

MESSAGES = [{"role": "user", "content": "Tell me a joke. Please."}]


@pytest.mark.parametrize(
    ("endpoint", "body", "shape"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}, ChatCompletion),
        ("/v1/responses", {"input": MESSAGES}, Response),
        ("/v1/embeddings", {"input": ["one", "two"]}, CreateEmbeddingResponse),
        ("/v1/completions", {"prompt": "Once upon a time"}, Completion),
        ("/v1/moderations", {"input": "I am nice"}, ModerationCreateResponse),
    ],
)
async def test_every_row_of_every_endpoint_is_answered_in_another_order(gpt, steps, endpoint, body, shape):
    ids = [f"row-{i}" for i in range(9)]
    body = {"model": "gpt-4o-mini", **body}
    rows = [{"custom_id": id, "method": "POST", "url": endpoint, "body": body} for id in ids]
    batch = await steps.create(gpt, *rows, endpoint=endpoint)
    assert batch.status == "validating" and batch.request_counts.total == 0
    batch = await steps.end(gpt, batch.id)
    assert (batch.status, batch.error_file_id, batch.errors) == ("completed", None, None)
    lines = await steps.read(gpt, batch.output_file_id)
    answered = [line["custom_id"] for line in lines]
    assert answered != ids and sorted(answered) == ids
    assert len({line["id"] for line in lines}) == 9
    for line in lines:
        assert (line["response"]["status_code"], line["error"]) == (200, None)
        shape.model_validate(line["response"]["body"], strict=False)


async def test_a_finished_batch_says_what_happened_and_what_it_cost(gpt, steps):
    rows = [*(steps.chat_row(f"r{i}") for i in range(6)), steps.chat_row("bad", "[[sandbox:server_error]]")]
    batch = await steps.create(gpt, *rows, metadata={"durabatch_marker": "b/0/1"})
    batch = await steps.end(gpt, batch.id)
    assert batch.metadata == {"durabatch_marker": "b/0/1"}
    assert batch.model == "gpt-4o-mini"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (7, 6, 1)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.expires_at == batch.created_at + 24 * 3600
    usages = [line["response"]["body"]["usage"] for line in await steps.read(gpt, batch.output_file_id)]
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages)
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens
    (error,) = await steps.read(gpt, batch.error_file_id)
    assert (error["custom_id"], error["response"]["status_code"]) == ("bad", 500)
    assert error["response"]["body"]["error"]["type"] == "server_error"


async def test_a_request_gets_the_same_answer_live_and_in_any_batch(gpt, steps):
    texts = []
    for _ in range(2):
        batch = await steps.end(gpt, (await steps.create(gpt, steps.chat_row("a"))).id)
        (line,) = await steps.read(gpt, batch.output_file_id)
        texts.append(line["response"]["body"]["choices"][0]["message"]["content"])
    live = await gpt.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert texts == [live.choices[0].message.content] * 2
    assert "Tell me a joke" in texts[0]


VALID = {"method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-4o-mini", "messages": MESSAGES}}


@pytest.mark.parametrize(
    ("second", "code", "param"),
    [
        (b"{not json\n", "invalid_json_line", None),
        (b"\n", "invalid_json_line", None),
        (b"[1]\n", "invalid_request", None),
        (VALID, "missing_required_parameter", "custom_id"),
        ({**VALID, "custom_id": 7}, "invalid_type", "custom_id"),
        ({**VALID, "custom_id": "first"}, "duplicate_custom_id", "custom_id"),
        ({**VALID, "custom_id": "b", "method": "GET"}, "invalid_method", "method"),
        ({**VALID, "custom_id": "b", "url": "/v1/embeddings"}, "invalid_url", "url"),
        ({**VALID, "custom_id": "b", "body": [1]}, "invalid_type", "body"),
        ({**VALID, "custom_id": "b", "body": {"messages": MESSAGES}}, "invalid_request", "body.model"),
        ({**VALID, "custom_id": "b", "body": {"model": "gpt-4o-mini"}}, "invalid_request", "body.messages"),
        (
            {**VALID, "custom_id": "b", "body": {**VALID["body"], "stream": True}},
            "streaming_unsupported",
            "body.stream",
        ),
        ({**VALID, "custom_id": "b", "body": {**VALID["body"], "model": "gpt-4o"}}, "mismatched_model", "body.model"),
        ({**VALID, "custom_id": "b", "body": {**VALID["body"], "model": "no-such-x"}}, "model_not_found", "body.model"),
    ],
)
async def test_one_bad_line_fails_the_whole_batch_with_its_number(gpt, steps, sandbox, second, code, param):
    first = {**VALID, "custom_id": "first"}
    last = {**VALID, "custom_id": "last", "method": "GET"}  # only the first bad line is told
    batch = await steps.end(gpt, (await steps.create(gpt, first, second, last)).id)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    (error,) = batch.errors.data
    assert (error.line, error.code, error.param) == (2, code, param)
    assert error.message and batch.failed_at
    assert (await sandbox.books())["rows"] == {}


@pytest.mark.parametrize(
    ("settings", "rows", "code"),
    [
        ({"openai_max_rows": 1}, [{**VALID, "custom_id": "a"}, {**VALID, "custom_id": "b"}], "too_many_tasks"),
        ({"openai_max_bytes": 50}, [{**VALID, "custom_id": "a"}], "file_too_large"),
    ],
)
async def test_a_file_that_is_wrong_as_a_whole_fails_without_a_line(gpt, steps, sandbox, settings, rows, code):
    await sandbox.settings(**settings)
    batch = await steps.end(gpt, (await steps.create(gpt, *rows)).id)
    assert [(error.line, error.code) for error in batch.errors.data] == [(None, code)]


async def test_a_file_that_is_not_there_or_not_for_a_batch_fails_the_batch(gpt, steps):
    other = await gpt.files.create(file=("rows.txt", b"x"), purpose="user_data")
    for file_id in ("file-unknown", other.id):
        batch = await gpt.batches.create(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert (await steps.end(gpt, batch.id)).errors.data[0].param == "file_id"
    assert (await gpt.files.content(other.id)).content == b"x"


@pytest.mark.parametrize(
    ("options", "code", "param"),
    [
        ({"endpoint": "/v1/poems"}, "invalid_value", "endpoint"),
        ({"completion_window": "48h"}, "invalid_value", "completion_window"),
        ({"input_file_id": None}, "missing_required_parameter", "input_file_id"),
        ({"input_file_id": "../sandbox.db"}, "invalid_value", "input_file_id"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "object_above_max_properties", "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "string_above_max_length", f"metadata.{'k' * 65}"),
        ({"metadata": {"k": "x" * 513}}, "string_above_max_length", "metadata.k"),
        ({"metadata": {"k": 1}}, "invalid_type", "metadata.k"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "invalid_value",
            "output_expires_after.seconds",
        ),
    ],
)
async def test_a_create_that_openai_would_refuse_is_refused(gpt, refusal, options, code, param):
    options = {
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        **options,
    }
    error = await refusal(gpt.batches.create(**options))
    assert (error.status_code, error.code, error.param) == (400, code, param)
    assert (await gpt.batches.list()).data == []


async def test_batches_are_listed_newest_first_and_by_pages(gpt, steps, refusal):
    ids = [(await steps.create(gpt, steps.chat_row("a"), metadata={"n": str(n)})).id for n in range(5)]
    assert [batch.id async for batch in gpt.batches.list(limit=2)] == ids[::-1]
    first = await gpt.batches.list(limit=2)
    assert first.has_more and first.data[0].metadata == {"n": "4"}
    for query in ({"limit": 0}, {"limit": 101}):
        assert (await refusal(gpt.batches.list(**query))).status_code == 400
    assert (await refusal(gpt.batches.list(after="batch_unknown"))).status_code == 404


async def test_a_cancelled_batch_keeps_its_finished_rows(gpt, steps, sandbox):
    await sandbox.settings(batch_seconds=3600, cancel_fraction=0.4)
    batch = await steps.create(gpt, *(steps.chat_row(f"r{i}") for i in range(10)))
    assert (await gpt.batches.cancel(batch.id)).status == "cancelling"
    batch = await steps.end(gpt, batch.id)
    assert batch.status == "cancelled" and batch.cancelling_at <= batch.cancelled_at
    assert (batch.request_counts.completed, batch.request_counts.failed) == (4, 6)
    done = [line["custom_id"] for line in await steps.read(gpt, batch.output_file_id)]
    errors = await steps.read(gpt, batch.error_file_id)
    assert {error["error"]["code"] for error in errors} == {"batch_cancelled"}
    assert sorted(done + [error["custom_id"] for error in errors]) == [f"r{i}" for i in range(10)]
    assert (await sandbox.books())["batches"][0]["rows_billed"] == 4


@pytest.mark.parametrize(
    ("row", "code", "message"),
    [
        ({"body": {"messages": MESSAGES}}, "invalid_request", "Model parameter is required."),
        ({"body": {"model": "gpt-4o-mini"}}, "invalid_request", "Messages parameter is required."),
        (
            {"body": {**VALID["body"], "stream": True}},
            "streaming_unsupported",
            "Chat Completions: Streaming is not supported in the Batch API.",
        ),
    ],
)
async def test_what_a_row_lacks_is_told_in_openais_words(gpt, steps, row, code, message):
    batch = await steps.end(gpt, (await steps.create(gpt, {**VALID, "custom_id": "a", **row})).id)
    assert [(error.code, error.message) for error in batch.errors.data] == [(code, message)]


REFUSED = [
    ({"messages": "hi"}, "invalid_type", "messages"),
    ({"messages": [{"rolez": "user", "contentz": "x"}]}, "missing_required_parameter", "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "invalid_value", "messages[0].role"),
    ({"messages": [*MESSAGES, {"role": "user"}]}, "missing_required_parameter", "messages[1].content"),
    ({"top_k": 5}, "unknown_parameter", "top_k"),
    ({"temperature": 2.5}, "decimal_above_max_value", "temperature"),
    ({"temperature": "warm"}, "invalid_type", "temperature"),
    ({"presence_penalty": -3}, "decimal_below_min_value", "presence_penalty"),
    ({"n": 0}, "integer_below_min_value", "n"),
    ({"max_completion_tokens": 1.5}, "invalid_type", "max_completion_tokens"),
]


@pytest.mark.parametrize(("odd", "code", "param"), REFUSED)
async def test_a_row_that_a_live_call_would_refuse_is_an_error_row(gpt, steps, refusal, odd, code, param):
    body = {**VALID["body"], **odd}
    rows = (steps.chat_row("good"), {**VALID, "custom_id": "bad", "body": body})
    batch = await steps.end(gpt, (await steps.create(gpt, *rows)).id)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    (line,) = await steps.read(gpt, batch.error_file_id)
    error = line["response"]["body"]["error"]
    assert (line["custom_id"], line["response"]["status_code"]) == ("bad", 400)
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    live = await refusal(gpt.post("/chat/completions", cast_to=object, body=body))
    assert (live.status_code, live.body) == (400, error)


async def test_several_choices_are_answered_and_billed(gpt, steps):
    batch = await steps.end(gpt, (await steps.create(gpt, steps.chat_row("a", n=3))).id)
    (line,) = await steps.read(gpt, batch.output_file_id)
    body = line["response"]["body"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    one = len(body["choices"][0]["message"]["content"]) // 4
    assert body["usage"]["completion_tokens"] == 3 * one == batch.usage.output_tokens


async def test_an_answer_names_the_snapshot_of_the_model(gpt, steps):
    batch = await steps.end(gpt, (await steps.create(gpt, steps.chat_row("a", model="gpt-3.5-turbo"))).id)
    assert batch.model == "gpt-3.5-turbo"
    assert (await steps.read(gpt, batch.output_file_id))[0]["response"]["body"]["model"] == "gpt-3.5-turbo-0125"
    assert (await gpt.responses.create(model="gpt-4o-mini", input="x")).model == "gpt-4o-mini-2024-07-18"


@pytest.mark.parametrize(
    "body", [{"prompt": {"id": "pmpt_1"}}, {"previous_response_id": "resp_1"}, {"conversation": "conv_1"}]
)
async def test_a_response_may_have_something_else_in_place_of_an_input(gpt, steps, body):
    row = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": {"model": "gpt-4o-mini", **body}}
    batch = await steps.end(gpt, (await steps.create(gpt, row, endpoint="/v1/responses")).id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 1)
    assert (await gpt.responses.create(model="gpt-4o-mini", **body)).status == "completed"


@pytest.mark.parametrize(
    ("endpoint", "shape"),
    [
        ("/v1/images/generations", ImagesResponse),
        ("/v1/images/edits", ImagesResponse),
        ("/v1/videos", Video),
    ],
)
async def test_pictures_come_in_batches_only(gpt, steps, refusal, endpoint, shape):
    row = {"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": "m", "prompt": "A cat."}}
    batch = await steps.end(gpt, (await steps.create(gpt, row, endpoint=endpoint)).id)
    (line,) = await steps.read(gpt, batch.output_file_id)
    shape.model_validate(line["response"]["body"], strict=False)
    assert (await refusal(gpt.post(endpoint.removeprefix("/v1"), cast_to=object, body=row["body"]))).status_code == 404


async def test_a_cancelled_batch_can_be_cancelled_again(gpt, steps, sandbox):
    await sandbox.settings(batch_seconds=3600)
    batch = await steps.create(gpt, steps.chat_row("a"))
    await gpt.batches.cancel(batch.id)
    await steps.end(gpt, batch.id)
    assert (await gpt.batches.cancel(batch.id)).status == "cancelled"


async def test_an_ended_batch_cannot_be_cancelled(gpt, steps, refusal):
    batch = await steps.end(gpt, (await steps.create(gpt, steps.chat_row("a"))).id)
    error = await refusal(gpt.batches.cancel(batch.id))
    assert isinstance(error, openai.ConflictError)
    assert error.body["message"] == "Cannot cancel a batch with status 'completed'."


async def test_output_files_live_as_long_as_the_batch_says(gpt, steps):
    expires_after = {"anchor": "created_at", "seconds": 7200}
    batch = await steps.create(gpt, steps.chat_row("a"), output_expires_after=expires_after)
    batch = await steps.end(gpt, batch.id)
    file = await gpt.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert file.expires_at - file.created_at == 7200


async def test_an_input_file_that_is_deleted_under_way_is_still_read(gpt, steps, sandbox):
    await sandbox.settings(finish_after_polls=1, cancel_fraction=0.5)
    batch = await steps.create(gpt, *(steps.chat_row(f"r{i}") for i in range(4)))
    while (await gpt.batches.list()).data[0].status == "validating":
        pass
    await gpt.files.delete(batch.input_file_id)
    await gpt.batches.cancel(batch.id)
    batch = await steps.end(gpt, batch.id)
    assert (batch.status, batch.request_counts.completed) == ("cancelled", 2)


async def test_an_unknown_batch_is_not_found(gpt, refusal):
    for call in (gpt.batches.retrieve("batch_unknown"), gpt.batches.cancel("batch_unknown")):
        assert isinstance(await refusal(call), openai.NotFoundError)
