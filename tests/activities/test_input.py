"""The input of a batch: several files as one, compressed ones, and a plan that goes on where it was."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import os
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import zstandard

from durabatch.activities.cut import Cut
from durabatch.activities.estimate import estimate_tokens
from durabatch.activities.input import File as InputFile
from durabatch.activities.input import Input, open_input
from durabatch.activities.lease import Lease
from durabatch.activities.plan import Plan
from durabatch.activities.providers import RowFormat
from durabatch.activities.records import Segment
from durabatch.activities.resources import Resources
from durabatch.activities.rows import Row
from durabatch.activities.selection import Selection
from durabatch.activities.shard_limits import shard_limits
from durabatch.activities.store import Store
from durabatch.contract import (
    BatchSpec,
    ConfigurationError,
    Limits,
    MissingKey,
    Mode,
    OnInvalidRow,
    ProviderStatus,
    ProviderUnavailable,
    UnknownProvider,
)
from durabatch.contract.steps import PlanRequest, PlanSummary

BOM = b"\xef\xbb\xbf"
zstd = zstandard.ZstdCompressor().compress


def put(desk: Any, name: str, data: bytes) -> None:
    file = desk.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def bought_by(plan: PlanSummary) -> PlanSummary:
    """Return the plan as it is reported once something may be bought by it."""
    return plan.model_copy(update={"bought": True})


def cuts(desk: Any) -> list[list[str]]:
    found = []
    for shard in range(desk.summary.shards):
        desk.shard = shard
        found.append([row[0] for row in desk.index()])
    return found


async def sent(desk: Any) -> list[bytes]:
    """What the provider gets, shard by shard; behind the last row a line feed is as good as none."""
    found = []
    for shard in range(desk.summary.shards):
        desk.shard = shard
        data = await desk.uploaded_bytes((await desk.upload()).file_id)
        found.append(data.removesuffix(b"\n") + b"\n")
    return found


def problems(error: Any) -> list[str]:
    return [problem["message"] for problem in error.details[0]["problems"]]


# --- which files ---


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        (
            "in/*.jsonl",
            ["in/a.jsonl", "in/_a.jsonl", "in/*.jsonl"],
            ["in/x/a.jsonl", "in/.a.jsonl", "in/ajsonl", "a.jsonl"],
        ),
        (
            "in/day-?.jsonl",
            ["in/day-1.jsonl", "in/day-?.jsonl"],
            ["in/day-10.jsonl", "in/day-.jsonl", "in/day-/.jsonl"],
        ),
        ("in/*/part-*.jsonl.gz", ["in/x/part-.jsonl.gz"], ["in/part-1.jsonl.gz", "in/x/y/part-1.jsonl.gz"]),
        ("in/[ab]*.jsonl", ["in/[ab]c.jsonl"], ["in/a.jsonl"]),
        ("*.jsonl", ["a.jsonl"], ["in/a.jsonl"]),
        ("in/**.jsonl", ["in/a.jsonl"], ["in/x/a.jsonl", "in/.a.jsonl"]),
        (
            "in/a*b?c*d*/*x",
            ["in/ab1cd/x", "in/a-bb-c-b.c-d-d-/yxx", "in/abbcd/x", "in/abc-b-cd/x"],
            ["in/abcd/x", "in/ab1c/x", "in/ab1d-c/x", "in/xab1cd/x", "in/ab1cd/xy", "in/ab1/cd/x"],
        ),
        ("in", ["in/a.jsonl", "in/x/y.txt"], ["in", "inner/a.jsonl", "in/_SUCCESS", "in/.x/a.jsonl", "in/_x/a.jsonl"]),
    ],
)
def test_a_selection_takes_what_it_says(pattern: str, taken: list[str], left: list[str]) -> None:
    takes = Selection(pattern).takes
    assert ([path for path in taken if not takes(path)], [path for path in left if takes(path)]) == ([], [])


@pytest.mark.parametrize("pattern", ["in/" + "*" * 40 + "b", "in/" + "*a" * 40 + "*b", "/".join(["*a*a*"] * 30)])
def test_many_wildcards_take_no_longer_than_few(pattern: str) -> None:
    begun = time.process_time()
    assert not Selection(pattern).takes("in/" + "a" * 200)
    assert not Selection(pattern).takes("/".join(["a" * 30] * 29 + ["x"]))
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("uri", ["in/", "in", "in/*.*", "in/?-*", "*/*-part.*"])
async def test_files_are_one_input_in_the_order_of_their_paths(desk: Any, uri: str) -> None:
    put(desk, "in/b-part.jsonl", desk.jsonl(desk.chat("b-1"), desk.chat("b-2")))
    put(desk, "in/a-part.jsonl", desk.jsonl(desk.chat("a-1"))[:-1])  # no line feed at its end
    put(desk, "in/c-part.NDJSON", desk.jsonl(desk.chat("c-1")))
    put(desk, "other/c.jsonl", desk.jsonl(desk.chat("other")))
    summary = await desk.plan(input=f"{desk.store.url}/{uri}")
    assert (summary.rows, summary.shards) == (4, 1)
    assert cuts(desk) == [["a-1", "b-1", "b-2", "c-1"]]


async def test_a_folder_is_read_with_all_that_is_below_it_but_hidden_files(desk: Any) -> None:
    for name in ("z.jsonl", "2026/01/a.jsonl", "_SUCCESS", "_tmp/x.jsonl", ".crc/x", "2026/.a.jsonl.crc"):
        put(desk, f"in/{name}", desk.jsonl(desk.chat(name)))
    await desk.plan(input=desk.store.uri("in") + "/")
    assert cuts(desk) == [["2026/01/a.jsonl", "z.jsonl"]]


@pytest.mark.parametrize("name", ["notes.txt", "a.jsonl.bak", "sub/a.json", "a.gz", "jsonl"])
async def test_a_folder_that_holds_something_else_is_refused_by_name(desk: Any, name: str) -> None:
    put(desk, "in/a.jsonl", desk.jsonl(desk.chat("a")))
    put(desk, f"in/{name}", b"Sesame")
    error = await desk.refused(desk.plan(input=desk.store.uri("in") + "/"))
    assert error.type == "invalid_input"
    assert f"holds {name}, whose name is not that of a JSONL file" in error.message
    assert f"{desk.store.uri('in')}/*.jsonl" in error.message
    assert (await desk.plan(input=f"{desk.store.uri('in')}/a.jsonl")).rows == 1


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("in/", "There is no file of requests in"),
        ("none/", "There is no file of requests in"),
        ("none", "There is no input at"),
        ("in/*.jsonl", "There is no file that matches"),
        ("*.jsonl.gz", "There is no file that matches"),
    ],
)
async def test_a_folder_or_pattern_without_files_is_refused(desk: Any, uri: str, words: str) -> None:
    put(desk, "in/_SUCCESS", b"")
    error = await desk.refused(desk.plan(input=f"{desk.store.url}/{uri}"))
    assert (error.type, error.message.startswith(words)) == ("invalid_input", True)
    assert f"{desk.store.url}/{uri}" in error.message


async def test_files_without_rows_are_refused_all_together(desk: Any) -> None:
    put(desk, "in/a.jsonl", b"")
    put(desk, "in/b.jsonl", BOM + b"\n")
    error = await desk.refused(desk.plan(input=desk.store.uri("in")))
    assert error.message == "The input has no rows: give it at least one request."


async def test_the_whole_store_is_no_input(desk: Any) -> None:
    for uri in (desk.store.url, f"{desk.store.url}/"):
        error = await desk.refused(desk.plan(input=uri))
        assert (error.type, "is the whole store" in error.message) == ("invalid_spec", True)


async def test_a_file_that_is_called_like_a_pattern_is_that_file(desk: Any) -> None:
    put(desk, "in/what?.jsonl", desk.jsonl(desk.chat("a")))
    put(desk, "in/what1.jsonl", desk.jsonl(desk.chat("b")))
    await desk.plan(input=f"{desk.store.url}/in/what?.jsonl")
    assert cuts(desk) == [["a"]]
    assert desk.record()["input"] == "in/what?.jsonl"


@pytest.mark.parametrize(
    "uri", ["out/", "out", "out/*.jsonl", "*/results.jsonl", "out/shards/", "out/input/", "top/", "out/*"]
)
async def test_a_batch_does_not_read_what_it_writes(desk: Any, uri: str) -> None:
    for name in ("out/mine.jsonl", "out/shards/00000/rows.jsonl", "out/input/00000-x.jsonl", "top/a.jsonl"):
        put(desk, name, desk.jsonl(desk.chat("a")))
    output = desk.store.uri("top/out" if uri == "top/" else "out")
    before = sorted(desk.folder.rglob("*"))
    error = await desk.refused(desk.plan(input=f"{desk.store.url}/{uri}", output=output))
    assert error.type == "invalid_spec"
    assert "would overwrite its own input" in error.message
    assert sorted(desk.folder.rglob("*")) == before


async def test_a_folder_within_the_batchs_own_may_be_its_input(desk: Any) -> None:
    put(desk, "b-1/input-0123/00000-a.jsonl", desk.jsonl(desk.chat("a")))
    assert (await desk.plan(input=f"{desk.store.url}/b-1/input-0123/")).rows == 1
    assert (await desk.plan()).rows == 1


# --- one run of bytes ---


def joined(tmp_path: Path, *files: bytes) -> tuple[Input, bytes]:
    """Files as an input, and the bytes that it should have."""
    store, segments, start, expected = Store.open(str(tmp_path)), [], 0, b""
    for number, data in enumerate(files):
        (tmp_path / f"{number}.jsonl").write_bytes(data)
        feed = data[-1:] != b"\n"
        end = start + len(data) + feed
        segments.append(Segment(f"{number}.jsonl", start, end, f"{number}.jsonl", feed))
        expected, start = expected + data + b"\n" * feed, end
    return Input(store, segments), expected


def test_any_range_of_several_files_is_what_it_is_in_one(tmp_path: Path) -> None:
    source, expected = joined(tmp_path, b"abc\nde", b"f\n", b"\n", b"ghi", b"j\n")
    for start in range(len(expected) + 1):
        for end in range(start, len(expected) + 1):
            for chunk in (1, 2, 100):
                assert b"".join(source.stream(start, end, chunk)) == expected[start:end], (start, end)


def test_lines_of_several_files_have_their_own_numbers_and_the_offsets_of_one(tmp_path: Path) -> None:
    source, expected = joined(tmp_path, BOM + b"a\n\nbb", BOM + b"\n \r\n c\r\n", b"d\n" + b"e" * 50 + b"\nf")
    found = list(source.lines(20))
    assert [line.place for line in found] == [
        *("0.jsonl line 1", "0.jsonl line 3", "1.jsonl line 3"),
        *("2.jsonl line 1", "2.jsonl line 2", "2.jsonl line 3"),
    ]
    assert [line.data for line in found] == [b"a", b"bb", b"c", b"d", b"", b"f"]
    assert all(expected[line.offset : line.offset + line.length] == line.data for line in found if line.data)
    assert (found[4].offset, found[4].length) == (expected.index(b"e"), 50)
    # Behind any of them, the others are just the same.
    for number, line in enumerate(found):
        assert list(source.lines(20, line.offset + line.length, line.number - 1)) == found[number + 1 :]


# --- what is reported of rows ---


async def test_bad_rows_are_told_by_file_and_line(desk: Any) -> None:
    put(desk, "in/part-1.jsonl", desk.jsonl(desk.chat("a"), desk.chat("b")))
    put(desk, "in/part-2.jsonl", BOM + desk.jsonl(b"", desk.chat("c", model="n"), b"{", desk.chat("a"), desk.chat("d")))
    uri = desk.store.uri("in")
    error = await desk.refused(desk.plan(input=uri))
    assert problems(error) == [
        "part-2.jsonl line 2, body.model: differs from that of part-1.jsonl line 1, "
        "and this provider takes one model a batch",
        "part-2.jsonl line 3: is not JSON (Input data was truncated)",
        "part-2.jsonl line 4, custom_id: is the same as on part-1.jsonl line 1",
    ]
    await desk.plan(input=uri, on_invalid_row=OnInvalidRow.FAIL_ROW)
    index = desk.index()
    assert [row[0] for row in index] == ["a", "b", "c", "part-2.jsonl:3", "a", "d"]
    assert index[3][3]["file"] == "part-2.jsonl"


async def test_rows_of_a_clients_files_are_told_by_the_names_that_the_user_knows(desk: Any) -> None:
    folder = "b-1/input-0123456789abcdef"
    names = ["00000-a.jsonl", "00001-sub~12345-b.jsonl", "00002-x-y.jsonl", "00003-x-y.jsonl"]
    for name in names:
        put(desk, f"{folder}/{name}", desk.jsonl(desk.chat(name), b"{"))
    await desk.plan(input=f"{desk.store.url}/{folder}/", on_invalid_row=OnInvalidRow.FAIL_ROW)
    refused = desk.index()[1::2]
    # Two files that would be called the same keep their numbers.
    told = ["a.jsonl", "sub/12345-b.jsonl", "00002-x-y.jsonl", "00003-x-y.jsonl"]
    assert [row[0] for row in refused] == [f"{name}:2" for name in told]
    assert [row[3]["file"] for row in refused] == told
    # The names of a user's own folder are as they are.
    for name in names:
        put(desk, f"in/{name}", desk.jsonl(desk.chat(name), b"{"))
    await desk.plan(input=desk.store.uri("in"))
    assert [row[0] for row in desk.index()[1::2]] == [f"{name}:2" for name in names]


@pytest.mark.parametrize("provider", ["gpt", "claude"])
async def test_ids_with_any_characters_come_back_as_they_were(desk: Any, provider: str) -> None:
    ids = [
        "at 10.00\u202fPM.png",
        "v\xa013.05",
        "全角\u3000空白",
        "👨\u200d👩",
        "soft\xadhyphen",
        "\ufeffid",
        "line\u2028sep",
        "a\u200bb",
    ]
    model = {"gpt": "gpt-4o-mini", "claude": "claude-haiku-4-5"}[provider]
    await desk.plan(*({"custom_id": id, "input": "Hi."} for id in ids), provider=provider, model=model)
    await desk.through()
    assert (await desk.settle()).counts.succeeded == len(ids)
    results = desk.path("results.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["custom_id"] for line in results if line] == ids


async def test_a_file_that_is_alone_is_told_of_without_its_name(desk: Any) -> None:
    put(desk, "in/only.jsonl", desk.jsonl(desk.chat("a"), b"{"))
    error = await desk.refused(desk.plan(input=desk.store.uri("in")))
    assert problems(error)[0].startswith("line 2: is not JSON")


async def test_a_long_name_is_told_by_its_end(desk: Any) -> None:
    name = "x" * 150 + "-end.jsonl"
    put(desk, f"in/{name}", b"{\n")
    put(desk, "in/y.jsonl", desk.jsonl(desk.chat("a")))
    error = await desk.refused(desk.plan(input=desk.store.uri("in")))
    (told,) = problems(error)
    assert told.startswith("…xxx") and "x-end.jsonl line 1: is not JSON" in told
    assert len(told.split(" line ")[0]) == 100


async def test_rows_of_one_id_in_different_files_and_shards_are_found(desk: Any) -> None:
    for part in range(4):
        rows = [desk.chat(f"r-{part}-{n}") for n in range(10)]
        put(desk, f"in/{part}.jsonl", desk.jsonl(*rows, *([desk.chat("r-0-3")] if part == 3 else [])))
    error = await desk.refused(desk.plan(input=desk.store.uri("in"), limits={"max_rows": 7}))
    assert problems(error) == ["3.jsonl line 11, custom_id: is the same as on 0.jsonl line 4"]


# --- what is sent ---


async def test_shards_span_files_and_go_through_as_they_are(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}") for n in range(10)]
    put(desk, "in/a.jsonl", desk.jsonl(*rows[:3])[:-1])
    put(desk, "in/b.jsonl", desk.jsonl(*rows[3:4]))
    put(desk, "in/c.jsonl", b"")
    put(desk, "in/d.jsonl", desk.jsonl(*rows[4:])[:-1])
    await desk.plan(input=desk.store.uri("in"), limits={"max_rows": 5})
    assert cuts(desk) == [[f"r-{n}" for n in range(5)], [f"r-{n}" for n in range(5, 10)]]
    assert (desk.record()["input"], desk.record()["several"], desk.record()["verbatim"]) == (
        "b-1/input.json",
        True,
        True,
    )
    assert await sent(desk) == [desk.jsonl(*rows[:5]), desk.jsonl(*rows[5:])]


async def test_shards_that_span_files_are_rewritten_where_they_must_be(desk: Any) -> None:
    short = [{"custom_id": f"r-{n}", "input": f"Say {n}."} for n in range(6)]
    put(desk, "in/a.jsonl", BOM + desk.jsonl(*short[:2]) + b"\r\n  ")
    put(desk, "in/b.jsonl", BOM + desk.jsonl(b"{", *short[2:])[:-1])
    spec = {
        "input": desk.store.uri("in"),
        "model": "gpt-4o-mini",
        "on_invalid_row": "fail_row",
        "limits": {"max_rows": 4},
    }
    await desk.plan(**spec)
    assert cuts(desk) == [["r-0", "r-1", "b.jsonl:1", "r-2"], ["r-3", "r-4", "r-5"]]
    uploaded = [json.loads(line) for data in await sent(desk) for line in data.splitlines()]
    assert [row["custom_id"] for row in uploaded] == [f"r-{n}" for n in range(6)]
    assert [row["body"]["messages"][0]["content"] for row in uploaded] == [f"Say {n}." for n in range(6)]


async def test_a_batch_of_several_files_goes_all_the_way(desk: Any) -> None:
    put(desk, "in/a.jsonl.gz", gzip.compress(desk.jsonl(desk.chat("a"), desk.chat("b"))))
    put(desk, "in/b.jsonl", desk.jsonl(desk.chat("c"), b"{"))
    await desk.plan(input=desk.store.uri("in"), on_invalid_row="fail_row")
    await desk.through()
    await desk.settle("failed")
    rows = desk.rows()
    assert [(row["custom_id"], row["status"]) for row in rows] == [
        *(("a", "succeeded"), ("b", "succeeded"), ("c", "succeeded")),
        ("b.jsonl:2", "failed"),
    ]


async def test_an_input_that_has_changed_since_is_not_sent(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}") for n in range(4)]
    put(desk, "in/a.jsonl", desk.jsonl(*rows[:2]))
    put(desk, "in/b.jsonl", desk.jsonl(*rows[2:]))
    await desk.plan(input=desk.store.uri("in"))
    put(desk, "in/b.jsonl", desk.jsonl(*rows[2:]).replace(b"r-3", b"r-4"))
    error = await desk.refused(desk.upload())
    assert "has changed since it was planned" in error.message


# --- one plain file stays what it was ---


async def test_the_plan_of_a_plain_file_has_no_table_and_no_copy(desk: Any) -> None:
    await desk.plan(desk.chat("a"))
    assert sorted(path.name for path in (desk.folder / "b-1").iterdir()) == ["plan.json", "shards"]
    assert desk.record()["input"] == "input.jsonl"


async def test_a_shard_of_an_older_version_is_sent(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}") for n in range(3)]
    first = await desk.plan(*rows)
    plan = json.loads((desk.folder / "b-1/plan.json").read_bytes())
    # What a shard's record was before it said more.
    put(desk, "b-1/plan.json", json.dumps(plan).encode())
    record = {name: value for name, value in desk.record().items() if name not in ("model", "several", "cut", "models")}
    put(desk, "b-1/shards/00000/shard.json", json.dumps(record).encode())
    assert await desk.plan() == first
    assert desk.record() == record  # not cut again
    assert await sent(desk) == [desk.jsonl(*rows)]


# --- compressed ---


@pytest.mark.parametrize("compress", [gzip.compress, zstd], ids=["gzip", "zstd"])
async def test_a_compressed_file_is_planned_like_what_is_in_it(desk: Any, compress: Any) -> None:
    rows = [desk.chat(f"r-{n}") for n in range(7)]
    put(desk, "input.jsonl", compress(desk.jsonl(*rows[:4])) + compress(desk.jsonl(*rows[4:])[:-1]))
    await desk.plan(limits={"max_rows": 4})
    record = desk.record()
    assert record["input"].startswith("b-1/input/00000-") and record["several"] is False
    assert (desk.folder / record["input"]).read_bytes() == desk.jsonl(*rows)
    assert await sent(desk) == [desk.jsonl(*rows[:4]), desk.jsonl(*rows[4:])]


async def test_only_compressed_files_are_copied(desk: Any) -> None:
    put(desk, "in/a.jsonl", desk.jsonl(desk.chat("a")))
    put(desk, "in/b.jsonl", gzip.compress(desk.jsonl(desk.chat("b"))))  # whatever it is called
    put(desk, "in/c.jsonl.zst", zstd(desk.jsonl(desk.chat("c"))[:-1]))
    put(desk, "in/d.jsonl.gz", desk.jsonl(desk.chat("d")))
    await desk.plan(input=desk.store.uri("in"))
    assert await sent(desk) == [desk.jsonl(*(desk.chat(name) for name in "abcd"))]
    copies = sorted(path.name[:5] for path in (desk.folder / "b-1/input").iterdir())
    assert copies == ["00001", "00002"]


async def test_a_bad_row_in_a_compressed_file_is_told_by_its_line(desk: Any) -> None:
    put(desk, "in/a.jsonl.gz", gzip.compress(BOM + desk.jsonl(desk.chat("a"), b"{")))
    put(desk, "in/b.jsonl", desk.jsonl(desk.chat("b")))
    error = await desk.refused(desk.plan(input=desk.store.uri("in")))
    assert problems(error)[0].startswith("a.jsonl.gz line 2: is not JSON")


@pytest.mark.parametrize("compress", [gzip.compress, zstd], ids=["gzip", "zstd"])
async def test_compressed_data_that_is_not_whole_is_refused_by_file_and_leaves_nothing(
    desk: Any, compress: Any
) -> None:
    data = compress(desk.jsonl(*(desk.chat(f"Sesame-{n}") for n in range(500))))
    put(desk, "in/a.jsonl", desk.jsonl(desk.chat("a")))
    for broken, word in ((data[:-20], "is cut off"), (data + b"Sesame", "is damaged")):
        put(desk, "in/b.jsonl.x", broken)
        error = await desk.refused(desk.plan(input=f"{desk.store.url}/in/*"))
        assert error.type == "invalid_input"
        assert error.message.startswith(f"The file {desk.store.uri('in/b.jsonl.x')} {word}")
        assert "Sesame" not in error.message
        assert not list((desk.folder / "b-1").rglob("*.jsonl"))
    put(desk, "in/b.jsonl.x", data)
    assert (await desk.plan()).rows == 501


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("uri", ["in/b.jsonl", "in/", "in/*"])
async def test_a_file_that_is_no_jsonl_is_refused_by_name_wherever_it_comes_from(
    desk: Any, uri: str, compress: Any
) -> None:
    rows = [desk.chat(f"Sesame-{n}") for n in range(3)]
    put(desk, "in/a.jsonl", desk.jsonl(desk.chat("a")))
    for data, name in (
        (json.dumps(rows, indent=1).encode(), "one JSON array"),
        (desk.jsonl(*rows).decode().encode("utf-16"), "UTF-16 text"),
        (b"PK\x03\x04" + b"\0" * 100, "a zip archive"),
    ):
        put(desk, "in/b.jsonl", compress(data))
        # Not even where wrong rows may fail alone: there is no row in it.
        plan = desk.plan(input=f"{desk.store.url}/{uri}", on_invalid_row=OnInvalidRow.FAIL_ROW)
        error = await desk.refused(plan)
        assert error.type == "invalid_input"
        assert error.message.startswith(f"The file {desk.store.uri('in/b.jsonl')} is {name}, and not JSONL: ")
        assert "Sesame" not in error.message
        assert not list((desk.folder / "b-1").rglob("*.jsonl"))


async def test_an_expanded_copy_is_made_once(desk: Any) -> None:
    put(desk, "input.jsonl", gzip.compress(desk.jsonl(desk.chat("a"), desk.chat("b"))))
    await desk.plan()
    copy = desk.folder / desk.record()["input"]
    before = copy.stat().st_ino
    await desk.plan(limits={"max_rows": 1})
    assert cuts(desk) == [["a"], ["b"]]
    assert copy.stat().st_ino == before


# --- shards by tokens, and their models ---


@pytest.mark.parametrize("provider", ["gpt", "claude"])
async def test_a_shard_fits_into_the_providers_queue(desk: Any, provider: str) -> None:
    rows = [desk.chat(f"r-{n}", "word " * words, max_tokens=5) for n, words in enumerate((50, 50, 50, 900, 50))]
    each = estimate_tokens(len(json.dumps(rows[0])))
    await desk.reopen(max_enqueued_tokens=2 * each + 20)
    await desk.plan(*rows, provider=provider)
    assert cuts(desk) == [["r-0", "r-1"], ["r-2"], ["r-3"], ["r-4"]]
    await desk.plan(limits={"max_tokens": each + 10})
    assert cuts(desk) == [["r-0"], ["r-1"], ["r-2"], ["r-3"], ["r-4"]]
    await desk.plan(limits={"max_tokens": 10**6})  # what the spec allows beyond the provider's
    assert cuts(desk) == [["r-0", "r-1"], ["r-2"], ["r-3"], ["r-4"]]


EMBEDDINGS = "/v1/embeddings"


def embedding(custom_id: str, given: Any) -> dict[str, Any]:
    body = {"model": "text-embedding-3-small", "input": given}
    return {"custom_id": custom_id, "method": "POST", "url": EMBEDDINGS, "body": body}


async def test_a_shard_has_no_more_embedding_inputs_than_a_batch_may_have(desk: Any) -> None:
    texts, tokens = ["word"] * 1000, [[1, 2]] * 1000
    rows = [embedding(f"e-{n}", tokens if n % 2 else texts) for n in range(60)]
    await desk.plan(*rows, endpoint=EMBEDDINGS)
    assert [len(shard) for shard in cuts(desk)] == [50, 10]
    await desk.plan(*rows[:50], embedding("one", "word"), embedding("list", list(range(1000))), endpoint=EMBEDDINGS)
    assert [len(shard) for shard in cuts(desk)] == [50, 2]
    desk.shard = 0
    batch = (await desk.create(await desk.upload())).batch
    while batch.status is ProviderStatus.SUBMITTED:
        batch = await desk.poll(batch.id)
    assert batch.status is not ProviderStatus.FAILED  # the provider has counted, too


async def test_an_embedding_row_of_too_many_inputs_is_refused_by_name(desk: Any) -> None:
    row = embedding("much", [""] * 50_001)
    error = await desk.refused(desk.plan(embedding("a", "word"), row, endpoint=EMBEDDINGS))
    [problem] = problems(error)
    assert problem == "line 2, body.input: has 50,001 inputs, more than the 50,000 a batch may have"
    await desk.plan(on_invalid_row=OnInvalidRow.FAIL_ROW)
    assert (desk.summary.rows, desk.summary.invalid_rows) == (2, 1)


async def test_chats_named_as_at_azure_are_planned(desk: Any) -> None:
    row = {**desk.chat("a"), "url": "/chat/completions"}
    await desk.plan(row)
    assert [json.loads(data) for data in await sent(desk)] == [desk.chat("a")]
    await desk.reopen(base_url="https://x.openai.azure.com/openai/v1")
    desk.batch_id = "b-2"
    await desk.plan(row)
    assert desk.record()["verbatim"]


async def test_a_shard_tells_the_model_that_all_its_rows_ask_for(desk: Any) -> None:
    models = ["m", "m", "n", "n", "m", "n"]
    rows = [
        {"custom_id": f"r-{n}", "params": {"model": model, "max_tokens": 5, "messages": []}}
        for n, model in enumerate(models)
    ]
    await desk.plan(*rows, b"{", provider="claude", limits={"max_rows": 2}, on_invalid_row="fail_row")
    told = []
    for shard in range(desk.summary.shards):
        desk.shard = shard
        told.append((desk.record()["model"], list(desk.record()["models"])))
    assert told == [("m", ["m"]), ("n", ["n"]), ("", ["m", "n"]), ("", [])]


# --- a plan that is kept ---


def intend(desk: Any, shard: int) -> None:
    """Note a create of one shard, as the worker that was about to send it did."""
    note = f"2026-01-01T00:00:00+00:00 {desk.summary.provider.account}"
    put(desk, f"b-1/shards/{shard:05}/attempt-1/intent", note.encode())


@pytest.mark.parametrize("limits", [{"max_rows": 2}, {"max_bytes": 5000}, {"max_enqueued_tokens": 20}])
async def test_other_limits_of_the_provider_replace_a_plan_only_before_anything_is_bought(
    desk: Any, limits: dict[str, Any]
) -> None:
    rows = [desk.chat(f"r-{n}") for n in range(9)]
    await desk.reopen(max_rows=3)
    first = await desk.plan(*rows)
    bought = cuts(desk)
    intend(desk, 1)
    await desk.reopen(**limits)
    assert (await desk.plan()).shards == first.shards == 3
    assert cuts(desk) == bought
    # Again, and for a batch that only asks what it may have bought.
    assert (await desk.plan()).shards == 3
    recalled = await desk.step(Plan(desk.resources).recall, request(desk))
    assert recalled.plan is not None and recalled.plan.shards == 3

    (desk.folder / "b-1/shards/00001/attempt-1/intent").unlink()
    assert (await desk.step(Plan(desk.resources).recall, request(desk))).plan is None
    again = await desk.plan()
    assert cuts(desk) != bought
    assert again.planned_at == first.planned_at


async def test_an_input_that_changed_or_is_gone_replaces_no_plan_by_which_something_may_be_bought(desk: Any) -> None:
    put(desk, "in/a.jsonl", desk.jsonl(desk.chat("a")))
    await desk.reopen(max_rows=1)
    first = await desk.plan(input=desk.store.uri("in") + "/")
    intend(desk, 0)
    put(desk, "in/b.jsonl", desk.jsonl(desk.chat("b")))
    assert await desk.plan() == bought_by(first)
    for name in ("a", "b"):
        (desk.folder / f"in/{name}.jsonl").unlink()
    assert await desk.plan() == bought_by(first)
    assert (await desk.step(Plan(desk.resources).recall, request(desk))).plan == bought_by(first)
    (desk.folder / "b-1/shards/00000/attempt-1/intent").unlink()
    assert (await desk.refused(desk.plan())).type == "invalid_input"


async def test_a_price_that_rose_refuses_no_plan_by_which_something_may_be_bought(desk: Any) -> None:
    row = desk.chat("a", "word " * 1000)
    half = Decimal(estimate_tokens(len(json.dumps(row)))) * Decimal("0.15") / 2 / 10**6
    first = await desk.plan(row, max_cost_usd=half)
    intend(desk, 0)
    await desk.reopen(batch_discount=0)
    assert await desk.plan() == bought_by(first)
    assert (await desk.step(Plan(desk.resources).recall, request(desk))).plan == bought_by(first)
    (desk.folder / "b-1/shards/00000/attempt-1/intent").unlink()
    assert "more than max_cost_usd" in (await desk.refused(desk.plan())).message
    assert (await desk.step(Plan(desk.resources).recall, request(desk))).plan is None


@pytest.mark.parametrize("error", [MissingKey, UnknownProvider])
async def test_a_plan_is_recalled_without_a_provider_only_if_nothing_can_be_bought_by_it(
    desk: Any, error: type[ConfigurationError]
) -> None:
    def settings(name: str) -> Any:
        raise error("No such luck.")

    first = await desk.plan(desk.chat("a"))
    able, unable = desk.resources, Resources(desk.store, settings)
    assert (await desk.step(Plan(unable).recall, request(desk))).plan is None
    intend(desk, 0)
    refused = await desk.refused(desk.step(Plan(unable).recall, request(desk)))
    assert (refused.type, refused.message) == (error.code, "No such luck.")
    assert (await desk.step(Plan(able).recall, request(desk))).plan == bought_by(first)
    # Of another batch's folder nothing is told, and a batch that never planned bought nothing.
    for batch_id in ("b-2", "b-3"):
        desk.batch_id, desk.spec = batch_id, BatchSpec(provider="gpt", input=desk.spec.input, output=desk.spec.output)
        assert (await desk.step(Plan(unable).recall, request(desk))).plan is None
        desk.spec = BatchSpec(provider="gpt", input=desk.spec.input, output=desk.store.uri("b-1"))


async def test_a_batch_that_has_ended_and_comes_again_with_other_rows_is_planned_anew(desk: Any) -> None:
    await desk.reopen(max_rows=1)
    await desk.plan(desk.chat("a"), desk.chat("b"))
    intend(desk, 1)
    put(desk, "b-1/result.json", b"{}")
    desk.execution = "run-2"
    assert (await desk.plan(desk.chat("c"), desk.chat("d"), desk.chat("e"))).rows == 3
    # From here on it is under way again.
    assert not (desk.folder / "b-1/result.json").exists()
    assert (await desk.plan(desk.chat("f"))).rows == 3


async def test_a_batch_that_has_ended_and_comes_again_with_the_same_rows_keeps_its_plan(desk: Any) -> None:
    await desk.reopen(max_rows=1)
    first = await desk.plan(desk.chat("a"), desk.chat("b"))
    put(desk, "b-1/result.json", b"{}")
    await desk.reopen(max_rows=2)
    desk.execution = "run-2"
    intend(desk, 1)
    assert await desk.plan() == first  # cut as it was bought, and not as it would be now
    (desk.folder / "b-1/shards/00001/attempt-1/intent").unlink()
    assert (await desk.plan()).shards == 1


async def test_a_plan_that_was_refused_leaves_the_notes_of_what_was_bought_before_it(desk: Any) -> None:
    await desk.reopen(max_rows=1)
    first = await desk.plan(desk.chat("a"), desk.chat("b"))
    intend(desk, 1)
    note = desk.folder / "b-1/shards/00001/attempt-1/intent"
    rows = desk.jsonl(desk.chat("a"), desk.chat("b"))
    put(desk, "other.jsonl", desk.jsonl(desk.chat("c"), desk.chat("d")) + b"{")
    wanted = desk.spec.input
    for _ in range(2):
        await desk.refused(desk.plan(input=desk.store.uri("other.jsonl")))
        assert note.exists()
    put(desk, "other.jsonl", rows)
    assert (await desk.plan(input=desk.store.uri("other.jsonl"))).rows == 2  # a good one: they are not of its rows
    assert not note.exists()
    intend(desk, 1)
    await desk.refused(desk.plan(input=wanted, max_cost_usd=Decimal("0.000000001")))
    assert (await desk.plan(input=wanted, max_cost_usd=None)).shards == first.shards


@pytest.mark.parametrize("mended", [False, True])
async def test_a_plan_that_was_refused_is_refused_again_whatever_was_bought_before_it(desk: Any, mended: bool) -> None:
    await desk.reopen(max_rows=1)
    await desk.plan(desk.chat("a"), desk.chat("b"))
    intend(desk, 1)
    put(desk, "b-1/result.json", b"{}")
    for desk.execution in ("run-2", "run-2", "run-3", "run-1"):
        error = await desk.refused(desk.plan(desk.chat("c"), b"{", desk.chat("e")))
        assert error.type == "invalid_input"
        assert (await desk.step(Plan(desk.resources).recall, request(desk))).plan is None
    if mended:
        assert (await desk.plan(desk.chat("c"), desk.chat("e"))).rows == 2


async def test_a_batch_that_goes_on_by_its_plan_does_not_look_ended(desk: Any) -> None:
    await desk.reopen(max_rows=1)
    first = await desk.plan(desk.chat("a"), desk.chat("b"))
    intend(desk, 1)
    for execution in ("run-1", "run-2"):
        put(desk, "b-1/result.json", b"{}")
        desk.execution = execution
        assert (await desk.plan()).model_copy(update={"bought": False}) == first  # whatever it says of what is bought
        assert not (desk.folder / "b-1/result.json").exists()
    # So what it buys from here on is not taken for accounted for.
    desk.execution = "run-3"
    assert await desk.plan(desk.chat("c")) == bought_by(first)


async def test_a_batch_that_has_ended_and_is_reset_keeps_its_plan_whatever_lies_there_by_now(desk: Any) -> None:
    await desk.reopen(max_rows=1)
    first = await desk.plan(desk.chat("a"), desk.chat("b"))
    intend(desk, 1)
    put(desk, "b-1/result.json", b"{}")
    desk.execution = "run-2"  # the same rows again: it goes by the plan that there is
    assert await desk.plan() == first
    put(desk, "b-1/result.json", b"{}")

    await desk.reopen(max_rows=2)
    assert await desk.plan(desk.chat("c"), desk.chat("d"), desk.chat("e")) == bought_by(first)
    assert (await desk.step(Plan(desk.resources).recall, request(desk))).plan == bought_by(first)
    put(desk, "b-1/result.json", b"{}")
    desk.execution = "run-3"
    assert (await desk.plan()).rows == 3


async def test_another_spec_replaces_a_plan_even_where_something_may_be_bought(desk: Any) -> None:
    await desk.reopen(max_rows=3)
    await desk.plan(*(desk.chat(f"r-{n}") for n in range(9)))
    intend(desk, 1)
    assert (await desk.plan(limits={"max_rows": 2})).shards == 5


async def test_what_was_bought_for_other_rows_spares_no_plan_its_check(desk: Any) -> None:
    await desk.reopen(max_rows=1)
    await desk.plan(desk.chat("a"), desk.chat("b"))
    intend(desk, 1)
    for _ in range(2):
        error = await desk.refused(desk.plan(desk.chat("a"), b"{", params={"seed": 1}))
        assert error.type == "invalid_input"


async def test_an_object_of_a_folder_whose_name_no_path_can_have_is_told(desk: Any) -> None:
    put(desk, "in/a.jsonl", desk.jsonl(desk.chat("a")))
    put(desk, "in/100%.jsonl", desk.jsonl(desk.chat("b")))
    error = await desk.refused(desk.plan(input=desk.store.uri("in") + "/"))
    assert error.type == "invalid_spec" and "rename it" in error.message


async def test_a_plan_whose_replacement_was_broken_off_describes_nothing_any_more(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}") for n in range(6)]
    first = await desk.plan(*rows, limits={"max_rows": 3})
    put(desk, "input.jsonl.gz", gzip.compress(desk.jsonl(*rows))[:-9])
    await desk.refused(desk.plan(input=desk.store.uri("input.jsonl.gz")))
    desk.now = desk.now.replace(year=desk.now.year + 1)
    again = await desk.plan(input=desk.store.uri("input.jsonl"))
    assert (again.shards, again.planned_at) == (2, first.planned_at)


def mended(desk: Any, name: str, data: bytes) -> None:
    """Replace an object some seconds later."""
    file = desk.folder / name
    before = file.stat().st_mtime
    file.write_bytes(data)
    os.utime(file, (before + 5, before + 5))


@pytest.mark.parametrize("uri", ["in/a.jsonl", "in/", "in/*.jsonl"])
@pytest.mark.parametrize("compress", [bytes, lambda data: gzip.compress(data, 0, mtime=0)], ids=["plain", "gzip"])
async def test_an_input_that_was_mended_in_place_is_planned_anew(desk: Any, uri: str, compress: Any) -> None:
    wrong, right = desk.jsonl(desk.chat("a"), b"[1]"), desk.jsonl(desk.chat("a"), b"   ")
    put(desk, "in/a.jsonl", compress(wrong))
    assert "not a JSON object" in (await desk.refused(desk.plan(input=f"{desk.store.url}/{uri}"))).message
    mended(desk, "in/a.jsonl", compress(right))
    assert len(compress(wrong)) == len(compress(right))
    assert (await desk.plan()).rows == 1
    assert await sent(desk) == [desk.jsonl(desk.chat("a"))]
    intend(desk, 0)
    mended(desk, "in/a.jsonl", compress(wrong))
    assert (await desk.plan()).rows == 1


class Unlisted(Store):
    """A store in which nobody may look around."""

    async def entries(self, *arguments: Any, **options: Any) -> Any:
        raise AssertionError("there is no need to list anything")


async def test_for_a_copy_that_is_named_by_its_content_nothing_is_listed(desk: Any) -> None:
    put(desk, "b-1/input-0123456789abcdef.jsonl", desk.jsonl(desk.chat("a")))
    desk.resources = Resources(Unlisted.open(str(desk.folder)), desk._settings)
    assert (await desk.plan(input=desk.store.uri("b-1/input-0123456789abcdef.jsonl"))).rows == 1


@pytest.mark.parametrize("name", ["input-0123456789abcdef.jsonl", "input-0123456789abcdef/00000-a.jsonl"])
async def test_the_copy_of_a_clients_file_is_the_same_whenever_it_was_made(desk: Any, name: str) -> None:
    put(desk, f"b-1/{name}", desk.jsonl(desk.chat("a")))
    await desk.plan(input=f"{desk.store.url}/b-1/{name.rpartition('00000')[0] or name}")
    cut = desk.path("shard.json").stat().st_ino
    mended(desk, f"b-1/{name}", desk.jsonl(desk.chat("a")))
    await desk.plan()
    assert desk.path("shard.json").stat().st_ino == cut


# --- a step that is another worker's by now ---


def written(desk: Any) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (desk.folder / "b-1").rglob("*") if path.is_file()}


class Stalling(Store):
    """A store whose worker stands still, its event loop and all, while it reads a plan."""

    async def read(self, path: str) -> bytes:
        data = await super().read(path)
        if path.endswith("plan.json"):
            time.sleep(0.6)  # noqa: ASYNC251  as SIGSTOP would
        return data


async def test_a_step_that_was_given_away_replaces_no_plan(desk: Any) -> None:
    await desk.plan(*(desk.chat(f"r-{n}") for n in range(6)), limits={"max_rows": 3})
    before = written(desk)
    spec = desk.spec.model_copy(update={"limits": Limits(max_rows=2)})
    stalling = Resources(Stalling.open(str(desk.folder)), desk._settings)
    error = await desk.refused(
        desk.step(
            Plan(stalling).plan,
            PlanRequest(batch_id=desk.batch_id, spec=spec, now=desk.now, execution=desk.execution),
            heartbeat_timeout=timedelta(seconds=0.5),
        )
    )
    await stalling.close()
    assert (error.type, error.non_retryable) == ("provider_unavailable", False)
    assert written(desk) == before
    assert (await desk.plan(limits={"max_rows": 2})).shards == 3


async def test_a_cut_that_was_given_away_ends_before_it_writes_again(desk: Any) -> None:
    put(desk, "in/a.jsonl", desk.jsonl(*(desk.chat(f"r-{n}") for n in range(30)), desk.chat("r-3")))
    bench = Bench(desk)
    # It loses the step with the last row, and would read all of them again, since two have one id.
    with pytest.raises(ProviderUnavailable, match="another one may be doing this step"):
        await bench.cut(given_away_at=31)
    read_once = bench.written()
    # Nor does one begin, or go on.
    for place in ({}, {"cut": "d" * 16, "shards": 2, "line": 20, "first": 1}):
        with pytest.raises(ProviderUnavailable):
            await bench.cut(place, given_away_at=0)
    assert bench.written() == read_once
    found, _, _ = await bench.cut()
    assert found.invalid == 1  # a second reading finds the duplicate id


def request(desk: Any) -> PlanRequest:
    return PlanRequest(batch_id=desk.batch_id, spec=desk.spec, now=desk.now, execution=desk.execution)


# --- going on ---


class Killed(BaseException):
    """The worker dies."""


class Watched:
    """A row format that counts the rows it prepares, and dies when it has had enough."""

    def __init__(self, format: RowFormat, lease: Lease, last: int | None, given_away_at: int | None) -> None:
        self._format = format
        self._lease = lease
        self._last = last
        self._given_away_at = given_away_at
        self.prepared: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._format, name)

    def prepare(self, row: Row, spec: BatchSpec) -> bytes:
        if self._last is not None and len(self.prepared) == self._last:
            raise Killed
        self.prepared.append(row.custom_id)
        self._lease.expired = len(self.prepared) == self._given_away_at
        return self._format.prepare(row, spec)


class Bench:
    """Cuts of one input, one after the other, as of several workers."""

    def __init__(self, desk: Any, provider: str = "gpt", **fields: Any) -> None:
        self.desk = desk
        self.provider = desk.resources.provider(provider)
        self.spec = BatchSpec(
            provider=provider, **{"input": desk.store.uri("in"), "limits": {"max_rows": 10}, **fields}
        )
        self.digest = "d" * 64

    async def cut(
        self, place: dict[str, Any] | None = None, last: int | None = None, given_away_at: int | None = None
    ) -> tuple[Any, Watched, Lease]:
        """Return what was found, None where the worker died; what was prepared; and the lease at the end.

        Args:
            given_away_at: the step is another worker's after so many rows.
        """
        names = sorted(path.name for path in (self.desk.folder / "in").iterdir())
        files = tuple(InputFile(f"in/{name}", (self.desk.folder / "in" / name).stat().st_size, name) for name in names)
        lease = Lease(resume_from=dict(place or {}))
        watched = Watched(self.provider.rows, lease, last, given_away_at)
        source = await open_input(self.desk.store, "b-1", files, lease)
        lease.expired = given_away_at == 0
        provider = dataclasses.replace(self.provider, rows=watched)
        limits = shard_limits(Mode.BATCH, self.spec, provider, self.desk.resources.settings(self.spec.provider))
        cut = Cut(self.desk.store, provider, self.spec, limits, "b-1", source, self.digest, lease)
        try:
            return await asyncio.to_thread(cut.run), watched, lease
        except Killed:
            return None, watched, lease

    def written(self) -> dict[str, bytes]:
        folder = self.desk.folder / "b-1"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parts(desk: Any, number: int = 57) -> None:
    """Three files, with bad rows and blank lines, one without a line feed at its end, one compressed."""
    rows: list[Any] = [b"{" if n % 13 == 5 else b"" if n % 17 == 3 else desk.chat(f"r-{n}") for n in range(number)]
    put(desk, "in/a.jsonl", BOM + desk.jsonl(*rows[:23]) + b"  ")
    put(desk, "in/b.jsonl", desk.jsonl(*rows[23:40])[:-1])
    put(desk, "in/c.jsonl.gz", gzip.compress(desk.jsonl(*rows[40:])))


async def test_a_cut_goes_on_behind_the_last_shard_that_was_closed(desk: Any) -> None:
    parts(desk)
    bench = Bench(desk)
    whole, every, _ = await bench.cut()
    expected = bench.written()
    for last in range(0, len(every.prepared), 3):
        for path in sorted((desk.folder / "b-1").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        nothing, killed, lease = await bench.cut(last=last)
        assert nothing is None and len(killed.prepared) == last
        closed = sum(
            len((desk.folder / f"b-1/shards/{shard:05d}/rows.jsonl").read_bytes().splitlines())
            for shard in range(int(lease.resume_from.get("shards", 0)))
        )
        found, others, after = await bench.cut(lease.resume_from)
        assert dataclasses.asdict(found) == dataclasses.asdict(whole)
        assert bench.written() == expected
        assert after.rows == whole.rows
        # No row of a closed shard was looked at again, and every other one was.
        refused = sum(b'"line"' in line for line in expected_index(expected)[:closed])
        assert others.prepared == every.prepared[closed - refused :]
        assert closed >= last - 10


def expected_index(written: dict[str, bytes]) -> list[bytes]:
    names = sorted(name for name in written if name.endswith("rows.jsonl"))
    return [line for name in names for line in written[name].splitlines()]


async def test_a_cut_that_was_killed_twice_goes_on_from_the_second_place(desk: Any) -> None:
    parts(desk)
    bench = Bench(desk)
    whole, every, _ = await bench.cut()
    _, _, first = await bench.cut(last=25)
    _, second, later = await bench.cut(first.resume_from, last=15)
    assert later.resume_from["shards"] > first.resume_from["shards"] > 0
    found, third, _ = await bench.cut(later.resume_from)
    assert dataclasses.asdict(found) == dataclasses.asdict(whole)
    assert len(second.prepared) == 15
    assert len(third.prepared) < len(every.prepared) - 25


async def test_what_heartbeats_keep_is_numbers_and_digests(desk: Any) -> None:
    parts(desk)
    _, _, lease = await Bench(desk).cut(last=40)
    assert {name: type(value) for name, value in lease.resume_from.items()} == {
        "cut": str,
        "shards": int,
        "line": int,
        "first": int,
    }
    assert lease.resume_from["cut"] == "d" * 16


async def test_the_tokens_of_several_models_are_counted_on(desk: Any) -> None:
    rows = [
        {"custom_id": f"r-{n}", "params": {"model": f"m-{n % 3}", "max_tokens": 5, "messages": []}} for n in range(30)
    ]
    put(desk, "in/a.jsonl", desk.jsonl(*rows))
    bench = Bench(desk, provider="claude", endpoint="/v1/messages")
    whole, _, _ = await bench.cut()
    _, _, lease = await bench.cut(last=25)
    found, others, _ = await bench.cut(lease.resume_from)
    assert found.tokens == whole.tokens and len(found.tokens) == 3
    assert others.prepared == [f"r-{n}" for n in range(20, 30)]


async def test_the_first_row_is_remembered_over_a_death(desk: Any) -> None:
    rows = [b"{", *(desk.chat(f"r-{n}") for n in range(25)), desk.chat("other", model="n")]
    put(desk, "in/a.jsonl", desk.jsonl(*rows))
    put(desk, "in/b.jsonl", desk.jsonl(desk.chat("z")))
    bench = Bench(desk)
    _, _, lease = await bench.cut(last=22)
    found, _, _ = await bench.cut(lease.resume_from)
    assert [str(problem) for problem in found.problems][1:] == [
        "a.jsonl line 27, body.model: differs from that of a.jsonl line 2, and this provider takes one model a batch"
    ]


async def test_a_second_row_of_an_id_is_found_over_a_death(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}") for n in range(30)]
    put(desk, "in/a.jsonl", desk.jsonl(*rows, desk.chat("r-3")))
    bench = Bench(desk)
    _, _, lease = await bench.cut(last=25)
    found, others, after = await bench.cut(lease.resume_from)
    assert [str(problem) for problem in found.problems] == ["line 31, custom_id: is the same as on line 4"]
    # Ten rows, and the one with the duplicate id; then all once more, now knowing which it is.
    assert len(others.prepared) == 11 + 30
    assert after.rows == 31


async def test_a_death_in_the_second_reading_begins_anew(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}") for n in range(30)]
    put(desk, "in/a.jsonl", desk.jsonl(*rows, desk.chat("r-3")))
    bench = Bench(desk)
    whole, _, _ = await bench.cut()
    _, _, first = await bench.cut(last=25)
    _, _, second = await bench.cut(last=31 + 5)
    assert second.resume_from == {}
    # Even if the last heartbeat that arrived was of the first reading.
    for place in (first.resume_from, second.resume_from):
        found, others, _ = await bench.cut(place)
        assert len(others.prepared) == 31 + 30
        assert dataclasses.asdict(found) == dataclasses.asdict(whole)
        await bench.cut(last=31 + 5)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("00000/shard.json", lambda data: b""),
        ("00001/shard.json", lambda data: b"\0" * len(data)),
        ("00001/shard.json", lambda data: data.replace(b"dddd", b"eeee")),
        ("00000/rows.jsonl", lambda data: b""),
        ("00001/rows.jsonl", lambda data: data[: len(data) // 2]),
        ("00001/rows.jsonl", lambda data: b"\n".join(data.split(b"\n")[:-2])),
        ("00001/rows.jsonl", lambda data: b"\0" * len(data)),
        ("00001/rows.jsonl", None),
    ],
)
async def test_shards_that_are_not_what_was_closed_are_cut_anew(desk: Any, name: str, change: Any) -> None:
    parts(desk)
    bench = Bench(desk)
    whole, every, _ = await bench.cut()
    expected = bench.written()
    _, _, lease = await bench.cut(last=40)
    file = desk.folder / "b-1/shards" / name
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change(file.read_bytes()))
    found, others, _ = await bench.cut(lease.resume_from)
    assert others.prepared == every.prepared
    assert dataclasses.asdict(found) == dataclasses.asdict(whole)
    assert bench.written() == expected


async def test_shards_of_another_cut_are_never_gone_on_from(desk: Any) -> None:
    parts(desk)
    one, other = Bench(desk), Bench(desk, limits={"max_rows": 7})
    other.digest = "e" * 64
    whole, every, _ = await one.cut()
    expected = one.written()
    _, _, place_of_one = await one.cut(last=40)
    # Another worker, configured otherwise, comes in between and is killed at any time.
    for last in (0, 8, 40):
        _, began, place_of_other = await other.cut(place_of_one.resume_from, last=last)
        assert began.prepared == every.prepared[:last]
        for place in (place_of_one.resume_from, place_of_other.resume_from):
            if last < 40:
                found, again, _ = await one.cut(place)
                assert again.prepared == every.prepared
                assert dataclasses.asdict(found) == dataclasses.asdict(whole)
                assert expected.items() <= one.written().items()
                await other.cut(last=last)
        await one.cut(last=40)


async def test_the_plan_step_goes_on_where_its_last_heartbeat_was(desk: Any) -> None:
    rows = [desk.chat(f"r-{n}") for n in range(30)]
    put(desk, "in/a.jsonl", desk.jsonl(*rows[:15]))
    put(desk, "in/b.jsonl", desk.jsonl(*rows[15:]))
    first = await desk.plan(input=desk.store.uri("in"), limits={"max_rows": 10})
    digest = json.loads((desk.folder / "b-1/plan.json").read_bytes())["spec_digest"]
    (desk.folder / "b-1/plan.json").unlink()
    files = [desk.folder / f"b-1/shards/{shard:05d}/rows.jsonl" for shard in range(3)]
    before = [file.stat().st_ino for file in files]
    place = {"cut": digest[:16], "shards": 2, "line": 5, "first": 1}
    for details, kept in (
        ([{"rows": 20, "bytes": 0, "place": place}], 2),
        ([{"rows": 20, "bytes": 0}], 0),
        ([{"rows": 20, "bytes": 0, "place": {**place, "cut": "0" * 16}}], 0),
        ([{"rows": 20, "bytes": 0, "place": {**place, "shards": "2"}}], 0),
        ([None], 0),
        (["what"], 0),
    ):
        (desk.folder / "b-1/plan.json").unlink(missing_ok=True)
        again = await desk.step(Plan(desk.resources).plan, request(desk), heartbeat_details=details)
        assert again == first
        after = [file.stat().st_ino for file in files]
        assert [one == other for one, other in zip(before, after, strict=True)] == [True] * kept + [False] * (3 - kept)
        before = after
        assert cuts(desk) == [[f"r-{n}" for n in range(start, start + 10)] for start in (0, 10, 20)]
