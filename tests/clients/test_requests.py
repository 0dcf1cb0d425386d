"""Requests as files: folders, patterns and compressed ones, on this machine and in the store."""

from __future__ import annotations

import gzip
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
import zstandard

from durabatch.clients.local_files import check_files
from durabatch.clients.requests import LocalFile, Rows, gathered
from durabatch.contract import InvalidInput, InvalidSpec
from durabatch.contract.layout import measured_path

from .conftest import Desk

zstd = zstandard.ZstdCompressor().compress


def rows(*names: str) -> bytes:
    return b"".join(b'{"custom_id":"%s","input":"Say %s."}\n' % (name.encode(), name.encode()) for name in names)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with rows a, b, c and d in three files, one of them compressed; and what is no request."""
    folder = tmp_path / "My data"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.jsonl").write_bytes(rows("b", "c")[:-1])
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(rows("a")))
    (folder / "sub/d.ndjson").write_bytes(rows("d"))
    (folder / "_SUCCESS").touch()
    (folder / ".a.jsonl.gz.crc").write_bytes(b"crc")
    return folder


async def gather(requests: Any, desk: Desk) -> Rows:
    async with gathered(requests, desk.client.store) as found:
        return found


async def texts(desk: Desk, id: str) -> list[str]:
    await desk.client.result(id)
    return [row.custom_id async for row in desk.client.retrieve(id) if row.custom_id in (row.text or "")]


# --- local files ---


async def test_a_local_folder_is_one_batch_in_the_order_of_its_files(desk: Desk, data: Path) -> None:
    id = await desk.start(data)
    assert id.startswith("My-data-")
    assert await texts(desk, id) == ["a", "b", "c", "d"]
    assert await desk.start(f"{data}/") == await desk.start(f"{data.as_uri()}/") == id
    stored = [path for path, _ in await desk.client.store.list(id) if f"{id}/input-" in path]
    assert [path.rpartition("/")[2] for path in stored] == ["00000-a.jsonl.gz", "00001-b.jsonl", "00002-sub~d.ndjson"]
    # Compressed stays compressed.
    assert await desk.client.store.read(stored[0]) == (data / "a.jsonl.gz").read_bytes()
    assert await desk.bought() == 1


async def test_a_local_pattern_takes_what_it_matches(desk: Desk, data: Path) -> None:
    (data / "sub/[x] 100%.txt").write_bytes(rows("x"))
    (data / "sub/_e.jsonl").write_bytes(rows("e"))
    id = await desk.start(str(data / "sub" / "*"))
    assert id.startswith("sub-")
    assert sorted(await texts(desk, id)) == ["d", "e", "x"]
    only = await gather(str(data / "sub" / "[x]*.t?t"), desk)
    assert [file.file.name for file in only.files] == ["[x] 100%.txt"]
    assert only.paths("b")[0].endswith("/00000--x- 100-.txt.jsonl")


@pytest.mark.parametrize(("compress", "suffix"), [(gzip.compress, ".jsonl.gz"), (zstd, ".jsonl.zst")])
async def test_a_local_compressed_file_is_copied_as_it_is(
    desk: Desk, tmp_path: Path, compress: Any, suffix: str
) -> None:
    file = tmp_path / "requests"  # whatever it is called
    file.write_bytes(compress(rows("a", "b")) + compress(rows("c")))
    found = await gather(file, desk)
    assert (found.count, found.size) == (3, file.stat().st_size)
    id = await desk.start(file)
    assert await texts(desk, id) == ["a", "b", "c"]
    assert await desk.client.store.read(f"{id}/input-{found.digest[:16]}{suffix}") == file.read_bytes()


async def test_a_plain_file_is_stored_as_it_always_was(idle: Desk, tmp_path: Path) -> None:
    (tmp_path / "….jsonl").write_bytes(rows("a"))
    found = await gather(tmp_path / "….jsonl", idle)
    # Other values here would buy batches again that were bought before an upgrade.
    assert found.stem == "requests"
    assert found.paths("b-1") == [f"b-1/input-{found.digest[:16]}.jsonl"]


def test_more_files_than_five_digits_count_stay_in_their_order() -> None:
    file = LocalFile(file=Path("a.jsonl"), digest="", size=0, name="a.jsonl")
    for count, first in ((100_000, "00000-a.jsonl"), (100_001, "000000-a.jsonl")):
        paths = Rows(stem="x", digest="d" * 64, count=1, size=1, files=(file,) * count, folder=True).paths("b-1")
        assert paths[0] == f"b-1/input-{'d' * 16}/{first}"
        assert paths == sorted(paths)


@pytest.mark.parametrize("folder", [False, True])
async def test_the_same_rows_compressed_again_are_the_same_batch(idle: Desk, tmp_path: Path, folder: bool) -> None:
    file, found = tmp_path / "in" / "a.jsonl.gz", []
    file.parent.mkdir()
    data = [gzip.compress(rows("a", "b"), mtime=time) for time in (1, 2)]
    for content in (*data, gzip.compress(rows("a", "c"), mtime=1), zstd(rows("a", "b")), rows("a", "b")):
        file.write_bytes(content)
        found.append(await gather(file.parent if folder else file, idle))
        await found[-1].put(idle.client.store, f"b-{len(found)}")
        assert [await idle.client.store.read(path) for path in found[-1].paths(f"b-{len(found)}")] == [content]
    assert data[0] != data[1]
    assert [one.digest == found[0].digest for one in found] == [True, True, False, False, False]
    stored = [await gather(one.location(idle.client.store, f"b-{n}"), idle) for n, one in enumerate(found, 1)]
    assert folder or [one.digest for one in stored] == [one.digest for one in found]


async def test_a_pipe_is_refused_and_not_emptied(idle: Desk, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, rows("a"))
    os.close(writing)
    path = Path(f"/dev/fd/{reading}")
    try:
        with pytest.raises(InvalidInput) as caught:
            check_files(path)
        told = await refusal(path, idle)
        assert os.read(reading, 1000) == rows("a")
    finally:
        os.close(reading)
    assert caught.value.message == told == f"The file {path} is no regular file: write the rows into one."


async def test_the_digest_of_a_folder_is_of_names_and_contents(idle: Desk, data: Path) -> None:
    first = await gather(data, idle)
    assert (first.count, (await gather(data, idle)).digest) == (4, first.digest)
    (data / "_more").write_bytes(b"hidden")
    assert (await gather(data, idle)).digest == first.digest
    (data / "b.jsonl").rename(data / "bb.jsonl")
    renamed = (await gather(data, idle)).digest
    (data / "bb.jsonl").write_bytes(rows("b", "x"))
    assert len({first.digest, renamed, (await gather(data, idle)).digest}) == 3


async def test_a_folder_that_changes_while_it_is_read_is_told(idle: Desk, data: Path) -> None:
    async with gathered(data, idle.client.store) as found:
        (data / "b.jsonl").write_bytes(rows("x", "y"))
        with pytest.raises(InvalidInput, match=r"b\.jsonl changed while it was being read"):
            await found.put(idle.client.store, "b-1")
    stored = [path for path, _ in await idle.client.store.list("b-1")]
    assert [path.rpartition("/")[2] for path in stored] == ["00000-a.jsonl.gz"]


def folder_of(path: Path, **files: bytes) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name.replace("__", ".")).write_bytes(content)
    return path


async def refusal(requests: Path, desk: Desk) -> str:
    """What is said of files that are no input."""
    with pytest.raises(InvalidInput) as caught:
        await desk.client.create(requests, **desk.fields(id="never"))
    assert await desk.client.store.list() == []
    return caught.value.message


async def test_a_folder_that_is_no_input_is_told(idle: Desk, tmp_path: Path) -> None:
    empty = folder_of(tmp_path / "empty", _SUCCESS=b"")
    blank = folder_of(tmp_path / "blank", a__jsonl=b"\n", b__jsonl=b"")
    other = folder_of(tmp_path / "other", a__jsonl=rows("a"), notes__txt=b"Sesame")
    cut = folder_of(tmp_path / "cut", a__jsonl=gzip.compress(rows("a"))[:-4])
    assert await refusal(empty, idle) == f"The folder {empty} is empty: it holds no files of requests."
    assert await refusal(blank, idle) == f"The folder {blank} is empty: it holds no requests."
    told = await refusal(other, idle)
    assert told.startswith(f"The folder {other} holds notes.txt") and f"{other}/*.jsonl" in told
    assert (
        await refusal(cut, idle)
        == f"The file {cut}/a.jsonl is cut off: its gzip data ends in the middle; write it again."
    )
    assert (await refusal(tmp_path / "*.none", idle)).startswith(f"No file matches {tmp_path}/*.none")
    linked = folder_of(tmp_path / "linked")
    (linked / "a.jsonl").symlink_to(tmp_path / "nowhere")
    assert await refusal(linked, idle) == f"There is no file {linked}/a.jsonl."


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
async def test_a_local_file_that_is_no_jsonl_is_named_before_anything_is_started(
    idle: Desk, tmp_path: Path, compress: Any
) -> None:
    array = b"[" + rows("a", "b").replace(b"\n", b",\n")[:-2] + b"]"
    folder = folder_of(tmp_path / "folder", a__jsonl=rows("c"), b__jsonl=compress(array))
    expected = f"The file {folder}/b.jsonl is one JSON array, and not JSONL: "
    for path in (folder, folder / "b.jsonl", folder / "*.jsonl"):
        assert (await refusal(path, idle)).startswith(expected)
        with pytest.raises(InvalidInput) as caught:
            check_files(path)
        assert caught.value.message.startswith(expected)
    await idle.client.store.write("mine/b.jsonl", compress(array))
    with pytest.raises(InvalidInput, match="is one JSON array"):
        await idle.start(f"{idle.client.store.url}/mine/")


@pytest.mark.slow
async def test_a_file_whose_name_begins_with_a_tilde_is_that_file(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "a.jsonl").write_bytes(rows("h"))
    folder = folder_of(tmp_path / "folder", **{"~x__jsonl": rows("a"), "~": rows("b"), "~y~z__jsonl": rows("c")})
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(home))
    for given, names in (("~x.jsonl", "a"), ("~", "b"), ("~*.jsonl", "ac"), ("~/a.jsonl", "h"), (folder / "*", "bac")):
        check_files(given)
        assert await texts(desk, await desk.start(given)) == list(names)
    with pytest.raises(InvalidInput, match=r"There is no file ~none\.jsonl"):
        await desk.start("~none.jsonl")


def test_files_are_checked_before_anything_is_started(tmp_path: Path, data: Path) -> None:
    check_files(data)
    check_files(str(data / "*.jsonl"))
    (tmp_path / "empty.jsonl").touch()
    for wrong in (tmp_path / "empty.jsonl", tmp_path / "*.txt", tmp_path / "none"):
        with pytest.raises(InvalidInput):
            check_files(wrong)
    check_files(str(tmp_path / "My data" / "?.jsonl"))


# --- in the store ---


@pytest.mark.parametrize("uri", ["mine/", "mine", "mine/*.jsonl*", "mine/?.*"])
async def test_a_folder_or_a_pattern_of_the_store_is_one_batch(desk: Desk, uri: str) -> None:
    store = desk.client.store
    await store.write("mine/b.jsonl", rows("b"))
    await store.write("mine/a.jsonl.zst", zstd(rows("a")))
    assert (await gather(f"{store.url}/{uri}", desk)).stem == "mine"
    id = await desk.start(f"{store.url}/{uri}", id=f"stored-{uuid.uuid4().hex[:8]}")
    assert await texts(desk, id) == ["a", "b"]
    assert not [path for path, _ in await store.list(id) if "/input-" in path]  # it is where it was


async def test_what_is_in_a_file_that_a_client_brought_is_recorded_and_not_read_again(idle: Desk, data: Path) -> None:
    store = idle.client.store
    async with gathered(data / "b.jsonl", store) as brought:
        await brought.put(store, "b-1")
    (path,) = brought.paths("b-1")
    other = b" " * brought.size  # of that size, so that only a reader can see it
    await store.write(path, other)
    found = await gather(store.uri(path), idle)
    assert (found.digest, found.count, found.size) == (brought.digest, brought.count, brought.size)
    # A record that cannot be right is none, and so is one of an object that anybody may write.
    await store.write(path, rows("c", "d", "e"))
    assert (await gather(store.uri(path), idle)).count == 3
    await store.write("mine/c.jsonl", rows("c"))
    await store.write(measured_path("mine/c.jsonl"), await store.read(measured_path(path)))
    assert (await gather(store.uri("mine/c.jsonl"), idle)).count == 1


async def test_a_folder_of_the_store_is_the_same_batch_with_its_slash_or_without(idle: Desk) -> None:
    await idle.client.store.write("mine/a.jsonl", rows("a"))
    first, second = [await gather(f"{idle.client.store.url}/{uri}", idle) for uri in ("mine", "mine/")]
    assert first == second
    assert first.uri == f"{idle.client.store.url}/mine/"


async def test_what_is_not_in_the_store_is_told(idle: Desk) -> None:
    store = idle.client.store
    with pytest.raises(InvalidSpec, match="whole store"):
        await idle.start(store.url)
    for uri in ("none/", "none/*.jsonl"):
        with pytest.raises(InvalidInput, match="There is no file"):
            await idle.start(f"{store.url}/{uri}")
