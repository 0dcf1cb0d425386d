"""Lines of an input file: what OpenAI's server says of a wrong one, and what a right one says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from durabatch.activities.gateway.checks import DEFAULT_MODERATION, REQUIRED, LineRefused, check_line
from durabatch.activities.gateway.reading import read
from durabatch.activities.gateway.routing import Route, Router
from durabatch.activities.lease import Lease
from durabatch.activities.store import Store
from durabatch.contract.gateway_batch import MAX_ERRORS

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": []}
LINE: dict[str, Any] = {"custom_id": "a", "method": "POST", "url": CHAT, "body": BODY}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in LINE.items() if key != name}


def body(**fields: Any) -> dict[str, Any]:
    merged = {**BODY, **fields}
    return {**LINE, "body": {key: value for key, value in merged.items() if value is not ...}}


def refusals(line: object, endpoint: str = CHAT) -> list[tuple[str, str | None]]:
    data = line if isinstance(line, bytes) else json.dumps(line).encode()
    with pytest.raises(LineRefused) as refused:
        check_line(data, endpoint)
    assert all(error.message and len(error.message) < 300 for error in refused.value.errors)
    return [(error.code, error.param) for error in refused.value.errors]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", [("invalid_json_line", None)]),
        (b"\xff{}", [("invalid_json_line", None)]),
        (b"[" * 5000, [("invalid_json_line", None)]),
        ([], [("invalid_request", None)]),
        (7, [("invalid_request", None)]),
        (without("custom_id"), [("missing_required_parameter", "custom_id")]),
        (without("method"), [("missing_required_parameter", "method")]),
        (without("url"), [("missing_required_parameter", "url")]),
        (without("body"), [("missing_required_parameter", "body")]),
        ({}, [("missing_required_parameter", name) for name in ("custom_id", "method", "url", "body")]),
        ({**LINE, "custom_id": 7}, [("invalid_type", "custom_id")]),
        ({**LINE, "custom_id": "x" * 257}, [("invalid_request", "custom_id")]),
        ({**LINE, "method": "GET"}, [("invalid_method", "method")]),
        ({**LINE, "url": ""}, [("invalid_url", "url")]),
        ({**LINE, "url": "/v1/embeddings"}, [("invalid_url", "url")]),
        ({**LINE, "body": []}, [("invalid_type", "body")]),
        (body(stream=True), [("streaming_unsupported", "body.stream")]),
        (body(model=...), [("invalid_request", "body.model")]),
        (body(model=""), [("invalid_request", "body.model")]),
        (body(model=7), [("invalid_request", "body.model")]),
        (body(messages=...), [("invalid_request", "body.messages")]),
        (body(messages="hi"), [("invalid_request", "body.messages")]),
        (body(stream=True, model=...), [("streaming_unsupported", "body.stream"), ("invalid_request", "body.model")]),
        (b'{"custom_id":"a","custom_id":"b","method":"POST","url":"/v1/chat/completions",'
         b'"body":{"model":"m","messages":[]}}', [("invalid_request", "custom_id")]),
    ],
)  # fmt: skip
def test_a_wrong_line_is_refused_in_openais_words(line: object, expected: list[tuple[str, str | None]]) -> None:
    assert refusals(line) == expected


def test_openais_own_words() -> None:
    with pytest.raises(LineRefused) as refused:
        check_line(json.dumps(body(stream=True, model=...)).encode(), CHAT)
    assert [error.message for error in refused.value.errors] == [
        "Chat Completions: Streaming is not supported in the Batch API.",
        "Model parameter is required.",
    ]


def test_a_malformed_message_is_the_rows_own_affair() -> None:
    assert check_line(json.dumps(body(messages=[{"role": "wizard"}, 7])).encode(), CHAT).model == "m"


@pytest.mark.parametrize("endpoint", REQUIRED)
def test_rows_of_every_endpoint(endpoint: str) -> None:
    for field in REQUIRED[endpoint]:
        value: Any = [] if field == "messages" else "hi"
        line = {**LINE, "url": endpoint, "body": {"model": "m", field: value}}
        assert check_line(json.dumps(line).encode(), endpoint).custom_id == "a"
    assert refusals({**LINE, "url": endpoint, "body": {"model": "m"}}, endpoint)[0][0] == "invalid_request"


def test_a_moderation_needs_no_model() -> None:
    line = {**LINE, "url": "/v1/moderations", "body": {"input": "hi"}}
    assert check_line(json.dumps(line).encode(), "/v1/moderations").model == DEFAULT_MODERATION


def test_no_message_quotes_a_row() -> None:
    secret = "the prompt that must stay where it is"
    for line in (
        {**LINE, "custom_id": {"a": secret}},
        {**LINE, "body": secret},
        body(messages=secret),
        body(model=[secret]),
        json.dumps(LINE).encode()[:-1] + b', "x": ' + secret.encode() + b"}",
    ):
        data = line if isinstance(line, bytes) else json.dumps(line).encode()
        with pytest.raises(LineRefused) as refused:
            check_line(data, CHAT)
        assert all(secret not in error.message for error in refused.value.errors)


def reading(tmp_path: Path, lines: list[object], router: Router | None = None) -> Any:
    store = Store.open(str(tmp_path))
    data = b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)
    (tmp_path / "file").write_bytes(data)
    return read(store, "file", CHAT, router or Router([], "openai", ()), Lease())


def test_errors_come_in_the_order_of_lines_and_are_counted(tmp_path: Path) -> None:
    found = reading(tmp_path, [{**LINE, "custom_id": f"r{n}"} if n % 2 else {} for n in range(200)])
    assert (found.rows, found.total_errors, len(found.errors)) == (200, 400, MAX_ERRORS)
    assert [error.line for error in found.errors] == [2 * (n // 4) + 1 for n in range(MAX_ERRORS)]


def test_duplicates_are_named_by_the_later_line_also_of_lines_that_are_wrong_themselves(tmp_path: Path) -> None:
    found = reading(tmp_path, [LINE, b"", without("url"), LINE])
    assert [(error.line, error.code) for error in found.errors] == [
        (3, "missing_required_parameter"),
        (3, "duplicate_custom_id"),
        (4, "duplicate_custom_id"),
    ]


@pytest.mark.parametrize("lines", [[], [b"", b"  "]])
def test_an_empty_file_is_one_error(tmp_path: Path, lines: list[object]) -> None:
    assert [(error.line, error.code) for error in reading(tmp_path, lines).errors] == [(None, "empty_file")]


def test_a_row_goes_where_the_first_route_that_fits_says(tmp_path: Path) -> None:
    routes = [Route("gpt-5*", "azure"), Route("gpt-*", "openai"), Route("claude-*", "anthropic")]
    router = Router(routes, None, ("gpt-*",))
    assert [router.provider_of(model) for model in ("gpt-5-mini", "gpt-4", "claude-x", "x")] == [
        "azure", "openai", None, None,
    ]  # fmt: skip
    rows = [
        {**LINE, "custom_id": model, "body": {**BODY, "model": model}} for model in ("gpt-4", "gpt-5", "x", "gpt-6")
    ]
    found = reading(tmp_path, [*rows], router)
    assert [(error.line, error.code) for error in found.errors] == [(2, "mismatched_model"), (3, "model_not_found")]
    assert "azure" in found.errors[0].message and "openai" in found.errors[0].message
    assert found.errors[1].message == "The provided model 'x' is not supported by the Batch API."
    assert (found.provider, found.model, found.other_model) == ("openai", "gpt-4", 4)
