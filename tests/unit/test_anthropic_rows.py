"""Rows as Anthropic takes and returns them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from durabatch.activities.providers.anthropic import rows as anthropic_rows
from durabatch.activities.providers.anthropic.results import error_class, outcome
from durabatch.activities.providers.anthropic.rows import DEFAULT_MAX_TOKENS, MAX_SENT_ID
from durabatch.activities.providers.outcome import CacheWrites, RowTokens
from durabatch.activities.rows import RowRefused, parse
from durabatch.contract import BatchSpec, ErrorClass, RowStatus

MARKER = "sales-2026/0/1"
SAY_HI = [{"role": "user", "content": "Hi."}]
URL = "/v1/chat/completions"


def spec(**fields: Any) -> BatchSpec:
    return BatchSpec(provider="claude", input="rows.jsonl", **fields)


def params(row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The params that a row is sent with."""
    prepared = anthropic_rows.prepare(parse(json.dumps({"custom_id": "a", **row}).encode()), spec(**fields))
    sent = json.loads(prepared)
    assert sent.keys() == {"custom_id", "params"} and sent["custom_id"] == "a"
    found: dict[str, Any] = sent["params"]
    return found


def chat(**body: Any) -> dict[str, Any]:
    return {"method": "POST", "url": URL, "body": {"model": "claude", "messages": SAY_HI, **body}}


def refused(row: dict[str, Any], **fields: Any) -> tuple[str | None, str]:
    with pytest.raises(RowRefused) as caught:
        params(row, **fields)
    assert caught.value.custom_id == "a"
    return caught.value.field, caught.value.reason


# --- rows in Anthropic's own words ---


@pytest.mark.parametrize("endpoint", [URL, "/v1/messages"])
def test_a_native_row_goes_through_byte_for_byte(endpoint: str) -> None:
    written = (
        b'{"model": "claude",  "max_tokens":1.0e1 ,"messages":[ {"role":"user", "content":"\\u00fc"}], "tools":[]}'
    )
    written = written.replace(b"1.0e1", b"10")
    line = b'{"params": %b, "custom_id": "a"}' % written
    prepared = anthropic_rows.prepare(parse(line), spec(endpoint=endpoint, model="other", params={"max_tokens": 7}))
    assert prepared.rstrip(b" ") == b'{"custom_id":"a","params":%b}' % written
    assert anthropic_rows.with_id(prepared, "b-1") == b'{"custom_id":"b-1","params":%b}' % written


def test_the_specs_model_and_params_fill_the_gaps_of_a_native_row() -> None:
    row = {"params": {"model": None, "messages": SAY_HI, "temperature": 0.1}}
    filled = params(row, model="claude", params={"temperature": 1.0, "max_tokens": 9, "system": "Be kind."})
    assert filled == {
        "model": "claude",
        "messages": SAY_HI,
        "temperature": 0.1,
        "max_tokens": 9,
        "system": "Be kind.",
    }


def test_a_model_in_the_specs_params_comes_before_the_specs_own() -> None:
    assert params({"params": {"max_tokens": 1, "messages": SAY_HI}}, model="b", params={"model": "c"})["model"] == "c"


def test_under_the_messages_endpoint_bodies_and_inputs_are_native_too() -> None:
    image = [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x/y"}}]}]
    body = {"url": "/v1/messages", "body": {"model": "claude", "max_tokens": 5, "messages": image, "tools": [{}]}}
    assert params(body, endpoint="/v1/messages") == body["body"]
    short = params({"input": image}, endpoint="/v1/messages", model="claude", params={"thinking": {"type": "adaptive"}})
    assert short == {
        "messages": image,
        "model": "claude",
        "max_tokens": DEFAULT_MAX_TOKENS,
        "thinking": {"type": "adaptive"},
    }
    assert params({"input": "Hi."}, endpoint="/v1/messages", model="claude")["messages"] == SAY_HI


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"params": {"max_tokens": 1, "messages": SAY_HI}}, "params.model", "is missing, and the batch names none"),
        ({"params": {"model": "", "max_tokens": 1, "messages": SAY_HI}}, "params.model", "must be a model's name"),
        ({"params": {"model": 7, "max_tokens": 1, "messages": SAY_HI}}, "params.model", "must be a model's name"),
        ({"params": {"model": "m", "messages": SAY_HI}}, "params.max_tokens", "is missing, and Anthropic needs it"),
        ({"params": {"model": "m", "max_tokens": 0, "messages": SAY_HI}}, "params.max_tokens", "from 1 on"),
        ({"params": {"model": "m", "max_tokens": True, "messages": SAY_HI}}, "params.max_tokens", "whole number"),
        ({"params": {"model": "m", "max_tokens": "9", "messages": SAY_HI}}, "params.max_tokens", "whole number"),
        ({"params": {"model": "m", "max_tokens": 9}}, "params.messages", "is missing"),
        ({"params": {"model": "m", "max_tokens": 9, "messages": "Hi."}}, "params.messages", "must be a list"),
        ({"params": {"model": "m", "max_tokens": 9, "messages": SAY_HI, "stream": True}}, "params.stream", "stream"),
        ({"params": []}, "params", "must be an object"),
        ({"body": 7}, "body", "must be an object"),
        ({"input": 7}, "input", "must be a string or a list of messages"),
        ({**chat(), "url": "/v1/messages"}, "url", "differs from the batch's endpoint /v1/chat/completions"),
    ],
)
def test_a_row_that_cannot_succeed_is_refused_by_field(row: dict[str, Any], field: str, reason: str) -> None:
    where, why = refused(row)
    assert where == field and reason in why


# --- chats ---


def test_a_chat_is_translated() -> None:
    body = chat(
        messages=[
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "Hi."}]},
            {"role": "assistant", "content": "Hello.", "refusal": None, "tool_calls": None},
            {"role": "user", "content": "Bye."},
        ],
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=50,
        stop="END",
        user="u-1",
    )
    assert params(body) == {
        "model": "claude",
        "system": "Be kind.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi."}]},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Bye."},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 50,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u-1"},
    }


def test_system_and_developer_messages_at_the_beginning_become_the_system_prompt() -> None:
    given = [
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": "Two."}, {"type": "text", "text": "Three."}]},
        *SAY_HI,
    ]
    found = params(chat(messages=given))
    assert found["system"] == [{"type": "text", "text": text} for text in ("One.", "Two.", "Three.")]
    assert found["messages"] == SAY_HI
    assert params(chat(messages=given[1:]))["system"] == given[1]["content"]


def test_a_short_row_is_a_chat() -> None:
    filled = params({"input": "Hi."}, model="claude", params={"stop": ["a", "b"], "max_tokens": 5})
    assert filled == {"model": "claude", "messages": SAY_HI, "stop_sequences": ["a", "b"], "max_tokens": 5}
    listed = params({"input": [{"role": "developer", "content": "Be brief."}, *SAY_HI]}, model="claude")
    assert (listed["system"], listed["messages"]) == ("Be brief.", SAY_HI)


def test_a_chat_without_a_limit_gets_the_documented_one_and_a_rows_own_limit_wins() -> None:
    assert params(chat())["max_tokens"] == DEFAULT_MAX_TOKENS == 4096
    assert params(chat(), params={"max_completion_tokens": 7})["max_tokens"] == 7
    assert params(chat(max_completion_tokens=8), params={"max_tokens": 7})["max_tokens"] == 8
    assert params(chat(max_tokens=8, max_completion_tokens=8))["max_tokens"] == 8


def test_what_asks_for_nothing_and_what_is_null_is_left_out() -> None:
    body = chat(
        n=1,
        stream=False,
        logprobs=False,
        top_logprobs=None,
        tools=[],
        response_format={"type": "text"},
        seed=None,
        presence_penalty=0.0,
    )
    assert params(body) == {"model": "claude", "messages": SAY_HI, "max_tokens": DEFAULT_MAX_TOKENS}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("tool_choice", "auto"),
        ("functions", [{}]),
        ("response_format", {"type": "json_object"}),
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("stream", True),
        ("seed", 7),
        ("presence_penalty", 0.5),
        ("logit_bias", {"1": 2}),
        ("reasoning_effort", "low"),
        ("metadata", {"a": "b"}),
        ("something_new", 1),
        ("system", "native words in a chat"),
    ],
)
def test_a_field_that_has_no_translation_is_refused_by_name(field: str, value: Any) -> None:
    why = "cannot be translated for Anthropic: leave it out, or send the request in Anthropic's own shape"
    assert refused(chat(**{field: value})) == (f"body.{field}", why)
    assert refused(chat(), params={field: value}) == (f"spec.params.{field}", why)


@pytest.mark.parametrize(
    ("messages", "field", "reason"),
    [
        ("Hi.", "body.messages", "must be a list of objects"),
        (["Hi."], "body.messages", "must be a list of objects"),
        ([], "body.messages", "holds no message of a user"),
        ([{"role": "system", "content": "x"}], "body.messages", "holds no message of a user"),
        ([*SAY_HI, {"role": "system", "content": "x"}], "body.messages[1].role", "mid-conversation"),
        ([{"role": "tool", "content": "x", "tool_call_id": "1"}], "body.messages[0].tool_call_id", "translated"),
        ([{"role": "tool", "content": "x"}], "body.messages[0].role", "must be system, developer, user or assistant"),
        ([{"content": "x"}], "body.messages[0].role", "must be system, developer, user or assistant"),
        ([{"role": "user", "content": "x", "name": "Bo"}], "body.messages[0].name", "cannot be translated"),
        ([{"role": "assistant", "content": None, "tool_calls": [{}]}], "body.messages[0].tool_calls", "translated"),
        ([{"role": "assistant", "content": None}], "body.messages[0].content", "must be text"),
        ([{"role": "user"}], "body.messages[0].content", "must be text"),
        ([{"role": "user", "content": {"type": "text"}}], "body.messages[0].content", "must be text"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}],
            "body.messages[0].content[1]",
            "is not text",
        ),
        ([{"role": "user", "content": ["x"]}], "body.messages[0].content[0]", "is not text"),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], "body.messages[0].content[0]", "is not text"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}],
            "body.messages[0].content[0].cache_control",
            "cannot be translated",
        ),
    ],
)
def test_a_message_that_has_no_translation_is_refused_by_place(messages: Any, field: str, reason: str) -> None:
    where, why = refused(chat(messages=messages))
    assert where == field and reason in why
    if isinstance(messages, list):
        where, _ = refused({"input": messages}, model="claude")
        assert where == field.replace("body.messages", "input")


def test_numbers_that_mean_something_else_at_anthropic_are_refused() -> None:
    assert refused(chat(temperature=1.5))[0] == "body.temperature"
    assert refused(chat(), params={"temperature": 2})[0] == "spec.params.temperature"
    assert refused(chat(max_tokens=5, max_completion_tokens=6)) == (
        "body.max_tokens",
        "differs from max_completion_tokens",
    )
    assert refused(chat(max_tokens=0))[0] == "body.max_tokens"
    assert refused(chat(model=None)) == ("body.model", "is missing, and the batch names none")
    assert refused({"input": "Hi."}) == ("model", "is missing, and the batch names none")
    assert refused({"body": {"model": "claude"}}) == ("body.messages", "is missing, and Anthropic needs it")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"a secret": 1}, "body"),
        ({"messages": [{"role": "a secret", "content": "x"}]}, "body.messages[0].role"),
        ({"messages": [{"role": "user", "a secret": 1, "content": "x"}]}, "body.messages[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "a secret": 1}]}]},
            "body.messages[0].content[0]",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "a secret"}]}]}, "body.messages[0].content[0]"),
    ],
)
def test_a_refusal_does_not_quote_the_row(body: dict[str, Any], field: str) -> None:
    where, why = refused(chat(**body))
    assert where == field and "secret" not in why


# --- ids ---


@pytest.mark.parametrize("custom_id", ["a", "x" * 256, "mit Leerzeichen", "ü/é\\\"'", "日本", "-"])
def test_an_id_of_any_printable_form_travels_as_one_that_anthropic_takes(custom_id: str) -> None:
    line = json.dumps({"custom_id": custom_id, "params": {"model": "m", "max_tokens": 1, "messages": SAY_HI}}).encode()
    prepared = anthropic_rows.prepare(parse(line), spec())
    sent_as = anthropic_rows.sent_id(MARKER, 99_999)
    assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", sent_as)
    wired = anthropic_rows.with_id(prepared, sent_as)
    assert json.loads(wired) == {**json.loads(line), "custom_id": sent_as}
    assert len(sent_as) == MAX_SENT_ID
    assert len(wired) <= len(prepared)  # so the plan counted enough
    assert b"\n" not in prepared


def test_ids_differ_by_marker_and_by_row_and_are_the_same_for_ever() -> None:
    assert anthropic_rows.sent_id(MARKER, 0) == "65a0318bf6e11e0d-0"
    markers = [f"b/{shard}/{attempt}" for shard in range(20) for attempt in range(20)]
    ids = {anthropic_rows.sent_id(marker, row) for marker in markers for row in range(20)}
    assert len(ids) == 20 * 20 * 20


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ('{"custom_id": "NAME-7", "result": {}}', True),
        ('{"result":{},"custom_id":"NAME-7"}', True),
        ('{"custom_id":"NAME-7","resu', True),  # cut, and still telling
        ('{"custom_id":"request-7","result":{}}', False),
        ('{"custom_id":"65a0318b-7","result":{}}', False),
        ('{"custom_id":"","result":{}}', False),
        ('{"custom_id":"NAME', None),
        ('{"text":"\\"custom_id\\":\\"NAME-7\\""}', None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_a_line_of_results_tells_whose_it_is(line: str, verdict: bool | None) -> None:
    data = line.replace("NAME", anthropic_rows.name_of(MARKER)).encode()
    assert anthropic_rows.owns(data, MARKER) is verdict


def test_the_model_of_a_prepared_row_can_be_read() -> None:
    prepared = anthropic_rows.prepare(parse(b'{"custom_id":"a","input":"Hi."}'), spec(model="claude-x"))
    assert anthropic_rows.model_of(prepared) == "claude-x"


# --- results ---


def result(**fields: Any) -> bytes:
    return json.dumps({"custom_id": "n-1", "result": fields}).encode()


def message(**fields: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
        **fields,
    }


@pytest.mark.parametrize(
    ("usage", "writes"),
    [
        ({}, None),
        ({"cache_creation_input_tokens": None, "cache_creation": None}, None),
        ({"cache_creation_input_tokens": 0, "cache_creation": {"ephemeral_1h_input_tokens": 0}}, None),
        ({"cache_creation_input_tokens": 9, "cache_creation": {}}, CacheWrites(tokens=9)),
        ({"cache_creation_input_tokens": 9, "cache_creation": [1]}, CacheWrites(tokens=9)),
        (
            {"cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": "4"}},
            CacheWrites(tokens=9),
        ),
        (
            {"cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": None}},
            CacheWrites(tokens=9),
        ),
        (
            {
                "cache_creation_input_tokens": 9,
                "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 4},
            },
            CacheWrites(tokens=9, hour_tokens=4),
        ),
    ],
)
def test_what_was_written_to_the_cache_is_told_apart(usage: dict[str, Any], writes: CacheWrites | None) -> None:
    body = message(usage={"input_tokens": 10, "output_tokens": 5, **usage})
    assert outcome(result(type="succeeded", message=body)).cache_writes == writes


def test_a_success_has_text_model_tokens_and_the_whole_message() -> None:
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 3000,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    content = [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "Hel"},
        {"type": "text", "text": "lo."},
        {"type": "tool_use", "input": {"text": "no"}},
    ]
    body = message(usage=usage, content=content)
    found = outcome(result(type="succeeded", message=body))
    assert (found.custom_id, found.status, found.text, found.model) == (
        "n-1",
        RowStatus.SUCCEEDED,
        "Hello.",
        "claude-haiku-4-5",
    )
    assert found.tokens == RowTokens(input_tokens=3210, cached_input_tokens=3000, output_tokens=7, reasoning_tokens=4)
    assert found.cache_writes == CacheWrites(tokens=200)
    assert found.response is not None and found.response.body is not None
    assert found.response.status_code == 200 and json.loads(bytes(found.response.body)) == body
    assert found.failure is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"content": []}, ""),
        ({"content": [{"type": "tool_use", "id": "x", "name": "y", "input": {}}]}, None),
        ({"content": "a shape of its own"}, None),
        ({"stop_reason": "max_tokens"}, "Hello."),
        ({"stop_reason": "model_context_window_exceeded"}, "Hello."),
        ({"usage": None}, "Hello."),
        ({"usage": {"input_tokens": None}}, "Hello."),
    ],
)
def test_a_success_stands_whatever_its_message_looks_like(fields: dict[str, Any], text: str | None) -> None:
    found = outcome(result(type="succeeded", message=message(**fields)))
    assert (found.status, found.text) == (RowStatus.SUCCEEDED, text)
    assert found.response is not None


def test_a_refusal_failed_by_the_content_filter_and_is_kept_and_billed() -> None:
    found = outcome(result(type="succeeded", message=message(stop_reason="refusal")))
    assert found.status is RowStatus.FAILED and found.failure is not None
    assert (found.failure.type, found.failure.code) == (ErrorClass.CONTENT_FILTERED, "refusal")
    assert found.tokens is not None and found.response is not None and found.text == "Hello."


@pytest.mark.parametrize(("kind", "status"), [("canceled", RowStatus.CANCELED), ("expired", RowStatus.EXPIRED)])
def test_a_row_without_an_answer_says_what_came_first(kind: str, status: RowStatus) -> None:
    found = outcome(result(type=kind))
    assert found.status is status and found.failure is not None
    assert (found.failure.type, found.failure.code) == (ErrorClass(kind), kind)
    assert found.tokens is None and found.response is None


def test_an_error_keeps_anthropics_words() -> None:
    inner = {"type": "invalid_request_error", "message": "max_tokens: Field required"}
    for error in ({"type": "error", "error": inner, "request_id": "req_1"}, inner):
        found = outcome(result(type="errored", error=error))
        assert found.status is RowStatus.FAILED and found.failure is not None
        assert found.failure.type is ErrorClass.INVALID_REQUEST
        assert (found.failure.code, found.failure.message) == ("invalid_request_error", "max_tokens: Field required")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"type": "errored"}, "errored"),
        ({"type": "errored", "error": "words"}, "errored"),
        ({"type": "errored", "error": {"type": "error", "error": {"type": 7, "message": []}}}, "errored"),
        ({"type": "something_new"}, "something_new"),
    ],
)
def test_an_end_that_nobody_knows_is_a_failure_that_is_not_tried_again(fields: dict[str, Any], code: str) -> None:
    found = outcome(result(**fields))
    assert found.status is RowStatus.FAILED and found.failure is not None
    assert (found.failure.type, found.failure.code) == (ErrorClass.OTHER, code)


@pytest.mark.parametrize(
    ("given", "kind", "code", "words"),
    [
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            ErrorClass.SERVER_ERROR,
            "overloaded_error",
            "Overloaded",
        ),
        ({"type": "error"}, ErrorClass.OTHER, "error", "The provider gave no reason."),
        (None, ErrorClass.OTHER, "empty_response", "Anthropic reports success, and gives no message."),
        ({}, ErrorClass.OTHER, "empty_response", "Anthropic reports success, and gives no message."),
    ],
)
def test_a_success_without_an_answer_failed_with_class_and_words(
    given: Any, kind: ErrorClass, code: str, words: str
) -> None:
    found = outcome(result(type="succeeded", message=given))
    assert found.status is RowStatus.FAILED and found.failure is not None
    assert (found.failure.type, found.failure.code, found.failure.message) == (kind, code, words)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, "The provider gave no reason."),
        ({}, "The provider gave no reason."),
        ({"type": "error", "error": {"type": "api_error", "message": ""}}, "The provider gave no reason."),
        ("Its own words.", "Its own words."),
        ({"detail": "Its own words."}, "Its own words."),
        ({"error": "Its own words."}, "Its own words."),
        ([{"message": "Its own"}, {"message": "words."}], "Its own; words."),
    ],
)
def test_no_error_is_without_words(error: Any, words: str) -> None:
    found = outcome(result(type="errored", error=error))
    assert found.failure is not None and found.failure.message == words


USUAL = {"input_tokens": 10, "output_tokens": 5}


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (result(type="succeeded", message=message(usage=USUAL)).replace(b'"n-1"', b"17"), {"custom_id": "17"}),
        (result(type=[], message=message(usage=USUAL)), {}),
        (result(message=message(usage=USUAL)), {}),
        (result(type="succeeded", message=message(usage=USUAL, model=4)), {"model": "4"}),
        (result(type="succeeded", message=message(usage=USUAL, stop_reason={})), {}),
        (result(type="succeeded", message=message(usage={"input_tokens": "10", "output_tokens": 5.0})), {}),
        (result(type="succeeded", message=message(usage={**USUAL, "output_tokens_details": "none"})), {}),
        (result(type="succeeded", message=message(usage={**USUAL, "input_tokens": []})), {"tokens": None}),
        (result(type="succeeded", message=message(usage=[])), {"tokens": None}),
        (result(type="succeeded", message=message(usage={})), {"tokens": None}),
        (
            result(
                type="succeeded", message=message(usage=USUAL, content=[7, {"type": "text", "text": "Hello."}, None])
            ),
            {},
        ),
        (
            result(
                type="succeeded",
                message=message(usage=USUAL, content=[{"type": 7}, {"type": "text", "text": "Hello."}]),
            ),
            {},
        ),
    ],
)
def test_one_odd_field_costs_only_itself(line: bytes, fields: dict[str, Any]) -> None:
    found = outcome(line)
    assert (found.status, found.text, found.failure) == (RowStatus.SUCCEEDED, "Hello.", None)
    assert found.custom_id == fields.get("custom_id", "n-1")
    assert found.model == fields.get("model", "claude-haiku-4-5")
    assert found.tokens == fields.get("tokens", RowTokens(input_tokens=10, output_tokens=5))


@pytest.mark.parametrize(
    "line", [b"", b"nonsense", b"[]", b'{"custom_id":"a"}', b'{"result":{"type":"expired"}}', b'{"custom_id":"\xff"}']
)
def test_a_line_that_is_no_result_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        outcome(line)


@pytest.mark.parametrize(
    ("kind", "code", "text", "expected"),
    [
        ("invalid_request_error", None, "messages: Field required", ErrorClass.INVALID_REQUEST),
        ("invalid_request_error", None, "prompt is too long: 207791 tokens > 200000", ErrorClass.CONTEXT_LENGTH),
        (
            "invalid_request_error",
            None,
            "input length and `max_tokens` exceed context limit",
            ErrorClass.CONTEXT_LENGTH,
        ),
        ("invalid_request_error", "tool_name_conflict", "x", ErrorClass.INVALID_REQUEST),
        ("request_too_large", None, "x", ErrorClass.INVALID_REQUEST),
        ("authentication_error", None, "x", ErrorClass.AUTHENTICATION),
        ("permission_error", None, "x", ErrorClass.AUTHENTICATION),
        ("not_found_error", None, "model: x", ErrorClass.NOT_FOUND),
        ("billing_error", None, "x", ErrorClass.QUOTA_EXHAUSTED),
        ("billing_error", "linked_organization_spend_limit_reached", "x", ErrorClass.QUOTA_EXHAUSTED),
        ("rate_limit_error", None, "x", ErrorClass.RATE_LIMITED),
        ("rate_limit_error", "ramp_limit_exceeded", "x", ErrorClass.RATE_LIMITED),
        ("rate_limit_error", "enforced_spend_limit_reached", "x", ErrorClass.QUOTA_EXHAUSTED),
        ("api_error", None, "x", ErrorClass.SERVER_ERROR),
        ("overloaded_error", None, "x", ErrorClass.SERVER_ERROR),
        ("timeout_error", None, "x", ErrorClass.TIMEOUT),
        ("conflict_error", None, "x", ErrorClass.OTHER),
        (None, None, None, ErrorClass.OTHER),
    ],
)
def test_an_error_has_a_class(kind: str | None, code: str | None, text: str | None, expected: ErrorClass) -> None:
    assert error_class(kind, code, text) is expected
