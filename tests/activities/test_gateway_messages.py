"""Result rows as lines of Anthropic's results, and what is translated on the way there and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anthropic.types.messages import MessageBatchIndividualResponse
from openai.types.chat import ChatCompletion

from durabatch.activities.gateway.message import message
from durabatch.activities.gateway.message_lines import MessageLines
from durabatch.activities.gateway.messages import write_messages
from durabatch.activities.lease import Lease
from durabatch.activities.store import Store
from durabatch.contract import AccountingError, BatchResult, BatchStatus
from durabatch.contract.gateway_batch import (
    ErrorList,
    GatewayBatch,
    GatewayStatus,
    LineError,
    MessageCounts,
    Shape,
    message_rows_path,
)
from durabatch.contract.gateway_layout import message_results_path

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 12345},
}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
}


def result(status: str = "succeeded", body: Any = None, http: int = 200, **error: Any) -> dict[str, Any]:
    response = None if body is None else {"status_code": http, "request_id": "r", "body": body}
    return {"custom_id": "a", "status": status, "response": response, "error": error or None}


def made(row: dict[str, Any], *, translated: bool = False) -> dict[str, Any]:
    line = MessageLines("msgbatch_x", translated=translated).line(json.dumps(row).encode())
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    MessageBatchIndividualResponse.model_validate_json(line, strict=True)
    found: dict[str, Any] = json.loads(line)
    assert found["custom_id"] == "a"
    return found["result"]


def test_a_message_stays_as_it_is() -> None:
    body = {**MESSAGE, "usage": {**MESSAGE["usage"], "new": 12345678901234567890}}
    assert made(result(body=body)) == {"type": "succeeded", "message": body}


def test_a_refusal_is_a_message_to_anthropics_callers() -> None:
    body = {**MESSAGE, "stop_reason": "refusal"}
    row = result("failed", body, type="content_filtered", code="refusal", message="No.")
    assert made(row) == {"type": "succeeded", "message": body}


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        (result("failed", type="server_error", code="overloaded_error", message="Busy."), "overloaded_error", "Busy."),
        (result("failed", type="rate_limited", code="odd", message="Slow."), "rate_limit_error", "Slow."),
        (result("failed", type="missing", code="missing", message="Gone."), "api_error", "Gone."),
        (result("failed", type="a new class", message=""), "api_error", "The request failed."),
        (result("failed", {"error": {}}, 404, type="not_found", code="x", message="No."), "not_found_error", "No."),
        (
            result("failed", type="invalid_row", code="invalid_field", message="line 1,204, params.stop: is odd"),
            "invalid_request_error",
            "params.stop: is odd",
        ),
        (result(body={"odd": 1}), "api_error", "The provider's answer is not a message."),
        (result(body="odd"), "api_error", "The provider's answer is not a message."),
    ],
)
def test_an_error_has_a_type_that_anthropic_has(row: dict[str, Any], kind: str, words: str) -> None:
    error = made(row)["error"]
    assert error["error"] == {"type": kind, "message": words}
    assert error["type"] == "error" and error["request_id"].startswith("req_")


@pytest.mark.parametrize("status", ["canceled", "expired"])
def test_a_row_that_was_not_run(status: str) -> None:
    assert made(result(status, type=status, message="…")) == {"type": status}


def test_a_chat_completion_becomes_a_message() -> None:
    ChatCompletion.model_validate_json(json.dumps(COMPLETION), strict=True)
    found = made(result(body=COMPLETION), translated=True)["message"]
    assert found["content"] == [{"type": "text", "text": "Hello."}]
    assert (found["model"], found["stop_reason"], found["id"]) == ("gpt-5-mini", "end_turn", "chatcmpl-1")
    assert (found["usage"]["input_tokens"], found["usage"]["output_tokens"]) == (9, 4)


def test_tools_the_cache_and_reasoning_are_translated() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": [1]}'}}
    broken = {"id": "c2", "type": "function", "function": {"name": "look", "arguments": '{"a'}}
    said = {"role": "assistant", "content": None, "tool_calls": [call, broken]}
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    body = {**COMPLETION, "choices": [{"message": said, "finish_reason": "tool_calls"}], "usage": usage}
    found = made(result(body=body), translated=True)["message"]
    assert found["content"] == [
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"a": [1]}},
        {"type": "tool_use", "id": "c2", "name": "look", "input": {"arguments": '{"a'}},
    ]
    assert found["stop_reason"] == "tool_use"
    assert (found["usage"]["input_tokens"], found["usage"]["cache_read_input_tokens"]) == (2, 8)
    assert found["usage"]["output_tokens_details"] == {"thinking_tokens": 5}


@pytest.mark.parametrize(
    ("said", "reason", "stop", "text"),
    [
        ({"content": "Half"}, "length", "max_tokens", "Half"),
        ({"content": None, "refusal": "No."}, "stop", "refusal", "No."),
        ({"content": [{"type": "text", "text": "In "}, {"type": "text", "text": "two."}]}, None, "end_turn", "In two."),
        ({"content": ""}, "content_filter", "refusal", None),
    ],
)  # fmt: skip
def test_a_finish_reason_becomes_a_stop_reason(
    said: dict[str, Any], reason: str | None, stop: str, text: str | None
) -> None:
    body = {**COMPLETION, "choices": [{"message": said, "finish_reason": reason}]}
    found = made(result(body=body), translated=True)["message"]
    assert (found["stop_reason"], [one["text"] for one in found["content"]]) == (stop, [text] if text else [])


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [7]}, {"choices": [{"message": 1}]}, 7])
def test_what_is_no_chat_completion_is_no_message(body: Any) -> None:
    assert message(msgspec.Raw(json.dumps(body).encode()), "x") is None


# --- the file ---


def batch(rows: int = 3) -> GatewayBatch:
    return GatewayBatch(
        tenant="search",
        id="msgbatch_0123456789a0123456789abc",
        input_file_id="",
        endpoint="/v1/messages",
        created_at=1,
        shape=Shape.ANTHROPIC,
        rows=rows,
    )


async def written(
    tmp_path: Path, status: GatewayStatus, results: list[dict[str, Any]] | None, **more: Any
) -> tuple[MessageCounts, list[dict[str, Any]]]:
    store, of = Store.open(str(tmp_path)), batch()
    rows = b"".join(b'{"custom_id":"r%d","params":{}}\n' % number for number in range(of.rows))
    await store.write(message_rows_path(of.tenant, of.id), rows)
    result = None
    if results is not None:
        await store.write("b/results.jsonl", b"".join(json.dumps(one).encode() + b"\n" for one in results))
        uri = store.uri("b/results.jsonl")
        result = BatchResult(batch_id="b", status=BatchStatus.COMPLETED, results=uri)
    shown = of.beginning().model_copy(update={"status": status, **more})
    counts = write_messages(store, of, shown, result, False, Lease())
    data = await store.read(message_results_path(of.tenant, of.id))
    return counts, [json.loads(line) for line in data.splitlines()]


async def test_results_are_counted_as_they_are_written(tmp_path: Path) -> None:
    rows = [result(body=MESSAGE), result("failed", type="timeout", message="…"), result("canceled")]
    counts, lines = await written(tmp_path, GatewayStatus.CANCELLED, rows)
    assert counts == MessageCounts(succeeded=1, errored=1, canceled=1)
    assert [line["result"]["type"] for line in lines] == ["succeeded", "errored", "canceled"]
    with pytest.raises(AccountingError, match="has 3 requests, and 2 results"):
        await written(tmp_path, GatewayStatus.COMPLETED, rows[:2])


@pytest.mark.parametrize(
    ("status", "kind"), [(GatewayStatus.CANCELLED, "canceled"), (GatewayStatus.EXPIRED, "expired")]
)
async def test_a_batch_that_was_stopped_before_it_ran(tmp_path: Path, status: GatewayStatus, kind: str) -> None:
    counts, lines = await written(tmp_path, status, None)
    assert counts == MessageCounts(**{kind: 3})
    assert lines == [{"custom_id": f"r{number}", "result": {"type": kind}} for number in range(3)]


async def test_a_batch_that_could_not_run_says_why_for_each_row(tmp_path: Path) -> None:
    why = [LineError(code="authentication", message="No such key."), LineError(code="x", message="It is odd.", line=2)]
    counts, lines = await written(tmp_path, GatewayStatus.FAILED, None, errors=ErrorList(data=tuple(why)))
    assert counts == MessageCounts(errored=3)
    said = [line["result"]["error"]["error"] for line in lines]
    assert [one["message"] for one in said] == ["No such key.", "It is odd.", "No such key."]
    assert [one["type"] for one in said] == ["authentication_error", "invalid_request_error", "authentication_error"]
