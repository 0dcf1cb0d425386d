"""The models and errors that Durabatch and its users share, in tables."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import durabatch.contract
from durabatch.contract import (
    BatchProgress,
    BatchResult,
    BatchSpec,
    CancelRequest,
    Counts,
    DurabatchError,
    ErrorClass,
    InvalidInput,
    InvalidSpec,
    OnComplete,
    PollPolicy,
    ProviderStatus,
    RateLimited,
    ResultRow,
    RetryPolicy,
    RowProblem,
    Strays,
    Usage,
)
from durabatch.contract.errors import error_classes
from durabatch.contract.layout import attempt_folder, shard_folder
from durabatch.contract.names import check_batch_id, marker
from durabatch.contract.spec import MAX_INLINE_BYTES, MAX_INLINE_ROWS

FILE = {"provider": "openai", "input": "file:///data/in.jsonl"}


def spec(**fields: Any) -> BatchSpec:
    return BatchSpec.model_validate({**FILE, **fields})


def refused(model: type[BaseModel], fields: dict[str, Any]) -> str:
    """Return why a model refuses the fields."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    return str(caught.value)


# --- durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86400),
        ("1h30m", 5400),
        ("1d 2h", 93600),
        ("90s", 90),
        (" 15 s ", 15),
        ("1.5H", 5400),
        ("2M", 120),
        (90, 90),
        (1.5, 1.5),
        ("PT24H", 86400),
        ("P1DT2H", 93600),
        (timedelta(hours=1), 3600),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: object, seconds: float) -> None:
    assert spec(deadline=text).deadline == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["abc", "", "  ", "h", "24 parsecs", "1h abc", "-1h", "-PT1H", None, [], float("nan")])
def test_what_is_no_duration_is_refused(text: object) -> None:
    assert "deadline" in refused(BatchSpec, {**FILE, "deadline": text})


def test_a_mode_that_is_not_known_is_refused_rather_than_read_as_the_other_one() -> None:
    assert "mode" in refused(BatchSpec, {**FILE, "mode": "dirct"})


@pytest.mark.parametrize(("deadline", "good"), [("0s", False), ("1s", True), ("28d", True), ("28d1s", False)])
def test_a_deadline_has_bounds(deadline: str, good: bool) -> None:
    if good:
        spec(deadline=deadline)
    else:
        assert "between 1 second and 28 days" in refused(BatchSpec, {**FILE, "deadline": deadline})


def test_a_duration_is_written_in_a_form_that_is_read_back() -> None:
    written = spec(deadline="1h30m", poll={"first": "0.5s"})
    assert json.loads(written.model_dump_json())["deadline"] == "PT1H30M"
    assert BatchSpec.model_validate_json(written.model_dump_json()) == written


# --- the spec


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"provder": "openai"}, "provder"),
        ({"poll": {"frist": "1s"}}, "poll.frist"),
        ({"retry": {"attempts": 1}}, "retry.attempts"),
        ({"limits": {"rows": 1}}, "limits.rows"),
        ({"on_complete": {"activity": "a", "queue": "q"}}, "on_complete.queue"),
    ],
)
def test_an_unknown_field_is_refused_by_its_name(fields: dict[str, Any], name: str) -> None:
    assert name in refused(BatchSpec, {**FILE, **fields})


def test_a_spec_takes_its_rows_from_one_place() -> None:
    rows = [{"custom_id": "a", "input": "Hello"}]
    assert "give either" in refused(BatchSpec, {"provider": "openai"})
    assert "give either" in refused(BatchSpec, {**FILE, "requests": rows})
    assert BatchSpec.model_validate({"provider": "openai", "requests": rows}).requests == tuple(rows)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], f"1 to {MAX_INLINE_ROWS} rows"),
        ([{}] * (MAX_INLINE_ROWS + 1), f"1 to {MAX_INLINE_ROWS} rows"),
        ([{"input": "x" * MAX_INLINE_BYTES}], "48 KiB"),
        # Bytes count, not characters: history holds bytes.
        ([{"input": "ü" * (MAX_INLINE_BYTES // 2)}], "48 KiB"),
        (["text"], "dictionary"),
    ],
    ids=["none", "too many", "too large", "too large in bytes", "no object"],
)
def test_inline_rows_are_few_and_small(rows: list[Any], reason: str) -> None:
    assert reason in refused(BatchSpec, {"provider": "openai", "requests": rows})


def test_the_largest_inline_rows_fit() -> None:
    BatchSpec.model_validate({"provider": "openai", "requests": [{"custom_id": "a"}] * MAX_INLINE_ROWS})
    BatchSpec.model_validate({"provider": "openai", "requests": [{"input": "x" * (MAX_INLINE_BYTES - 100)}]})


@pytest.mark.parametrize(
    ("metadata", "good"),
    [
        ({}, True),
        ({f"key-{n}": "v" for n in range(16)}, True),
        ({f"key-{n}": "v" for n in range(17)}, False),
        ({"k" * 64: "v" * 512}, True),
        ({"k" * 65: "v"}, False),
        ({"k": "v" * 513}, False),
        ({"k": 1}, False),
    ],
)
def test_metadata_is_small(metadata: dict[str, Any], good: bool) -> None:
    if good:
        assert spec(metadata=metadata).metadata == metadata
    else:
        assert "metadata" in refused(BatchSpec, {**FILE, "metadata": metadata})


@pytest.mark.parametrize(
    "fields",
    [
        {"provider": ""},
        {"provider": "x" * 101},
        {"endpoint": "https://evil.example/v1/chat/completions"},
        {"endpoint": "/v1/../admin"},
        {"endpoint": "/v1/chat?key=x"},
        {"model": ""},
        {"completion_window": "soon"},
        {"max_cost_usd": 0},
        {"max_cost_usd": "-1"},
        {"on_invalid_row": "ignore"},
        {"limits": {"max_rows": 0}},
        {"limits": {"max_bytes": 1023}},
        {"retry": {"max_attempts": 0}},
        {"retry": {"max_attempts": 21}},
        {"retry": {"classes": ["bad_luck"]}},
        {"poll": {"first": "0.01s"}},
        {"poll": {"first": "2m", "maximum": "1m"}},
        {"poll": {"factor": 0.5}},
        {"poll": {"jitter": 0.6}},
        {"on_complete": {}},
        {"on_complete": {"activity": "a", "workflow": "w"}},
        {"on_complete": {"activity": ""}},
        {"on_complete": {"activity": "a", "task_queue": ""}},
        {"on_complete": {"activity": "a", "timeout": "0.5s"}},
        {"on_complete": {"activity": "a", "timeout": "25h"}},
        {"on_complete": {"activity": "a", "timeout": "1m", "heartbeat": "2m"}},
        {"on_complete": {"activity": "a", "heartbeat": 0}},
    ],
    ids=json.dumps,
)
def test_a_value_out_of_bounds_is_refused_by_its_field(fields: dict[str, Any]) -> None:
    [name] = fields
    assert name in refused(BatchSpec, {**FILE, **fields})


def test_the_defaults_are_those_of_the_manual() -> None:
    plain = spec()
    assert plain.endpoint == "/v1/chat/completions"
    assert (plain.completion_window, plain.deadline) == ("24h", timedelta(hours=26))
    assert plain.poll == PollPolicy(first=timedelta(seconds=15), factor=1.5, maximum=timedelta(minutes=10), jitter=0.1)
    assert plain.retry.max_attempts == 2
    assert plain.on_invalid_row == "fail_batch"


def test_a_row_is_tried_again_where_the_same_request_may_succeed() -> None:
    again = set(RetryPolicy().classes)
    assert {ErrorClass.RATE_LIMITED, ErrorClass.EXPIRED, ErrorClass.MISSING, ErrorClass.SERVER_ERROR} <= again
    assert again.isdisjoint({ErrorClass.INVALID_REQUEST, ErrorClass.CONTEXT_LENGTH, ErrorClass.CONTENT_FILTERED})


def test_a_spec_survives_the_journey_through_json() -> None:
    full = spec(
        model="m",
        params={"temperature": 0.5, "nested": {"a": [1, None, "x"]}},
        output="file:///data/out",
        max_cost_usd="1.50",
        on_complete={"activity": "Done", "task_queue": "mine", "timeout": "3h", "heartbeat": "1m"},
        metadata={"team": "search"},
        retry={"classes": ["missing"]},
    )
    assert BatchSpec.model_validate_json(full.model_dump_json()) == full
    assert BatchSpec.model_validate(full.settings()) == full
    assert full.max_cost_usd == Decimal("1.50")
    json.dumps(full.settings())


def test_records_are_frozen_and_say_no_to_strangers() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().provider = "other"  # type: ignore[misc]  # the point of the test
    with pytest.raises(ValidationError, match="frozen"):
        Counts().total = 1  # type: ignore[misc]  # the point of the test
    assert "by_whom" in refused(CancelRequest, {"by_whom": "me"})
    assert "reason" in refused(CancelRequest, {"reason": "x" * 501})
    assert CancelRequest.model_validate({}) == CancelRequest(reason=None, requested_by=None)
    assert OnComplete(activity="a").task_queue is None


def test_a_reply_of_a_newer_version_is_read_by_an_older_client() -> None:
    newer = {"batch_id": "b", "status": "completed", "counts": {"total": 1, "succeeded": 1, "novel": 5}, "novel": True}
    assert BatchResult.model_validate(newer).counts == Counts(total=1, succeeded=1)
    assert BatchProgress.model_validate({"batch_id": "b", "phase": "polling", "novel": 1}).phase == "polling"
    assert ResultRow.model_validate({"custom_id": "a", "status": "succeeded", "novel": 1}).attempts == 0


# --- arithmetic


def test_counts_add_up() -> None:
    one = Counts(total=10, succeeded=4, failed=3, canceled=2, expired=1)
    two = Counts(total=1, failed=1)
    assert one + two == Counts(total=11, succeeded=4, failed=4, canceled=2, expired=1)
    assert one + Counts() == one
    assert (one.settled, two.settled, Counts(total=5).settled) == (10, 1, 0)
    assert sum([one, two], Counts()).total == 11


def test_usage_and_strays_add_up() -> None:
    usage = Usage(input_tokens=1, cached_input_tokens=2, output_tokens=3, reasoning_tokens=4)
    assert usage + usage == Usage(input_tokens=2, cached_input_tokens=4, output_tokens=6, reasoning_tokens=8)
    strays = Strays(unknown=1, duplicate=2, unreadable=3)
    assert strays + strays == Strays(unknown=2, duplicate=4, unreadable=6)


@pytest.mark.parametrize("model", [Counts, Usage, Strays])
def test_nothing_is_counted_below_zero(model: type[BaseModel]) -> None:
    for name in model.model_fields:
        assert name in refused(model, {name: -1})


# --- names


@pytest.mark.parametrize(
    "batch_id", ["a", "9", "batch-1", "2026-11-20T10:00:00", "user@example.com", "a.b_c=d+e", "x" * 200]
)
def test_a_batch_id_may_be(batch_id: str) -> None:
    assert check_batch_id(batch_id) == batch_id


@pytest.mark.parametrize(
    "batch_id",
    ["", "-a", ".", "..", ".a", "_a", "a/b", "a\\b", "a b", "a\n", "a%2e", "ü", "a?b", "a#b", "x" * 201, "../../etc"],
    ids=ascii,
)
def test_a_batch_id_may_not_be(batch_id: str) -> None:
    with pytest.raises(InvalidSpec, match="cannot be used"):
        check_batch_id(batch_id)


def test_a_refused_batch_id_is_not_repeated_at_length() -> None:
    with pytest.raises(InvalidSpec) as caught:
        check_batch_id("/" * 100_000)
    assert len(caught.value.message) < 400


def test_a_marker_names_one_attempt() -> None:
    assert marker("a:1", 7, 2) == "a:1/7/2"
    # A "/" cannot be in a batch id, so two attempts never share a marker; OpenAI takes 512 characters.
    assert len(marker("x" * 200, 10**9, 10**9)) <= 512


def test_folders_sort_as_their_shards_do() -> None:
    assert [shard_folder(n) for n in (0, 2, 10)] == sorted(shard_folder(n) for n in (10, 0, 2))
    assert attempt_folder(3, 1) == "shards/00003/attempt-1"


# --- status


@pytest.mark.parametrize("status", ProviderStatus)
def test_a_provider_batch_has_ended_or_not(status: ProviderStatus) -> None:
    assert status.ended == (status in {"completed", "failed", "expired", "canceled"})


# --- errors

#: The tree itself: other floors may add classes of their own below it.
ERRORS = sorted(
    (cls for cls in error_classes().values() if cls.__module__ == "durabatch.contract.errors"),
    key=lambda cls: cls.__name__,
)


def test_the_drawing_of_the_tree_is_the_tree() -> None:
    drawing = durabatch.contract.errors.__doc__ or ""
    depths = {line.split("─ ")[1].split()[0]: line.index("─") // 4 for line in drawing.splitlines() if "─ " in line}
    assert depths == {cls.__name__: cls.__mro__.index(DurabatchError) for cls in ERRORS if cls is not DurabatchError}


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_explains_itself(cls: type[DurabatchError]) -> None:
    error = cls()
    assert error.message == str(error) == (cls.__doc__ or "").strip().splitlines()[0]
    assert error.message.endswith(".")
    assert cls("Another message.").message == "Another message."
    assert "code" in vars(cls)
    assert cls.__name__ in durabatch.contract.__all__


def test_codes_are_unique() -> None:
    assert len({cls.code for cls in ERRORS}) == len(ERRORS)
    assert all(error_classes()[cls.code] is cls for cls in ERRORS)


def test_what_may_succeed_later_says_so() -> None:
    assert {cls.code for cls in ERRORS if cls.retryable} == {
        "store_error",
        "store_mismatch",
        "provider_unavailable",
        "rate_limited",
        "queue_full",
        "worker_busy",
    }


def test_an_error_carries_what_it_is_about() -> None:
    first = RowProblem(message="line 1, url: …", code="invalid_field", line=1, field="url")
    second = RowProblem(message="a.jsonl line 2: …", line=2, file="a.jsonl")
    refused_input = InvalidInput("Two rows are wrong.", [first, second])
    assert (refused_input.problems, refused_input.total) == ((first, second), 2)
    assert [str(problem) for problem in refused_input.problems] == ["line 1, url: …", "a.jsonl line 2: …"]
    assert first.facts() == {"message": "line 1, url: …", "code": "invalid_field", "line": 1, "field": "url"}
    assert InvalidInput("Many.", [first], total=5000).total == 5000
    assert RateLimited(retry_after=timedelta(seconds=7)).retry_after == timedelta(seconds=7)
    assert RateLimited().retry_after is None
