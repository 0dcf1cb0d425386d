"""A store that is not there for a moment, or not for every worker: waited for, and nothing is lost or bought again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from durabatch.clients.client import BatchClient
from durabatch.contract import BatchStatus, ObjectNotFound, StoreMismatch
from durabatch.workers import Settings
from support.house import KEY, House, connect, free_port

pytestmark = pytest.mark.slow

HELD, LET_GO = {"finish_after_polls": 100_000}, {"finish_after_polls": 0}
ROWS = [{"custom_id": f"r{n}", "input": f"Row {n}. Say something."} for n in range(3)]
FIELDS: dict[str, Any] = {
    "provider": "sandbox",
    "model": "gpt-4o-mini",
    "poll": {"first": "0.2s", "factor": 1.2, "maximum": "1s"},
}


def take_away(house: House, handle: WorkflowHandle[Any, Any], what: str) -> Callable[[], None]:
    """Unmount the store, or move the batch's folder away; return what undoes it, and sees that nothing was written."""
    gone = house.store if what == "mount" else house.store / handle.id
    kept = gone.with_name("kept")
    gone.rename(kept)
    if what == "mount":
        gone.mkdir()

    def back() -> None:
        assert not gone.exists() or list(gone.rglob("*")) == []
        if gone.exists():
            gone.rmdir()
        kept.rename(gone)

    return back


async def submitted(house: House, rows: int = 3, **fields: Any) -> WorkflowHandle[Any, Any]:
    """Start a batch that the provider works on until it is let go."""
    await house.admin.settings(**HELD)
    handle = await house.start(rows, **fields)
    batches = rows if fields else 1
    while len(await house.batches()) < batches:
        await asyncio.sleep(0.05)
    return handle


async def until_waits(house: House, handle: WorkflowHandle[Any, Any], words: str) -> None:
    await house.until(handle, lambda p: words in (p.waiting_for or ""))


@pytest.mark.parametrize(("what", "words"), [("mount", "Is it mounted"), ("folder", "folder is not there")])
async def test_a_store_that_is_away_after_the_submit_is_waited_for_and_nothing_is_written_in_its_place(
    house: House, what: str, words: str
) -> None:
    async with house.worker():
        handle = await submitted(house)
        await house.until(handle, lambda p: p.next_poll_at and p.provider_batch_id)
        back = take_away(house, handle, what)
        await house.admin.settings(**LET_GO)
        await handle.signal("poll_now")
        await until_waits(house, handle, words)
        back()
        await handle.signal("poll_now")
        result = await handle.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 3)
    assert [row["status"] for row in house.results(handle.id)] == ["succeeded"] * 3
    assert [batch["rows_billed"] for batch in await house.batches()] == [3]


@pytest.mark.parametrize("rows", [3, 2])
async def test_a_file_that_is_missing_after_the_submit_is_waited_for(house: House, rows: int) -> None:
    fields: dict[str, Any] = {"limits": {"max_rows": 1}} if rows == 2 else {}
    async with house.worker():
        handle = await submitted(house, rows, **fields)
        index = house.store / handle.id / "shards" / f"{0 if rows == 3 else 1:05d}" / "rows.jsonl"
        index.rename(index.with_name("kept"))
        await house.admin.settings(**LET_GO)
        waiting = handle if rows == 3 else house.client.get_workflow_handle(f"{handle.id}/shards/00001")
        while "rows.jsonl" not in ((await house.progress(waiting)).waiting_for or ""):
            await asyncio.sleep(0.05)
        index.with_name("kept").rename(index)
        await handle.signal("poll_now")
        result = await handle.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, rows)


async def elsewhere(house: House, tmp_path: Path) -> House:
    """The same house as a worker sees it whose store is another one."""
    other = tmp_path / "other.toml"
    other.write_text((tmp_path / "durabatch.toml").read_text().replace(str(house.store), str(tmp_path / "store2")))
    client = await connect(house.client.service_client.config.target_host)  # its own, as another process has
    return replace(house, client=client, settings=Settings.load(other, {"KEY": KEY}))


async def test_a_worker_with_another_stores_url_neither_fails_the_batch_nor_keeps_the_right_one_from_it(
    house: House, tmp_path: Path
) -> None:
    async with house.worker():
        handle = await submitted(house)
        await house.until(handle, lambda p: p.next_poll_at and p.provider_batch_id)
    await house.admin.settings(**LET_GO)
    async with (await elsewhere(house, tmp_path)).worker():
        await handle.signal("poll_now")
        await until_waits(house, handle, "must be the same for all workers")
    async with house.worker():
        await handle.signal("poll_now")
        result = await handle.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 3)
    assert list((tmp_path / "store2").rglob("*")) == []


async def test_a_batch_comes_to_its_end_with_two_workers_of_which_one_has_another_stores_url(
    house: House, tmp_path: Path
) -> None:
    async with house.worker():
        handle = await submitted(house, 2, limits={"max_rows": 1})
        await house.admin.settings(**LET_GO)
        async with (await elsewhere(house, tmp_path)).worker():
            while (await handle.describe()).close_time is None:
                await handle.signal("poll_now")  # so that a step is tried again at once
                await asyncio.sleep(0.5)
            result = await handle.result()
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 2)
    assert sorted(batch["rows_billed"] for batch in await house.batches()) == [1, 1]


async def test_a_worker_whose_store_does_not_work_says_so_at_once(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    config = tmp_path / "bucket.toml"
    config.write_text((tmp_path / "durabatch.toml").read_text().replace(str(house.store), "s3://bucket/prefix"))
    async with replace(house, settings=Settings.load(config, {"KEY": KEY})).worker():
        while "wait until it is fixed" not in caplog.text:
            await asyncio.sleep(0.05)
    assert "The store s3://bucket/prefix does not work." in caplog.text


# --- the client


async def test_a_client_does_not_start_again_in_another_store_what_was_bought_in_this_one(house: House) -> None:
    await house.admin.settings(**HELD)
    client = BatchClient(house.client, str(house.store), task_queue=house.task_queue)
    async with house.worker():
        started = await client.start(ROWS, id="nightly-17", **FIELDS)
        handle = house.client.get_workflow_handle(started.id)
        await house.until(handle, lambda p: p.provider_batch_id)
        await handle.terminate()
        back = take_away(house, handle, "mount")
        with pytest.raises(StoreMismatch, match="is it mounted"):
            await client.start(ROWS, id="nightly-17", **FIELDS)
        back()
        await house.admin.settings(**LET_GO)
        assert (await client.start(ROWS, id="nightly-17", **FIELDS)).created
        result = await client.result(started.id)
    assert (result.counts.succeeded, [one.adopted for one in result.provider_batches]) == (3, [True])
    assert len(await house.batches()) == 1


async def test_a_client_and_a_worker_with_different_stores_are_reported_before_anything_is_bought(
    house: House, tmp_path: Path
) -> None:
    client = BatchClient(house.client, str(tmp_path / "mine"), task_queue=house.task_queue)
    async with house.worker():
        started = await client.start(ROWS, id="nightly-18", **FIELDS)
        failure = await client.failure(started.id)
    assert isinstance(failure, StoreMismatch)
    assert await house.batches() == []
    assert not (house.store / "nightly-18").exists()


async def test_a_batch_that_gave_up_on_a_missing_file_goes_on_where_it_was_when_it_is_started_again(
    house: House,
) -> None:
    await house.admin.settings(**HELD)
    client = BatchClient(house.client, str(house.store), task_queue=house.task_queue)
    async with house.worker():
        started = await client.start(ROWS, id="nightly-19", **FIELDS)
        handle = house.client.get_workflow_handle(started.id)
        await house.until(handle, lambda p: p.provider_batch_id)
        index = house.store / started.id / "shards/00000/rows.jsonl"
        index.rename(index.with_name("kept"))
        await house.admin.settings(**LET_GO)
        await handle.signal("poll_now")
        await until_waits(house, handle, "rows.jsonl")
        for _ in range(2):  # the operator does not know where it is, and ends the wait
            await client.cancel(started.id)
        assert isinstance(await client.failure(started.id), ObjectNotFound)
        told = json.loads((house.store / started.id / "result.json").read_text())
        assert (told["status"], told["results"]) == ("failed", None)
        index.with_name("kept").rename(index)
        assert (await client.start(ROWS, id="nightly-19", **FIELDS)).created
        result = await client.result(started.id)
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 3)
    assert [batch["rows_billed"] for batch in await house.batches()] == [3]
