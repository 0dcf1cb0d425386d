"""What people ask of a running workflow, read from whatever they sent."""

from __future__ import annotations

from typing import Any

import pytest

from durabatch.contract import BatchSpec, CancelRequest
from durabatch.workflows.signals import read_cancel, read_spec

GOOD: dict[str, Any] = {"provider": "openai", "input": "file:///in.jsonl"}


# --- the spec ---


def test_a_spec_is_read_from_a_model_or_from_plain_json() -> None:
    spec = BatchSpec(**GOOD)
    assert read_spec(spec) == (spec, None)
    assert read_spec(GOOD) == (spec, None)
    assert read_spec(spec.model_dump(mode="json")) == (spec, None)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (None, "needs a BatchSpec as its input"),
        ({}, "provider: Field required"),
        (17, "input: Input should be a valid dictionary"),
        ("openai", "input: Input should be a valid dictionary"),
        ([], "input: Input should be a valid dictionary"),
        ([GOOD], "input: Input should be a valid dictionary"),
        ({"provider": "openai"}, "give either input (the URI of a file) or requests"),
        ({**GOOD, "requests": [{}]}, "give either input (the URI of a file) or requests"),
        ({"provider": "openai", "requests": []}, "requests takes 1 to 100 rows"),
        ({"provider": "openai", "requests": [{}] * 101}, "requests takes 1 to 100 rows"),
        ({"provider": "openai", "requests": [{"a": "x" * 50_000}]}, "requests takes 48 KiB"),
        ({"provider": "openai", "requests": [17]}, "requests.0: Input should be a valid dictionary"),
        ({**GOOD, "provider": ""}, "provider: String should have at least 1 character"),
        ({**GOOD, "provider": 17}, "provider: Input should be a valid string"),
        ({**GOOD, "inputs": "typing mistake"}, "inputs: Extra inputs are not permitted"),
        ({**GOOD, "base_url": "https://elsewhere"}, "base_url: Extra inputs are not permitted"),
        ({**GOOD, "endpoint": "https://elsewhere/v1"}, "endpoint: String should match pattern"),
        ({**GOOD, "deadline": "soon"}, "deadline: Input should be a valid timedelta"),
        ({**GOOD, "deadline": 0}, "deadline: Value error, must be between 1 second and 28 days"),
        ({**GOOD, "deadline": "-1h"}, "deadline: "),
        ({**GOOD, "deadline": 1e300}, "deadline: Input should be a valid timedelta"),
        ({**GOOD, "deadline": float("nan")}, "deadline: Input should be a valid timedelta"),
        ({**GOOD, "poll": {"first": "1h", "maximum": "1s"}}, "poll: Value error, poll.first must be at least 0.1 s"),
        ({**GOOD, "poll": {"factor": float("nan")}}, "poll.factor: "),
        (
            {**GOOD, "retry": {"classes": ["no such class"]}},
            "retry.classes: Value error, takes these classes only: rate_limited",
        ),
        ({**GOOD, "retry": {"max_attempts": 21}}, "retry.max_attempts: Input should be less than or equal to 20"),
        ({**GOOD, "limits": {"max_bytes": 1}}, "limits.max_bytes: Input should be greater than or equal to 1024"),
        ({**GOOD, "max_cost_usd": "NaN"}, "max_cost_usd: Input should be a finite number"),
        ({**GOOD, "max_cost_usd": 0}, "max_cost_usd: Input should be greater than 0"),
        ({**GOOD, "on_complete": {}}, "on_complete: Value error, on_complete names either"),
        ({**GOOD, "metadata": {"a": "x" * 600}}, "metadata: Value error, takes 16 labels"),
    ],
)
def test_a_wrong_spec_is_explained_with_field_reason_and_an_example(argument: Any, words: str) -> None:
    spec, problem = read_spec(argument)
    assert spec is None
    assert problem is not None and words in problem
    assert 'for example {"provider": "openai", "input": ' in problem


def test_every_mistake_is_reported_up_to_ten() -> None:
    _, problem = read_spec({**GOOD, "provider": 1, "endpoint": 2, "deadline": []})
    assert problem is not None
    assert [name in problem for name in ("provider: ", "endpoint: ", "deadline: ")] == [True] * 3
    _, problem = read_spec({**GOOD, **{f"field_{number}": 1 for number in range(30)}})
    assert problem is not None and problem.count("Extra inputs") == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"provider": "openai", "requests": [{"custom_id": "a", "input": "Sesame"}] * 101},
        {"provider": "openai", "requests": "Sesame"},
        {**GOOD, "params": "Sesame"},
        {**GOOD, "metadata": ["Sesame"]},
        {**GOOD, "deadline": "Sesame"},
        {**GOOD, "model": ["Sesame"]},
    ],
)
def test_what_is_wrong_is_reported_without_quoting_it(wrong: dict[str, Any]) -> None:
    _, problem = read_spec(wrong)
    assert problem is not None
    assert "Sesame" not in problem


@pytest.mark.parametrize("deadline", ["99999999999d", "999999999999999999999d", "9" * 400 + "s"])
def test_a_deadline_of_a_million_years_is_refused_like_any_other(deadline: str) -> None:
    # Anything but a sentence would leave the workflow stuck in a task that fails for ever.
    _, problem = read_spec({**GOOD, "deadline": deadline})
    assert problem is not None and "deadline: " in problem


# --- the cancel ---


@pytest.mark.parametrize(
    ("argument", "reason", "requested_by"),
    [
        (None, None, None),
        ({}, None, None),
        ({"reason": "too dear", "requested_by": "ann"}, "too dear", "ann"),
        ({"reason": "too dear"}, "too dear", None),
        ({"requested_by": "ann"}, None, "ann"),
        ({"reason": None, "requested_by": None}, None, None),
        (CancelRequest(reason="too dear"), "too dear", None),
        ("too dear", "too dear", None),
        ("", None, None),
        ("x" * 900, "x" * 500, None),
        # What cannot be read is still a cancel.
        (17, None, None),
        (True, None, None),
        ([], None, None),
        (["too dear"], None, None),
        (b"too dear", None, None),
        ({"reasons": "typing mistake"}, None, None),
        ({"reason": "too dear", "unknown": {"a": [1]}}, "too dear", None),
        ({"reason": 17, "requested_by": "ann"}, "17", "ann"),
        ({"reason": {"why": "too dear"}}, "{'why': 'too dear'}", None),
        ({"requested_by": ["ann"]}, None, "['ann']"),
        ({"reason": "x" * 501}, "x" * 200, None),
        ({"reason": "fine", "requested_by": "y" * 201}, "fine", "y" * 200),
        ({17: "no text"}, None, None),
    ],
)
def test_every_argument_is_a_cancel(argument: Any, reason: str | None, requested_by: str | None) -> None:
    assert read_cancel(argument) == CancelRequest(reason=reason, requested_by=requested_by)
