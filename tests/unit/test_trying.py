"""Which rows of an input are tried, how they are told, and what all rows would cost by them."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from durabatch.activities.store import Store
from durabatch.clients.requests import gathered
from durabatch.clients.sample import MAX_TRIED, Place, Sample, check_count, chosen, write_sample
from durabatch.clients.whole_cost import CostRange, whole_cost
from durabatch.contract import InvalidInput, InvalidSpec, RowProblem

#: Picodollars in a dollar's millionth.
MICRO = 10**6


@pytest.mark.parametrize("count", [0, -3, MAX_TRIED + 1])
def test_too_few_and_too_many_rows_are_refused_in_a_sentence(count: int) -> None:
    with pytest.raises(InvalidSpec, match=f"between 1 and 1,000, and {count:,} was given") as caught:
        check_count(count)
    # Only whoever wants more of them is told how to have more.
    assert ('mode = "direct"' in caught.value.message) is (count > MAX_TRIED)
    check_count(1)
    check_count(MAX_TRIED)


@pytest.mark.parametrize(("total", "count"), [(100, 5), (101, 7), (7, 6), (10**9, 1000), (5, 5), (3, 20), (1, 1)])
def test_one_row_of_each_stretch_of_the_input_is_tried(total: int, count: int) -> None:
    numbers = chosen(total, count, first=False, seed="s")
    assert numbers == sorted(set(numbers))
    tried = min(total, count)
    assert len(numbers) == tried
    for stretch, number in enumerate(numbers):
        assert stretch * total // tried <= number < (stretch + 1) * total // tried


def test_the_first_rows_are_tried_where_they_are_asked_for() -> None:
    assert chosen(100, 4, first=True) == [0, 1, 2, 3]
    assert chosen(2, 4, first=True) == [0, 1]


def test_the_same_input_has_the_same_rows_tried_and_another_one_others() -> None:
    assert chosen(10_000, 20, first=False, seed="a") == chosen(10_000, 20, first=False, seed="a")
    assert chosen(10_000, 20, first=False, seed="a") != chosen(10_000, 20, first=False, seed="b")


def test_a_pattern_that_repeats_itself_in_the_input_does_not_decide_which_rows_are_tried() -> None:
    # Every tenth row is of another kind, and every tenth row is tried.
    kinds = Counter(number % 10 for number in chosen(10_000, 1000, first=False, seed="s"))
    assert len(kinds) == 10
    assert max(kinds.values()) < 200


async def sampled(requests: Path, count: int, *, first: bool = False) -> tuple[list[str], Sample]:
    """Return the ids of the rows that are tried, and where they came from."""
    file = requests.parent / "sample.out"
    store = Store.open(str(requests.parent / "store"))
    async with gathered(requests, store) as rows:
        found = await write_sample(rows, store, count, file, first=first)
    return [json.loads(line)["custom_id"] for line in file.read_text().splitlines()], found


async def test_rows_keep_their_bytes_and_their_lines_are_known(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    lines = [f'{{"custom_id":"r{number}", "input":"x"}}\r\n\n' for number in range(10)]
    file.write_bytes("".join(lines).encode())
    ids, sample = await sampled(file, 3, first=True)
    assert (ids, sample.places) == (["r0", "r1", "r2"], [Place(1, None), Place(3, None), Place(5, None)])
    assert (tmp_path / "sample.out").read_bytes().startswith(b'{"custom_id":"r0", "input":"x"}\n')
    ids, sample = await sampled(file, 3)
    assert [f"r{(place.line - 1) // 2}" for place in sample.places] == ids
    ids, _ = await sampled(file, 1000)
    assert ids == [f"r{number}" for number in range(10)]


async def test_rows_of_several_files_are_told_by_file_and_line(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        rows = [json.dumps({"custom_id": f"{name}{number}", "input": "x"}) for number in range(2)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    ids, sample = await sampled(folder, 4)
    assert ids == ["a0", "a1", "deep/b0", "deep/b1"]
    assert [str(place) for place in sample.places][1:3] == ["a.jsonl line 2", "deep/b.jsonl line 1"]


def test_what_is_wrong_with_a_row_is_told_of_the_inputs_own_lines() -> None:
    sample = Sample([Place(17, None), Place(40, None), Place(3, "b.jsonl")])
    first = sample.problem(RowProblem(message="line 1, custom_id: is missing", line=1, field="custom_id"))
    assert (first.message, first.line, first.field) == ("line 17, custom_id: is missing", 17, "custom_id")
    twice = sample.problem(RowProblem(message="line 3, custom_id: is the same as on line 2", line=3))
    assert (twice.message, twice.line, twice.file) == (
        "b.jsonl line 3, custom_id: is the same as on line 40",
        3,
        "b.jsonl",
    )
    whole = RowProblem(message="the input as a whole")
    assert sample.problem(whole) == whole
    # A row without an id is called by its line.
    assert [sample.custom_id(number, f"line:{number + 1}") for number in range(3)] == [
        "line:17",
        "line:40",
        "b.jsonl:3",
    ]
    assert [sample.custom_id(0, "mine"), sample.custom_id(1, "line:1")] == ["mine", "line:1"]


async def test_an_input_that_became_shorter_meanwhile_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"custom_id":"a","input":"x"}\n' * 3)
    store = Store.open(str(tmp_path / "store"))
    async with gathered(file, store) as rows:
        file.write_text('{"custom_id":"a","input":"x"}\n')
        with pytest.raises(InvalidInput, match=r"^The input has become shorter"):
            await write_sample(rows, store, 3, tmp_path / "out", first=False)


def test_all_rows_cost_the_mean_of_those_that_were_tried_times_their_number() -> None:
    cost = whole_cost([2 * MICRO, 4 * MICRO, 6 * MICRO], 1000)
    assert cost is not None
    assert cost.usd == "0.004"
    half = whole_cost([2 * MICRO, 4 * MICRO, 6 * MICRO], 1000, Fraction(1, 2))
    assert half is not None and half.low and cost.low
    assert half.usd == "0.002"
    assert float(half.low) == pytest.approx(float(cost.low) / 2)


def test_the_range_is_as_wide_as_the_rows_differ() -> None:
    costs = [number * MICRO for number in range(1, 41)]
    cost = whole_cost(costs, 10**6)
    assert cost is not None and cost.low and cost.high
    mean = statistics.mean(costs) * 10**6 / 10**12
    # The normal bound of 90 %: 1.645 standard errors either way.
    off = 1.645 * statistics.stdev(costs) / 40**0.5 * 10**6 / 10**12
    assert float(cost.low) == pytest.approx(mean - off, abs=off * 0.15)
    assert float(cost.high) == pytest.approx(mean + off, abs=off * 0.15)
    assert whole_cost(costs, 10**6) == cost
    assert whole_cost([5 * MICRO] * 20, 1000) == CostRange("0.005", "0.005", "0.005")


def test_the_fewer_rows_are_left_the_less_is_uncertain_and_a_single_one_says_nothing_of_it() -> None:
    costs = [number * MICRO for number in range(1, 21)]
    many, few = whole_cost(costs, 1000), whole_cost(costs, 24)
    assert many and few and many.low and few.low
    assert 1 - float(few.low) / float(few.usd) < (1 - float(many.low) / float(many.usd)) / 2
    assert whole_cost(costs, 20) == CostRange("0.00021", "0.00021", "0.00021")
    assert whole_cost([7 * MICRO], 10) == CostRange("0.00007", None, None)
    assert whole_cost([7 * MICRO], 1) == CostRange("0.000007", "0.000007", "0.000007")
    assert whole_cost([], 10) is None
