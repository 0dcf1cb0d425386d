"""OpenAI's adapter, call by call, against the sandbox over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from durabatch.activities.providers import (
    Content,
    Creation,
    Provider,
    ProviderSettings,
    ResultFile,
    Wanted,
    open_provider,
)
from durabatch.contract import (
    AuthenticationFailed,
    ProviderError,
    ProviderRefused,
    ProviderStatus,
    ProviderUnavailable,
    QueueFull,
    RateLimited,
    RowStatus,
)
from durabatch.contract.steps import Snapshot
from durabatch.sandbox import Sandbox

CHAT = "/v1/chat/completions"
SINCE = datetime.now(UTC) - timedelta(minutes=1)
MARKER, DIGEST = "b-1/0/1", "0123456789abcdef"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path / "state") as running:
        yield running


@asynccontextmanager
async def account(sandbox: Sandbox, key: str, **options: Any) -> AsyncIterator[Provider]:
    settings = ProviderSettings(
        name="gpt", kind="openai", base_url=f"{sandbox.url}/v1", api_key=SecretStr(key), **options
    )
    provider = open_provider(settings)
    try:
        yield provider
    finally:
        await provider.close()


@pytest.fixture
async def gpt(sandbox: Sandbox) -> AsyncIterator[Provider]:
    async with account(sandbox, "sk-test") as provider:
        yield provider


def rows(*texts: str, model: str = "gpt-4o-mini") -> list[bytes]:
    return [
        json.dumps(
            {
                "custom_id": f"row {number}",
                "method": "POST",
                "url": CHAT,
                "body": {"model": model, "messages": [{"role": "user", "content": text}]},
            }
        ).encode()
        for number, text in enumerate(texts)
    ]


async def upload(provider: Provider, *texts: str, name: str = "durabatch~b-1~0~1~d~g1.jsonl", model: str = "m") -> str:
    lines = [provider.rows.join(row, not number) for number, row in enumerate(rows(*texts, model=model))]
    lines.append(provider.rows.join(None, not lines))

    async def chunks() -> AsyncIterator[bytes]:
        for line in lines:
            yield line

    return await provider.files.upload(Content(name=name, size=len(b"".join(lines)), chunks=chunks()))


async def create(provider: Provider, file_id: str, marker: str = MARKER, digest: str = DIGEST) -> Snapshot:
    creation = Creation(marker=marker, digest=digest, endpoint=CHAT, completion_window="24h", file_id=file_id)
    return await provider.batches.create(creation)


async def submitted(provider: Provider, *texts: str, **options: Any) -> Snapshot:
    return await create(provider, await upload(provider, *(texts or ("Hi.",)), **options))


async def ended(provider: Provider, batch: Snapshot) -> Snapshot:
    while not batch.status.ended:
        batch = await provider.batches.retrieve(batch.id)
    return batch


async def read(provider: Provider, download: ResultFile, start: int = 0) -> bytes:
    return b"".join([chunk async for chunk in provider.batches.download(download, start)])


def wanted(**fields: Any) -> Wanted:
    return Wanted(**{"marker": MARKER, "digest": DIGEST, "rows": 1, "since": SINCE, **fields})


async def test_rows_go_up_run_and_come_back(gpt: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(finish_after_polls=1)
    file_id = await upload(gpt, "Hi.", "[[sandbox:rate_limited]]", "Bye.")
    batch = await create(gpt, file_id)
    assert (batch.status, batch.output) == (ProviderStatus.SUBMITTED, None)
    assert batch.created_at is not None and batch.created_at >= SINCE
    assert not (await gpt.batches.retrieve(batch.id)).status.ended
    batch = await ended(gpt, batch)
    assert (batch.status, batch.raw_status) == (ProviderStatus.COMPLETED, "completed")
    assert (batch.total, batch.completed, batch.failed) == (3, 2, 1)
    assert batch.usage is not None and batch.usage.output_tokens > 0
    found = {}
    for download in await gpt.batches.result_files(batch):
        data = await read(gpt, download)
        for line in data.splitlines():
            outcome = gpt.rows.outcome(line)
            found[outcome.custom_id] = (download.name, outcome.status)
    assert found == {
        "row 0": ("output", RowStatus.SUCCEEDED),
        "row 1": ("error", RowStatus.FAILED),
        "row 2": ("output", RowStatus.SUCCEEDED),
    }
    (file,) = [file for file in (await sandbox.books())["files"] if file["id"] == file_id]
    assert (file["filename"], file["purpose"]) == ("durabatch~b-1~0~1~d~g1.jsonl", "batch")
    (entry,) = (await sandbox.books())["batches"]
    assert entry["marker"] == MARKER


async def test_ids_stay_the_users_own(gpt: Provider) -> None:
    assert gpt.rows.keeps_ids
    assert gpt.rows.sent_id("any id", MARKER, 3) == "any id"
    assert gpt.rows.with_id(b"{}", "any id") == b"{}"
    assert gpt.rows.owns(b"anything", MARKER) is True
    (row,) = rows("Hi.", model="gpt-5")
    assert gpt.rows.model_of(row) == "gpt-5"


# --- files ---


async def test_files_are_found_again_by_the_beginning_of_their_names(gpt: Provider) -> None:
    first = await upload(gpt, "a", name="durabatch~b-1~0~1~d~g1.jsonl")
    await upload(gpt, "a", name="durabatch~b-1~0~2~d~g1.jsonl")
    second = await upload(gpt, "a", name="durabatch~b-1~0~1~d~g2.jsonl")
    found = await gpt.files.find("durabatch~b-1~0~1~", SINCE)
    assert [(file.id, file.name) for file in found] == [
        (second, "durabatch~b-1~0~1~d~g2.jsonl"),
        (first, "durabatch~b-1~0~1~d~g1.jsonl"),
    ]
    assert await gpt.files.find("durabatch~", datetime.now(UTC) + timedelta(hours=1)) == []


async def test_files_are_listed_with_their_sizes_and_times(gpt: Provider) -> None:
    file_id = await upload(gpt, "a")
    await upload(gpt, "a", name="somebody-elses.jsonl")
    (file,) = await gpt.files.find("durabatch~", SINCE)
    assert (file.id, file.name) == (file_id, "durabatch~b-1~0~1~d~g1.jsonl")
    assert file.bytes > 50
    assert file.created_at is not None and file.created_at > SINCE


async def test_a_deleted_file_is_gone_and_an_absent_one_is_fine(gpt: Provider) -> None:
    file_id = await upload(gpt, "a")
    for _ in range(2):
        await gpt.files.delete(file_id)
    assert await gpt.files.find("durabatch~", SINCE) == []


async def test_an_upload_whose_answer_was_lost_is_found_by_its_name(gpt: Provider, sandbox: Sandbox) -> None:
    await sandbox.fault("files.create", "lost_answer", times=1)
    with pytest.raises(ProviderUnavailable):
        await upload(gpt, "a", name="durabatch~b-1~0~1~d~g1.jsonl")
    (file,) = await gpt.files.find("durabatch~b-1~0~1~", SINCE)
    assert file.name == "durabatch~b-1~0~1~d~g1.jsonl"


# --- finding a batch ---


async def test_a_batch_is_found_by_marker_and_digest(gpt: Provider) -> None:
    file_id = await upload(gpt, "Hi.")
    batch = await create(gpt, file_id)
    await create(gpt, file_id, marker="b-1/0/2")
    await create(gpt, file_id, digest="another one's")
    found = await gpt.batches.find(wanted())
    assert found is not None and found.id == batch.id
    assert await gpt.batches.find(wanted(marker="b-1/1/1")) is None
    assert await gpt.batches.find(wanted(since=datetime.now(UTC) + timedelta(hours=1))) is None


async def test_batches_with_a_marker_are_listed_whoevers_they_are(gpt: Provider, sandbox: Sandbox) -> None:
    file_id = await upload(gpt, "Hi.")
    first = await create(gpt, file_id)
    second = await create(gpt, file_id, marker="b-2/0/1", digest="another one's")
    key = {"authorization": "Bearer sk-test"}
    body = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    async with httpx2.AsyncClient(base_url=sandbox.url, headers=key) as stranger:
        (await stranger.post("/v1/batches", json=body)).raise_for_status()
    found = await gpt.markers.marked(SINCE)
    assert [(one.marker, one.digest, one.batch.id) for one in found] == [
        ("b-2/0/1", "another one's", second.id),
        (MARKER, DIGEST, first.id),
    ]
    assert await gpt.markers.marked(datetime.now(UTC) + timedelta(hours=1)) == []


async def test_of_two_batches_with_one_marker_everybody_adopts_the_oldest(gpt: Provider) -> None:
    file_id = await upload(gpt, "Hi.")
    first = await create(gpt, file_id)
    await create(gpt, file_id)
    found = await gpt.batches.find(wanted())
    assert found is not None and found.id == first.id


async def test_a_batch_that_was_fenced_off_by_deleting_its_file_is_none(gpt: Provider) -> None:
    file_id = await upload(gpt, "Hi.")
    await gpt.files.delete(file_id)
    late = await ended(gpt, await create(gpt, file_id))
    assert late.status is ProviderStatus.FAILED
    assert await gpt.batches.find(wanted()) is None
    batch = await create(gpt, await upload(gpt, "Hi."))
    found = await gpt.batches.find(wanted())
    assert found is not None and found.id == batch.id


async def test_a_batch_is_found_once_the_listing_shows_it(gpt: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(list_lag_lists=2)
    batch = await submitted(gpt)
    finds = [await gpt.batches.find(wanted()) for _ in range(3)]
    assert [found and found.id for found in finds] == [None, None, batch.id]


async def test_a_batch_is_found_behind_a_full_page_of_others(gpt: Provider, sandbox: Sandbox) -> None:
    file_id = await upload(gpt, "Hi.")
    batch = await create(gpt, file_id)
    for number in range(100):
        await create(gpt, file_id, marker=f"b-2/{number}/1")
    found = await gpt.batches.find(wanted())
    assert found is not None and found.id == batch.id
    assert (await sandbox.books(summary=True))["requests"]["batches.list"] == 2


async def test_a_batch_that_nobody_told_of_is_found(gpt: Provider, sandbox: Sandbox) -> None:
    file_id = await upload(gpt, "Hi.")
    batch = await create(gpt, file_id)
    for number in range(100):
        await create(gpt, file_id, marker=f"b-2/{number}/1")
    # Whoever made it left no word of it: it is found all the same.
    found = await gpt.batches.find(wanted(sent=False))
    assert found is not None and found.id == batch.id
    assert await gpt.batches.find(wanted(sent=False, digest="another one's")) is None
    assert await gpt.batches.find(wanted(sent=False, marker="b-3/0/1")) is None
    await create(gpt, file_id, marker="b-3/0/1")
    assert await gpt.batches.find(wanted(sent=False, marker="b-3/0/1")) is not None


async def test_where_nothing_was_sent_what_was_read_once_is_not_read_again(sandbox: Sandbox) -> None:
    async with account(sandbox, "sk-test", listing_lag=timedelta(0)) as gpt:
        file_id = await upload(gpt, "Hi.")
        for number in range(100):
            await create(gpt, file_id, marker=f"b-2/{number}/1")
        await asyncio.sleep(1.1)  # a second later, as a listing tells time
        await create(gpt, file_id, marker="b-2/100/1")
        for looks in (2, 3, 4):
            assert await gpt.batches.find(wanted(sent=False)) is None
            assert (await sandbox.books(summary=True))["requests"]["batches.list"] == looks
        assert await gpt.batches.find(wanted()) is None
        assert (await sandbox.books(summary=True))["requests"]["batches.list"] == 6


# --- failures ---

Act = Callable[[Provider], Awaitable[Any]]
#: What each call about files asks of the sandbox, and the call; the others are the same at every provider.
CALLS: dict[str, tuple[str, Act]] = {
    "upload": ("files.create", lambda gpt: upload(gpt, "Hi.")),
    "find": ("files.list", lambda gpt: gpt.files.find("x", SINCE)),
    "delete": ("files.delete", lambda gpt: gpt.files.delete("file-x")),
}


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("status", {"status": 401}, AuthenticationFailed),
        ("status", {"status": 403}, AuthenticationFailed),
        ("status", {"status": 429}, RateLimited),
        ("status", {"status": 429, "code": "token_limit_exceeded"}, QueueFull),
        ("status", {"status": 503}, ProviderUnavailable),
        ("reset", {}, ProviderUnavailable),
        ("lost_answer", {}, ProviderUnavailable),
    ],
)
async def test_every_call_about_files_says_what_went_wrong(
    gpt: Provider, sandbox: Sandbox, kind: str, options: dict[str, Any], error: type[ProviderError]
) -> None:
    for name, (op, call) in CALLS.items():
        fault = await sandbox.fault(op, kind, retry_after=7, **options)
        with pytest.raises(ProviderError) as caught:
            await call(gpt)
        assert type(caught.value) is error, name
        if options.get("status") in (429, 503):
            assert caught.value.retry_after == timedelta(seconds=7), name
        await sandbox.clear(fault["id"])


async def test_a_create_that_is_refused_made_nothing(gpt: Provider, sandbox: Sandbox) -> None:
    file_id = await upload(gpt, "Hi.")
    creation = Creation(marker=MARKER, digest=DIGEST, endpoint="/v1/nonsense", completion_window="24h", file_id=file_id)
    with pytest.raises(ProviderRefused, match="Invalid value"):
        await gpt.batches.create(creation)
    await sandbox.settings(max_batches=0)
    with pytest.raises(QueueFull, match="Too many batches"):
        await create(gpt, file_id)
    assert (await sandbox.books())["batches"] == []


# --- ends ---


async def test_a_cancelled_batch_keeps_what_was_finished(gpt: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(batch_seconds=3600, cancel_fraction=0.5, cancel_polls=1)
    batch = await gpt.batches.cancel((await submitted(gpt, "a", "b", "c", "d")).id)
    assert (batch.status, batch.raw_status) == (ProviderStatus.CANCELING, "cancelling")
    batch = await ended(gpt, batch)
    assert (batch.status, batch.completed, batch.failed) == (ProviderStatus.CANCELED, 2, 2)
    assert [download.name for download in await gpt.batches.result_files(batch)] == ["output", "error"]


async def test_a_refused_file_says_why(gpt: Provider) -> None:
    batch = await ended(gpt, await submitted(gpt, "a", "b", model="no-such-model"))
    assert (batch.status, batch.error_code, batch.output) == (ProviderStatus.FAILED, "model_not_found", None)
    assert batch.error is not None and batch.error.startswith("line 1: ")
    assert await gpt.batches.result_files(batch) == []


async def test_a_full_queue_says_so(gpt: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(enqueued_token_limit=1)
    batch = await ended(gpt, await submitted(gpt, "a long text " * 100))
    assert (batch.status, batch.error_code) == (ProviderStatus.FAILED, "token_limit_exceeded")
    assert batch.queue_full
