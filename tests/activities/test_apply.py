"""Apply and finish: shards joined in input order, accounts added up, the result written down."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from durabatch.activities.apply import Apply
from durabatch.activities.prices import dollars, picodollars
from durabatch.contract import BatchResult, BatchStatus, Counts, Strays, Usage
from durabatch.contract.steps import FinishRequest, Settled


def settled(desk: Any, shard: int, **fields: Any) -> None:
    """Put a shard's accounts and results into the store by hand."""
    desk.shard = shard
    desk.path("x").parent.mkdir(parents=True, exist_ok=True)
    desk.path("settled.json").write_text(Settled(**fields).model_dump_json())
    desk.path("results.jsonl").write_text(f"results of {shard}\n")
    desk.path("errors.jsonl").write_text(f"errors of {shard}\n" if fields["counts"].failed else "")


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


@pytest.mark.parametrize("unknown", [0, 1, 2])
async def test_one_unknown_cost_makes_the_sum_unknown(desk: Any, unknown: int) -> None:
    await planned(desk, 3)
    for shard in range(3):
        settled(desk, shard, counts=rows(2), cost_usd=None if shard == unknown else "0.5", list_cost_usd="1")
    applied = await desk.apply()
    assert (applied.cost_usd, applied.list_cost_usd) == (None, "3")


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
    assert set((await sandbox.ledger())["rows"].values()) == {1}
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
        request = FinishRequest(root=desk.summary.root, result=again)
        await desk.step(Apply(desk.resources).finish, request)
        assert BatchResult.model_validate_json(file(desk, "result.json")) == again
