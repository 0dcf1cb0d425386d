"""A batch that Temporal has forgotten is known by what it left in the store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durabatch.contract import BatchNotFound, BatchResult, BatchStatus, Phase

from .conftest import Desk, unique

ENDED = datetime(2026, 1, 31, 12, tzinfo=UTC)


async def leave(desk: Desk, folder: str, **fields: Any) -> BatchResult:
    """Leave a result in a folder of the store, as a batch does that ended long ago."""
    facts = {"batch_id": folder, "status": BatchStatus.COMPLETED, "started_at": ENDED, "ended_at": ENDED, **fields}
    result = BatchResult(**facts)
    await desk.client.store.write(f"{folder}/result.json", result.model_dump_json().encode())
    return result


async def test_it_is_known_as_it_was_before(desk: Desk) -> None:
    id = await desk.start(id=unique("forgotten"))
    result = await desk.client.result(id)
    before = await desk.client.status(id)
    await desk.forget(id)
    assert await desk.client.status(id) == before
    assert await desk.client.result(id) == result
    assert await desk.client.failure(id) is None
    assert [progress async for progress in desk.client.watch(id)] == [before]
    assert [row.custom_id async for row in desk.client.retrieve(id)] == ["a", "b"]
    assert not await desk.client.cancel(id)
    (record,) = [one async for one in desk.client.list("completed") if one.batch_id == id]
    assert (record.started_at, record.ended_at) == (result.started_at, result.ended_at)


async def test_one_that_never_ended_says_how_to_go_on(desk: Desk) -> None:
    await desk.sandbox.settings(batch_seconds=3600)
    id = await desk.start(id=unique("terminated"))
    while not await desk.bought():
        await asyncio.sleep(0.05)
    await desk.client.temporal.get_workflow_handle(id).terminate()
    await desk.forget(id)
    progress = await desk.client.status(id)
    assert (progress.result, progress.counts.total, progress.phase) == (None, 2, Phase.POLLING)
    assert "give the same requests, options and id again to go on with what it bought" in str(progress.waiting_for)
    # There is nothing to wait for, to list or to cancel.
    for call in (desk.client.result, desk.client.cancel, desk.client.results_uri):
        with pytest.raises(BatchNotFound):
            await call(id)
    with pytest.raises(BatchNotFound):
        await anext(desk.client.watch(id))
    assert id not in [record.batch_id async for record in desk.client.list(limit=1000)]


async def test_the_one_that_ended_last_is_listed_first_after_those_that_temporal_knows(idle: Desk) -> None:
    first, last = unique("first"), unique("last")
    await leave(idle, first, metadata={"team": "a"})
    await leave(idle, last, status=BatchStatus.CANCELED, ended_at=ENDED + timedelta(days=1))
    known = await idle.start(id=unique("known"))

    async def listed(*arguments: Any, **keywords: Any) -> list[str]:
        found = [record.batch_id async for record in idle.client.list(*arguments, **keywords)]
        return [id for id in found if id in (first, last, known)]

    while known not in await listed("running"):  # a listing may be a moment late
        await asyncio.sleep(0.1)
    assert await listed(limit=1000) == [known, last, first]
    assert await listed("running", limit=1000) == [known]
    assert await listed("completed", limit=1000) == [first]
    assert await listed("canceled", limit=1000) == [last]
    assert len([one async for one in idle.client.list(limit=1)]) == 1
    (record,) = [one async for one in idle.client.list("completed", limit=1000) if one.batch_id == first]
    assert (record.status, record.metadata, record.provider, record.ended_at) == (
        "completed",
        {"team": "a"},
        None,
        ENDED,
    )


async def test_one_that_runs_again_under_its_id_is_listed_once(idle: Desk) -> None:
    id = unique("again")
    await leave(idle, id)
    await idle.start(id=id)
    while not (found := [one.status async for one in idle.client.list(limit=1000) if one.batch_id == id]):
        await asyncio.sleep(0.1)
    assert found == ["running"]
    assert not [one async for one in idle.client.list("completed", limit=1000) if one.batch_id == id]


async def test_why_it_failed_is_still_known(idle: Desk) -> None:
    id = unique("failed")
    result = await leave(idle, id, status=BatchStatus.FAILED, error="The provider refuses the key.")
    assert await idle.client.result(id) == result
    assert str(await idle.client.failure(id)) == "The provider refuses the key."
    with pytest.raises(Exception, match="The provider refuses the key"):
        await idle.client.results_uri(id)


async def test_a_folder_of_another_batch_is_not_taken_for_it(idle: Desk) -> None:
    copy, original = unique("copy"), unique("original")
    await leave(idle, copy, batch_id=original)
    for name in (copy, original, "no id/at all"):
        with pytest.raises(BatchNotFound):
            await idle.client.status(name)
    assert not {copy, original} & {record.batch_id async for record in idle.client.list(limit=1000)}
