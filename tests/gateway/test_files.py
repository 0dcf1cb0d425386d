"""`/v1/files` as the official client sees it, with every answer validated by its types."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import openai
import pytest

from durabatch.activities.gateway.collecting import collect
from durabatch.activities.gateway.files import register
from durabatch.activities.store import Store
from durabatch.activities.store._folder import Folder
from durabatch.contract.gateway import FileRecord
from durabatch.contract.gateway_layout import DUE, Listed, content_path, due_path, index_path, make_id
from durabatch.gateway.errors import ApiError
from durabatch.gateway.files import lifetime
from durabatch.gateway.index import objects

from .conftest import LINE, Door, Opener


async def test_a_file_is_made_found_read_and_deleted(door: Door) -> None:
    before = int(time.time())
    made = await door.openai.files.create(file=("rows.jsonl", LINE), purpose="batch")
    assert (made.object, made.filename, made.bytes, made.purpose) == ("file", "rows.jsonl", len(LINE), "batch")
    assert before <= made.created_at <= time.time()
    assert (made.status, made.expires_at) == ("processed", None)

    assert await door.openai.files.retrieve(made.id) == made
    assert (await door.openai.files.content(made.id)).content == LINE
    deleted = await door.openai.files.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "file")

    for call in (door.openai.files.retrieve, door.openai.files.content, door.openai.files.delete):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {made.id}") as gone:
            await call(made.id)
        assert (gone.value.type, gone.value.param, gone.value.code) == ("invalid_request_error", "id", None)
    assert door.objects() == []


async def test_a_file_without_a_name_is_taken_by_its_content(door: Door) -> None:
    made = await door.openai.files.create(file=io.BytesIO(LINE), purpose="batch")
    assert made.filename == "upload"


async def test_a_file_may_come_before_its_purpose(door: Door) -> None:
    parts = [("file", ("rows.jsonl", LINE)), ("purpose", (None, "batch"))]
    answer = await door.http.post("/v1/files", files=parts)
    assert (answer.status_code, answer.json()["purpose"]) == (200, "batch")


async def test_a_batchs_files_expire_after_any_json_number_that_is_whole() -> None:
    assert lifetime({"anchor": "created_at", "seconds": 7200.0}) == 7200
    for seconds in (7200.5, True, "7200", 3599.0, float("inf"), float("nan"), None):
        with pytest.raises(ApiError, match="expected an integer from 3600 to 2592000"):
            lifetime({"anchor": "created_at", "seconds": seconds})


async def test_a_file_that_expires_is_gone_when_its_time_is_over(door: Door) -> None:
    made = await door.openai.files.create(
        file=LINE, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600
    id = await put(door, 1, expires_at=int(time.time()) - 1)
    with pytest.raises(openai.NotFoundError):
        await door.openai.files.retrieve(id)
    assert [file.id async for file in door.openai.files.list()] == [made.id]


async def test_files_whose_time_is_over_and_uploads_that_a_kill_broke_off_are_collected(door: Door) -> None:
    now = int(time.time())
    kept, later, over, old = [
        await put(door, number, expires_at=at) for number, at in enumerate((None, now + 9000, now - 1, now - 999_999))
    ]
    broken = make_id(Listed.FILES, datetime.now(UTC) - timedelta(days=8), "b" * 13)
    await door.store.write(content_path("default", broken), b"half")
    for days, id in ((-1, broken), (-1, kept), (3, make_id(Listed.FILES, datetime.now(UTC), "c" * 13))):
        # What a gateway notes before an upload, and takes back after it unless it is killed.
        await door.store.write(due_path((datetime.now(UTC) + timedelta(days=days)).date(), "default", id), b"")

    assert (await collect(door.store)).files == 3
    assert [file.id async for file in door.openai.files.list()] == [later, kept]
    assert not [path for path in door.objects() if any(id in path for id in (over, old, broken))]
    assert len(await door.store.list(DUE)) == 2  # the one that expires later, and the upload under way
    assert await collect(door.store) == (0, 0)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "purpose", "Missing required parameter: 'purpose'."),
        ({"purpose": "joy"}, "purpose", "'joy' is not one of ["),
        ({"purpose": "batch", "expires_after[seconds]": "3600"}, "expires_after.anchor", "'created_at'"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at"}, "expires_after.seconds", "from 3600 to 2592000"),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
            "expires_after.seconds",
            "from 3600 to 2592000",
        ),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_kept(
    door: Door, fields: dict[str, str], param: str, words: str
) -> None:
    answer = await door.http.post("/v1/files", data=fields, files={"file": ("rows.jsonl", LINE)})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert words in error["message"]
    assert door.objects() == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"{malformed json", "the first line is not valid JSON"),
        (b"\n\n  \n", "the first line is not valid JSON"),
        (b"[" * 100_000 + b"\n", "the first line is not valid JSON"),
        (b"\xff\xfe{\x00", "Must be utf-8 encoded"),
        (LINE * 10_000 + b"\xc3", "Must be utf-8 encoded"),
    ],
    ids=["empty", "no JSON", "blank", "nested", "UTF-16", "cut in a character"],
)
async def test_what_cannot_be_rows_is_refused_for_a_batch_and_kept_for_other_purposes(
    door: Door, data: bytes, words: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        await door.openai.files.create(file=("rows.jsonl", data), purpose="batch")
    assert door.objects() == []
    made = await door.openai.files.create(file=("picture", data), purpose="user_data")
    assert (await door.openai.files.content(made.id)).content == data


async def test_a_byte_order_mark_and_blank_lines_before_the_first_row_are_fine(door: Door) -> None:
    made = await door.openai.files.create(file=b"\xef\xbb\xbf\n\n" + LINE.rstrip(), purpose="batch")
    assert made.bytes == len(LINE) + 4


async def test_the_list_is_read_page_by_page_in_either_order(door: Door) -> None:
    ids = [await put(door, number, purpose="batch" if number % 2 else "user_data") for number in range(7)]
    assert [file.id async for file in door.openai.files.list(limit=2)] == ids[::-1]
    assert [file.id async for file in door.openai.files.list(limit=3, order="asc")] == ids
    assert [file.id async for file in door.openai.files.list(limit=1, purpose="batch")] == [ids[5], ids[3], ids[1]]

    page = (await door.http.get("/v1/files", params={"limit": 2, "after": ids[5]})).json()
    assert [file["id"] for file in page["data"]] == [ids[4], ids[3]]
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == ("list", ids[4], ids[3], True)

    # The place of an id in the list is known when its file is gone.
    await door.openai.files.delete(ids[3])
    page = (await door.http.get("/v1/files", params={"limit": 3, "after": ids[3]})).json()
    assert [file["id"] for file in page["data"]] == [ids[2], ids[1], ids[0]]
    assert page["has_more"] is False
    page = (await door.http.get("/v1/files", params={"after": ids[0]})).json()
    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_a_purpose_that_few_files_have_is_found_without_looking_at_the_others(door: Door) -> None:
    for number in range(30):
        await put(door, number)
    rare = await put(door, 99, purpose="fine-tune")
    for path in door.objects():  # the others' records cannot be read, and they are in no list
        if path.endswith("meta.json") and rare not in path:
            (door.folder / path).write_bytes(b"{")
    found = (await door.http.get("/v1/files", params={"purpose": "fine-tune"})).json()
    assert ([file["id"] for file in found["data"]], found["has_more"]) == ([rare], False)
    for purpose in ("vision", "", "../batch", "batch/0000", "x" * 5000, "\x00"):
        answer = await door.http.get("/v1/files", params={"purpose": purpose})
        assert (answer.status_code, answer.json()["data"], answer.json()["has_more"]) == (200, [], False)
    await door.openai.files.delete(rare)
    assert (await door.http.get("/v1/files", params={"purpose": "fine-tune"})).json()["data"] == []
    assert not [path for path in door.objects() if rare in path]


async def test_a_page_is_filled_past_files_that_are_gone_and_never_empty_with_more(door: Door) -> None:
    ids = [await put(door, number, expires_at=1 if 1 <= number <= 5 else None) for number in range(7)]
    first = (await door.http.get("/v1/files", params={"limit": 1})).json()
    assert ([file["id"] for file in first["data"]], first["has_more"]) == ([ids[6]], True)
    rest = (await door.http.get("/v1/files", params={"limit": 1, "after": ids[6]})).json()
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == ([ids[0]], False)


async def test_a_page_behind_very_many_files_that_are_gone_takes_few_looks(tmp_path: Path) -> None:
    class Counting(Folder):
        looks = 0

        def page(self, folder: str, after: str | None, limit: int, backwards: bool) -> list[str]:
            self.looks += 1
            return super().page(folder, after, limit, backwards)

    backend = Counting(str(tmp_path))
    store, start = Store("file:///x", backend), datetime(2020, 1, 1, tzinfo=UTC)
    ids = [make_id(Listed.FILES, start + timedelta(seconds=n), f"{n:013x}") for n in range(1500)]
    for id in ids:
        path = tmp_path / index_path("default", id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    async def find(asked: Sequence[str]) -> list[str | None]:
        return [id if id in ids[:2] else None for id in asked]

    found = await objects(find, store, "default", Listed.FILES, after=None, limit=1)
    assert (found, backend.looks <= 8) == (([ids[1]], True), True)


@pytest.mark.parametrize(
    ("query", "status", "param", "code"),
    [
        ({"limit": "0"}, 400, "limit", "integer_below_min_value"),
        ({"limit": "-1"}, 400, "limit", "integer_below_min_value"),
        ({"limit": "10001"}, 400, "limit", "integer_above_max_value"),
        ({"limit": "9" * 5000}, 400, "limit", "integer_above_max_value"),
        ({"limit": "some"}, 400, "limit", "invalid_type"),
        ({"order": "random"}, 400, "order", "invalid_value"),
        ({"after": "batch_0123456789abcdef01234567"}, 404, "after", None),
        ({"after": "../../other"}, 404, "after", None),
    ],
)
async def test_a_wrong_query_is_refused(
    door: Door, query: dict[str, str], status: int, param: str, code: str | None
) -> None:
    answer = await door.http.get("/v1/files", params=query)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=0-3", 206, slice(0, 4)),
        ("bytes=5-", 206, slice(5, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=3-999999", 206, slice(3, None)),
        ("bytes=-999999", 206, slice(0, None)),
        ("bytes=0-1,3-4", 200, slice(None)),
        ("rows=0-1", 200, slice(None)),
        ("bytes=4-2", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
    ],
)
async def test_a_range_of_the_content_can_be_asked_for(door: Door, asked: str, status: int, expected: slice) -> None:
    id = (await door.openai.files.create(file=LINE, purpose="batch")).id
    answer = await door.http.get(f"/v1/files/{id}/content", headers={"range": asked})
    assert (answer.status_code, answer.content) == (status, LINE[expected])
    start, end, _ = expected.indices(len(LINE))
    shown = f"bytes {start}-{end - 1}/{len(LINE)}" if status == 206 else None
    assert answer.headers.get("content-range") == shown


async def test_a_range_outside_of_the_content_is_416(door: Door) -> None:
    id = (await door.openai.files.create(file=LINE, purpose="batch")).id
    for asked in (f"bytes={len(LINE)}-", "bytes=-0"):
        answer = await door.http.get(f"/v1/files/{id}/content", headers={"range": asked})
        assert (answer.status_code, answer.json()["error"]["code"]) == (416, "invalid_range")
        assert answer.headers["content-range"] == f"bytes */{len(LINE)}"


async def test_a_download_goes_on_where_it_was_broken_off_only_if_it_is_the_same_file(door: Door) -> None:
    id = (await door.openai.files.create(file=LINE, purpose="batch")).id
    head = await door.http.head(f"/v1/files/{id}/content")
    assert (head.headers["content-length"], head.content) == (str(len(LINE)), b"")
    same = {"range": "bytes=9-", "if-range": head.headers["etag"]}
    assert (await door.http.get(f"/v1/files/{id}/content", headers=same)).content == LINE[9:]
    other = {"range": "bytes=9-", "if-range": '"file-of-another-kind"'}
    assert (await door.http.get(f"/v1/files/{id}/content", headers=other)).content == LINE


async def test_a_download_that_the_store_does_not_finish_is_not_taken_for_the_whole(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    data = LINE * 20_000
    id = (await door.openai.files.create(file=data, purpose="batch")).id
    await door.store.write(content_path("default", id), data[:1_000_000])
    with pytest.raises(httpx2.RemoteProtocolError):
        await door.http.get(f"/v1/files/{id}/content")
    assert "an answer was broken off" in caplog.text
    await door.store.delete(content_path("default", id))
    gone = await door.http.get(f"/v1/files/{id}/content")
    assert (gone.status_code, gone.json()["error"]["message"]) == (404, f"No such File object: {id}")


async def test_a_client_that_goes_away_in_a_download_is_no_error(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    id = (await door.openai.files.create(file=LINE * 300_000, purpose="batch")).id
    async with door.http.stream("GET", f"/v1/files/{id}/content") as answer:
        async for _ in answer.aiter_raw():
            break
    while "files.content" not in (await door.http.get("/metrics")).text:
        await asyncio.sleep(0.02)
    assert caplog.records == []


async def test_a_name_that_is_no_file_name_stays_what_it_is(door: Door) -> None:
    name = '../../etc/passwd\u202e "; x=é.jsonl'
    made = await door.openai.files.create(file=(name, LINE), purpose="batch")
    answer = await door.openai.files.with_raw_response.content(made.id)
    assert "/" not in answer.headers["content-disposition"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert all(path.startswith("~gateway/default/") for path in door.objects())


async def test_many_uploads_at_once_are_all_taken_in_turn(opened: Opener) -> None:
    async with opened("uploads = 2") as door:
        made = await asyncio.gather(*(door.openai.files.create(file=LINE, purpose="batch") for _ in range(12)))
        assert {file.id async for file in door.openai.files.list()} == {file.id for file in made}


async def put(door: Door, second: int, *, purpose: str = "batch", expires_at: int | None = None) -> str:
    """Put a file into the store that was made at a second of 2020, and return its id."""
    at = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=second, days=second)
    id = make_id(Listed.FILES, at, f"{second:013x}")
    with door.store.writer(content_path("default", id)) as out:
        out.write(LINE)
    record = FileRecord(
        id=id,
        bytes=len(LINE),
        created_at=int(at.timestamp()),
        filename="x.jsonl",
        purpose=purpose,
        expires_at=expires_at,
    )
    await register(door.store, "default", record)
    return id
