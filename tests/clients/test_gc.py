"""Sweep up: what is found and removed, in a real store, at a real Temporal and at the sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from durabatch import BatchClient
from durabatch.activities.store import IDENTITY, identity_of
from durabatch.cli.gc import facts, text
from durabatch.clients import TemporalUnavailable
from durabatch.clients.gc.at_providers import Upload
from durabatch.clients.gc.decisions import ABANDONED_REST, Reason
from durabatch.clients.gc.sweep import Findings, Removed, Sweep
from durabatch.clients.requests import gathered
from durabatch.contract import BatchResult, InvalidSpec, RowStatus
from durabatch.contract.gateway_batch import BatchEntry, GatewayBatch, Intake, inner_id
from durabatch.contract.gateway_layout import Listed, index_path, made_at_ms, make_id, retry_path
from durabatch.contract.names import marker, scoped
from durabatch.workers import Settings
from durabatch.workers.embedded import embedded
from support.operator import reset_workflow

from .conftest import KEY, Desk, unique

COPY = "input-0123456789abcdef.jsonl"


def clearing(desk: Desk, rest: timedelta = timedelta(0), *, results: bool = False) -> Sweep:
    providers = [desk.settings.provider("stand_in")]
    return Sweep(desk.client.temporal, desk.client.store, providers, rest=rest, results=results, say=print)


async def cleared(desk: Desk, *, results: bool = False, orphans: bool = False) -> tuple[Findings, Removed]:
    work = clearing(desk, results=results)
    found = await work.look()
    return found, await work.remove(found, orphans=orphans)


async def names(desk: Desk, id: str = "") -> list[str]:
    """Return the objects below a folder; of the whole store without its identity, which always stays."""
    return [path for path, _ in await desk.client.store.list(id) if path != IDENTITY]


def reasons(found: Findings) -> dict[str, Reason]:
    return {pile.batch.id: pile.reason for pile in found.piles}


def folder(desk: Desk) -> Path:
    return Path(unquote(urlsplit(desk.client.store.url).path))


async def ended(desk: Desk, **fields: object) -> str:
    id = await desk.start(id=unique("ended"), **fields)
    await desk.client.result(id)
    return id


async def marker_of(desk: Desk, batch_id: str) -> str:
    """Return the marker of a batch's only attempt."""
    return marker(scoped(batch_id, await identity_of(desk.client.store) or ""), 0, 1)


async def bought(desk: Desk, count: int) -> None:
    while await desk.bought() < count:
        await asyncio.sleep(0.05)


async def test_a_batch_of_direct_mode_has_left_nothing_at_the_provider(desk: Desk) -> None:
    id = await ended(desk, mode="direct")
    found, removed = await cleared(desk)
    assert (reasons(found), found.orphans, found.uploads) == ({id: Reason.OVER}, [], {"stand_in": {}})
    assert removed.objects > 0
    assert await names(desk, f"{id}/shards") == [f"{id}/shards/00000/attempt-1/intent"]


async def test_a_look_changes_nothing_and_a_removal_leaves_the_results(desk: Desk) -> None:
    id = await ended(desk)
    before = await names(desk)
    assert reasons(await clearing(desk, timedelta(days=30)).look()) == {id: Reason.LATELY}
    found = await clearing(desk).look()
    assert reasons(found) == {id: Reason.OVER}
    assert await names(desk) == before
    _, removed = await cleared(desk)
    assert removed.objects == sum(len(pile.removable) for pile in found.piles) > 5
    note = "shards/00000/attempt-1/intent"
    left = ["errors.jsonl", "plan.json", "result.json", "results.jsonl", note]
    assert await names(desk) == [f"{id}/{name}" for name in left]
    assert sorted(path.name for path in (folder(desk) / id).iterdir()) == [*left[:-1], "shards"]  # and no empty folder
    assert [row.status async for row in desk.client.retrieve(id)] == [RowStatus.SUCCEEDED] * 2
    again, nothing = await cleared(desk)
    assert [pile.removable for pile in again.piles] == [[]]
    assert (nothing.objects, nothing.files) == (0, 0)


async def test_with_results_the_whole_folder_goes_and_what_is_not_ours_stays(desk: Desk) -> None:
    id = await ended(desk)
    for path in (f"{id}/notes.txt", "in/rows.jsonl", "rows.jsonl", "in/plan.json"):
        await desk.client.store.write(path, b'{"rows": 1}')
    await cleared(desk, results=True)
    assert await names(desk) == [f"{id}/notes.txt", "in/plan.json", "in/rows.jsonl", "rows.jsonl"]
    await desk.client.store.delete(f"{id}/notes.txt")
    other = await ended(desk)
    await cleared(desk, results=True)
    assert not (folder(desk) / other).exists()


async def test_rows_that_a_retry_of_the_gateways_has_not_read_stay(desk: Desk) -> None:
    store, made = desk.client.store, [make_id(Listed.BATCHES, datetime.now(UTC), f"{n:013x}") for n in range(2)]
    batch, retry = (
        GatewayBatch(tenant="search", id=id, input_file_id="f", endpoint="/", created_at=made_at_ms(id) // 1000)
        for id in made
    )
    id = inner_id("search", batch.id)
    await desk.client.result(await desk.start(id=id))

    async def note(batch: GatewayBatch, **entry: Any) -> None:
        data = BatchEntry(request=batch, **entry).model_dump_json().encode()
        await store.write(index_path("search", batch.id), data)

    await note(batch, intake=Intake(rows=2), final=batch.beginning(), published=True)
    await note(retry)
    await store.create(retry_path("search", batch.id, 1), retry.model_dump_json().encode())
    before = await names(desk, id)
    found, _ = await cleared(desk, results=True)
    assert reasons(found) == {id: Reason.NEEDED} and await names(desk, id) == before
    await note(retry, intake=Intake(rows=1))
    assert reasons((await cleared(desk, results=True))[0]) == {id: Reason.OVER}
    assert await names(desk, id) == []


async def test_what_runs_for_a_batch_of_the_gateways_whose_workflow_was_ended_is_not_canceled(desk: Desk) -> None:
    store, made = desk.client.store, make_id(Listed.BATCHES, datetime.now(UTC), f"{0:013x}")
    batch = GatewayBatch(tenant="search", id=made, input_file_id="f", endpoint="/", created_at=made_at_ms(made) // 1000)
    entry = BatchEntry(request=batch, intake=Intake(rows=2))
    await store.write(index_path("search", made), entry.model_dump_json().encode())
    await desk.sandbox.settings(batch_seconds=3600)
    id = await desk.start(id=inner_id("search", made))
    await bought(desk, 1)
    found, removed = await cleared(desk, orphans=True)
    assert (reasons(found), found.orphans, removed.canceled) == ({id: Reason.RUNS}, [], [])
    await desk.client.temporal.get_workflow_handle(id).terminate()  # whoever asks for the batch has it go on
    found, removed = await cleared(desk, orphans=True)
    assert (reasons(found), found.orphans, removed.canceled) == ({id: Reason.NEEDED}, [], [])


@pytest.mark.slow
async def test_a_batch_that_was_cleared_and_forgotten_is_not_bought_again(desk: Desk) -> None:
    id = await ended(desk)
    await cleared(desk)
    await desk.forget(id)
    assert reasons(await clearing(desk).look()) == {id: Reason.OVER}  # by result.json alone
    assert await desk.start(id=id) == id
    assert (await desk.client.result(id)).counts.succeeded == 2
    assert await desk.bought() == 1


@pytest.mark.slow
@pytest.mark.parametrize("again", ["start", "reset"])
async def test_rows_that_were_run_directly_are_not_sent_again_once_their_answers_are_cleared(
    desk: Desk, again: str
) -> None:
    id = await ended(desk, mode="direct")
    calls = (await desk.sandbox.live())["calls"]
    before = await desk.client.result(id)
    await cleared(desk)
    if again == "start":
        await desk.forget(id)
        assert await desk.start(id=id, mode="direct") == id
    else:
        await reset_workflow(desk.client.temporal, id, 3)
    refused = await desk.client.failure(id)
    assert isinstance(refused, InvalidSpec)
    assert "gc has removed what says which of them have answers" in refused.message
    assert (await desk.sandbox.live())["calls"] == calls
    kept = json.loads((folder(desk) / id / "result.json").read_text())
    assert BatchResult.model_validate(kept) == before


@pytest.mark.slow
async def test_where_only_a_note_tells_what_was_bought_it_is_not_bought_again(idle: Desk, tmp_path: Path) -> None:
    config = tmp_path / "claude.toml"
    config.write_text(
        f'[store]\nurl = "store"\n[providers.stand_in]\nkind = "anthropic"\napi_key_env = "KEY"\nlisting_lag = "1s"\n'
        f'base_url = "{idle.sandbox.url}"\n'
    )
    desk = Desk(idle.client, idle.sandbox, Settings.load(config, {"KEY": KEY}))
    fields = {"model": "claude-haiku-4-5", "params": {"max_tokens": 10}}
    async with desk.worker():
        id = await ended(desk, **fields)
        await cleared(desk)
        await desk.forget(id)
        await desk.start(id=id, **fields)
        assert (await desk.client.result(id)).counts.succeeded == 2
        assert await desk.bought() == 1


async def test_a_removal_that_is_broken_off_is_finished_by_the_next_one(desk: Desk) -> None:
    id = await ended(desk, limits={"max_rows": 1})
    work = clearing(desk, results=True)
    found = await work.look()
    task = asyncio.create_task(work.remove(found, orphans=False))
    while len(await names(desk, f"{id}/shards")) > 8:
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await cleared(desk, results=True)
    assert await names(desk) == []


async def test_a_batch_that_runs_is_never_touched_nor_the_rows_that_it_reads(desk: Desk) -> None:
    first = await ended(desk)
    (copy,) = [path for path in await names(desk, first) if "/input-" in path and path.endswith(".jsonl")]
    await desk.sandbox.settings(batch_seconds=3600)
    second = unique("reader")
    await desk.client.create(desk.client.store.uri(copy), **desk.fields(id=second))
    third = await desk.start(id=unique("running"))
    await bought(desk, 3)
    while len([r async for r in desk.client.list("running", limit=1000) if r.batch_id in (second, third)]) < 2:
        await asyncio.sleep(0.1)
    before = await names(desk, second), await names(desk, third)
    found, _ = await cleared(desk, results=True, orphans=True)
    assert reasons(found) == {first: Reason.OVER, second: Reason.RUNS, third: Reason.RUNS}
    assert (await names(desk, second), await names(desk, third)) == before
    assert await names(desk, first) == [copy]
    assert list(found.uploads["stand_in"]) == [Upload.NEEDED] and not found.orphans
    await desk.sandbox.settings(batch_seconds=0)
    for id in (second, third):
        assert (await desk.client.result(id)).counts.succeeded == 2


async def test_the_rows_of_a_pattern_that_a_batch_reads_stay(idle: Desk) -> None:
    old, reader = unique("old"), unique("reader")
    await idle.client.store.write(f"{old}/{COPY}", b'{"custom_id":"a","input":"x"}')
    age(idle, f"{old}/{COPY}")
    spec = {"provider": "stand_in", "input": f"{idle.client.store.url}/{old}/input-?*.jsonl"}
    temporal, queue = idle.client.temporal, idle.client.task_queue
    handle = await temporal.start_workflow("BatchWorkflow", spec, id=reader, task_queue=queue)
    while not [run async for run in temporal.list_workflows(f"WorkflowId = '{reader}'")]:
        await asyncio.sleep(0.1)
    found, removed = await cleared(idle)
    assert (reasons(found)[old], removed.objects) == (Reason.ABANDONED, 0)
    await handle.terminate()
    while [run async for run in temporal.list_workflows(f"WorkflowId = '{reader}' AND ExecutionStatus = 'Running'")]:
        await asyncio.sleep(0.1)
    assert (await cleared(idle))[1].objects == 1


async def test_a_batch_that_was_started_again_since_the_look_is_left_alone(idle: Desk) -> None:
    id = unique("again")
    await idle.client.store.write(f"{id}/{COPY}", b"x")
    age(idle, f"{id}/{COPY}")
    work = clearing(idle)
    found = await work.look()
    assert reasons(found) == {id: Reason.ABANDONED}
    await idle.start(id=id)
    removed = await work.remove(found, orphans=False)
    assert (removed.resumed, removed.objects) == ([id], 0)
    assert f"{id}/{COPY}" in await names(idle, id)


def age(desk: Desk, path: str) -> None:
    old = (datetime.now(UTC) - ABANDONED_REST - timedelta(minutes=1)).timestamp()
    os.utime(folder(desk) / path, (old, old))


async def test_rows_of_a_start_that_never_came_go_when_they_are_old(idle: Desk) -> None:
    young, old = unique("young"), unique("old")
    for id in (young, old):
        await idle.client.store.write(f"{id}/{COPY}", b"x")
    age(idle, f"{old}/{COPY}")
    found, removed = await cleared(idle)
    assert reasons(found) == {young: Reason.ABANDONED_LATELY, old: Reason.ABANDONED}
    assert removed.objects == 1
    assert await names(idle) == [f"{young}/{COPY}"]


@pytest.mark.slow
async def test_a_batch_that_was_terminated_and_forgotten_keeps_all_that_it_needs_to_go_on(desk: Desk) -> None:
    await desk.sandbox.settings(batch_seconds=3600)
    id = await desk.start(id=unique("terminated"))
    await bought(desk, 1)
    await desk.client.temporal.get_workflow_handle(id).terminate()
    await desk.forget(id)
    litter = folder(desk) / id / "shards" / "00000" / ".durabatch-litter"
    litter.touch()
    before = await names(desk)
    for path in (*before, litter.relative_to(folder(desk))):
        age(desk, str(path))
    plan = await desk.client.store.read(f"{id}/plan.json")
    found, removed = await cleared(desk)
    assert (reasons(found), removed.objects) == ({id: Reason.UNFINISHED}, 0)
    assert (await names(desk), await desk.client.store.read(f"{id}/plan.json")) == (before, plan)
    assert not litter.exists()
    assert f"goes on with what it bought if it is started again: {id}" in text(found, removed, timedelta(0), False)
    await desk.sandbox.settings(batch_seconds=0)
    await desk.start(id=id)
    assert (await desk.client.result(id)).counts.succeeded == 2
    assert await desk.bought() == 1


@pytest.mark.slow
async def test_what_a_terminated_batch_bought_goes_by_the_users_word(desk: Desk) -> None:
    await desk.sandbox.settings(batch_seconds=3600)
    id = await desk.start(id=unique("terminated"))
    await bought(desk, 1)
    await desk.client.temporal.get_workflow_handle(id).terminate()
    await desk.forget(id)
    for path in await names(desk):
        age(desk, path)
    work = clearing(desk, results=True)
    found = await work.look()
    shown = text(found, None, timedelta(0), True)
    assert f"all of batches that left no result, and what they bought, untouched for 10 days: {id}" in shown
    assert "started again" not in shown.partition("Provider batches")[0]
    await work.remove(found, orphans=False)
    assert await names(desk) == []


async def test_of_a_folder_that_was_brought_nothing_is_left(desk: Desk, tmp_path: Path) -> None:
    brought = tmp_path / "brought"
    brought.mkdir()
    (brought / "one.jsonl").write_bytes(b'{"custom_id":"a","input":"x"}\n')
    (brought / "two.jsonl.gz").write_bytes(gzip.compress(b'{"custom_id":"b","input":"y"}\n'))
    id = await desk.start(brought, id=unique("folder"))
    assert (await desk.client.result(id)).counts.succeeded == 2
    there = await names(desk)
    for part in ("/00000-one.jsonl", "/00001-two.jsonl.gz", f"{id}/input/00001-", f"{id}/input.json"):
        assert any(part in path for path in there), part
    await cleared(desk, results=True)
    assert await names(desk) == []
    assert [path.name for path in folder(desk).iterdir()] == [IDENTITY]


async def test_a_folder_of_a_start_that_never_came_goes_when_it_is_old(idle: Desk, tmp_path: Path) -> None:
    brought, id = tmp_path / "brought", unique("folder")
    brought.mkdir()
    (brought / "one.jsonl").write_bytes(b'{"custom_id":"a","input":"x"}\n')
    (brought / "two.jsonl.gz").write_bytes(gzip.compress(b'{"custom_id":"b","input":"y"}\n'))
    async with gathered(brought, idle.client.store) as rows:
        await rows.put(idle.client.store, id)
    assert len(await names(idle)) == 2
    found, removed = await cleared(idle)
    assert (reasons(found), removed.objects) == ({id: Reason.ABANDONED_LATELY}, 0)
    for path in await names(idle):
        age(idle, path)
    found, removed = await cleared(idle)
    assert (reasons(found), removed.objects) == ({id: Reason.ABANDONED}, 2)
    assert await names(idle) == []


async def test_results_in_parts_stay(desk: Desk) -> None:
    id = await ended(desk, limits={"max_rows": 1})
    await desk.client.store.write(f"{id}/results.manifest.json", b"{}")
    await cleared(desk)
    kept = [path for path in await names(desk, id) if "/shards/" in path and not path.endswith("/intent")]
    assert kept == [f"{id}/shards/{n:05d}/{name}.jsonl" for n in (0, 1) for name in ("errors", "results")]


async def test_what_a_terminated_batch_left_at_the_provider_is_found_and_cancelled_only_when_asked(desk: Desk) -> None:
    await desk.sandbox.settings(batch_seconds=3600)
    id = await desk.start(id=unique("terminated"))
    await bought(desk, 1)
    await desk.client.temporal.get_workflow_handle(id).terminate()
    found, removed = await cleared(desk)
    assert [(orphan.provider, orphan.batch_id) for orphan in found.orphans] == [("stand_in", id)]
    assert list(found.uploads["stand_in"]) == [Upload.AT_WORK]
    assert (removed.canceled, removed.files) == ([], 0)
    shown = text(found, None, timedelta(0), False)
    print(shown)
    for words in (
        "There is nothing to remove.",
        f"their batch left no result, and they are young: {id}",
        "uploads: the provider still works on them",
        f"{found.orphans[0].found.batch.id} ({await marker_of(desk, id)}, in_progress, 2 rows)",
        "Give the same requests, options and id again to go on where it was, or cancel it with --delete --cancel",
    ):
        assert words in shown
    (orphan,) = facts(found, None, timedelta(0), False)["orphans"]
    assert (orphan["batch_id"], orphan["marker"], orphan["status"]) == (id, await marker_of(desk, id), "in_progress")
    _, removed = await cleared(desk, orphans=True)
    assert removed.canceled == [found.orphans[0].found.batch.id]
    shown = text(found, removed, timedelta(0), False)
    assert "and cancelled 1 provider batch." in shown and "--cancel-orphans" not in shown
    while [batch["status"] for batch in (await desk.sandbox.books())["batches"]] != ["cancelled"]:
        await desk.sandbox.settings(batch_seconds=0)
    found, removed = await cleared(desk)
    assert (found.orphans, removed.files) == ([], 1)
    shown = text(found, removed, timedelta(0), False)
    print(shown)
    assert "1 file" in shown and "uploads of batches that do not run" in shown
    assert shown.startswith("Removed:\n") and "To be removed" not in shown
    assert "Removed 0 objects from the store, 1 file at providers." in shown
    found = await clearing(desk).look()
    assert found.uploads == {"stand_in": {}}


async def test_what_belongs_to_another_store_is_counted_and_left_alone(desk: Desk, tmp_path: Path) -> None:
    await desk.sandbox.settings(batch_seconds=3600)
    shared, id = unique("shared"), await desk.start(id=unique("theirs"))
    await bought(desk, 1)
    await desk.start({"c": "Other rows."}, id=shared)
    await bought(desk, 2)
    for terminated in (id, shared):
        await desk.client.temporal.get_workflow_handle(terminated).terminate()
    # Another store knows nothing of the one, and other rows under the id of the other.
    there = Desk(BatchClient(desk.client.temporal, str(tmp_path / "there")), desk.sandbox, desk.settings)
    await there.client.store.write(f"{shared}/{COPY}", b"x")
    found, removed = await cleared(there, orphans=True)
    assert (found.orphans, found.elsewhere, removed.canceled) == ([], {"stand_in": 2}, [])
    assert {kind: len(files) for kind, files in found.uploads["stand_in"].items()} == {Upload.ELSEWHERE: 2}
    assert [batch["status"] for batch in (await desk.sandbox.books())["batches"]] == ["in_progress"] * 2


async def test_a_claim_of_a_batch_that_has_ended_goes(desk: Desk) -> None:
    id = await ended(desk)
    mine = hashlib.sha256((await marker_of(desk, id)).encode()).hexdigest()[:16]
    for path in (f"~claims/acc/msgbatch_1~{mine}", "~claims/acc/msgbatch_2~0123456789abcdef"):
        await desk.client.store.write(path, b"")
    found, _ = await cleared(desk)
    assert len(found.claims) == 1
    assert await names(desk, "~claims") == ["~claims/acc/msgbatch_2~0123456789abcdef"]


async def test_a_result_of_a_later_version_is_not_touched(desk: Desk) -> None:
    id = await ended(desk)
    before = await names(desk)
    for record in (b'{"batch_id": "x", "status": "unheard of"}', b"\xff"):
        await desk.client.store.write(f"{id}/result.json", record)
        for path in before:
            age(desk, path)
        found, _ = await cleared(desk, results=True)
        assert not found.piles
        assert await names(desk) == before


@pytest.mark.slow
async def test_nothing_is_removed_when_temporal_does_not_answer(desk: Desk, tmp_path: Path) -> None:
    await ended(desk)
    before = await names(desk)
    async with embedded(tmp_path / "gone") as server:
        away = await Client.connect(server.address, data_converter=pydantic_data_converter)
    there = Desk(BatchClient(away, desk.client.store), desk.sandbox, desk.settings)
    with pytest.raises(TemporalUnavailable):
        await cleared(there, results=True)
    assert await names(desk) == before


async def left_behind(desk: Desk) -> tuple[str, Sweep, Findings]:
    """Leave a terminated batch's upload at the provider; return the batch's id, and what a look finds."""
    await desk.sandbox.settings(batch_seconds=3600)
    id = await desk.start(id=unique("left"))
    await bought(desk, 1)
    await desk.client.temporal.get_workflow_handle(id).terminate()
    await cleared(desk, orphans=True)
    await desk.sandbox.settings(batch_seconds=0)
    work = clearing(desk)
    while Upload.LEFT not in (found := await work.look()).uploads["stand_in"]:
        await asyncio.sleep(0.05)
    return id, work, found


async def test_an_upload_of_a_batch_that_was_started_again_since_the_look_is_left_alone(desk: Desk) -> None:
    id, work, found = await left_behind(desk)
    handle = await desk.client.temporal.start_workflow("BatchWorkflow", {}, id=id, task_queue="nobody-works-here")
    removed = await work.remove(found, orphans=False)
    assert (removed.resumed, removed.files) == ([id], 0)
    shown = text(found, removed, timedelta(0), False)
    assert "uploads of batches that do not run" not in shown and "left alone, as they run again" in shown
    await handle.terminate()


async def test_files_that_a_provider_would_not_remove_are_not_called_removed(desk: Desk) -> None:
    _, work, found = await left_behind(desk)
    await desk.sandbox.revoke(KEY)
    removed = await work.remove(found, orphans=False)
    shown = text(found, removed, timedelta(0), False)
    assert "refuses the key (401)" in found.failures["stand_in"]
    assert (
        shown.startswith("Not all removed, as the provider failed:\n  stand_in  1 file") and "\nRemoved:" not in shown
    )


async def test_a_provider_that_does_not_answer_is_told_and_the_store_is_cleared(desk: Desk) -> None:
    id = await ended(desk)
    await desk.sandbox.revoke("sk-test")
    found, removed = await cleared(desk)
    assert "refuses the key (401)" in found.failures["stand_in"]
    assert removed.objects > 0 and reasons(found) == {id: Reason.OVER}
