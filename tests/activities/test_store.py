"""The store, over a local folder and over S3's protocol on loopback: one suite, two kinds of storage."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx2
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import ThreadedMotoServer
from werkzeug.serving import make_server

from durabatch.activities.store import IDENTITY, Store, identify, identity_of
from durabatch.activities.store._failures import disk
from durabatch.contract import ConfigurationError, InvalidSpec, ObjectNotFound, StoreError

MIB = 1024 * 1024
ODD = "batch:1@acme.example=x+y/shards/00000/attempt-1/output file ü.jsonl"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, and the environment that leads to it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    bucket = f"bucket-{secrets.token_hex(6)}"
    httpx2.put(f"{s3_server}/{bucket}").raise_for_status()
    return f"s3://{bucket}/some/prefix"


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store.open(str(tmp_path / "a store"))
    return Store.open(request.getfixturevalue("s3_url"))


def put(store: Store, path: str, data: bytes) -> None:
    with store.writer(path) as out:
        out.write(data)


def get(store: Store, path: str) -> bytes:
    return b"".join(store.stream(path))


# --- small objects


async def test_what_was_written_is_read_back(store: Store) -> None:
    await store.write(ODD, b"one")
    await store.write(ODD, b"two")
    assert await store.read(ODD) == b"two"
    assert await store.size(ODD) == 3


async def test_many_objects_are_read_in_the_order_of_their_paths_whichever_are_absent(store: Store) -> None:
    paths = [f"many/{number}" for number in range(70)]  # more than one thread reads
    for path in paths[::2]:
        await store.write(path, path.encode())
    asked = [*reversed(paths), paths[0], "many", "many/0/inside"]
    assert await store.read_each(asked) == [path.encode() if path in paths[::2] else None for path in asked]
    assert await store.read_each([]) == []


async def test_one_object_that_cannot_be_read_fails_all_of_them(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    await store.write("a", b"1")
    with pytest.raises(StoreError, match="the name is too long"):
        await store.read_each(["a", "b" * 300])
    with pytest.raises(InvalidSpec):
        await store.read_each(["a", "../a"])


async def test_an_empty_object_is_an_object(store: Store) -> None:
    await store.write("empty", b"")
    assert await store.read("empty") == b""
    assert await store.size("empty") == 0
    assert list(store.stream("empty")) == []


async def test_create_makes_an_object_and_never_replaces_one(store: Store) -> None:
    assert await store.create(ODD, b"one")
    assert not await store.create(ODD, b"two")
    assert await store.read(ODD) == b"one"
    await store.delete(ODD)
    assert await store.create(ODD, b"")
    await store.write(ODD, b"three")
    assert not await store.create(ODD, b"four")
    assert raw_names(store) == [ODD]


RACE = """
import asyncio, sys
from durabatch.activities.store import Store

async def race(url, name):
    store = Store.open(url)
    print("ready", flush=True)
    sys.stdin.readline()
    paths = [f"deep/{number}/note" for number in range(40)]
    won = await asyncio.gather(*(store.create(path, name.encode()) for path in paths))
    print(*(path for path, made in zip(paths, won) if made), flush=True)

asyncio.run(race(*sys.argv[1:]))
"""


def test_of_processes_that_create_the_same_object_exactly_one_succeeds(tmp_path: Path) -> None:
    # In a folder only: the stand-in for S3 looks and writes in two steps, where the real one has them in one.
    store = Store.open(str(tmp_path))
    names = ("a" * 300, "b" * 200, "c" * 100)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, store.url, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in names
    ]
    assert [racer.stdout.readline() for racer in racers if racer.stdout] == ["ready\n"] * 3
    for racer in racers:  # all are waiting: off they go at the same time
        assert racer.stdin
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [racer.communicate()[0].split() for racer in racers]
    assert sorted(path for paths in won for path in paths) == sorted(f"deep/{n}/note" for n in range(40))
    for name, paths in zip(names, won, strict=True):
        for path in paths:
            assert get(store, path) == name.encode()


async def test_create_works_on_a_disk_that_has_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    store = Store.open(str(tmp_path))
    assert await store.create("a/b", b"one")
    assert not await store.create("a/b", b"two")
    assert (await store.read("a/b"), raw_names(store)) == (b"one", ["a/b"])


async def test_a_deleted_object_is_gone_and_may_be_deleted_again(store: Store) -> None:
    await store.write("a/b", b"x")
    await store.delete("a/b")
    await store.delete("a/b")
    await store.delete("never/was")
    assert await store.size("a/b") is None


async def test_list_names_what_is_below_a_folder_and_nothing_beside_it(store: Store) -> None:
    for path in ("a/2", "a/1", "a/deep/er/3", "ab/4", "5"):
        await store.write(path, path.encode())
    assert await store.list("a") == [("a/1", 3), ("a/2", 3), ("a/deep/er/3", 11)]
    assert await store.list("a/") == await store.list("a")
    assert [path for path, _ in await store.list("")] == ["5", "a/1", "a/2", "a/deep/er/3", "ab/4"]
    assert await store.list("absent") == []


async def test_list_passes_over_objects_that_no_path_can_name(store: Store, s3_server: str) -> None:
    await store.write("good", b"")
    put_behind_its_back(store, s3_server, "100%")
    assert await store.list() == [("good", 0)]


async def test_an_object_that_is_wanted_is_not_passed_over_without_a_word(store: Store, s3_server: str) -> None:
    await store.write("in/good", b"x")
    for name in ("in/100%.jsonl", "in/.durabatch-0123456789abcdef", "100%"):
        put_behind_its_back(store, s3_server, name)
    with pytest.raises(
        InvalidSpec, match=r"^The object 'in/100%\.jsonl' cannot be read: .* percent sign; rename it\.$"
    ):
        await store.list("in", lambda path: True)
    assert await store.list("in", lambda path: path.endswith("/good")) == [("in/good", 1)]


async def test_entries_tell_when_an_object_was_written(store: Store) -> None:
    began = datetime.now(UTC) - timedelta(seconds=2)  # a service may tell whole seconds only
    await store.write("a/1", b"x")
    (entry,) = await store.entries("a")
    assert (entry.path, entry.size) == ("a/1", 1)
    assert began <= entry.modified <= datetime.now(UTC) + timedelta(seconds=2)


async def test_a_list_is_read_a_page_at_a_time_in_the_order_of_names_or_backwards(store: Store) -> None:
    # "a-b" comes before "a/b", and that before "a0": the slash is a character like any other.
    paths = ["list/a-b", "list/a/b/1", "list/a/b/2", "list/a/c", "list/a0", "list/b"]
    for path in [*paths, "list-beside", "lis/t", "list0/a"]:
        await store.write(path, b"")

    for expected, backwards in ((paths, False), (paths[::-1], True)):
        for size in range(1, 8):
            read: list[str] = []
            while found := await store.page("list", after=read[-1] if read else None, limit=size, backwards=backwards):
                assert len(found) == min(size, len(paths) - len(read))
                read += found
            assert read == expected

    await store.delete("list/a/c")
    assert await store.page("list", after="list/a/c", limit=2) == ["list/a0", "list/b"]
    assert await store.page("list", after="list/a/c", limit=2, backwards=True) == ["list/a/b/2", "list/a/b/1"]
    assert await store.page("list", after="list/a/b", limit=1) == ["list/a/b/1"]
    assert await store.page("nothing", limit=5) == []
    assert await store.page("nothing", limit=5, backwards=True) == []


async def test_pruning_leaves_every_object_and_no_empty_folder(store: Store) -> None:
    for path in ("a/kept", "a/deep/er/gone", "b/kept"):
        await store.write(path, b"x")
    await store.delete("a/deep/er/gone")
    await store.prune("a")
    await store.prune("absent")
    assert raw_names(store) == ["a/kept", "b/kept"]
    if store.url.startswith("file:"):
        root = Path(store_folder(store))
        litter, young = root / "a" / ".durabatch-old", root / "a" / ".durabatch-young"
        litter.touch()
        young.touch()
        os.utime(litter, (0, 0))
        await store.prune("a")
        assert not (root / "a" / "deep").exists()
        assert (litter.exists(), young.exists()) == (False, True)


async def test_a_check_leaves_nothing_behind(store: Store) -> None:
    await store.check()
    assert raw_names(store) == []


async def test_a_service_without_conditional_writes_is_found_out(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = DomainDispatcherApplication(create_backend_app)

    def older(environ: dict[str, str], respond: object) -> object:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return moto(environ, respond)

    server = make_server("127.0.0.1", 0, older, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(StoreError, match="ignores If-None-Match"):
            await Store.open(s3_url).check()
    finally:
        server.shutdown()
        thread.join()


# --- its identity


async def test_a_store_has_no_identity_until_something_begins_in_it_and_keeps_it_from_then_on(store: Store) -> None:
    assert await identity_of(store) is None
    found = await identify(store)
    assert (len(found), await identify(store), await identity_of(Store.open(store.url))) == (32, found, found)
    assert await store.list("") == [(IDENTITY, await store.size(IDENTITY))]


async def test_all_who_begin_something_in_a_store_at_the_same_time_agree_on_its_identity(tmp_path: Path) -> None:
    found = await asyncio.gather(*(identify(Store.open(str(tmp_path))) for _ in range(20)))
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"id": 7}', b'{"id": "short"}', b"\xff", b'{"id": "' + b"z" * 32 + b'"}']
)
async def test_an_identity_that_cannot_be_read_is_an_error_and_is_not_replaced(tmp_path: Path, data: bytes) -> None:
    store = Store.open(str(tmp_path))
    await store.write(IDENTITY, data)
    for ask in (identity_of, identify):
        with pytest.raises(StoreError, match="bring it back from a backup"):
            await ask(store)
    assert await store.read(IDENTITY) == data


# --- missing objects


async def test_a_missing_object_is_told_by_its_uri(store: Store) -> None:
    with pytest.raises(ObjectNotFound, match="no object") as caught:
        await store.read("no/such")
    assert store.uri("no/such") in caught.value.message
    assert caught.value.__cause__ is not None
    assert not caught.value.retryable


async def test_every_way_of_reading_says_that_an_object_is_missing(store: Store, tmp_path: Path) -> None:
    await store.write("folder/object", b"x")
    for path in ("no/such", "folder", "folder/object/below"):
        assert await store.size(path) is None
        with pytest.raises(ObjectNotFound):
            await store.read(path)
        with pytest.raises(ObjectNotFound):
            get(store, path)
        with pytest.raises(ObjectNotFound), store.local(path):
            raise AssertionError("there is nothing to read")
        with pytest.raises(ObjectNotFound):
            store.concat("target", [path])
        with pytest.raises(ObjectNotFound):
            store.concat("target", ["folder/object", path])
    with pytest.raises(StoreError):
        store.put_file("target", tmp_path / "no such file")
    assert await store.size("target") is None


# --- large objects


def test_a_range_is_exactly_what_was_asked_for(store: Store) -> None:
    data = bytes(range(256)) * 5000  # 1.28 MB
    put(store, "data", data)
    for start, end in ((0, None), (0, 10), (7, 300_001), (1_279_990, None), (5, 5), (9, 3), (1_279_000, 9_999_999)):
        assert b"".join(store.stream("data", start, end)) == data[start:end]
    assert list(store.stream("data", len(data))) == []
    assert list(store.stream("data", len(data) + 5, len(data) + 9)) == []
    assert [len(piece) for piece in store.stream("data", chunk=500_000)] == [500_000, 500_000, 280_000]
    for wrong in ((-1, None, 1), (0, None, 0)):
        with pytest.raises(ValueError, match="negative"):
            store.stream("data", *wrong)


def test_a_range_may_be_longer_than_one_request(store: Store) -> None:
    data = secrets.token_bytes(MIB) * 20
    put(store, "data", data)
    assert get(store, "data") == data
    assert b"".join(store.stream("data", 3, 17 * MIB + 1, chunk=3 * MIB + 1)) == data[3 : 17 * MIB + 1]


def test_many_small_writes_make_one_object(store: Store) -> None:
    rows = [b'{"custom_id": "row-%d"}\n' % n for n in range(100_000)]
    with store.writer(ODD) as out:
        for row in rows:
            out.write(row)
        assert out.bytes_written == sum(map(len, rows))
    assert get(store, ODD) == b"".join(rows)


async def test_an_object_appears_only_when_its_block_ends(store: Store) -> None:
    with store.writer("late") as out:
        out.write(b"x" * 20 * MIB)
        assert await store.size("late") is None
        assert await store.list() == []
    assert await store.size("late") == 20 * MIB


@pytest.mark.parametrize("size", [10, 20 * MIB])
async def test_an_aborted_writer_leaves_nothing(store: Store, size: int, s3_server: str) -> None:
    class Stop(Exception):
        pass

    with pytest.raises(Stop), store.writer("target") as out:
        out.write(b"x" * size)
        raise Stop
    assert raw_names(store) == []
    if store.url.startswith("s3:"):
        assert "<UploadId>" not in unfinished_uploads(store, s3_server)


async def test_an_aborted_writer_leaves_the_object_before_it(store: Store) -> None:
    await store.write("target", b"before")
    with pytest.raises(KeyboardInterrupt), store.writer("target") as out:
        out.write(b"after")
        raise KeyboardInterrupt
    assert await store.read("target") == b"before"


async def test_an_object_that_is_made_safe_later_is_there_at_once(store: Store) -> None:
    paths = [f"many/{number}/{name}" for number in range(40) for name in ("a", "b")]
    for path in paths:
        with store.writer(path, durable=False) as out:
            out.write(path.encode())
    with store.writer("many/0/a", durable=False):
        pass  # replaced, by nothing
    store.sync(paths)
    assert await store.read("many/0/a") == b""
    assert [(await store.read(path)).decode() for path in paths[1:]] == paths[1:]
    assert await store.list("many") == sorted((path, 0 if path == "many/0/a" else len(path)) for path in paths)


async def test_an_aborted_writer_leaves_nothing_where_safety_comes_later(store: Store) -> None:
    with pytest.raises(RuntimeError), store.writer("a", durable=False) as out:
        out.write(b"x" * 3 * MIB)
        raise RuntimeError
    assert await store.list() == []


def test_what_is_to_be_made_safe_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere: No such file"):
        Store.open(str(tmp_path)).sync(["nowhere"])


def test_an_error_in_the_block_comes_out_as_it_is(store: Store) -> None:
    with pytest.raises(FileNotFoundError), store.writer("target"):
        raise FileNotFoundError(errno.ENOENT, "somebody else's file")


def test_an_object_can_be_read_as_a_file(store: Store) -> None:
    put(store, "in", b"rows")
    with store.local("in") as file:
        assert file.read_bytes() == b"rows"
    assert file.exists() == store.url.startswith("file:")
    assert get(store, "in") == b"rows"


async def test_objects_are_joined_in_order(store: Store) -> None:
    await store.write("1", b"one\n")
    await store.write("2", b"")
    await store.write("3", b"three\n")
    assert store.concat("all", ["1", "2", "3"]) == 10
    assert await store.read("all") == b"one\nthree\n"
    assert store.concat("none", []) == 0
    assert await store.read("none") == b""
    assert store.concat("all", ["all", "1"]) == 14
    assert await store.read("all") == b"one\nthree\none\n"


async def test_a_joined_object_outlives_its_only_source(store: Store) -> None:
    await store.write("1", b"one\n")
    for _ in range(2):  # the second time the target is there already
        assert store.concat("deep/er/all", ["1"]) == 4
    assert store.concat("1", ["1"]) == 4
    await store.write("1", b"changed")
    assert await store.read("deep/er/all") == b"one\n"
    await store.delete("1")
    assert await store.read("deep/er/all") == b"one\n"
    assert raw_names(store) == ["deep/er/all"]


async def test_joining_tells_how_far_it_is_and_can_be_stopped(store: Store) -> None:
    for number in range(3):
        put(store, f"{number}", secrets.token_bytes(MIB) * (number + 1))
    told: list[int] = []
    assert store.concat("all", ["0", "1", "2"], told.append) == sum(told) == 6 * MIB
    assert len(told) >= 3
    assert get(store, "all") == get(store, "0") + get(store, "1") + get(store, "2")

    def stop(count: int) -> None:
        told.append(count)
        raise KeyError

    told.clear()
    with pytest.raises(KeyError):
        store.concat("all", ["2", "1", "0"], stop)
    assert len(told) == 1
    assert await store.size("all") == 6 * MIB  # what was there stays
    with pytest.raises(KeyError):
        store.concat("new", ["0", "1"], stop)
    assert raw_names(store) == ["0", "1", "2", "all"]


@pytest.mark.parametrize("stretch", [0, 1, 700_000])
def test_joining_goes_on_by_hand_where_the_kernel_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretch: int
) -> None:
    """A file system may refuse to copy (network, other device), at once or later, or say that there is nothing."""
    store = Store.open(str(tmp_path / "store"))
    parts = [secrets.token_bytes(MIB), b"", secrets.token_bytes(3 * MIB + 17)]
    for number, data in enumerate(parts):
        put(store, f"{number}", data)
    asked = 0

    def copy_file_range(source: int, target: int, count: int) -> int:
        nonlocal asked
        asked += 1
        if asked % 2 == 0:
            if stretch == 1:
                return 0
            raise OSError(errno.EXDEV, "no")
        data = os.read(source, min(stretch, count))
        return os.write(target, data)

    monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    assert store.concat("all", ["0", "1", "2"]) == 4 * MIB + 17
    assert get(store, "all") == b"".join(parts)
    assert asked
    monkeypatch.delattr(os, "copy_file_range")
    assert store.concat("again", ["2", "0"]) == 4 * MIB + 17
    assert get(store, "again") == parts[2] + parts[0]


async def test_a_link_is_not_joined_as_a_link(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "elsewhere").write_bytes(b"rows")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "elsewhere")
    assert store.concat("all", ["link"]) == 4
    (tmp_path / "elsewhere").unlink()
    assert await store.read("all") == b"rows"


def test_a_download_that_finds_no_room_is_told(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(s3_url)
    put(store, "in", b"rows")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(StoreError, match="temporary folder"), store.local("in"):
        raise AssertionError("there is nothing to read")


def test_a_file_is_put_whole(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(b"row\n" * 1_000_000)
    assert store.put_file("inputs/in.jsonl", file) == 4_000_000
    file.unlink()
    assert get(store, "inputs/in.jsonl") == b"row\n" * 1_000_000


def test_memory_stays_flat_however_large_the_object(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "large"))
    piece = secrets.token_bytes(MIB)
    tracemalloc.start()
    try:
        with store.writer("large") as out:
            for _ in range(200):
                out.write(piece)
        assert sum(map(len, store.stream("large"))) == 200 * MIB
        assert store.concat("joined", ["large", "large"]) == 400 * MIB
        assert store.put_file("again", tmp_path / "large" / "large") == 200 * MIB
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A few buffers of 1 MiB: the writer's, the reader's, and one on its way.
    assert peak < 8 * MIB


# --- names


@pytest.mark.parametrize("path", ["plain", "a/b.jsonl", ODD, "it's (1) [2] {3} #4 ?5 &6 ~7 *8 !9,0;1$2"])
async def test_a_uri_leads_back_to_its_path(store: Store, path: str) -> None:
    assert store.uri(path).startswith(store.url + "/")
    assert store.path(store.uri(path)) == path
    await store.write(path, b"x")
    assert await store.list() == [(path, 1)]
    assert await store.read(path) == b"x"


def test_the_uri_of_the_store_is_the_empty_path(store: Store) -> None:
    assert store.uri("") == store.url
    assert store.path(store.url) == store.path(store.url + "/") == ""
    assert store.path(store.url + "/folder/") == "folder"


BAD_PATHS = ["", "/", "/etc/passwd", "..", "a/../b", "../b", "a/..", ".", "a/./b", "a//b", "a/", "a\\b", "a\nb", "a\0b"]
BAD_PATHS += ["%2e%2e/b", "a%2fb", "%252e%252e/b", ".durabatch-x", "a/.durabatch-x/b", "\ud800"]


@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
async def test_a_path_cannot_leave_the_store(store: Store, path: str) -> None:
    with pytest.raises(InvalidSpec):
        await store.read(path)
    with pytest.raises(InvalidSpec):
        await store.write(path, b"")
    with pytest.raises(InvalidSpec):
        await store.size(path)
    with pytest.raises(InvalidSpec):
        await store.delete(path)
    for blocking in (store.stream, store.writer, store.local):
        with pytest.raises(InvalidSpec):
            blocking(path)
    with pytest.raises(InvalidSpec):
        store.put_file(path, Path(__file__))
    with pytest.raises(InvalidSpec):
        store.concat(path, [])
    with pytest.raises(InvalidSpec):
        store.concat("target", [path])
    if path:
        with pytest.raises(InvalidSpec):
            store.uri(path)
        with pytest.raises(InvalidSpec):
            await store.list(path + "/x")


@pytest.mark.parametrize(
    "escape",
    [
        "{parent}",
        "{url}-evil/x",
        "{url}/../x",
        "{url}/a/../../x",
        "{url}/%2e%2e/x",
        "{url}/%2E%2E%2Fx",
        "{url}/%252e%252e/x",
        "{url}//x",
        "{url}/a//x",
        "{url}/./x",
        "{url}/a\\..\\..\\x",
        "{url}/a%5c..%5cx",
        "{url}/a%00b",
        "{url}/a%ff",
        "{url}/.durabatch-check",
        "plain/path",
        "",
        "/etc/passwd",
        "file:///etc/passwd",
        "file://other-host/etc/passwd",
        "s3://other-bucket/some/prefix/x",
        "gs://bucket/some/prefix/x",
        "https://example.com/x",
    ],
)
def test_a_uri_outside_the_store_is_refused(store: Store, escape: str) -> None:
    uri = escape.format(url=store.url, parent=store.url.rpartition("/")[0] + "/x")
    with pytest.raises(InvalidSpec):
        store.path(uri)


def test_a_refused_uri_is_repeated_without_its_credentials(store: Store) -> None:
    with pytest.raises(InvalidSpec) as caught:
        store.path("https://user:hunter2@example.com/x?sig=hunter2")
    assert "hunter2" not in caught.value.message


def test_a_file_uri_may_spell_its_path_in_other_ways(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "a store"))
    assert store.path(f"file://{tmp_path}/a store/x:y") == "x:y"
    assert store.path(f"FILE://localhost{tmp_path}/a%20store/x%3Ay") == "x:y"
    assert store.path((tmp_path / "a store" / "x:y").as_uri()) == "x:y"
    for part in ("?query", "#fragment"):
        with pytest.raises(InvalidSpec):
            store.path(f"{store.url}/x{part}")


# --- opening


def test_a_relative_folder_is_made_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open("data/here/")
    assert (tmp_path / "data" / "here").is_dir()
    assert store.url == (tmp_path / "data" / "here").as_uri()
    assert Store.open(store.url + "/").url == store.url


def test_a_cloud_url_is_canonical(s3_url: str) -> None:
    assert Store.open("S3://bucket/a/b/").url == "s3://bucket/a/b"
    assert Store.open("s3://bucket/").url == Store.open("s3://bucket").url == "s3://bucket"
    assert Store.open("s3://bucket").path("s3://bucket/a") == "a"


def test_google_and_azure_open_from_their_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert Store.open("gs://bucket/a").uri("b c") == "gs://bucket/a/b c"
    assert Store.open("az://container/a").uri("b") == "az://container/a/b"
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    with pytest.raises(ConfigurationError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        Store.open("az://container/a")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a\0b", "empty"),
        ("/", "root of the file system"),
        ("file:///", "root of the file system"),
        ("file://host/folder", "names no host"),
        ("file:///%ff", "names no host"),
        ("s3:/bucket", "too few slashes"),
        ("s3://", "s3 URL is wrong"),
        ("s3:///bucket", "s3 URL is wrong"),
        ("s3://bucket/../x", "s3 URL is wrong"),
        ("s3://bucket/a//b", "s3 URL is wrong"),
        ("s3://id:hunter2@bucket/x", "credentials into the environment"),
        ("s3://bucket?secret=hunter2", "credentials into the environment"),
        ("https://example.com/x", "cannot live at https"),
        ("memory:///", "cannot live at memory"),
    ],
)
def test_a_url_that_names_no_store_is_refused_in_a_sentence(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Store.open(url)
    assert "\n" not in caught.value.message
    assert "hunter2" not in caught.value.message


def test_a_file_where_the_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="a file is where a folder should be"):
        Store.open(str(tmp_path / "file"))
    with pytest.raises(StoreError, match="a file is where a folder should be"):
        Store.open(str(tmp_path / "file" / "below"))


# --- failures


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_what_the_disk_says_becomes_a_sentence(code: int, words: str) -> None:
    # A disk cannot be filled in a test, so this one asks the translation itself.
    with (
        pytest.raises(StoreError, match=f"^The store cannot write file:///a: {words}.*[.]$") as caught,
        disk("write", "file:///a"),
    ):
        raise OSError(code, os.strerror(code))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.retryable


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise there")
def test_a_folder_without_permission_says_what_to_do(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, sys\n"
        "from durabatch.activities.store import Store\n"
        "from durabatch.contract import StoreError\n"
        "store = Store.open(sys.argv[1])\n"
        "os.chmod(sys.argv[1], 0o500)\n"
        "if os.geteuid() == 0: os.seteuid(65534)  # root may write everywhere\n"
        "try: asyncio.run(store.check())\n"
        "except StoreError as error: print(error.message)\n"
    )
    folder = tmp_path / "store"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert "permission denied" in done.stdout
    assert "Name a folder that this user may write" in done.stdout


async def test_a_name_too_long_for_the_disk_is_told(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    with pytest.raises(StoreError, match="the name is too long"):
        await store.write("x" * 300, b"")
    assert raw_names(store) == []


async def test_a_missing_bucket_is_told_and_is_no_missing_object(s3_url: str) -> None:
    store = Store.open("s3://no-such-bucket/prefix")
    with pytest.raises(StoreError, match="the bucket does not exist") as caught:
        await store.read("a")
    assert not isinstance(caught.value, ObjectNotFound)
    with pytest.raises(StoreError, match="the bucket does not exist"), store.writer("a") as out:
        out.write(b"x" * 20 * MIB)
    with pytest.raises(StoreError, match="the bucket does not exist"):
        await store.list()
    with pytest.raises(StoreError, match="Check the bucket's name"):
        await store.check()


async def test_an_unreachable_service_is_told_without_its_keys(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        await Store.open(s3_url).read("a")
    assert caught.value.retryable
    assert "\n" not in caught.value.message
    assert "test-id" not in caught.value.message
    assert "test-secret" not in caught.value.message


def test_an_object_that_changes_while_it_is_read_is_not_mixed(s3_url: str) -> None:
    store = Store.open(s3_url)
    put(store, "a", b"1" * 20 * MIB)
    pieces = store.stream("a")
    next(pieces)
    put(store, "a", b"2" * 20 * MIB)
    with pytest.raises(StoreError, match="it changed while it was being read"):
        list(pieces)


def test_a_killed_process_leaves_nothing_that_can_be_read(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from durabatch.activities.store import Store\n"
        "with Store.open(sys.argv[1]).writer('target') as out:\n"
        "    out.write(b'x' * 5_000_000)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert done.returncode == -9
    store = Store.open(str(tmp_path))
    with pytest.raises(ObjectNotFound):
        get(store, "target")
    litter = list(tmp_path.iterdir())
    assert len(litter) == 1
    # A writer may still be at work on a young one; a day-old one is cleared away by the next writer.
    put(store, "other", b"")
    assert litter[0].exists()
    yesterday = time.time() - 25 * 3600
    os.utime(litter[0], (yesterday, yesterday))
    put(store, "other", b"")
    assert not litter[0].exists()


def test_what_a_killed_process_left_is_cleared_away_and_a_folder_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    store = Store.open(str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    litter = tmp_path / "a" / ".durabatch-0123456789abcdef"
    litter.touch()
    os.utime(litter, (0, 0))
    for number in range(20):
        put(store, f"a/{number}", b"")
        put(store, f"b/{number}", b"")
    assert not litter.exists()
    assert listed == [str(tmp_path / "a"), str(tmp_path / "b")]


def put_behind_its_back(store: Store, s3_server: str, name: str) -> None:
    if store.url.startswith("file:"):
        Path(store_folder(store), name).touch()
    else:
        url = f"{s3_server}/{store.url.removeprefix('s3://')}/{quote(name)}"
        httpx2.put(url, content=b"x").raise_for_status()


def unfinished_uploads(store: Store, s3_server: str) -> str:
    """Return S3's own list of them, as XML."""
    answer = httpx2.get(f"{s3_server}/{store.url.split('/')[2]}", params={"uploads": ""})
    assert "ListMultipartUploadsResult" in answer.text
    return answer.text


def store_folder(store: Store) -> str:
    return unquote(urlsplit(store.url).path)


def raw_names(store: Store) -> list[str]:
    """Return the name of everything in the store, temporary files included."""
    if store.url.startswith("file:"):
        root = Path(store_folder(store))
        return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())
    return sorted(entry.path for entry in store._backend.list(""))


async def test_a_number_is_written_again_and_again(store: Store) -> None:
    for numbers in ([7, 12_345, 12_346], [3]):  # the second one begins anew
        number = await store.number("a/mark")
        for value in numbers:
            await number.set(value)
            assert int(await store.read("a/mark")) == value
        number.close()
    assert [path for path, _ in await store.list("a")] == ["a/mark"]
