"""Apply and finish: shards joined in input order, accounts added up, the result written down."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from durabatch.activities.apply import Apply
from durabatch.activities.manifest import stream_results
from durabatch.activities.prices import dollars, picodollars
from durabatch.activities.records import SettledRecord
from durabatch.contract import BatchResult, BatchStatus, Counts, RowStatus, Strays, Unpriced, Usage
from durabatch.contract.layout import parse_name
from durabatch.contract.object_name import Kind
from durabatch.contract.steps import ApplyRequest, FinishRequest


def settled(desk: Any, shard: int, **fields: Any) -> None:
    """Put a shard's accounts and results into the store by hand."""
    desk.shard = shard
    desk.path("x").parent.mkdir(parents=True, exist_ok=True)
    desk.path("results.jsonl").write_text(f"results of {shard}\n")
    desk.path("errors.jsonl").write_text(f"errors of {shard}\n" if fields["counts"].failed else "")
    sizes = {f"{kind}_bytes": desk.path(f"{kind}.jsonl").stat().st_size for kind in ("results", "errors")}
    desk.path("settled.json").write_text(SettledRecord(**fields, **sizes).model_dump_json())


def rows(n: int, failed: int = 0) -> Counts:
    return Counts(total=n, succeeded=n - failed, failed=failed)


def file(desk: Any, name: str) -> str:
    found: str = (desk.folder / "b-1" / name).read_text()
    return found


async def planned(desk: Any, shards: int, each: int = 2) -> None:
    await desk.plan(*(desk.chat(f"r-{n}") for n in range(shards * each)), limits={"max_rows": each})
    assert desk.summary.shards == shards


async def test_shards_are_joined_in_the_order_of_the_input(desk: Any) -> None:
    await planned(desk, 12)
    for shard in reversed(range(12)):
        settled(desk, shard, counts=rows(2, shard % 2), cost_usd="0.1", list_cost_usd="0.2")

    applied = await desk.apply()

    assert file(desk, "results.jsonl") == "".join(f"results of {n}\n" for n in range(12))
    assert file(desk, "errors.jsonl") == "".join(f"errors of {n}\n" for n in range(1, 12, 2))
    assert applied.results == desk.store.uri("b-1/results.jsonl")
    assert applied.errors == desk.store.uri("b-1/errors.jsonl")
    assert applied.counts == Counts(total=24, succeeded=18, failed=6)


async def test_everything_is_added_up_exactly(desk: Any) -> None:
    await planned(desk, 10)
    cents = [3 * 10**n + 1 for n in range(10)]
    for shard, pico in enumerate(cents):
        settled(
            desk,
            shard,
            counts=Counts(total=2, expired=1, canceled=1),
            usage=Usage(input_tokens=10**shard, cached_input_tokens=1, output_tokens=2, reasoning_tokens=shard),
            cost_usd=dollars(pico),
            list_cost_usd=dollars(2 * pico),
            strays=Strays(unknown=1, duplicate=2, unreadable=shard),
            classes={"expired": 1, "canceled": 1, **({"missing": 1} if shard == 3 else {})},
        )

    applied = await desk.apply()

    assert applied.counts == Counts(total=20, expired=10, canceled=10)
    assert applied.usage == Usage(
        input_tokens=1_111_111_111, cached_input_tokens=10, output_tokens=20, reasoning_tokens=45
    )
    assert applied.cost_usd is not None and applied.list_cost_usd is not None
    assert picodollars(applied.cost_usd) == sum(cents)
    assert picodollars(applied.list_cost_usd) == 2 * sum(cents)
    assert applied.strays == Strays(unknown=10, duplicate=20, unreadable=45)
    assert applied.classes == {"expired": 10, "canceled": 10, "missing": 1}


async def test_costs_are_summed_as_far_as_they_are_known_and_the_rest_is_counted(desk: Any) -> None:
    await planned(desk, 4)
    known = {"cost_usd": "0.5", "list_cost_usd": "1"}
    settled(desk, 0, counts=rows(2), **known)
    settled(desk, 1, counts=rows(2), **known, unpriced=Unpriced(without_usage=1))
    settled(desk, 2, counts=rows(2), unpriced=Unpriced(without_price=2, models={"m": 1, "n": 1}))
    settled(desk, 3, counts=rows(2), **known, unpriced=Unpriced(without_usage=1, without_price=1, models={"m": 1}))
    applied = await desk.apply()
    assert (applied.cost_usd, applied.list_cost_usd) == ("1.5", "3")
    assert applied.unpriced == Unpriced(without_usage=2, without_price=3, models={"m": 2, "n": 1})


async def test_where_nothing_is_known_of_the_cost_it_is_unknown_and_not_nothing(desk: Any) -> None:
    await planned(desk, 2)
    settled(desk, 0, counts=rows(2, failed=2), cost_usd="0", list_cost_usd="0")
    settled(desk, 1, counts=rows(2), unpriced=Unpriced(without_usage=2))
    applied = await desk.apply()
    assert (applied.cost_usd, applied.list_cost_usd, applied.unpriced.total) == (None, None, 2)


@pytest.mark.parametrize(
    "second",
    [
        rows(1),
        rows(3),
        Counts(total=2, succeeded=1),  # a row that has not ended
        Counts(total=2, succeeded=3),
        Counts(),
    ],
)
async def test_rows_that_do_not_add_up_are_an_error_and_no_result(desk: Any, second: Counts) -> None:
    await planned(desk, 2)
    settled(desk, 0, counts=rows(2))
    settled(desk, 1, counts=second)
    error = await desk.refused(desk.apply())
    assert (error.type, error.non_retryable) == ("accounting_error", True)
    assert error.message.startswith("The plan has 4 rows, the shards ")
    assert not (desk.folder / "b-1/results.jsonl").exists()


async def test_a_shard_that_was_never_settled_is_an_error(desk: Any) -> None:
    await planned(desk, 2)
    settled(desk, 0, counts=rows(2))
    assert (await desk.refused(desk.apply())).type == "object_not_found"
    assert not (desk.folder / "b-1/results.jsonl").exists()


async def test_a_real_batch_of_several_shards_comes_out_whole(desk: Any, sandbox: Any) -> None:
    names = [f"r-{n}" for n in range(25)]
    kinds = ["invalid_request" if n % 7 == 3 else "empty" for n in range(25)]
    rows = [desk.chat(name, f"Say {name}. [[sandbox:{kind}]]") for name, kind in zip(names, kinds, strict=True)]
    summary = await desk.plan(*rows, limits={"max_rows": 4})
    for desk.shard in range(summary.shards):
        desk.sent = []
        await desk.through()
        await desk.settle()

    applied = await desk.apply()

    results = [json.loads(line) for line in file(desk, "results.jsonl").splitlines()]
    assert [row["custom_id"] for row in results] == names
    errors = [json.loads(line) for line in file(desk, "errors.jsonl").splitlines()]
    assert [row["custom_id"] for row in errors] == ["r-3", "r-10", "r-17", "r-24"]
    assert applied.counts == Counts(total=25, succeeded=21, failed=4)
    assert set((await sandbox.books())["rows"].values()) == {1}
    assert applied.cost_usd is not None
    assert picodollars(applied.cost_usd) == sum(picodollars(row["cost_usd"]) for row in results)


async def test_applying_again_gives_the_same(desk: Any) -> None:
    for shards in (1, 3):
        await planned(desk, shards)
        for shard in range(shards):
            settled(desk, shard, counts=rows(2))
        first = await desk.apply()
        before = file(desk, "results.jsonl")
        assert await desk.apply() == first
        assert file(desk, "results.jsonl") == before


# --- results in parts ---


def whole(desk: Any, uri: str) -> bytes:
    return b"".join(stream_results(desk.store, uri))


async def test_results_that_are_too_large_for_one_file_are_listed_in_order(desk: Any) -> None:
    await planned(desk, 12)
    for shard in reversed(range(12)):
        settled(desk, shard, counts=rows(2, shard % 2))
    size = sum(len(f"results of {n}\n") for n in range(12))
    desk.resources.results_file_bytes = size - 1

    applied = await desk.apply()

    assert applied.results == desk.store.uri("b-1/results.manifest.json")
    assert applied.errors == desk.store.uri("b-1/errors.manifest.json")
    assert applied.counts == Counts(total=24, succeeded=18, failed=6)
    manifest = json.loads(file(desk, "results.manifest.json"))
    assert manifest == {
        "rows": 24,
        "bytes": size,
        "parts": [
            {"path": f"shards/{n:05d}/results.jsonl", "rows": 2, "bytes": len(f"results of {n}\n")} for n in range(12)
        ],
    }
    # A shard without errors adds no part to them.
    listed = json.loads(file(desk, "errors.manifest.json"))
    assert [part["path"] for part in listed["parts"]] == [f"shards/{n:05d}/errors.jsonl" for n in range(1, 12, 2)]
    assert listed["rows"] == 6
    assert whole(desk, applied.results) == b"".join(b"results of %d\n" % n for n in range(12))
    assert whole(desk, applied.errors) == b"".join(b"errors of %d\n" % n for n in range(1, 12, 2))
    assert not (desk.folder / "b-1/results.jsonl").exists()
    assert not (desk.folder / "b-1/errors.jsonl").exists()

    desk.resources.results_file_bytes = size
    joined = await desk.apply()
    assert joined.results == desk.store.uri("b-1/results.jsonl")
    assert whole(desk, joined.results) == whole(desk, applied.results)
    assert whole(desk, joined.errors) == whole(desk, applied.errors)


async def test_listing_again_gives_the_same(desk: Any) -> None:
    await planned(desk, 3)
    for shard in range(3):
        settled(desk, shard, counts=rows(2, 1))
    desk.resources.results_file_bytes = 0
    first = await desk.apply()
    names = ("results.manifest.json", "errors.manifest.json")
    before = [file(desk, name) for name in names]
    assert await desk.apply() == first
    assert [file(desk, name) for name in names] == before


@pytest.mark.parametrize("name", ["results.jsonl", "errors.jsonl"])
async def test_a_shard_whose_results_are_gone_is_an_error_and_no_result(desk: Any, name: str) -> None:
    await planned(desk, 3)
    for shard in range(3):
        settled(desk, shard, counts=rows(2, 1))
    desk.shard = 1
    desk.path(name).unlink()
    error = await desk.refused(desk.apply())
    assert (error.type, error.message) == ("object_not_found", f"The store has no object {desk.path(name).as_uri()}.")
    assert not (desk.folder / "b-1" / name).exists()


@pytest.mark.parametrize("limit", [0, 1 << 30])
async def test_many_shards_come_in_order_however_their_reads_are_answered(desk: Any, limit: int) -> None:
    await planned(desk, 100, each=1)
    for shard in range(100):
        settled(desk, shard, counts=rows(1, shard % 3 == 0), cost_usd="0.01", list_cost_usd="0.02")
    desk.resources.results_file_bytes = limit
    applied = await desk.apply()
    assert (applied.counts, applied.cost_usd) == (rows(100, 34), "1")
    assert whole(desk, applied.results) == b"".join(b"results of %d\n" % n for n in range(100))
    assert whole(desk, applied.errors) == b"".join(b"errors of %d\n" % n for n in range(0, 100, 3))


async def test_settle_writes_down_how_large_its_results_are(desk: Any) -> None:
    await desk.plan(*(desk.chat(f"r-{n}", f"Hi. [[sandbox:{kind}]]") for n, kind in enumerate(["empty", "missing"])))
    await desk.through()
    await desk.settle(unfinished="failed")
    record = SettledRecord.model_validate_json(desk.path("settled.json").read_bytes())
    assert record.results_bytes == desk.path("results.jsonl").stat().st_size > 0
    assert record.errors_bytes == desk.path("errors.jsonl").stat().st_size > 0
    assert record.counts == rows(2, 1)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", ["results", "errors"])
async def test_results_that_changed_after_they_were_settled_are_told(desk: Any, shards: int, name: str) -> None:
    await planned(desk, shards)
    for shard in range(shards):
        settled(desk, shard, counts=rows(2, 1))
    whole_file = desk.path(f"{name}.jsonl").read_bytes()
    desk.path(f"{name}.jsonl").write_bytes(whole_file[:-1])
    error = await desk.refused(desk.apply())
    assert (error.type, error.non_retryable) == ("store_error", False)
    assert f"The shards' {name} have" in error.message
    desk.path(f"{name}.jsonl").write_bytes(whole_file)
    assert (await desk.apply()).counts == rows(2 * shards, shards)


async def test_a_cancelled_apply_stops_in_the_middle_of_joining(desk: Any) -> None:
    await planned(desk, 2)
    for shard in range(2):
        settled(desk, shard, counts=rows(2))
        desk.path("settled.json").write_text(
            SettledRecord(counts=rows(2), results_bytes=1, errors_bytes=0).model_dump_json()
        )
    # A part that ends only when we say so: without a look at the cancel, the joining would go on to its end.
    pipe = desk.path("results.jsonl")
    pipe.unlink()
    os.mkfifo(pipe)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_timeout=timedelta(minutes=1))
    request = ApplyRequest(batch_id="b-1", root=desk.summary.root, shards=2, rows=4, store=desk.summary.store)
    task = asyncio.ensure_future(environment.run(Apply(desk.resources).apply, request))
    with await asyncio.to_thread(pipe.open, "wb", buffering=0) as end:
        end.write(b"first\n")
        environment.cancel()
        while not task.done():
            try:
                end.write(b"second\n")
            except BrokenPipeError:
                break
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sorted(found.name for found in (desk.folder / "b-1").iterdir()) == ["plan.json", "shards"]


@pytest.mark.parametrize("limit", [0, 1 << 30])
async def test_a_real_batch_reads_the_same_in_parts_and_in_one_file(desk: Any, limit: int) -> None:
    names = [f"r-{n}" for n in range(13)]
    kinds = ["invalid_request" if n % 5 == 3 else "empty" for n in range(13)]
    rows = [desk.chat(name, f"Say {name}. [[sandbox:{kind}]]") for name, kind in zip(names, kinds, strict=True)]
    summary = await desk.plan(*rows, limits={"max_rows": 4})
    for desk.shard in range(summary.shards):
        desk.sent = []
        await desk.through()
        await desk.settle()
    desk.resources.results_file_bytes = limit

    applied = await desk.apply()

    assert applied.results.endswith(".jsonl" if limit else ".manifest.json")
    found = [json.loads(line) for line in whole(desk, applied.results).splitlines()]
    assert [row["custom_id"] for row in found] == names
    failed = [json.loads(line) for line in whole(desk, applied.errors).splitlines()]
    assert failed == [row for row in found if row["status"] != "succeeded"]
    assert [row["custom_id"] for row in failed] == ["r-3", "r-8"]


# --- the end ---


async def test_the_result_is_written_as_the_contract_says(desk: Any) -> None:
    await planned(desk, 1)
    result = BatchResult(
        batch_id="b-1",
        status=BatchStatus.COMPLETED,
        counts=rows(2, 1),
        cost_usd="0.0000135",
        started_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
        metadata={"team": "ü"},
    )
    for again in (result, result.model_copy(update={"error": "second"})):
        request = FinishRequest(root=desk.summary.root, result=again, store=desk.summary.store)
        await desk.step(Apply(desk.resources).finish, request)
        assert BatchResult.model_validate_json(file(desk, "result.json")) == again


async def test_every_object_of_a_batch_has_a_name_that_is_taken_apart(desk: Any) -> None:
    await desk.plan(desk.chat("a"), desk.chat("b"))
    await desk.through()
    desk.path("attempt-1/output.jsonl").write_bytes(
        b"what is no result\n"
    )  # so both rows are missing, and bought again
    await desk.settle()
    desk.number = 2
    await desk.through()
    await desk.settle(RowStatus.EXPIRED)
    await desk.apply()
    names = [path.removeprefix("b-1/") for path, _ in await desk.store.list("b-1")]
    kinds = {name: found.kind for name in names if (found := parse_name(name)) is not None}
    assert [name for name in names if name not in kinds] == []
    assert Kind.OTHER not in kinds.values()
    assert {Kind.PLAN, Kind.RESULTS, Kind.SHARD_RESULTS, Kind.PICKED, Kind.ANSWERS, Kind.NOTE} <= set(kinds.values())
