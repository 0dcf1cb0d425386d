"""Rows as OpenAI takes and returns them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from durabatch.activities.providers.error_details import ErrorDetails
from durabatch.activities.providers.openai import rows as openai_rows
from durabatch.activities.providers.openai.errors import error_class
from durabatch.activities.providers.openai.results import outcome
from durabatch.activities.providers.outcome import RowTokens
from durabatch.activities.rows import RowRefused, parse
from durabatch.contract import BatchSpec, ErrorClass, RowStatus

URL = "/v1/chat/completions"
SAY_HI = [{"role": "user", "content": "Hi."}]


def spec(**fields: Any) -> BatchSpec:
    return BatchSpec(provider="gpt", input="rows.jsonl", **fields)


def line(**fields: Any) -> bytes:
    row = {"custom_id": "a", "method": "POST", "url": URL, "body": {"model": "m", "messages": SAY_HI}, **fields}
    return json.dumps({name: value for name, value in row.items() if value is not None}).encode()


def sent(data: bytes, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openai_rows.prepare(parse(data), spec(**fields)))
    return found


# --- in ---


@pytest.mark.parametrize(
    "data",
    [
        line(),
        b'{ "custom_id" : "a", "method":"POST","url":"/v1/chat/completions", "body": {"messages":[],"model":"m"} }',
        b'{"body":{"model":"m","messages":[]},"url":"/v1/chat/completions","method":"POST","custom_id":"a"}',
    ],
)
def test_a_line_that_needs_nothing_goes_through_byte_for_byte(data: bytes) -> None:
    row = parse(data)
    assert openai_rows.prepare(row, spec(model="other")) is row.data


@pytest.mark.parametrize("gone", ["method", "url"])
def test_a_line_without_method_or_url_gets_them(gone: str) -> None:
    body = {"model": "m", "messages": SAY_HI, "metadata": {"method": "none of the line's", "url": "x"}}
    found = sent(line(body=body, **{gone: None}))
    assert found == {"custom_id": "a", "method": "POST", "url": URL, "body": body}


@pytest.mark.parametrize("field", ["params", "input", "method", "url"])
def test_a_field_that_says_null_is_not_sent(field: str) -> None:
    data = line()[:-1].replace(f'"{field}"'.encode(), b'"note"') + f', "{field}": null}}'.encode()
    assert set(sent(data)) == {"custom_id", "method", "url", "body"}
    whole = b'{"custom_id":"a","method":null,"url":"/v1/chat/completions","body":{"model":"m","messages":[]}}'
    assert sent(whole)["method"] == "POST"


def test_a_row_that_names_its_path_as_azure_does_is_sent_as_the_provider_names_it() -> None:
    short, body = b'{"custom_id": "a", "input": "Hi."}', {"model": "m", "messages": SAY_HI}
    for data in (line(), line(url="/chat/completions"), line(url=None), short):
        for azure, url in ((False, URL), (True, "/chat/completions")):
            found = json.loads(openai_rows.prepare(parse(data), spec(model="m"), azure=azure))
            assert found == {"custom_id": "a", "method": "POST", "url": url, "body": body}
    row = parse(line(url="/chat/completions"))
    assert openai_rows.prepare(row, spec(), azure=True) is row.data
    # What is known of Azure's chats is not known of its other paths.
    other = parse(line(url="/embeddings", body={"model": "m", "input": "Hi."}))
    assert b'"/v1/embeddings"' in openai_rows.prepare(other, spec(endpoint="/v1/embeddings"), azure=True)


@pytest.mark.parametrize("url", ["/completions", "chat/completions", "/v1", "", "/v1/v1/chat/completions"])
def test_a_row_of_another_path_is_refused_at_azure_too(url: str) -> None:
    with pytest.raises(RowRefused, match="differs from the batch's endpoint"):
        openai_rows.prepare(parse(line(url=url)), spec(), azure=True)


@pytest.mark.parametrize(
    ("base_url", "azure"),
    [
        ("https://x.openai.azure.com/openai/v1", True),
        ("https://x.services.ai.azure.com/openai/v1", True),
        ("https://x.openai.azure.us/openai/v1", True),
        ("https://corp.azure-api.net/openai/v1", True),
        ("https://api.openai.com/v1", False),
        ("https://api.groq.com/openai/v1", False),
        ("https://azure.com.example.org/v1", False),
        ("http://127.0.0.1:9000/v1", False),
    ],
)
def test_azure_is_known_by_its_host(base_url: str, azure: bool) -> None:
    assert openai_rows.is_azure(base_url) is azure


@pytest.mark.parametrize(
    ("given", "count"),
    [("word", 1), ([], 1), ([1, 2, 3], 1), (["a", "b"], 2), ([[1, 2], [3], [4]], 3), ([""], 1), (None, 1), (17, 1)],
)
def test_the_inputs_of_an_embedding_row_are_counted(given: Any, count: int) -> None:
    assert openai_rows.inputs_of(line(body={"model": "m", "input": given})) == count


def test_the_specs_model_and_params_lie_under_the_rows_own() -> None:
    body = {"model": None, "messages": SAY_HI, "temperature": 0.1}
    found = sent(line(body=body), model="gpt", params={"temperature": 1, "seed": 7})
    assert found["body"] == {"model": "gpt", "temperature": 0.1, "seed": 7, "messages": SAY_HI}


@pytest.mark.parametrize(
    ("endpoint", "given", "body"),
    [
        (URL, "Hi.", {"messages": SAY_HI}),
        (URL, SAY_HI, {"messages": SAY_HI}),
        ("/v1/responses", "Hi.", {"input": "Hi."}),
        ("/v1/responses", SAY_HI, {"input": SAY_HI}),
        ("/v1/embeddings", ["a", "b"], {"input": ["a", "b"]}),
        ("/v1/completions", "Once", {"prompt": "Once"}),
        ("/v1/moderations", "Hi.", {"input": "Hi."}),
    ],
)
def test_a_short_row_becomes_the_endpoints_body(endpoint: str, given: Any, body: dict[str, Any]) -> None:
    data = json.dumps({"custom_id": "a", "input": given}).encode()
    found = sent(data, endpoint=endpoint, model="m", params={"top_p": 1})
    assert found == {"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": "m", "top_p": 1, **body}}


def test_a_moderation_names_its_model_itself() -> None:
    assert sent(b'{"custom_id":"a","input":"Hi."}', endpoint="/v1/moderations")["body"] == {"input": "Hi."}


@pytest.mark.parametrize("name", ["prompt", "previous_response_id", "conversation"])
def test_a_response_may_have_something_else_in_place_of_an_input(name: str) -> None:
    body = {"model": "m", name: {"id": "pmpt_1"} if name == "prompt" else "id_1"}
    url = "/v1/responses"
    assert sent(line(url=url, body=body), endpoint=url)["body"] == body
    fields = {"endpoint": url, "params": {name: body[name]}}
    assert sent(line(url=url, body={"model": "m"}), **fields)["body"] == body


@pytest.mark.parametrize(
    ("data", "fields", "field", "reason"),
    [
        (
            line(url="/v1/responses", body={"model": "m", "messages": SAY_HI}),
            {"endpoint": "/v1/responses"},
            "body.input",
            "is missing, and /v1/responses needs it",
        ),
        (
            line(body={"model": "m", "prompt": "Hi."}),
            {},
            "body.messages",
            "is missing, and /v1/chat/completions needs it",
        ),
        (b'{"custom_id":"a","params":{}}', {}, "params.model", "is missing, and the batch names none"),
        (b'{"custom_id":"a","params":{}}', {"endpoint": "/v1/embeddings"}, "params", "is Anthropic's form"),
        (line(url="/v1/embeddings"), {}, "url", "differs from the batch's endpoint"),
        (b'{"custom_id":"a","input":{}}', {}, "input", "must be a string or a list of messages"),
        (line(body={"messages": SAY_HI}), {}, "body.model", "is missing, and the batch names none"),
        (line(body={"model": "", "messages": SAY_HI}), {}, "body.model", "is empty"),
        (line(body={"model": 7, "messages": SAY_HI}), {}, "body.model", "expected `str"),
        (line(body=[]), {}, "body", "expected `object"),
        (line(body={"model": "m"}), {}, "body.messages", "is missing, and /v1/chat/completions needs it"),
        (line(body={"model": "m", "messages": "Hi."}), {}, "body.messages", "must be a list"),
        (line(body={"model": "m", "messages": SAY_HI, "stream": True}), {}, "body.stream", "cannot stream"),
        (line(), {"params": {"stream": True}}, "body.stream", "cannot stream"),
    ],
)
def test_a_row_that_openai_would_refuse_the_whole_file_for_is_refused(
    data: bytes, fields: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(RowRefused) as caught:
        sent(data, **fields)
    assert caught.value.field == field and reason in caught.value.reason
    assert caught.value.custom_id == "a"


def test_the_model_of_a_prepared_row_can_be_read() -> None:
    assert openai_rows.model_of(line()) == "m"


# --- out ---


def chat(**fields: Any) -> dict[str, Any]:
    return {
        "model": "gpt-4o-mini",
        "choices": [{"message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        **fields,
    }


def answered(body: Any, status: int | None = 200, **fields: Any) -> bytes:
    response = {"status_code": status, "request_id": "req_1", "body": body}
    return json.dumps({"id": "x", "custom_id": "a", "response": response, "error": None, **fields}).encode()


def test_a_success_has_text_model_tokens_and_the_whole_body() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }
    found = outcome(answered(chat(usage=usage)))
    assert (found.custom_id, found.status, found.text, found.model) == (
        "a",
        RowStatus.SUCCEEDED,
        "Hello.",
        "gpt-4o-mini",
    )
    assert found.tokens == RowTokens(input_tokens=100, cached_input_tokens=64, output_tokens=50, reasoning_tokens=40)
    assert found.response is not None and found.response.body is not None
    assert (found.response.status_code, found.response.request_id) == (200, "req_1")
    assert json.loads(bytes(found.response.body)) == chat(usage=usage)


RESPONSE = {
    "model": "gpt-5",
    "status": "completed",
    "output": [
        {"type": "reasoning", "summary": []},
        {
            "type": "message",
            "content": [{"type": "output_text", "text": "Hel"}, {"type": "output_text", "text": "lo."}],
        },
    ],
    "usage": {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 1},
        "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 2},
    },
}


@pytest.mark.parametrize(
    ("body", "text", "tokens"),
    [
        (RESPONSE, "Hello.", RowTokens(input_tokens=9, cached_input_tokens=1, output_tokens=8, reasoning_tokens=2)),
        ({"model": "m", "choices": [{"text": "Once", "finish_reason": "stop"}]}, "Once", None),
        (
            {"model": "m", "data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 3}},
            None,
            RowTokens(input_tokens=3),
        ),
        ({"model": "m", "results": [{"flagged": False}]}, None, None),
        (chat(choices=[{"message": {"content": None, "refusal": "No."}}], usage=None), "No.", None),
        (chat(choices=[{"message": {"content": ""}}], usage=None), "", None),
        (chat(choices=[{"message": {"content": [{"type": "text", "text": "Hi"}, 7]}}], usage=None), "Hi", None),
        (chat(choices=[{"message": {"content": "x"}, "finish_reason": "length"}], usage=None), "x", None),
        ({"choices": "a shape of its own"}, None, None),
        ("not even an object", None, None),
    ],
)
def test_a_success_stands_whatever_its_body_looks_like(body: Any, text: str | None, tokens: RowTokens | None) -> None:
    if isinstance(body, str):
        body = [body]
    found = outcome(answered(body))
    assert (found.status, found.text, found.tokens) == (RowStatus.SUCCEEDED, text, tokens)


def test_a_body_that_came_as_a_string_of_json_is_read() -> None:
    assert outcome(answered(json.dumps(chat()))).text == "Hello."


@pytest.mark.parametrize(
    "body",
    [
        chat(choices=[{"message": {"content": "Hel"}, "finish_reason": "content_filter"}]),
        {**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
    ],
)
def test_a_filtered_answer_failed_and_is_kept_and_billed(body: dict[str, Any]) -> None:
    found = outcome(answered(body))
    assert found.status is RowStatus.FAILED and found.failure is not None
    assert (found.failure.type, found.failure.code) == (ErrorClass.CONTENT_FILTERED, "content_filter")
    assert found.text and found.tokens is not None and found.response is not None


def test_a_failed_response_within_a_2xx_failed() -> None:
    body = {**RESPONSE, "status": "failed", "error": {"code": "server_error", "message": "Sorry."}}
    found = outcome(answered(body))
    assert found.failure is not None
    assert (found.failure.type, found.failure.code, found.failure.message) == (
        ErrorClass.SERVER_ERROR,
        "server_error",
        "Sorry.",
    )


NOTHING_SAID = "The provider gave no reason."
ANSWERED_NOTHING = "The provider reports success, and its answer is empty."


def broken(**choice: Any) -> dict[str, Any]:
    return chat(choices=[{"index": 0, "message": {"role": "assistant", "content": "Hel"}, **choice}])


@pytest.mark.parametrize(
    ("body", "kind", "code", "message"),
    [
        # The body is an error.
        (
            {"error": {"message": "Upstream failed.", "type": "server_error", "code": 500}},
            ErrorClass.SERVER_ERROR,
            "500",
            "Upstream failed.",
        ),
        (
            {"object": "error", "message": "prompt too long", "type": "BadRequestError", "code": 400},
            ErrorClass.INVALID_REQUEST,
            "400",
            "prompt too long",
        ),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            ErrorClass.SERVER_ERROR,
            "overloaded_error",
            "Overloaded",
        ),
        ({"error": {"code": 429, "message": "Slow down."}}, ErrorClass.RATE_LIMITED, "429", "Slow down."),
        ({"error": "words"}, ErrorClass.OTHER, "error", "words"),
        ({"detail": [{"loc": ["body", "n"], "msg": "too many"}]}, ErrorClass.OTHER, "error", "body.n: too many"),
        ({"message": "no such route"}, ErrorClass.OTHER, "error", "no such route"),
        ({"object": "error"}, ErrorClass.OTHER, "error", NOTHING_SAID),
        (chat(error={"code": 502, "message": "Broke off."}), ErrorClass.SERVER_ERROR, "502", "Broke off."),
        ("<html>Bad Gateway</html>", ErrorClass.OTHER, "unexpected_response", "Bad Gateway"),
        ("", ErrorClass.OTHER, "unexpected_response", "The provider's answer is an empty text."),
        # A choice ended with one.
        (
            broken(
                finish_reason="error", error={"code": 502, "message": "Upstream error", "metadata": {"raw": "busy"}}
            ),
            ErrorClass.SERVER_ERROR,
            "502",
            "Upstream error (busy)",
        ),
        (broken(error={"code": 400, "message": "No."}), ErrorClass.INVALID_REQUEST, "400", "No."),
        (
            broken(finish_reason="error"),
            ErrorClass.SERVER_ERROR,
            "error",
            'The provider broke the answer off with finish_reason "error" and gave no reason.',
        ),
        (
            broken(finish_reason="abort"),
            ErrorClass.SERVER_ERROR,
            "abort",
            'The provider broke the answer off with finish_reason "abort" and gave no reason.',
        ),
        (
            broken(finish_reason="content_filter: PROHIBITED_CONTENT"),
            ErrorClass.CONTENT_FILTERED,
            "content_filter",
            "The provider's content filter ended it.",
        ),
        # A response that was not completed.
        (
            {**RESPONSE, "status": "failed", "error": None},
            ErrorClass.SERVER_ERROR,
            "failed",
            "The response's status is failed, and the provider gave no reason.",
        ),
        (
            {**RESPONSE, "status": "failed", "error": {"code": "new_code", "message": "Sorry."}},
            ErrorClass.SERVER_ERROR,
            "new_code",
            "Sorry.",
        ),
        (
            {**RESPONSE, "status": "cancelled"},
            ErrorClass.SERVER_ERROR,
            "cancelled",
            "The response's status is cancelled, and the provider gave no reason.",
        ),
        (
            {**RESPONSE, "status": "queued", "output": []},
            ErrorClass.TIMEOUT,
            "queued",
            "The batch ended while this answer was queued.",
        ),
        (
            {**RESPONSE, "status": "in_progress", "output": []},
            ErrorClass.TIMEOUT,
            "in_progress",
            "The batch ended while this answer was in progress.",
        ),
        (
            {
                **RESPONSE,
                "status": "incomplete",
                "output": [{"type": "reasoning", "summary": []}],
                "incomplete_details": {"reason": "max_output_tokens"},
            },
            ErrorClass.OTHER,
            "max_output_tokens",
            "The answer ended before it had any output (max_output_tokens).",
        ),
        # There is nothing in it.
        (chat(choices=[]), ErrorClass.OTHER, "empty_response", ANSWERED_NOTHING),
        (chat(choices=None), ErrorClass.OTHER, "empty_response", ANSWERED_NOTHING),
        ({**RESPONSE, "output": []}, ErrorClass.OTHER, "empty_response", ANSWERED_NOTHING),
        ({"object": "list", "data": [], "model": "m"}, ErrorClass.OTHER, "empty_response", ANSWERED_NOTHING),
        ({}, ErrorClass.OTHER, "empty_response", ANSWERED_NOTHING),
    ],
)
def test_a_2xx_without_an_answer_failed_with_class_and_words(
    body: Any, kind: ErrorClass, code: str, message: str
) -> None:
    found = outcome(answered(body))
    assert found.status is RowStatus.FAILED and found.failure is not None
    assert (found.failure.type, found.failure.code, found.failure.message) == (kind, code, message)
    assert found.response is not None and found.response.body is not None
    assert json.loads(bytes(found.response.body)) == body


@pytest.mark.parametrize(
    "body",
    [
        {**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        {**RESPONSE, "status": "incomplete", "output": [{"type": "function_call", "arguments": "{"}], "usage": None},
        {**RESPONSE, "status": "a_new_word"},
        broken(finish_reason="length"),
        broken(finish_reason="a_new_word"),
        broken(finish_reason="stop", error=None),
        broken(finish_reason="stop", error={}),
        chat(error=None),
        chat(error={}),
        chat(error=""),
        chat(error=False),
        chat(error={"code": None, "message": ""}),
        {"model": "m", "message": {"role": "assistant", "content": "Another server's shape."}},
        {"model": "m", "answer": "Another server's shape."},
    ],
)
def test_an_answer_that_is_cut_short_or_of_another_shape_is_no_failure(body: Any) -> None:
    assert outcome(answered(body)).status is RowStatus.SUCCEEDED


def test_the_bodys_answer_outweighs_an_error_beside_it_and_an_error_beside_nothing_counts() -> None:
    error = {"code": "server_error", "message": "Sorry."}
    assert outcome(answered(chat(), error=error)).status is RowStatus.SUCCEEDED
    found = outcome(answered({}, error=error))
    assert found.failure is not None and (found.failure.code, found.failure.message) == ("server_error", "Sorry.")


USUAL = answered(chat())


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (answered(chat(), "200"), {}),
        (answered(chat(), 200.0), {}),
        (answered(chat(), "OK"), {}),
        (answered(chat(), 10**30), {}),
        (answered(chat(), error=False), {}),
        (answered(chat(), error=0), {}),
        (answered(chat(), id={}), {}),
        (USUAL.replace(b'"req_1"', b"12345"), {"request_id": "12345"}),
        (USUAL.replace(b'"req_1"', b"[]"), {"request_id": None}),
        (USUAL.replace(b'"a"', b"17"), {"custom_id": "17"}),
        (answered(chat(model=17)), {"model": "17"}),
        (answered(chat(model=[])), {"model": None}),
        (answered(chat(usage={"prompt_tokens": 10.0, "completion_tokens": "5"})), {}),
        (answered(chat(usage={"prompt_tokens": 10, "completion_tokens": 5.25})), {}),
        (answered(chat(usage={"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": []})), {}),
        (answered(chat(usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": {}})), {}),
        (answered(chat(usage={"prompt_tokens": 10, "completion_tokens": "many"})), {"tokens": None}),
        (answered(chat(usage={"prompt_tokens": 10, "completion_tokens": True})), {"tokens": None}),
        (answered(chat(usage=[])), {"tokens": None}),
        (answered(chat(usage={})), {"tokens": None}),
        (answered(chat(usage={"total_tokens": 15})), {"tokens": None}),
        (answered(chat(choices=[{"message": {"content": "Hello."}, "finish_reason": {"type": "stop"}}])), {}),
        (answered(chat(choices=[{"message": {"content": "Hello.", "refusal": False}}, None, 7])), {}),
        (answered(chat(status=[], incomplete_details="none", output="none")), {}),
    ],
)
def test_one_odd_field_costs_only_itself(line: bytes, fields: dict[str, Any]) -> None:
    found = outcome(line)
    assert (found.status, found.text, found.failure) == (RowStatus.SUCCEEDED, "Hello.", None)
    assert found.custom_id == fields.get("custom_id", "a")
    assert found.model == fields.get("model", "gpt-4o-mini")
    assert found.tokens == fields.get("tokens", RowTokens(input_tokens=10, output_tokens=5))
    assert found.response is not None
    assert (found.response.status_code, found.response.request_id) == (200, fields.get("request_id", "req_1"))


@pytest.mark.parametrize(
    ("data", "kind", "code", "message"),
    [
        (
            answered({"error": {"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded"}}, 429),
            ErrorClass.RATE_LIMITED,
            "rate_limit_exceeded",
            "Slow down.",
        ),
        (answered({"error": "words"}, 400), ErrorClass.INVALID_REQUEST, "http_400", "words"),
        (answered({"message": "words"}, 500), ErrorClass.SERVER_ERROR, "http_500", "words"),
        (answered(["odd"], 503), ErrorClass.SERVER_ERROR, "http_503", "odd"),
        (
            answered(None, 500),
            ErrorClass.SERVER_ERROR,
            "http_500",
            "HTTP status 500; the provider gave no reason.",
        ),
        (answered(None, 0, error={"message": "lost"}), ErrorClass.SERVER_ERROR, None, "lost"),
        (
            answered(None, None, response=None, error={"code": "batch_expired", "message": "Too late."}),
            ErrorClass.EXPIRED,
            "batch_expired",
            "Too late.",
        ),
        (answered(None, response=None, error="words"), ErrorClass.OTHER, None, "words"),
        (
            answered(None, response=None, error={"type": "server_error"}),
            ErrorClass.SERVER_ERROR,
            "server_error",
            "The provider gave no reason.",
        ),
        (
            answered({"detail": "field required: messages"}, 422),
            ErrorClass.INVALID_REQUEST,
            "http_422",
            "field required: messages",
        ),
        (answered("<html><h1>Bad Gateway</h1></html>", 502), ErrorClass.SERVER_ERROR, "http_502", "Bad Gateway"),
        (
            answered(None, 200),
            ErrorClass.OTHER,
            "empty_response",
            "The provider reports success, and its answer is empty.",
        ),
        (answered(None, 0), ErrorClass.SERVER_ERROR, None, "HTTP status 0; the provider gave no reason."),
        (
            answered(None, response=None, error={"code": 429, "message": "Slow."}),
            ErrorClass.RATE_LIMITED,
            "429",
            "Slow.",
        ),
    ],
)
def test_an_error_row_has_a_class_a_code_and_the_providers_words(
    data: bytes, kind: ErrorClass, code: str | None, message: str
) -> None:
    found = outcome(data)
    assert found.status is RowStatus.FAILED and found.failure is not None
    assert (found.failure.type, found.failure.code, found.failure.message) == (kind, code, message)


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", b"[]", b"{}", b'{"custom_id":"a"}', b'{"custom_id":[],"error":"x"}', b'{"custom_id":"\xff"}'],
)
def test_a_line_that_is_no_result_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        outcome(data)


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (429, "rate_limit_exceeded", None, ErrorClass.RATE_LIMITED),
        (429, "insufficient_quota", None, ErrorClass.QUOTA_EXHAUSTED),
        (429, None, None, ErrorClass.RATE_LIMITED),
        (400, "context_length_exceeded", None, ErrorClass.CONTEXT_LENGTH),
        (400, None, "This model's maximum context length is 8191 tokens", ErrorClass.CONTEXT_LENGTH),
        (400, "content_filter", None, ErrorClass.CONTENT_FILTERED),
        (400, "invalid_value", "x", ErrorClass.INVALID_REQUEST),
        (401, "invalid_api_key", None, ErrorClass.AUTHENTICATION),
        (403, None, None, ErrorClass.AUTHENTICATION),
        (404, "model_not_found", None, ErrorClass.NOT_FOUND),
        (404, None, None, ErrorClass.NOT_FOUND),
        (408, None, None, ErrorClass.TIMEOUT),
        (413, None, None, ErrorClass.INVALID_REQUEST),
        (500, None, None, ErrorClass.SERVER_ERROR),
        (503, "overloaded", None, ErrorClass.SERVER_ERROR),
        (504, None, None, ErrorClass.TIMEOUT),
        (0, None, None, ErrorClass.SERVER_ERROR),
        (None, "batch_cancelled", None, ErrorClass.CANCELED),
        (None, "request_timeout", None, ErrorClass.TIMEOUT),
        (None, "something_new", "x", ErrorClass.OTHER),
        (None, None, None, ErrorClass.OTHER),
    ],
)
def test_an_error_has_a_class(status: int | None, code: str | None, message: str | None, expected: ErrorClass) -> None:
    assert error_class(status, ErrorDetails(code=code, message=message)) is expected
