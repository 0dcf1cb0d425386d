"""Results in parts: read like one file, and what is said when something of them is damaged."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durabatch.activities.manifest import Part, stream_results, write_manifest
from durabatch.activities.store import Store
from durabatch.cli import results
from durabatch.clients import result_rows
from durabatch.contract import ResultRow, StoreError

TEXT = "A row's own words."


def row(number: int) -> bytes:
    line = {"custom_id": f"r-{number}", "status": "succeeded", "text": f"{TEXT}\tü\u2028{number}"}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


class Parts:
    """A batch's folder with results in parts of 3, 0 and 2 rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(str(folder))
        self.uri = self.store.uri("b/results.manifest.json")
        self.manifest = folder / "b/results.manifest.json"
        self.whole = b"".join(row(number) for number in range(5))

    def part(self, number: int) -> Path:
        return self.folder / f"b/shards/{number:05d}/results.jsonl"

    async def write(self) -> None:
        parts = []
        for shard, numbers in enumerate((range(3), range(0), range(3, 5))):
            data = b"".join(row(number) for number in numbers)
            await self.store.write(f"b/shards/{shard:05d}/results.jsonl", data)
            parts.append(Part(f"shards/{shard:05d}/results.jsonl", len(numbers), len(data)))
        await write_manifest(self.store, "b/results.manifest.json", parts)

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        found = json.loads(self.manifest.read_bytes())
        change(found)
        self.manifest.write_text(json.dumps(found))


@pytest.fixture
async def parts(tmp_path: Path) -> Parts:
    found = Parts(tmp_path / "store")
    await found.write()
    return found


async def lines_of(parts: Parts) -> list[bytes]:
    return [line async for line in result_rows.lines(parts.store, parts.uri)]


async def test_parts_are_read_like_one_file(
    parts: Parts, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert b"".join(stream_results(parts.store, parts.uri)) == parts.whole
    assert await lines_of(parts) == [row(number).rstrip(b"\n") for number in range(5)]
    found = [one async for one in result_rows.rows(parts.store, parts.uri)]
    assert found == [ResultRow.model_validate_json(row(number)) for number in range(5)]

    await results.copy(results.Results(parts.store, [parts.uri]), tmp_path / "copy.jsonl")
    assert (tmp_path / "copy.jsonl").read_bytes() == parts.whole
    await results.stream_results(results.Results(parts.store, [parts.uri]), text=False)
    assert capsysbinary.readouterr().out == parts.whole
    await results.stream_results(results.Results(parts.store, [parts.uri]), text=True)
    assert capsysbinary.readouterr().out.splitlines()[4] == f"r-4\t{TEXT}\\tü\u2028{4}".encode()


async def test_the_manifest_says_what_is_in_each_part_and_leaves_out_the_empty_one(parts: Parts) -> None:
    sizes = [len(parts.part(number).read_bytes()) for number in (0, 2)]
    assert json.loads(parts.manifest.read_bytes()) == {
        "rows": 5,
        "bytes": sum(sizes),
        "parts": [
            {"path": "shards/00000/results.jsonl", "rows": 3, "bytes": sizes[0]},
            {"path": "shards/00002/results.jsonl", "rows": 2, "bytes": sizes[1]},
        ],
    }


async def test_a_folder_of_parts_may_be_moved(parts: Parts, tmp_path: Path) -> None:
    (parts.folder / "b").rename(parts.folder / "elsewhere")
    uri = parts.store.uri("elsewhere/results.manifest.json")
    assert b"".join(stream_results(parts.store, uri)) == parts.whole


async def test_what_no_row_is_in_is_listed_as_nothing(parts: Parts) -> None:
    await write_manifest(parts.store, "b/errors.manifest.json", [Part("shards/00001/errors.jsonl", 0, 0)])
    uri = parts.store.uri("b/errors.manifest.json")
    assert list(stream_results(parts.store, uri)) == []


DAMAGES: dict[str, Callable[[Parts], object]] = {
    "no JSON": lambda parts: parts.manifest.write_bytes(b"{"),
    "cut": lambda parts: parts.manifest.write_bytes(parts.manifest.read_bytes()[:-20]),
    "empty": lambda parts: parts.manifest.write_bytes(b""),
    "not UTF-8": lambda parts: parts.manifest.write_bytes(
        parts.manifest.read_bytes().replace(b"shards", b"sh\xff\xfes")
    ),
    "rows instead": lambda parts: parts.manifest.write_bytes(row(1)),
    "a part left out": lambda parts: parts.change(lambda found: found["parts"].pop()),
    "a part without a path": lambda parts: parts.change(lambda found: found["parts"][0].pop("path")),
    "an empty path": lambda parts: parts.change(lambda found: found["parts"][0].update(path="")),
    "a path that leads out": lambda parts: parts.change(
        lambda found: found["parts"][0].update(path="../../secrets/results.jsonl")
    ),
    "a path from the root": lambda parts: parts.change(lambda found: found["parts"][0].update(path="/etc/passwd")),
    "an address": lambda parts: parts.change(lambda found: found["parts"][0].update(path="file:///etc/passwd")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_a_damaged_manifest_is_told_in_a_sentence_and_gives_no_row(
    parts: Parts, damage: Callable[[Parts], object]
) -> None:
    damage(parts)
    got: list[bytes] = []
    with pytest.raises(StoreError, match="is damaged: bring it back") as caught:
        got.extend(stream_results(parts.store, parts.uri))
    assert got == []
    assert parts.uri in caught.value.message
    assert TEXT not in caught.value.message
    with pytest.raises(StoreError, match="is damaged"):
        await lines_of(parts)


async def test_a_manifest_that_is_gone_is_told(parts: Parts) -> None:
    parts.manifest.unlink()
    with pytest.raises(StoreError, match=r"The store has no object .*/b/results\.manifest\.json\."):
        await lines_of(parts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.unlink(), "is gone, and"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "does not have the"),
        (lambda file: file.write_bytes(file.read_bytes() + b"{}\n"), "does not have the"),
        (lambda file: file.write_bytes(b""), "does not have the"),
    ],
)
async def test_a_part_that_is_not_what_was_listed_is_told(
    parts: Parts, tmp_path: Path, change: Callable[[Path], object], words: str
) -> None:
    change(parts.part(2))
    with pytest.raises(StoreError, match=words) as caught:
        await lines_of(parts)
    assert parts.part(2).as_uri() in caught.value.message
    assert parts.uri in caught.value.message
    assert TEXT not in caught.value.message
    # A copy is whole or not there.
    with pytest.raises(StoreError, match=words):
        await results.copy(results.Results(parts.store, [parts.uri]), tmp_path / "copy.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["store"]


async def test_a_row_that_was_changed_is_told_by_its_number_in_the_whole(parts: Parts) -> None:
    data = parts.part(2).read_bytes()
    parts.part(2).write_bytes(data.replace(b'"succeeded"', b'"succeeden"', 1))
    with pytest.raises(StoreError, match=r"Line 4 of .*manifest\.json is no result row"):
        [one async for one in result_rows.rows(parts.store, parts.uri)]


async def test_reading_may_be_left_in_the_middle(parts: Parts) -> None:
    async with contextlib.aclosing(result_rows.rows(parts.store, parts.uri)) as rows:
        async for one in rows:
            assert one.custom_id == "r-0"
            break
    assert len(await lines_of(parts)) == 5


async def test_memory_stays_flat_however_large_the_parts(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    data = (b"x" * 1023 + b"\n") * 20_000
    parts = []
    for number in range(5):
        await store.write(f"b/shards/{number:05d}/results.jsonl", data)
        parts.append(Part(f"shards/{number:05d}/results.jsonl", 20_000, len(data)))
    await write_manifest(store, "b/results.manifest.json", parts)
    tracemalloc.start()
    try:
        count = sum([1 async for _ in result_rows.lines(store, store.uri("b/results.manifest.json"))])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 100_000
    assert peak < 8 << 20  # 100 MB were read
