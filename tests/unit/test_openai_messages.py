"""Anthropic's rows for a provider of OpenAI's shape: what is translated, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from durabatch.activities.providers.openai.rows import OpenAIRows
from durabatch.activities.rows import RowRefused, parse
from durabatch.contract import BatchSpec

ROWS = OpenAIRows(azure=False, cap="max_tokens")
USER = [{"role": "user", "content": "Hi"}]
SECRET = "the prompt that must stay where it is"


def body(own: Any, rows: OpenAIRows = ROWS, **spec: Any) -> dict[str, Any]:
    row = parse(json.dumps({"custom_id": "a", "params": own}).encode())
    prepared = json.loads(rows.prepare(row, BatchSpec(provider="p", input="i", **spec)))
    assert (prepared["custom_id"], prepared["method"], prepared["url"]) == ("a", "POST", "/v1/chat/completions")
    found: dict[str, Any] = prepared["body"]
    return found


def test_what_means_the_same_is_named_as_a_chat_names_it() -> None:
    params = {
        "model": "m",
        "max_tokens": 7,
        "messages": USER,
        "system": "Be brief.",
        "stop_sequences": ["x"],
        "temperature": 0.5,
        "top_p": 1,
        "top_k": 3,
        "metadata": {"user_id": "u"},
        "stream": False,
        "thinking": {"type": "disabled"},
        "service_tier": "auto",
        "cache_control": {"type": "ephemeral"},
        "container": None,
    }
    assert body(params) == {
        "model": "m",
        "max_tokens": 7,
        "messages": [{"role": "system", "content": "Be brief."}, *USER],
        "stop": ["x"],
        "temperature": 0.5,
        "top_p": 1,
        "top_k": 3,
        "user": "u",
    }


def test_openais_own_models_have_another_name_for_the_most_tokens() -> None:
    params = {"model": "m", "max_tokens": 7, "messages": USER}
    assert body(params, OpenAIRows(azure=False, cap="max_completion_tokens"))["max_completion_tokens"] == 7


def test_the_specs_model_and_params_fill_the_gaps() -> None:
    assert body({"max_tokens": 7, "messages": USER}, model="m", params={"seed": 1}) == {
        "model": "m", "seed": 1, "max_tokens": 7, "messages": USER,
    }  # fmt: skip


def test_a_conversation_with_tools_and_images() -> None:
    picture = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    params = {
        "model": "m",
        "max_tokens": 7,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "tools": [
            {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}, "cache_control": None},
            {"type": "custom", "name": "see", "input_schema": {}, "strict": True},
        ],
        "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image", "source": picture}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "A dog."}]},
                    {"type": "tool_result", "tool_use_id": "t2", "is_error": False},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
    }
    found = body(params)
    look = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
    assert found["tools"] == [
        {"type": "function", "function": look},
        {"type": "function", "function": {"name": "see", "parameters": {}, "strict": True}},
    ]
    assert found["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert found["parallel_tool_calls"] is False
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    assert found["messages"] == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
        },
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": [{"type": "text", "text": "A dog."}]},
        {"role": "tool", "tool_call_id": "t2", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "And?"}]},
    ]


@pytest.mark.parametrize(("ours", "theirs"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_a_tool_choice_is_named_as_a_chat_names_it(ours: str, theirs: str) -> None:
    params = {"model": "m", "max_tokens": 7, "messages": USER, "tool_choice": {"type": ours}}
    assert body(params)["tool_choice"] == theirs


def said(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "params.thinking"),
        ({"output_config": {"effort": "low"}}, "params.output_config"),
        ({"mcp_servers": [{}]}, "params.mcp_servers"),
        ({SECRET: 1}, "params"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "params.tools[0].type"),
        ({"tools": [{"name": "x", "input_schema": {}, "defer_loading": True}]}, "params.tools[0].defer_loading"),
        ({"tool_choice": {"type": "odd"}}, "params.tool_choice.type"),
        ({"metadata": {"user_id": "u", "x": 1}}, "params.metadata.x"),
        ({"metadata": SECRET}, "params.metadata"),
        ({"system": [{"type": "image"}]}, "params.system[0]"),
        ({"system": 7}, "params.system"),
        ({"messages": SECRET}, "params.messages"),
        ({"messages": [SECRET]}, "params.messages[0]"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "params.messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "params.messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "params.messages[0].name"),
        (said({"type": "document", "source": {}}), "params.messages[0].content[0]"),
        (said({"type": "thinking", "thinking": SECRET}, role="assistant"), "params.messages[0].content[0]"),
        (
            said({"type": "image", "source": {"type": "file", "file_id": "f"}}),
            "params.messages[0].content[0].source.file_id",
        ),
        (said({"type": "image", "source": {"type": "x"}}), "params.messages[0].content[0].source"),
        (said({"type": "image", "source": {}}, role="assistant"), "params.messages[0].content[0]"),
        (said({"type": "text", "text": 7}), "params.messages[0].content[0].text"),
        (said({"type": "text", "text": "x", "citations": [1]}), "params.messages[0].content[0].citations"),
        (said(SECRET), "params.messages[0].content[0]"),
        (
            said({"type": "tool_result", "tool_use_id": "t", "is_error": True}),
            "params.messages[0].content[0].is_error",
        ),
        (
            said({"type": "text", "text": "x"}, {"type": "tool_result", "tool_use_id": "t"}),
            "params.messages[0].content[1]",
        ),
        ({"stream": True}, "params.stream"),
        ({"model": None}, "params.model"),
        ({"messages": None}, "params.messages"),
        ([], "params"),
    ],
)
def test_what_a_chat_has_not_is_refused_by_name(params: Any, field: str) -> None:
    whole = {"model": "m", "max_tokens": 7, "messages": USER, **params} if isinstance(params, dict) else params
    with pytest.raises(RowRefused) as refused:
        body(whole)
    assert refused.value.field == field and refused.value.custom_id == "a"
    assert SECRET not in refused.value.reason


def test_only_chats_have_a_form_of_anthropics() -> None:
    with pytest.raises(RowRefused, match="is Anthropic's form, which is no request to /v1/embeddings"):
        body({}, endpoint="/v1/embeddings")
