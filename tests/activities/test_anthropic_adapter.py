"""Anthropic's adapter, call by call, against the sandbox over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from durabatch.activities.providers.anthropic.adapter import MAX_BYTES, MAX_ROWS
from durabatch.activities.providers.anthropic.batch_object import snapshot
from durabatch.activities.providers.anthropic.rows import HEAD, TAIL
from durabatch.activities.providers.base import sealed
from durabatch.activities.rows import parse
from durabatch.contract import (
    AnswerLost,
    BatchSpec,
    ErrorClass,
    ProviderError,
    ProviderNotFound,
    ProviderRefused,
    ProviderStatus,
    ProviderUnavailable,
    QueueFull,
    RowStatus,
)
from durabatch.contract.steps import Search, Snapshot
from durabatch.sandbox import Sandbox

SINCE = datetime.now(UTC) - timedelta(minutes=1)
MARKER = "b-1/0/1"
SPEC = BatchSpec(provider="claude", input="rows.jsonl", model="claude-haiku-4-5")


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path / "state") as running:
        yield running


@asynccontextmanager
async def account(sandbox: Sandbox, key: str = "sk-test", **options: Any) -> AsyncIterator[Provider]:
    settings = ProviderSettings(
        name="claude", kind="anthropic", base_url=sandbox.url, api_key=SecretStr(key), **options
    )
    provider = open_provider(settings)
    try:
        yield provider
    finally:
        await provider.close()


@pytest.fixture
async def claude(sandbox: Sandbox) -> AsyncIterator[Provider]:
    async with account(sandbox) as provider:
        yield provider


def creation(provider: Provider, *texts: str, marker: str = MARKER) -> Creation:
    """A create with a row a text, in chunks that are not rows."""
    body = b""
    for number, text in enumerate(texts):
        row = json.dumps({"custom_id": f"row {number}", "input": text}).encode()
        prepared = provider.rows.prepare(parse(row), SPEC)
        body += provider.rows.join(
            provider.rows.with_id(prepared, provider.rows.sent_id("any", sealed(marker, "d"), number)), not number
        )
    body += provider.rows.join(None, not texts)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    content = Content(name="unused", size=len(body), chunks=chunks())
    return Creation(marker=marker, digest="d", endpoint="e", completion_window="24h", content=content)


async def create(provider: Provider, *texts: str, marker: str = MARKER) -> Snapshot:
    return await provider.batches.create(creation(provider, *(texts or ("Hi.",)), marker=marker))


async def ended(provider: Provider, batch: Snapshot) -> Snapshot:
    while not batch.status.ended:
        batch = await provider.batches.retrieve(batch.id)
    return batch


async def read(provider: Provider, download: ResultFile, start: int = 0) -> bytes:
    return b"".join([chunk async for chunk in provider.batches.download(download, start)])


def wanted(**fields: Any) -> Wanted:
    return Wanted(**{"marker": MARKER, "digest": "d", "rows": 1, "since": SINCE, **fields})


async def found(provider: Provider, **fields: Any) -> str | None:
    batch = await provider.batches.find(wanted(**fields))
    return batch.id if batch else None


async def test_rows_go_with_the_create_run_and_come_back(claude: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(finish_after_polls=1)
    batch = await create(claude, "Hi.", "[[sandbox:overloaded]]", "Größe?", "[[sandbox:content_filtered]]")
    assert (batch.status, batch.raw_status, batch.output) == (ProviderStatus.IN_PROGRESS, "in_progress", None)
    assert (batch.total, batch.completed, batch.failed) == (4, 0, 0)
    assert batch.created_at is not None and batch.created_at >= SINCE
    batch = await ended(claude, batch)
    assert (batch.status, batch.raw_status) == (ProviderStatus.COMPLETED, "ended")
    assert (batch.total, batch.completed, batch.failed) == (4, 3, 1)
    (download,) = await claude.batches.result_files(batch)
    assert download.name == "output"
    outcomes = {
        (row := claude.rows.outcome(line)).custom_id: row for line in (await read(claude, download)).splitlines()
    }
    ids = [claude.rows.sent_id("any", sealed(MARKER, "d"), number) for number in range(4)]
    assert outcomes.keys() == set(ids)
    first, failed, third, filtered = (outcomes[custom_id] for custom_id in ids)
    assert first.status is RowStatus.SUCCEEDED and first.text and first.text.startswith("You said: Hi.")
    assert third.text and third.text.startswith("You said: Größe?")
    assert failed.failure is not None and failed.failure.type is ErrorClass.SERVER_ERROR
    assert filtered.failure is not None and filtered.failure.type is ErrorClass.CONTENT_FILTERED
    assert set((await sandbox.books())["rows"].values()) == {1}


async def test_what_it_can_do(sandbox: Sandbox) -> None:
    async with account(sandbox, max_rows=7, max_bytes=5000) as provider:
        able = provider.capabilities
        assert (able.max_rows, able.max_bytes) == (7, 5000 - len(HEAD + TAIL))
        assert able.search is Search.PROVISIONAL
        assert not (provider.rows.keeps_ids or able.one_model)
        assert provider.files is provider.markers is None
        assert able.endpoints == {"/v1/chat/completions", "/v1/messages"}
    async with account(sandbox, max_rows=10**9, max_bytes=10**12) as provider:
        assert provider.capabilities.max_rows == MAX_ROWS == 100_000
        assert provider.capabilities.max_bytes < MAX_BYTES == 256_000_000


async def test_a_create_without_rows_is_refused_before_it_is_sent(claude: Provider, sandbox: Sandbox) -> None:
    with pytest.raises(ProviderRefused, match="there were none"):
        await claude.batches.create(
            Creation(marker=MARKER, digest="d", endpoint="e", completion_window="24h", file_id="f")
        )
    assert (await sandbox.books())["requests"] == {}


# --- finding a batch, provisionally ---


async def test_a_batch_whose_answer_was_lost_is_found_by_time_and_size(claude: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(batch_seconds=3600)
    await sandbox.fault("batches.create", "lost_answer", times=1)
    with pytest.raises(AnswerLost):
        await create(claude, "a", "b")
    (entry,) = (await sandbox.books())["batches"]
    assert await found(claude, rows=2) == entry["id"]
    assert await found(claude, rows=3) is None
    assert await found(claude, rows=2, strangers=(entry["id"],)) is None
    assert await found(claude, rows=2, since=datetime.now(UTC) + timedelta(hours=1)) is None


async def test_of_several_candidates_everybody_adopts_the_oldest(claude: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(batch_seconds=3600)
    async with account(sandbox) as another_worker:
        ids = [(await create(another_worker, marker=f"b-{number}/0/1")).id for number in range(3)]
    assert await found(claude) == ids[0]
    assert await found(claude, strangers=(ids[0],)) == ids[1]
    assert await found(claude, strangers=tuple(ids)) is None


async def test_batches_that_this_worker_made_for_others_are_no_candidates(claude: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(batch_seconds=3600)
    batch = await create(claude, marker="b-1/1/1")
    assert await found(claude) is None
    assert await found(claude, marker="b-1/1/1") == batch.id


async def test_an_ended_batch_tells_by_its_ids_whose_it_is(claude: Provider, sandbox: Sandbox) -> None:
    async with account(sandbox) as another_worker:
        theirs = await ended(another_worker, await create(another_worker, marker="b-9/0/1"))
        ours = await ended(another_worker, await create(another_worker))
        await ended(another_worker, await create(another_worker, marker="b-9/0/2"))
    assert await found(claude) == ours.id
    assert await found(claude, marker="b-9/0/1") == theirs.id
    assert await found(claude, marker="b-9/0/3") is None
    # What a batch holds never changes, so each was asked for it once.
    assert (await sandbox.books())["requests"]["batches.results"] == 3


async def test_an_ended_batch_that_counts_fewer_rows_than_it_was_sent_is_known_by_its_ids(
    claude: Provider, sandbox: Sandbox
) -> None:
    async with account(sandbox) as another_worker:
        ours = await ended(another_worker, await create(another_worker, "a", "[[sandbox:skipped]]", "c"))
        await ended(another_worker, await create(another_worker, "a", "[[sandbox:skipped]]", "c", marker="b-9/0/1"))
    assert ours.total == 2
    assert await found(claude, rows=3) == ours.id
    assert await found(claude, rows=3, strangers=(ours.id,)) is None


async def test_a_batch_that_surely_is_ours_comes_before_one_that_may_be(claude: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(batch_seconds=3600, cancel_fraction=1.0)
    async with account(sandbox) as another_worker:
        older = await create(another_worker, marker="b-9/0/1")
        ours = await create(another_worker)
        await ended(another_worker, await another_worker.batches.cancel(ours.id))
    assert await found(claude) == ours.id
    assert await found(claude, strangers=(ours.id,)) == older.id


async def test_results_that_do_not_tell_leave_a_candidate_one(claude: Provider, sandbox: Sandbox) -> None:
    async with account(sandbox) as another_worker:
        silent = await ended(another_worker, await create(another_worker, "[[sandbox:missing]]", marker="b-9/0/1"))
    assert await found(claude) == silent.id
    await sandbox.fault("batches.results", "status", status=404, times=1)
    assert await found(claude) == silent.id


async def test_a_candidate_that_cannot_be_asked_now_stops_the_search(claude: Provider, sandbox: Sandbox) -> None:
    async with account(sandbox) as another_worker:
        await ended(another_worker, await create(another_worker))
    await sandbox.fault("batches.results", "status", status=529, times=1)
    with pytest.raises(ProviderUnavailable):
        await claude.batches.find(wanted())


async def test_a_batch_is_found_once_the_listing_shows_it(claude: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(list_lag_lists=2)
    batch = await create(claude)
    assert [await found(claude) for _ in range(3)] == [None, None, batch.id]


async def test_a_batch_is_found_behind_a_full_page_of_others(claude: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(batch_seconds=3600)
    batch = await create(claude)
    for number in range(100):
        await create(claude, marker=f"b-2/{number}/1")
    assert await found(claude) == batch.id
    assert (await sandbox.books(summary=True))["requests"]["batches.list"] == 2


# --- failures ---


async def test_a_create_that_is_refused_made_nothing(claude: Provider, sandbox: Sandbox) -> None:
    with pytest.raises(ProviderRefused, match="at least 1 item"):
        await claude.batches.create(creation(claude))
    await sandbox.settings(anthropic_max_bytes=1000)
    with pytest.raises(ProviderError):  # 413, or a connection that was closed in the middle of the body
        await create(claude, "x" * 500_000)
    await sandbox.settings(anthropic_max_bytes=10**9, max_batches=0)
    with pytest.raises(QueueFull, match="Too many batches"):
        await create(claude)
    assert (await sandbox.books())["batches"] == []


# --- ends ---


async def test_a_batch_that_was_cancelled_ends_as_canceled_and_keeps_what_was_finished(
    claude: Provider, sandbox: Sandbox
) -> None:
    await sandbox.settings(batch_seconds=3600, cancel_fraction=0.5, cancel_polls=1)
    batch = await claude.batches.cancel((await create(claude, "a", "b", "c", "d")).id)
    assert (batch.status, batch.raw_status) == (ProviderStatus.CANCELING, "canceling")
    batch = await ended(claude, batch)
    assert (batch.status, batch.raw_status) == (ProviderStatus.CANCELED, "ended")
    (download,) = await claude.batches.result_files(batch)
    lines = (await read(claude, download)).splitlines()
    assert len(lines) == batch.completed + batch.failed == 4
    statuses = sorted(claude.rows.outcome(line).status for line in lines)
    assert statuses == [RowStatus.CANCELED, RowStatus.CANCELED, RowStatus.SUCCEEDED, RowStatus.SUCCEEDED]


async def test_a_cancel_that_found_everything_done_left_a_completed_batch(claude: Provider, sandbox: Sandbox) -> None:
    await sandbox.settings(batch_seconds=3600, cancel_fraction=1.0)
    batch = await ended(claude, await claude.batches.cancel((await create(claude, "a", "b")).id))
    assert (batch.status, batch.completed) == (ProviderStatus.COMPLETED, 2)


# --- mapping ---


def item(status: str = "ended", **fields: Any) -> dict[str, Any]:
    counts = {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    counts.update({name: fields.pop(name) for name in list(fields) if name in counts})
    return {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": status,
        "request_counts": counts,
        "created_at": "2026-08-20T18:37:24.100435Z",
        "results_url": "https://elsewhere.example/steal" if status == "ended" else None,
        **fields,
    }


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"status": "in_progress", "processing": 5}, ProviderStatus.IN_PROGRESS),
        ({"status": "canceling", "processing": 5}, ProviderStatus.CANCELING),
        ({"status": "something_new", "processing": 5}, ProviderStatus.IN_PROGRESS),
        ({"succeeded": 5}, ProviderStatus.COMPLETED),
        ({"errored": 5}, ProviderStatus.COMPLETED),
        ({"succeeded": 4, "canceled": 1, "cancel_initiated_at": "2026-08-20T18:40:00Z"}, ProviderStatus.CANCELED),
        ({"canceled": 5, "cancel_initiated_at": "2026-08-20T18:40:00Z"}, ProviderStatus.CANCELED),
        ({"succeeded": 5, "cancel_initiated_at": "2026-08-20T18:40:00Z"}, ProviderStatus.COMPLETED),
        ({"succeeded": 3, "expired": 2}, ProviderStatus.EXPIRED),
        ({"succeeded": 3, "expired": 1, "canceled": 1}, ProviderStatus.CANCELED),
    ],
)
def test_what_ended_a_batch_is_told_by_its_rows(fields: dict[str, Any], status: ProviderStatus) -> None:
    found = snapshot(item(**fields))
    assert (found.status, found.total) == (status, 5)
    assert found.raw_status == fields.get("status", "ended")
    assert found.output == ("results" if found.status.ended else None)


def test_a_batch_whose_results_are_gone_has_no_output() -> None:
    found = snapshot(item(succeeded=1, results_url=None, archived_at="2026-09-20T00:00:00Z"))
    assert (found.status, found.output) == (ProviderStatus.COMPLETED, None)
    assert found.created_at == datetime(2026, 8, 20, 18, 37, 24, 100435, UTC)


def test_a_batch_that_says_little_is_taken_as_it_is() -> None:
    found = snapshot({"id": "x"})
    assert (found.status, found.total, found.created_at) == (ProviderStatus.IN_PROGRESS, 0, None)


async def test_results_come_from_the_configured_host_whatever_their_url_says(claude: Provider) -> None:
    (download,) = await claude.batches.result_files(snapshot(item(succeeded=1)))
    assert download.reference == "msgbatch_1"  # the URL went no further than the snapshot
    with pytest.raises(ProviderNotFound):  # by the sandbox, which has no such batch
        await read(claude, download)
