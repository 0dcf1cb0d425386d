"""A provider's answers, read leniently: an id is needed, everything else may be anything."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from durabatch.activities.providers import parsing
from durabatch.activities.providers.anthropic import batch_object as anthropic
from durabatch.activities.providers.openai import batch_object as openai_batch
from durabatch.activities.providers.pagination import page
from durabatch.contract import ProviderStatus
from durabatch.contract.steps import Snapshot

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECONDS = 1_795_608_000

#: What may be found in the place of any field.
ODD: dict[str, Any] = {
    "null": None,
    "empty": "",
    "zero": 0,
    "number": 37.25,
    "negative": -1,
    "huge number": 10**400,
    "truth": True,
    "text": "a sentence",
    "digits": "12",
    "huge text": "x" * 200_000,
    "surrogate": "a\ud800b",
    "array": [],
    "array of anything": [None, 1, "x", {"message": "y"}, [[]]],
    "object": {},
    "object of anything": {"a": {"b": [1]}, "message": 5, "data": {"id": []}},
    "deep": json.loads("[" * 200 + "]" * 200),
}
MISSING = "missing"

BATCH = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": {"object": "list", "data": [{"code": "x", "line": 3, "message": "bad line", "param": "body"}]},
    "input_file_id": "file-1",
    "completion_window": "24h",
    "status": "completed",
    "output_file_id": "file-2",
    "error_file_id": "file-3",
    "created_at": SECONDS,
    "request_counts": {"total": 3, "completed": 2, "failed": 1},
    "metadata": {"durabatch": "b-1/0/1", "durabatch_rows": "0123"},
    "usage": {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    },
}
MESSAGES = {
    "id": "msgbatch_1",
    "type": "message_batch",
    "processing_status": "ended",
    "request_counts": {"processing": 0, "succeeded": 2, "errored": 1, "canceled": 0, "expired": 0},
    "created_at": "2026-11-25T12:00:00Z",
    "expires_at": "2026-11-26T12:00:00Z",
    "ended_at": None,
    "cancel_initiated_at": None,
    "results_url": "https://api.example/x",
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in an answer but the answer itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield (*path, name)
        yield from places(one, (*path, name))


def altered(answer: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    answer = copy.deepcopy(answer)
    parent: Any = answer
    for name in path[:-1]:
        parent = parent[name]
    if value is MISSING:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return answer


def cases(answer: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(path, value, id=f"{'.'.join(map(str, path))} is {name}")
        for path in places(answer)
        for name, value in {**ODD, MISSING: MISSING}.items()
    ]


def bounded(batch: Snapshot) -> None:
    """A snapshot goes into Temporal's history, so it is small, and is UTF-8."""
    assert len(batch.model_dump_json().encode()) < 4_000
    assert Snapshot.model_validate_json(batch.model_dump_json()) == batch


@pytest.mark.parametrize(("path", "value"), cases(BATCH))
def test_one_odd_field_of_openais_batch_costs_only_itself(path: tuple[Any, ...], value: Any) -> None:
    right = openai_batch.snapshot(BATCH).model_dump()
    try:
        found = openai_batch.snapshot(altered(BATCH, path, value))
    except parsing.Unreadable as error:
        assert path == ("id",) and "field `id`" in str(error)
        return
    bounded(found)
    touched = {
        "id": {"id"},
        "errors": {"error", "error_code"},
        "status": {"status", "raw_status", "known"},
        "output_file_id": {"output"},
        "error_file_id": {"errors"},
        "created_at": {"created_at"},
        "request_counts": {"total", "completed", "failed"},
        "usage": {"usage"},
    }.get(path[0], set())
    left = {name: one for name, one in found.model_dump().items() if name not in touched}
    assert left == {name: one for name, one in right.items() if name not in touched}
    assert "None" not in (found.error or "")


@pytest.mark.parametrize(("path", "value"), cases(MESSAGES))
def test_one_odd_field_of_anthropics_batch_costs_only_itself(path: tuple[Any, ...], value: Any) -> None:
    right = anthropic.snapshot(MESSAGES).model_dump()
    try:
        found = anthropic.snapshot(altered(MESSAGES, path, value))
    except parsing.Unreadable as error:
        assert path == ("id",) and "field `id`" in str(error)
        return
    bounded(found)
    touched = {
        "id": {"id"},
        "processing_status": {"status", "raw_status", "known"},
        "results_url": {"output"},
        "created_at": {"created_at"},
        "request_counts": {"status", "total", "completed", "failed"},
    }.get(path[0], set())
    left = {name: one for name, one in found.model_dump().items() if name not in touched}
    assert left == {name: one for name, one in right.items() if name not in touched}


@pytest.mark.parametrize("answer", [*ODD.values(), "<html>"], ids=[*ODD, "page"])
def test_an_answer_that_is_no_batch_is_unreadable_and_says_why(answer: Any) -> None:
    for read in (openai_batch.snapshot, anthropic.snapshot):
        with pytest.raises(parsing.Unreadable, match=r"not an object|field `id` is missing"):
            read(answer)


@pytest.mark.parametrize(
    "fields",
    [
        {"created_at": "2026-11-25T12:00:00Z"},
        {"created_at": SECONDS * 1000},
        {"errors": [{"code": "x", "message": "bad line"}]},
        {"errors": "file rejected"},
    ],
)
def test_a_finished_batch_is_finished_whatever_else_it_says(fields: dict[str, Any]) -> None:
    found = openai_batch.snapshot({**BATCH, "errors": None, **fields})
    assert (found.status, found.output, found.completed) == (ProviderStatus.COMPLETED, "file-2", 2)
    assert found.created_at == NOON


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([{"code": "x", "message": "bad line", "line": 4}], "line 4: bad line"),
        ("file rejected", "file rejected"),
        ({"data": [{"code": "invalid_json_line", "message": None, "line": 2}]}, "line 2: invalid_json_line"),
        ({"data": [{"code": None, "line": None, "message": None, "param": None}]}, None),
        ({"data": [{"message": f"no {n}"} for n in range(5)]}, "no 0; no 1; no 2 (and 2 more)"),
        ({"message": "one of them"}, "one of them"),
        (["a", "b"], "a; b"),
        ({"data": [{"message": "key sk-abcdefgh1234 is off"}]}, "key [key] is off"),
        (None, None),
        ([], None),
    ],
)
def test_why_a_batch_failed_is_said_in_the_providers_words(errors: Any, said: str | None) -> None:
    assert openai_batch.snapshot({**BATCH, "status": "failed", "errors": errors}).error == said


@pytest.mark.parametrize(
    ("value", "instant"),
    [
        (SECONDS, NOON),
        (float(SECONDS), NOON),
        (str(SECONDS), NOON),
        (SECONDS * 1000, NOON),
        (f"{SECONDS}000", NOON),
        (SECONDS * 10**6, NOON),
        (SECONDS * 10**9, NOON),
        ("2026-11-25T12:00:00Z", NOON),
        ("2026-11-25T12:00:00+00:00", NOON),
        ("2026-11-25T13:00:00.000000000+01:00", NOON),
        ("2026-11-25 12:00:00", NOON),
        *((value, None) for value in (None, "", "soon", 0, -5, 1, "1970-01-01T00:00:00Z", True, [], {}, 1e300)),
        *((value, None) for value in (float("nan"), float("inf"), 10**500, "9" * 400, "0001-01-01T00:00:00+14:00")),
    ],
)
def test_a_time_is_read_in_any_unit_and_none_is_made_up(value: Any, instant: datetime | None) -> None:
    assert parsing.instant(value) == instant


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((3, 3), (3.0, 3), ("3", 3), (" 3 ", 3), (3.7, 3), (0, 0)),
        *((odd, None) for odd in (-1, True, "x", None, [], 10**400, "1e400", 10**13)),
    ],
)
def test_a_count_is_read_also_as_text(value: Any, number: int | None) -> None:
    assert parsing.count(value) == number


# --- pages ---


@pytest.mark.parametrize(
    ("answer", "ids", "more"),
    [
        ({"data": [{"id": "a"}], "has_more": True}, ["a"], True),
        ({"data": [{"id": "a"}], "has_more": "false"}, ["a"], False),
        ({"data": [{"id": "a"}]}, ["a"], None),
        ({"data": [{"id": "a"}], "has_more": "perhaps"}, ["a"], None),
        ({"data": [None, "x", 5, [], {"id": 7}, {"id": None}], "has_more": False}, [7, None], False),
        ({"data": None, "has_more": False}, [], False),
        ([{"id": "a"}], ["a"], False),
    ],
)
def test_a_page_is_read_past_whatever_lies_in_it(answer: Any, ids: list[Any], more: bool | None) -> None:
    found = page(answer)
    assert ([one["id"] for one in found.items], found.more) == (ids, more)


@pytest.mark.parametrize("answer", [{}, {"error": {"message": "x"}}, {"data": {}}, {"data": "x"}, None, "x", 5])
def test_what_is_no_page_does_not_say_that_nothing_is_there(answer: Any) -> None:
    with pytest.raises(parsing.Unreadable):
        page(answer)
