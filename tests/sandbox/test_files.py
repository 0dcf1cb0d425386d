"""OpenAI's Files API, as its own client sees it."""

import asyncio
import io
import os
import time

import aiohttp
import openai
import pytest


async def test_an_uploaded_file_can_be_described_listed_downloaded_and_deleted(gpt, refusal):
    file = await gpt.files.create(file=("rows.jsonl", b'{"n":1}\n[2]\n'), purpose="batch")
    assert (file.object, file.bytes, file.filename, file.purpose) == ("file", 12, "rows.jsonl", "batch")
    assert file.id.startswith("file-") and file.expires_at > time.time() + 29 * 24 * 3600
    assert await gpt.files.retrieve(file.id) == file
    assert [listed async for listed in gpt.files.list()] == [file]
    assert (await gpt.files.content(file.id)).content == b'{"n":1}\n[2]\n'
    assert (await gpt.files.delete(file.id)).deleted
    for gone in (gpt.files.retrieve(file.id), gpt.files.content(file.id), gpt.files.delete(file.id)):
        assert (await refusal(gone)).status_code == 404
    assert [listed async for listed in gpt.files.list()] == []


async def test_a_download_goes_on_where_a_range_asks(gpt):
    file = await gpt.files.create(file=("rows.txt", b"0123456789"), purpose="user_data")
    rest = await gpt.files.content(file.id, extra_headers={"Range": "bytes=4-"})
    assert (rest.response.status_code, rest.content) == (206, b"456789")
    assert rest.response.headers["content-range"] == "bytes 4-9/10"


async def test_a_listing_has_pages_orders_and_purposes(gpt):
    ids = [(await gpt.files.create(file=(f"{i}.jsonl", b"{}"), purpose="batch")).id for i in range(5)]
    other = await gpt.files.create(file=("other.txt", b"x"), purpose="user_data")
    assert [file.id async for file in gpt.files.list(limit=2)] == [other.id, *reversed(ids)]
    assert [file.id async for file in gpt.files.list(limit=2, order="asc", purpose="batch")] == ids
    assert (await gpt.files.list(limit=2)).has_more


async def test_a_file_may_live_shorter_than_thirty_days(gpt):
    expires_after = {"anchor": "created_at", "seconds": 3600}
    file = await gpt.files.create(file=("rows.jsonl", b"{}"), purpose="batch", expires_after=expires_after)
    assert file.expires_at - file.created_at == 3600


@pytest.mark.parametrize(
    ("file", "options"),
    [
        (("rows.jsonl", b""), {"purpose": "batch"}),
        (("rows.jsonl", b"\n{}\n"), {"purpose": "batch"}),
        (("rows.jsonl", b"{malformed json"), {"purpose": "batch"}),
        (("rows.jsonl", b'{"n":1}\n\xff\xfe'), {"purpose": "batch"}),
        (("rows.jsonl", b'{"n":"\xc3'), {"purpose": "batch"}),
        (("rows.jsonl", b"{}"), {"purpose": "holiday"}),
        (("rows.jsonl", b"{}"), {"purpose": "batch", "expires_after": {"anchor": "created_at", "seconds": 3599}}),
        (("rows.jsonl", b"{}"), {"purpose": "batch", "expires_after": {"anchor": "birth", "seconds": 3600}}),
    ],
)
async def test_an_upload_that_openai_would_refuse_is_refused(gpt, refusal, file, options):
    error = await refusal(gpt.files.create(file=file, **options))
    assert isinstance(error, openai.BadRequestError) and error.type == "invalid_request_error"
    assert [listed async for listed in gpt.files.list()] == []


async def test_an_upload_is_judged_by_its_content_and_not_by_its_name(gpt):
    for name in ("upload", "rows.txt"):
        assert (await gpt.files.create(file=(name, b'{"n":1}\n{not json'), purpose="batch")).filename == name
    assert (await gpt.files.create(file=io.BytesIO(b"{}"), purpose="batch")).status == "processed"


async def test_downloads_can_be_as_plain_as_openais(gpt, sandbox):
    await sandbox.settings(plain_downloads=True)
    content = b'{"n":"' + b"x" * 600_000 + b'"}\n'
    file = await gpt.files.create(file=("rows.jsonl", content), purpose="batch")
    got = await gpt.files.content(file.id, extra_headers={"Range": "bytes=4-"})
    assert (got.response.status_code, got.content) == (200, content)
    headers = got.response.headers
    assert not {"accept-ranges", "content-length", "content-range"} & set(headers)
    assert headers["content-type"] == "application/octet-stream"


async def test_the_purpose_may_come_after_the_file(sandbox):
    form = aiohttp.FormData()
    form.add_field("file", b"{}", filename="rows.jsonl")
    form.add_field("purpose", "batch")
    headers = {"Authorization": "Bearer sk-test"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{sandbox.url}/v1/files", data=form, headers=headers) as response,
    ):
        assert response.status == 200
        assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 10_001}, {"order": "sideways"}])
async def test_a_listing_that_makes_no_sense_is_refused(gpt, refusal, query):
    assert (await refusal(gpt.files.list(**query))).status_code == 400


HEAD = (
    "POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
    "Content-Type: multipart/form-data; boundary=edge\r\nContent-Length: 1000\r\n\r\n"
)
PART = '--edge\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\nhalf'


async def test_an_upload_whose_client_hangs_up_leaves_nothing_behind(sandbox, tmp_path, caplog):
    _, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
    writer.write((HEAD + PART).encode())
    while not os.listdir(tmp_path / "state" / "files"):
        await sandbox.books()
    writer.close()
    while os.listdir(tmp_path / "state" / "files"):
        await sandbox.books()
    assert (await sandbox.books())["files"] == [] and caplog.records == []


@pytest.mark.parametrize("form", ["application/json", "multipart/form-data", "multipart/form-data; boundary=edge"])
async def test_a_body_that_is_no_form_is_refused(sandbox, form):
    headers = {"Authorization": "Bearer k", "Content-Type": form}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{sandbox.url}/v1/files", data=b"abc") as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"
