"""Why a provider refuses: its own words, bounded, and never with a key in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from durabatch.activities.providers.redaction import MAX_CHARS, redacted
from durabatch.activities.providers.refusals import refusal

KEY = "sk-proj-Ab3dEf6hIj9lMn2pQr5tUv8x"


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"error": {"message": "No.", "type": "invalid_request_error", "code": None}}, "invalid_request_error", "No."),
        ({"error": {"message": "No.", "type": "t", "code": "c"}}, "c", "No."),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}, "overloaded_error", "Busy"),
        ({"error": {"type": "r", "message": "x", "details": {"error_code": "ramp_limit"}}}, "ramp_limit", "x"),
        (
            {"detail": [{"type": "missing", "loc": ["body", "x"], "msg": "Field required", "input": {"secret": 1}}]},
            None,
            "body.x: Field required",
        ),
        ([{"error": {"code": 400, "message": "Google's way"}}], "400", "Google's way"),
        ({"error": {"message": None, "code": "quota"}}, "quota", None),
        *((body, None, None) for body in ({}, [], None, "", 5, {"error": None}, {"error": {"message": ""}})),
    ],
)
def test_the_code_and_the_words_of_a_refusal_are_found(body: Any, code: str | None, words: str | None) -> None:
    found = refusal(json.dumps(body).encode())
    assert (found.code, found.words) == (code, words)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"upstream connect error\n", "upstream connect error"),
        (b"<html><head><title>502 Bad\n Gateway</title></head>", 'a web page, "502 Bad Gateway"'),
        (b"<!doctype html><p>hi", "a web page"),
        (b"\xff\xfe\x00", None),
        (b"", None),
        (b"   ", None),
    ],
)
def test_a_body_that_is_no_json_is_said_too(body: bytes, words: str | None) -> None:
    assert refusal(body).words == words


def test_a_body_of_any_depth_or_size_is_read_in_bounds() -> None:
    assert len(redacted(refusal(b'{"error":' * 100_000).words or "", KEY)) <= MAX_CHARS
    nested: Any = {"message": "deep"}
    for _ in range(50):
        nested = {"error": nested}
    assert refusal(json.dumps(nested).encode()).words is None
    assert len(redacted(refusal(b'{"message": "' + b"x " * 10**6 + b'"}').words or "", KEY)) <= MAX_CHARS


@pytest.mark.parametrize(
    "said",
    [
        f"Incorrect API key provided: {KEY}.",
        "Incorrect API key provided: sk-proj-****************Uv8x. You can find your key at x.",
        "Incorrect API key provided: sk-…Uv8x",
        "Incorrect API key provided: sk-proj...Uv8x",
        f"The key beginning with {KEY[:12]} is off",
        f"The key {KEY[10:]} is off",
        f"Your key ending in {KEY[-4:]} has expired",
        f"Authorization: Bearer {KEY}",
        "bearer abcdef, is no good",
        "********Uv8x is no key",
        f'{{"headers": {{"x": "{KEY[3:20]}"}}}}',
    ],
)
def test_no_part_of_a_key_is_repeated(said: str) -> None:
    found = redacted(said, KEY)
    assert "[key]" in found
    assert not any(KEY[at : at + 4] in found for at in range(7, len(KEY) - 3)), found


@pytest.mark.parametrize(
    "said",
    [
        "Enqueued token limit reached for gpt-4o-mini in organization org-abc123. Please try again later...",
        "This model's maximum context length is 128000 tokens; see https://platform.example/docs/error-codes/api-errors.",
        "The task-123 of batch_abc failed: risk-free it was not.",
        "Request id req_011CSHoEeqs5C35K2UUqR7Fy",
        "**Note:** the file `durabatch~b-1~0~1.jsonl` is not there",
    ],
)
def test_other_words_stay_as_they_are(said: str) -> None:
    assert redacted(said, KEY) == said
    assert redacted(said, "") == said
