"""Result rows as lines of OpenAI's output and error files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from durabatch.activities.gateway.output import Lines


def made(row: dict[str, Any], *, translated: bool = False) -> tuple[bool, dict[str, Any]]:
    succeeded, line = Lines("batch_x", 7, translated=translated).line(json.dumps(row).encode())
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    return succeeded, json.loads(line)


def test_a_row_that_succeeded_keeps_its_body_as_it_is() -> None:
    body = {"id": "c", "big": 12345678901234567890, "choices": []}
    row = {"custom_id": "a", "status": "succeeded", "text": "…", "response": {"status_code": 200, "body": body}}
    succeeded, line = made(row)
    assert succeeded and line["response"]["body"] == body and line["error"] is None
    assert line["id"].startswith("batch_req_") and line["response"]["request_id"].startswith("req_")
    row["response"] = {"status_code": 201, "request_id": "theirs", "body": body}
    assert made(row)[1]["response"] == row["response"]


def test_a_row_that_failed_says_why_once() -> None:
    error = {"type": "invalid_request", "code": "bad", "message": "No."}
    refused = {"status_code": 400, "request_id": "r", "body": {"error": {"message": "No."}}}
    row = {"custom_id": "a", "status": "failed", "response": refused, "error": error}
    assert made(row) == (False, {**made(row)[1], "response": refused, "error": None})
    # An answer that holds no answer is kept, and the reason is beside it.
    row["response"] = {**refused, "status_code": 200}
    assert made(row)[1]["error"] == {"code": "bad", "message": "No."}
    row["response"] = None
    assert (made(row)[1]["response"], made(row)[1]["error"]) == (None, {"code": "bad", "message": "No."})


def test_a_row_that_was_refused_before_it_was_sent_has_openais_code_and_no_line_of_another_file() -> None:
    error = {"type": "invalid_row", "code": "body.n", "message": "line 1,234, body.n: cannot be translated."}
    shown = made({"custom_id": "a", "status": "failed", "error": error})[1]
    assert shown["error"] == {"code": "invalid_request", "message": "body.n: cannot be translated."}


@pytest.mark.parametrize(("status", "code"), [("expired", "batch_expired"), ("canceled", "batch_cancelled")])
def test_a_row_that_was_not_run_says_so_in_openais_word(status: str, code: str) -> None:
    succeeded, line = made({"custom_id": "a", "status": status, "error": {"type": status, "message": "…"}})
    assert (succeeded, line["response"], line["error"]["code"]) == (False, None, code)


def test_a_line_that_is_no_result_is_refused() -> None:
    for line in (b"{}", b"[]", b"{", b'{"custom_id": "a", "status": "odd"}'):
        with pytest.raises(ValueError):
            Lines("batch_x", 7, translated=False).line(line)


def test_lines_have_ids_of_their_own_that_are_the_same_next_time() -> None:
    row = json.dumps({"custom_id": "a", "status": "canceled"}).encode()
    first, again, other = (Lines(name, 7, translated=False) for name in ("one", "one", "other"))
    lines = [first.line(row), first.line(row), other.line(row)]
    assert [again.line(row), again.line(row)] == lines[:2]
    assert len({line for _, line in lines}) == 3


def test_anthropics_message_becomes_a_chat_completion() -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "content": [
            {"type": "thinking", "thinking": "…"},
            {"type": "text", "text": "Hello "},
            {"type": "text", "text": "you."},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": [1]}},
        ],
        "stop_reason": "tool_use",
        "usage": {
            "input_tokens": 5,
            "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 2,
            "output_tokens": 4,
        },
    }
    row = {"custom_id": "a", "status": "succeeded", "response": {"status_code": 200, "body": message}}
    found = ChatCompletion.model_validate(made(row, translated=True)[1]["response"]["body"], strict=True)
    choice = found.choices[0]
    assert (choice.message.content, choice.finish_reason, found.created) == ("Hello you.", "tool_calls", 7)
    assert choice.message.tool_calls and choice.message.tool_calls[0].type == "function"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"a": [1]}
    assert found.usage and found.usage.prompt_tokens_details
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (10, 4, 14)
    assert found.usage.prompt_tokens_details.cached_tokens == 3
    # What is no message stays as it came.
    row["response"] = {"status_code": 200, "body": {"odd": True}}
    assert made(row, translated=True)[1]["response"]["body"] == {"odd": True}
