"""Plan: every row checked, shards cut, before anything costs."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from array import array
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from durabatch.activities.duplicates import FirstOccurrences
from durabatch.activities.estimate import estimate_tokens
from durabatch.activities.rows import Line, Problem
from durabatch.contract import BatchSpec, OnInvalidRow

BOM = b"\xef\xbb\xbf"
SECRET = "Sesame"


def problems(error: ApplicationError) -> list[str]:
    return [problem["message"] for problem in error.details[0]["problems"]]


# --- a good input ---


async def test_a_plan_tells_how_much_there_is_to_do(desk: Any) -> None:
    summary = await desk.plan(*(desk.chat(f"r-{n}") for n in range(5)))
    assert (summary.rows, summary.invalid_rows, summary.shards) == (5, 0, 1)
    assert summary.root == desk.store.uri("b-1")
    assert summary.planned_at == desk.now
    assert (summary.provider.name, summary.provider.kind, summary.provider.uploads) == ("gpt", "openai", True)


async def test_nothing_is_asked_of_the_provider(desk: Any, sandbox: Any) -> None:
    await desk.plan(desk.chat("a"))
    assert (await sandbox.books())["requests"] == {}


async def test_the_index_finds_every_row_in_the_input_again(desk: Any) -> None:
    source = (
        BOM
        + b'\r\n  {"custom_id":"a","input":"1"}  \r\n\n{"custom_id":"\xc3\xb6","input":"2"}\n\t\n'
        + (b'{"custom_id":"c","input":"3"}')
    )
    await desk.plan(source=source, model="m")
    found = {custom_id: json.loads(source[offset : offset + length]) for custom_id, offset, length in desk.index()}
    assert [(name, row["input"]) for name, row in found.items()] == [("a", "1"), ("ö", "2"), ("c", "3")]


@pytest.mark.parametrize("source", [b"", b"\n\n \r\n", BOM, BOM + b"\n"])
async def test_an_input_without_rows_is_refused(desk: Any, source: bytes) -> None:
    error = await desk.refused(desk.plan(source=source))
    assert error.type == "invalid_input"
    assert error.message == "The input has no rows: give it at least one request."


async def test_a_missing_input_is_refused(desk: Any) -> None:
    error = await desk.refused(desk.plan())
    assert error.type == "invalid_input"
    assert error.message.startswith(f"There is no input at {desk.store.uri('input.jsonl')}")


@pytest.mark.parametrize("field", ["input", "output"])
@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "{parent}/elsewhere.jsonl", "s3://bucket/x", "{store}/../x", "x"]
)
async def test_nothing_outside_the_store_is_read_or_written(desk: Any, field: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.jsonl").write_bytes(desk.jsonl(desk.chat("a")))
    (desk.folder / "input.jsonl").write_bytes(desk.jsonl(desk.chat("a")))
    uri = place.format(parent=tmp_path.as_uri(), store=desk.store.url)
    before = sorted(tmp_path.rglob("*"))
    error = await desk.refused(desk.plan(**{field: uri}))
    assert error.type == "invalid_spec"
    assert sorted(tmp_path.rglob("*")) == before


async def test_the_whole_store_is_no_output_folder(desk: Any) -> None:
    error = await desk.refused(desk.plan(desk.chat("a"), output=desk.store.url))
    assert error.type == "invalid_spec"
    assert "name a folder in it" in error.message


async def test_an_output_folder_is_used_and_belongs_to_one_batch(desk: Any) -> None:
    summary = await desk.plan(desk.chat("a"), output=desk.store.uri("out/nightly"))
    assert summary.root == desk.store.uri("out/nightly")
    assert (desk.folder / "out/nightly/plan.json").exists()
    desk.batch_id = "b-2"
    error = await desk.refused(desk.plan())
    assert error.type == "invalid_spec"
    assert "belongs to batch b-1: give b-2 a folder of its own" in error.message


@pytest.mark.parametrize("name", ["results.jsonl", "errors.jsonl", "plan.json", "result.json", "shards/00000/x.jsonl"])
async def test_a_batch_does_not_overwrite_its_own_input(desk: Any, name: str) -> None:
    file = desk.folder / "out" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(desk.jsonl(desk.chat("a")))
    error = await desk.refused(desk.plan(input=desk.store.uri(f"out/{name}"), output=desk.store.uri("out")))
    assert error.type == "invalid_spec"
    assert file.read_bytes() == desk.jsonl(desk.chat("a"))


async def test_an_unusable_batch_id_is_refused(desk: Any) -> None:
    for batch_id in ("../b", "a/b", "", "-b", "b" * 201, "a%2fb"):
        desk.batch_id = batch_id
        assert (await desk.refused(desk.plan(desk.chat("a")))).type == "invalid_spec"


async def test_an_endpoint_that_the_provider_cannot_batch_is_refused_with_those_it_can(desk: Any) -> None:
    error = await desk.refused(desk.plan(desk.chat("a"), endpoint="/v1/images"))
    assert error.type == "invalid_spec"
    assert "/v1/chat/completions, /v1/completions, /v1/embeddings" in error.message


@pytest.mark.parametrize("params", [{"top_p": float("inf")}, {"a": [{"b": float("nan")}]}])
async def test_params_that_no_json_can_hold_are_refused(desk: Any, params: dict[str, Any]) -> None:
    error = await desk.refused(desk.plan(desk.chat("a"), params=params))
    assert (error.type, "number that JSON cannot express" in error.message) == ("invalid_spec", True)


# --- rows inline ---


async def test_rows_given_inline_are_put_into_the_store(desk: Any) -> None:
    desk.spec = BatchSpec(provider="gpt", requests=({"custom_id": "ü", "input": "Hi."},), model="m")
    summary = await desk.plan()
    assert summary.rows == 1
    assert [row[0] for row in desk.index()] == ["ü"]
    assert desk.record()["input"] == "b-1/input.jsonl"


async def test_numbers_in_inline_rows_stay_what_they_are(desk: Any) -> None:
    row = desk.chat("a", seed=10**40, top_p=1e-320)
    desk.spec = BatchSpec(provider="gpt", requests=(row,))
    await desk.plan()
    assert json.loads((desk.folder / "b-1/input.jsonl").read_bytes()) == row


async def test_an_infinite_number_in_an_inline_row_is_refused_rather_than_sent_as_null(desk: Any) -> None:
    desk.spec = BatchSpec(provider="gpt", requests=(desk.chat("a", top_p=float("inf")),))
    error = await desk.refused(desk.plan())
    assert "line 1: is not JSON" in error.message


# --- rows that cannot be sent ---

#: One of every kind, and what is said of it.
BAD: list[tuple[Any, str]] = [
    (b'{"custom_id": "Sesame", ', "line 2: is not JSON"),
    (b'["Sesame"]', "line 3: is not a JSON object"),
    (b'{"custom_id": "u", "input": "Sesame\xff"}', "line 4: is not UTF-8 (byte 36)"),
    (b'{"input": "Sesame"}', "line 5, custom_id: is missing"),
    (b'{"custom_id": 17, "input": "Sesame"}', "line 6, custom_id: must be a string that is not empty"),
    ({"custom_id": "x" * 300, "input": SECRET}, "line 7, custom_id: has more than 256 characters"),
    ({"custom_id": "n\n", "input": SECRET}, "line 8, custom_id: holds a control character"),
    ({"custom_id": "k-9"}, "line 9: needs exactly one of body, params or input, and has none of them"),
    ({"custom_id": "k-10", "method": "GET", "body": {}}, "line 10, method: must be POST"),
    (
        {"custom_id": "k-11", "url": "/v1/embeddings", "body": {"model": "m", "messages": []}},
        "line 11, url: differs from the batch's endpoint /v1/chat/completions",
    ),
    (
        {"custom_id": "k-12", "body": {"model": "gpt-4o-mini", "messages": [SECRET], "stream": True}},
        "line 12, body.stream: must not be true: a batch cannot stream",
    ),
    (
        {"custom_id": "k-13", "body": {"messages": [SECRET]}},
        "line 13, body.model: is missing, and the batch names none",
    ),
    ({"custom_id": "k-14", "body": {"model": "", "messages": []}}, "line 14, body.model: is empty"),
    ({"custom_id": "k-15", "body": {"model": [SECRET], "messages": []}}, "line 15, body.model: expected `str | null`"),
    ({"custom_id": "k-16", "body": {"model": "m"}}, "line 16, body.messages: is missing, and /v1/chat/completions"),
    ({"custom_id": "k-17", "body": {"model": "m", "messages": SECRET}}, "line 17, body.messages: must be a list"),
    ({"custom_id": "k-18", "body": SECRET}, "line 18, body: expected `object`"),
    ({"custom_id": "k-19", "params": {"messages": [SECRET]}}, "line 19, params.messages[0]: must be an object"),
    ({"custom_id": "k-20", "input": 17}, "line 20, input: must be a string or a list of messages"),
    ({"custom_id": "a", "input": SECRET}, "line 21, custom_id: is the same as on line 1"),
    (
        {"custom_id": "k-22", "body": {"model": "other", "messages": [SECRET]}},
        "line 22, body.model: differs from that of line 1, and this provider takes one model a batch",
    ),
    (b'{"custom_id":"k-23","body":{"model":"m","model":"n","messages":[]}}', "line 23, body.model: occurs twice"),
    (
        b'{"custom_id": "k-24", "body": {"x": ' + b"[" * 500 + b"]" * 500 + b"}}",
        "line 24: is nested more than 200 levels deep",
    ),
    ({"custom_id": "k-25", "input": "x" * 3000}, "line 25: has "),
]


async def test_every_kind_of_bad_row_is_told_by_line_field_and_reason_and_nothing_else_happens(
    desk: Any, sandbox: Any
) -> None:
    desk.options = {"max_bytes": 3000}
    error = await desk.refused(desk.plan(desk.chat("a"), *(row for row, _ in BAD)))

    assert error.type == "invalid_input"
    told = problems(error)
    assert error.details[0]["total"] == len(BAD) == len(told)
    facts = error.details[0]["problems"]
    assert [problem["line"] for problem in facts] == list(range(2, 26))
    assert {problem["code"] for problem in facts} == set(Problem)
    assert all(f", {problem['field']}: " in problem["message"] for problem in facts if "field" in problem)
    for problem, (_, expected) in zip(told, BAD, strict=True):
        assert problem.startswith(expected), problem
    assert error.message.startswith("24 rows of 25 cannot be sent, and nothing was submitted: line 2: is not JSON")
    assert "; and 4 more. To go on, fix them, or let them fail alone with on_invalid_row" in error.message
    assert all(problem in error.message for problem in told[:20])
    assert told[20] not in error.message
    assert SECRET not in error.message + "".join(told)
    assert (await sandbox.books())["requests"] == {}
    assert not list(desk.folder.rglob("results.jsonl"))


async def test_bad_rows_can_fail_alone(desk: Any) -> None:
    desk.options = {"max_bytes": 3000}
    summary = await desk.plan(desk.chat("a"), *(row for row, _ in BAD), on_invalid_row=OnInvalidRow.FAIL_ROW)

    assert (summary.rows, summary.invalid_rows, summary.shards) == (25, 24, 1)
    index = desk.index()
    assert len(index) == 25
    assert index[0][0] == "a" and len(index[0]) == 3
    for number, (row, (_, expected)) in enumerate(zip(index[1:], BAD, strict=True), 2):
        refusal = row[3]
        field = f", {refusal['field']}" if refusal["field"] else ""
        assert f"line {refusal['line']}{field}: {refusal['reason']}".startswith(expected)
        assert refusal["line"] == number
    names = [row[0] for row in index]
    assert names[1:7] == ["line:2", "line:3", "line:4", "line:5", "line:6", "x" * 40 + "…"]
    assert names[7] == "n\\n"
    assert names[8:19] == [f"k-{number}" for number in range(9, 20)]
    assert names[20] == "a"  # the second one of that name
    assert names[24] == "line:25"
    assert desk.record()["sendable"] == 1


async def test_a_hundred_bad_rows_are_told_and_the_others_are_counted(desk: Any) -> None:
    error = await desk.refused(desk.plan(desk.chat("a"), *(b"{" for _ in range(150))))
    assert len(problems(error)) == 100
    assert error.details[0]["total"] == 150
    assert error.message.startswith("150 rows of 151 cannot be sent")
    assert "; and 130 more." in error.message
    assert len(error.message) < 4000  # what Temporal keeps of a failure


async def test_a_single_bad_row_is_told_in_the_singular(desk: Any) -> None:
    error = await desk.refused(desk.plan(desk.chat("a"), b"{"))
    assert error.message.startswith("1 row of 2 cannot be sent")


async def test_an_input_of_nothing_but_bad_rows_is_refused_even_where_they_may_fail_alone(desk: Any) -> None:
    error = await desk.refused(desk.plan(b"{", b"[", on_invalid_row=OnInvalidRow.FAIL_ROW))
    assert "no row is left to send" in error.message
    assert error.details[0]["total"] == 2


async def test_a_line_above_the_providers_size_is_refused_without_being_read_into_memory(desk: Any) -> None:
    desk.options = {"max_bytes": 2000}
    long = json.dumps(desk.chat("long", "x" * 5000)).encode()
    error = await desk.refused(desk.plan(desk.chat("a"), long))
    assert problems(error) == [f"line 2: has {len(long):,} bytes, more than the 2,000 a batch may have"]


async def test_a_row_that_outgrows_the_provider_only_with_its_defaults_is_refused(desk: Any) -> None:
    desk.options = {"max_bytes": 2000}
    error = await desk.refused(desk.plan(desk.chat("a"), desk.chat("b", "x" * 1700), params={"stop": "y" * 200}))
    assert problems(error) == ["line 2: has more than the 2,000 bytes a batch may have"]


async def test_the_model_of_a_line_is_not_told(desk: Any) -> None:
    error = await desk.refused(desk.plan(desk.chat("a", model=SECRET), desk.chat("b", model="m")))
    assert SECRET not in error.message + "".join(problems(error))


# --- duplicate ids ---


async def test_two_rows_of_one_id_are_told_with_both_lines(desk: Any) -> None:
    rows = [desk.chat(name) for name in ("a", "b", "a", "c", "b", "a")]
    error = await desk.refused(desk.plan(*rows))
    assert problems(error) == [
        "line 3, custom_id: is the same as on line 1",
        "line 5, custom_id: is the same as on line 2",
        "line 6, custom_id: is the same as on line 1",
    ]


async def test_two_rows_of_one_id_are_found_in_different_shards(desk: Any) -> None:
    rows = [desk.chat(f"r-{n % 40}") for n in range(41)]
    error = await desk.refused(desk.plan(*rows, limits={"max_rows": 3}))
    assert problems(error) == ["line 41, custom_id: is the same as on line 1"]


@pytest.mark.parametrize(
    "first",
    [
        {"custom_id": "a", "method": "GET", "body": {}},  # refused as a row
        {"custom_id": "a", "body": {"messages": []}},  # refused by the provider's rules
    ],
)
async def test_a_second_row_of_an_id_is_refused_even_if_the_first_one_is(desk: Any, first: dict[str, Any]) -> None:
    # Both have a result, and two results of one id would be one too many.
    summary = await desk.plan(first, desk.chat("b"), desk.chat("a"), on_invalid_row=OnInvalidRow.FAIL_ROW)
    assert summary.invalid_rows == 2
    reason = "is the same as on line 1"
    assert desk.index()[2][3] == {"line": 3, "field": "custom_id", "reason": reason, "code": "duplicate_custom_id"}


async def test_ids_that_differ_are_not_confused(desk: Any) -> None:
    names = ["a", "A", "a ", "ä", "a\u0308", "1", "01", "line:2"]
    summary = await desk.plan(*(desk.chat(name) for name in names))
    assert summary.invalid_rows == 0


class Same(str):
    """An id whose hash is that of every other one."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7


def test_ids_with_the_same_hash_are_not_confused() -> None:
    pieces = [array("q") for _ in range(256)]
    pieces[7].append(7)
    firsts = FirstOccurrences(pieces)
    found = [
        firsts.earlier(Same(name), Line(number, number * 10, 5, b"", file))
        for number, (name, file) in enumerate(
            [("a", "x"), ("b", "x"), ("b", "x"), ("a", "y"), ("c", "y"), ("b", "y"), ("c", "y"), ("a", "y")], 1
        )
    ]
    assert found == [None, None, "x line 2", "x line 1", None, "x line 2", "y line 5", "x line 1"]
    assert firsts.earlier("d", Line(9, 90, 5, b"")) is None


# --- shards ---


def cuts(desk: Any, summary: Any) -> list[list[str]]:
    found = []
    for desk.shard in range(summary.shards):
        found.append([row[0] for row in desk.index()])
    return found


@pytest.mark.parametrize(
    ("rows", "limit", "expected"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 3, [2]), (3, 1, [1, 1, 1])]
)
async def test_shards_are_cut_by_rows(desk: Any, rows: int, limit: int, expected: list[int]) -> None:
    summary = await desk.plan(*(desk.chat(f"r-{n}") for n in range(rows)), limits={"max_rows": limit})
    shards = cuts(desk, summary)
    assert [len(shard) for shard in shards] == expected
    assert [name for shard in shards for name in shard] == [f"r-{n}" for n in range(rows)]


async def test_the_providers_own_limit_holds_where_the_spec_allows_more(desk: Any) -> None:
    await desk.reopen(max_rows=2)
    summary = await desk.plan(*(desk.chat(f"r-{n}") for n in range(5)), limits={"max_rows": 1000})
    assert summary.shards == 3


async def test_shards_are_cut_by_bytes_and_none_is_larger(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}", "x" * (n * 37 % 600)) for n in range(40)]
    summary = await desk.plan(*rows, limits={"max_bytes": 2000})
    assert summary.shards > 5
    for desk.shard in range(summary.shards):
        uploaded = await desk.upload()
        data = await desk.uploaded_bytes(uploaded.file_id)
        assert len(data) == uploaded.bytes <= 2000
        assert desk.record()["bytes"] <= 2000


async def test_a_row_of_just_the_limit_fits_and_one_byte_more_does_not(desk: Any) -> None:
    size = len(json.dumps(desk.chat("a", "x" * 1000))) + 1  # with its line feed
    await desk.reopen(max_bytes=size)
    assert (await desk.plan(desk.chat("a", "x" * 1000))).shards == 1
    error = await desk.refused(desk.plan(desk.chat("a", "x" * 1001)))
    assert error.type == "invalid_input"


async def test_shards_are_cut_by_estimated_tokens_and_a_row_above_the_limit_has_one_for_itself(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}", "word " * words) for n, words in enumerate((10, 10, 10, 400, 10))]
    each = [estimate_tokens(len(json.dumps(row))) for row in rows]
    summary = await desk.plan(*rows, limits={"max_tokens": each[0] + each[1]})
    assert cuts(desk, summary) == [["r-0", "r-1"], ["r-2"], ["r-3"], ["r-4"]]
    desk.shard = 0
    assert desk.record()["tokens"] == each[0] + each[1]


async def test_a_shard_is_full_to_the_byte(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}", "x" * 500) for n in range(6)]
    size = len(json.dumps(rows[0])) + 1
    assert (await desk.plan(*rows, limits={"max_bytes": 3 * size})).shards == 2
    assert (await desk.plan(*rows, limits={"max_bytes": 3 * size - 1})).shards == 3


async def test_a_long_row_after_bad_ones_needs_no_shard_of_its_own(desk: Any) -> None:
    rows: list[Any] = [b"{", desk.chat("long", "word " * 400)]
    summary = await desk.plan(*rows, limits={"max_tokens": 10}, on_invalid_row=OnInvalidRow.FAIL_ROW)
    assert cuts(desk, summary) == [["line:1", "long"]]


async def test_bad_rows_keep_their_place_among_the_shards(desk: Any) -> None:
    rows: list[Any] = [desk.chat("a"), b"{", desk.chat("c"), desk.chat("d"), b"[", desk.chat("f")]
    summary = await desk.plan(*rows, limits={"max_rows": 2}, on_invalid_row=OnInvalidRow.FAIL_ROW)
    assert cuts(desk, summary) == [["a", "line:2"], ["c", "d"], ["line:5", "f"]]


async def test_a_shards_bytes_and_digest_are_those_of_its_part_of_the_input(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}") for n in range(5)]
    summary = await desk.plan(*rows, limits={"max_rows": 2})
    source = (desk.folder / "input.jsonl").read_bytes()
    for desk.shard, part in enumerate((rows[:2], rows[2:4], rows[4:])):
        record, data = desk.record(), desk.jsonl(*part)
        assert source[record["start"] : record["end"]] == data[:-1]
        assert record["digest"] == hashlib.sha256(data).hexdigest()[:16]
        assert record["bytes"] == len(data)
        assert (record["rows"], record["sendable"]) == (len(part), len(part))
    assert summary.shards == 3


# --- what is sent ---

PLAIN = [{"custom_id": f"r-{n}", "method": "POST", "url": "/v1/chat/completions"} for n in range(3)]
LINES = [
    json.dumps({**row, "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi."}]}}).encode()
    for row in PLAIN
]


@pytest.mark.parametrize(
    ("source", "verbatim"),
    [
        (b"\n".join(LINES) + b"\n", True),
        (b"\n".join(LINES), True),
        (BOM + b"\n".join(LINES) + b"\n", True),
        (b"\n\r\n" + b"\n".join(LINES) + b"\n\n", True),
        (b"  " + LINES[0] + b"  ", True),
        (b"\r\n".join(LINES) + b"\r\n", False),
        (LINES[0] + b"\n\n" + LINES[1], False),
        (LINES[0] + b" \n" + LINES[1], False),
        (LINES[0] + b"\n " + LINES[1], False),
        # Whatever a number looks like, it goes through as it is.
        (LINES[0].replace(b'"messages"', b'"seed": 1e999, "top_p": 0.10, "messages"'), True),
    ],
)
async def test_lines_that_need_nothing_go_through_as_they_are(desk: Any, source: bytes, verbatim: bool) -> None:
    await desk.plan(source=source)
    assert desk.record()["verbatim"] is verbatim
    data = await desk.uploaded_bytes((await desk.upload()).file_id)
    naive = [line.strip(b" \r\n").removeprefix(BOM) for line in source.split(b"\n")]
    assert data.splitlines() == [line for line in naive if line]


@pytest.mark.parametrize(
    ("rows", "fields"),
    [
        ([{"custom_id": "a", "input": "Hi."}], {"model": "gpt-4o-mini"}),
        ([PLAIN[0] | {"body": {"messages": [{"role": "user", "content": "Hi."}]}}], {"model": "gpt-4o-mini"}),
        ([json.loads(LINES[0])], {"params": {"temperature": 0.5, "seed": 10**30}}),
        ([{"custom_id": "a", "body": json.loads(LINES[0])["body"]}], {}),
    ],
)
async def test_rows_that_lack_something_are_rewritten(desk: Any, rows: list[Any], fields: dict[str, Any]) -> None:
    await desk.plan(*rows, **fields)
    assert desk.record()["verbatim"] is False
    (sent,) = (json.loads(line) for line in (await desk.uploaded_bytes((await desk.upload()).file_id)).splitlines())
    assert (sent["method"], sent["url"]) == ("POST", "/v1/chat/completions")
    assert sent["custom_id"] == rows[0]["custom_id"]
    expected = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi."}], **fields.get("params", {})}
    assert sent["body"] == expected


async def test_a_refused_row_is_left_out_of_what_is_sent(desk: Any) -> None:
    await desk.plan(source=b"\n".join([LINES[0], b"{", LINES[2]]), on_invalid_row=OnInvalidRow.FAIL_ROW)
    assert desk.record()["verbatim"] is False
    uploaded = await desk.upload()
    assert uploaded.rows == 2
    assert await desk.uploaded_bytes(uploaded.file_id) == LINES[0] + b"\n" + LINES[2] + b"\n"


async def test_a_row_that_names_no_model_agrees_with_those_that_name_the_specs(desk: Any) -> None:
    rows = [desk.chat("a", model="m"), desk.chat("b", model=None), {"custom_id": "c", "input": "Hi."}]
    assert (await desk.plan(*rows, model="m")).invalid_rows == 0
    error = await desk.refused(desk.plan(*rows, model="n"))
    assert [problem.split(":")[0] for problem in problems(error)] == ["line 2, body.model", "line 3, body.model"]


async def test_a_provider_that_takes_several_models_a_batch_gets_them(desk: Any) -> None:
    rows = [{"custom_id": name, "params": {"model": name, "max_tokens": 5, "messages": []}} for name in ("m", "n")]
    assert (await desk.plan(*rows, provider="claude")).invalid_rows == 0


# --- the same again ---


async def test_the_same_request_again_returns_the_same_plan_without_reading_the_input(desk: Any) -> None:
    first = await desk.plan(desk.chat("a"), desk.chat("b"))
    desk.now += timedelta(hours=1)
    file = desk.folder / "input.jsonl"
    facts = file.stat()
    file.write_bytes(b"x" * facts.st_size)  # whoever reads this refuses it
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert await desk.plan() == first


@pytest.mark.parametrize(
    "changes",
    [{"params": {"seed": 1}}, {"limits": {"max_rows": 1}}, {"model": "n"}, {"endpoint": "/v1/responses"}],
)
async def test_a_changed_spec_is_planned_anew_as_of_the_first_time(desk: Any, changes: dict[str, Any]) -> None:
    rows = [{"custom_id": name, "input": "Hi."} for name in "ab"]
    first = await desk.plan(*rows, model="m")
    old = desk.record()
    desk.now += timedelta(hours=1)
    second = await desk.plan(**changes)
    assert second.planned_at == first.planned_at
    assert desk.record() != old


async def test_another_length_of_the_input_is_planned_anew(desk: Any) -> None:
    assert (await desk.plan(desk.chat("a"))).rows == 1
    assert (await desk.plan(desk.chat("a"), desk.chat("b"))).rows == 2


async def test_another_kind_of_provider_is_planned_anew(desk: Any) -> None:
    await desk.reopen(max_rows=10, max_bytes=10_000)
    await desk.plan({"custom_id": "a", "input": "Hi."}, model="m")
    old = desk.record()
    await desk.reopen(max_rows=10, max_bytes=10_015)  # less the frame around its rows: the limits are the same
    assert desk.resources.provider("claude").capabilities.max_bytes == 10_000
    await desk.plan(provider="claude")
    assert desk.record()["digest"] != old["digest"]


async def test_whether_bad_rows_matter_is_decided_each_time(desk: Any) -> None:
    assert (await desk.refused(desk.plan(desk.chat("a"), b"{"))).type == "invalid_input"
    assert (await desk.plan(on_invalid_row=OnInvalidRow.FAIL_ROW)).invalid_rows == 1
    assert (await desk.refused(desk.plan(on_invalid_row=OnInvalidRow.FAIL_BATCH))).type == "invalid_input"


# --- what it may cost ---


async def test_a_batch_that_costs_too_much_is_refused_with_the_estimate(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}", "word " * 1000) for n in range(10)]
    tokens = sum(estimate_tokens(len(json.dumps(row))) for row in rows)
    cost = Decimal(tokens) * Decimal("0.15") / 2 / 10**6  # gpt-4o-mini's input, half price
    error = await desk.refused(desk.plan(*rows, max_cost_usd="0.001"))
    assert error.type == "invalid_input"
    assert f"estimated at {cost.normalize()} USD, more than max_cost_usd = 0.001" in error.message
    assert (await desk.plan(max_cost_usd=cost)).rows == 10


@pytest.mark.parametrize("provider", ["gpt", "claude"])
async def test_a_limit_on_costs_needs_a_price(desk: Any, provider: str) -> None:
    rows = [{"custom_id": "a", "input": "Hi."}]
    error = await desk.refused(desk.plan(*rows, model="no-such-m", provider=provider, max_cost_usd=1))
    assert error.type == "invalid_input"
    assert error.message.startswith("The price of model no-such-m is unknown, so max_cost_usd cannot be kept")


async def test_a_limit_on_costs_holds_for_a_provider_that_takes_several_models(desk: Any) -> None:
    rows = [
        {
            "custom_id": model,
            "params": {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
        }
        for model in ("claude-haiku-4-5", "claude-sonnet-4-5")
    ]
    assert (await desk.plan(*rows, provider="claude", max_cost_usd=1)).rows == 2
    error = await desk.refused(desk.plan(max_cost_usd="0.000001"))
    assert "more than max_cost_usd" in error.message


# --- memory ---


async def bytes_a_row(desk: Any, often: int) -> float:
    """Return how much each row adds to a plan's peak of memory, where every id occurs so often in the input."""
    sizes = (4_000, 24_000)
    text = b"Hi. " * 100  # so that the buffers, which hold whole pieces of the input, are full in both sizes
    peaks = []
    for rows in (1_000, *sizes):  # the first one only fills the caches
        desk.batch_id = f"b-{rows}"
        with (desk.folder / "input.jsonl").open("wb") as out:
            for number in range(rows):
                out.write(b'{"custom_id":"r-%d","input":"%b"}\n' % (number % (rows // often), text))
        tracemalloc.start()
        try:
            summary = await desk.plan(model="m", limits={"max_rows": 500}, on_invalid_row=OnInvalidRow.FAIL_ROW)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert (summary.rows, summary.invalid_rows) == (rows, rows - rows // often)
    return (peaks[2] - peaks[1]) / (sizes[1] - sizes[0])


@pytest.mark.slow
async def test_a_plan_of_many_rows_takes_little_memory(desk: Any) -> None:
    # 8 bytes and what an array has in reserve. The ids themselves, or a set of their hashes, are 100 and more.
    assert await bytes_a_row(desk, often=1) <= 30


@pytest.mark.slow
async def test_ids_that_stand_twice_take_little_memory(desk: Any) -> None:
    # For every second row 28 bytes more. A dict of these ids is 100 and more for each row.
    assert await bytes_a_row(desk, often=2) <= 30
