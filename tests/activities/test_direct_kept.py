"""What a run keeps of its answers, and what a later run reads of that: a real store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from durabatch.activities.direct.keeper import Keeper
from durabatch.activities.direct.kept import WHOLE, KeptRows
from durabatch.activities.direct.memory import Memory
from durabatch.activities.lease import Lease
from durabatch.activities.store import Store
from durabatch.contract.object_name import Run
from durabatch.contract.steps import Attempt

DIGEST = "0" * 16


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptRows]:
    store = Store.open(str(tmp_path))
    attempt = Attempt(scoped_id="b", provider="gpt", root=store.uri("b"), shard=0, number=1, store="s")
    found = KeptRows(store, attempt, DIGEST)
    yield found
    found.close()


def files(kept: KeptRows, tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "b/shards/00000/attempt-1/kept").glob("*.jsonl"))


def answer(row: int, size: int = 300) -> bytes:
    return json.dumps({"row": row, "text": "x" * size}).encode()


async def test_answers_that_come_one_by_one_are_kept_at_once_and_leave_few_objects(
    kept: KeptRows, tmp_path: Path
) -> None:
    rows = 60
    run = await kept.begin(0, range(rows))
    keeper = Keeper(kept, run, Lease(), in_flight=4, memory=Memory())
    for row in range(rows):
        keeper.add(row, 200, answer(row, 3000))
        await keeper.write()
        assert keeper.rows == row + 1
    found = await kept.find()
    assert found.answered == set(range(rows))
    assert sum(len(file.lines) for file in found.files) == rows  # each of them once
    assert len(found.files) == 3 == rows * len(answer(0, 3000)) // WHOLE + 1


async def test_answers_that_come_while_others_are_written_are_written_together(kept: KeptRows) -> None:
    """Where a write takes long, as in a bucket, some come during each of them."""
    writes, rows = 0, 300

    class Counted(KeptRows):
        async def keep(self, run: Run, number: int, lines: Sequence[tuple[int, int, bytes]]) -> None:
            nonlocal writes
            writes += 1
            for _ in range(2):
                await asyncio.sleep(0)
            written.update(row for row, _, _ in lines)

        async def sync(self, run: Run, numbers: Sequence[int]) -> None:
            pass

    written = set[int]()
    attempt = Attempt(scoped_id="b", provider="gpt", root=kept.store.uri("b"), shard=0, number=1, store="s")
    counted = Counted(kept.store, attempt, DIGEST)
    keeper = Keeper(counted, await kept.begin(0, range(rows)), Lease(), in_flight=10 * rows, memory=Memory())
    keeping = asyncio.create_task(keeper.work())
    for row in range(rows):
        keeper.add(row, 200, b"x")
        await asyncio.sleep(0)
    while len(written) < rows:
        await asyncio.sleep(0.01)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert writes < 30


async def test_what_waits_to_be_kept_in_one_run_holds_back_the_calls_of_all(kept: KeptRows, tmp_path: Path) -> None:
    """Each run alone may have all calls in flight, so that each would gather all of their answers."""
    store, memory = Store.open(str(tmp_path)), Memory()
    attempt = Attempt(scoped_id="b", provider="gpt", root=store.uri("b"), shard=1, number=1, store="s")
    others = KeptRows(store, attempt, DIGEST)
    one = Keeper(kept, await kept.begin(0, range(40)), Lease(), in_flight=1000, memory=memory)
    other = Keeper(others, await others.begin(0, range(40)), Lease(), in_flight=1000, memory=memory)
    for row in range(18):
        one.add(row, 200, b"x" * (1 << 20))
    assert other.behind
    waiting = asyncio.create_task(other.room())
    await one.write()
    await waiting
    assert not other.behind
    other.add(0, 200, b"x" * (20 << 20))
    assert one.behind
    other.close()  # its run has failed
    assert not one.behind
    assert memory.held == 0


async def test_what_is_kept_without_a_last_word_is_there_for_the_next_run(kept: KeptRows) -> None:
    """As after SIGKILL: whoever keeps the answers is never asked to finish."""
    run = await kept.begin(0, range(10))
    keeper = Keeper(kept, run, Lease(), in_flight=100, memory=Memory())
    keeping = asyncio.create_task(keeper.work())
    for row in range(10):
        keeper.add(row, 200, answer(row))
        while keeper.rows <= row:
            await asyncio.sleep(0.01)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert (await kept.find()).answered == set(range(10))


async def test_a_file_that_is_written_again_while_it_is_read_is_joined_as_it_was_read(kept: KeptRows) -> None:
    run = await kept.begin(0, range(3))
    await kept.keep(run, 0, [(0, 200, answer(0))])
    [file] = (await kept.find()).files
    await kept.keep(run, 0, [(0, 200, answer(0)), (1, 200, answer(1)), (2, 200, answer(2))])
    end = file.start + file.lines[0].length
    assert b"".join(file.read(kept.store, file.start, end, 1 << 16)) == answer(0) + b"\n"


@pytest.mark.parametrize("left", [b"", b"\0" * 500, b"half"])
async def test_what_a_power_cut_leaves_of_a_file_is_passed_over(kept: KeptRows, tmp_path: Path, left: bytes) -> None:
    run = await kept.begin(0, range(2))
    await kept.mark(run, 2)
    for number in range(2):
        await kept.keep(run, number, [(number, 200, answer(number))])
    await kept.sync(run, [0, 1])
    path = files(kept, tmp_path)[1]
    path.write_bytes(path.read_bytes()[:-5] if left == b"half" else left)
    found = await kept.find()
    assert found.answered == {0}
    # The next run sends the other row again, and that counts.
    heir = await kept.begin(found.newest, [1])
    await kept.mark(heir, 1)
    assert await kept.repeated((await kept.find()).runs, set()) == 1


async def test_of_a_mark_that_a_power_cut_has_emptied_every_row_counts_as_sent(kept: KeptRows, tmp_path: Path) -> None:
    for number in range(2):
        await kept.mark(await kept.begin(number, range(3)), 1)
    [first, _] = sorted((tmp_path / "b/shards/00000/attempt-1/sent").glob("*.mark"))
    assert await kept.repeated((await kept.find()).runs, set()) == 1
    first.write_bytes(b"")
    assert await kept.repeated((await kept.find()).runs, set()) == 1
    for mark in first.parent.glob("*.mark"):
        mark.write_bytes(b"")
    assert await kept.repeated((await kept.find()).runs, set()) == 3


async def test_doubts_are_those_of_runs_that_ended_and_one_for_each_run_that_was_lost(kept: KeptRows) -> None:
    ended = await kept.begin(0, range(5))
    await kept.mark(ended, 5)
    await kept.end(ended, [0], {3: 3, 4: 1}, away=False)
    for number in (1, 2):  # killed, with their first two rows in flight
        await kept.mark(await kept.begin(number, [2, 3, 4]), 2)
    await kept.begin(3, [2, 3, 4])  # killed before it has sent anything
    await kept.keep(ended, 0, [(4, 200, answer(4))])
    found = await kept.find()
    assert await kept.doubts(found) == ({2: 2, 3: 5}, False)


async def test_whether_the_endpoint_was_away_is_what_the_last_run_that_knows_says(kept: KeptRows) -> None:
    async def away() -> bool:
        return (await kept.doubts(await kept.find()))[1]

    await kept.end(await kept.begin(0, range(5)), [], {}, away=True)  # it has checked, and sent nothing
    assert await away()
    await kept.begin(1, range(5))  # killed before it has sent anything
    assert await away()
    await kept.mark(await kept.begin(2, range(5)), 2)
    assert not await away()
