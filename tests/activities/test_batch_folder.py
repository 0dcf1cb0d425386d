"""The store as steps see it: its identity, and a batch's folder that is there, away, or in another store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from durabatch.activities.apply import Apply
from durabatch.activities.plan import Plan
from durabatch.activities.store import IDENTITY, Store, identify, identity_of
from durabatch.contract import BatchResult, BatchSpec, BatchStatus, Counts
from durabatch.contract.names import scoped
from durabatch.contract.steps import AttemptRecord, FinishRequest, PlanRequest, Recalled

INLINE: Any = [{"custom_id": "a", "input": "Say hi."}]


def away(desk: Any, how: str) -> Callable[[], None]:
    """Take the batch's folder away; return what brings it back, and checks that nothing took its place."""
    moved = desk.folder if how != "folder" else desk.folder / desk.batch_id
    kept = moved.with_name("kept")
    moved.rename(kept)
    if how != "folder":
        moved.mkdir()
    if how == "another":  # with an identity and a batch of that id of its own
        (moved / IDENTITY).write_text(json.dumps({"id": "0" * 32}))
        (moved / desk.batch_id).mkdir()
        plan = json.loads((kept / desk.batch_id / "plan.json").read_text())
        (moved / desk.batch_id / "plan.json").write_text(json.dumps({**plan, "store": "0" * 32}))
    before = sorted(moved.rglob("*")) if how != "folder" else []

    def back() -> None:
        assert (sorted(moved.rglob("*")) if moved.exists() else []) == before
        if moved.exists():
            shutil.rmtree(moved)
        kept.rename(moved)

    return back


async def finish(desk: Any) -> None:
    ended = datetime.now(UTC)
    result = BatchResult(
        batch_id=desk.batch_id,
        status=BatchStatus.COMPLETED,
        counts=Counts(total=1, succeeded=1),
        started_at=ended,
        ended_at=ended,
    )
    request = FinishRequest(root=desk.summary.root, result=result, store=desk.summary.store)
    await desk.step(Apply(desk.resources).finish, request)


@pytest.mark.parametrize("how", ["folder", "mount", "another"])
async def test_every_step_fails_while_the_batchs_folder_is_away_and_writes_nothing_in_its_place(
    desk: Any, how: str
) -> None:
    await desk.plan(desk.chat("a"))
    uploaded = await desk.upload()
    back = away(desk, how)
    for step in (desk.upload, desk.find, lambda: desk.create(uploaded, noted=0)):
        await _waits(desk, step)
    back()
    batch = await desk.ended((await desk.create(uploaded, noted=0)).batch)
    back = away(desk, how)
    await _waits(desk, lambda: desk.fetch(batch))
    back()
    await desk.fetch(batch)
    desk.sent.append(AttemptRecord(number=1, provider_batch_id=batch.id))
    for step in (desk.settle, desk.apply, lambda: finish(desk), desk.tidy):
        back = away(desk, how)
        await _waits(desk, step)
        back()
        await step()
    assert (desk.folder / desk.batch_id / "result.json").exists()
    assert len((await desk.sandbox.books())["batches"]) == 1


async def _waits(desk: Any, step: Callable[[], Awaitable[Any]]) -> None:
    error = await desk.refused(step())
    assert (error.type, error.non_retryable) == ("store_mismatch", False)
    assert str(desk.folder) in error.message


async def test_a_worker_with_another_stores_url_fails_a_step_so_that_the_next_one_takes_it(
    desk: Any, tmp_path: Any
) -> None:
    await desk.plan(desk.chat("a"))
    here = desk.resources.store
    desk.resources.store = Store.open(str(tmp_path / "elsewhere"))
    for step in (desk.upload, desk.find, desk.settle, desk.apply, desk.tidy):
        error = await desk.refused(step())
        assert (error.type, error.non_retryable) == ("store_mismatch", False)
        assert "must be the same for all workers" in error.message
    assert list((tmp_path / "elsewhere").iterdir()) == []
    desk.resources.store = here
    await desk.upload()


# --- plans, and the names that they give


async def test_a_new_plan_names_what_it_leaves_at_providers_after_its_store(desk: Any) -> None:
    await desk.plan(desk.chat("a"))
    identity = await identity_of(desk.store)
    assert desk.summary.store == identity
    assert desk.attempt.marker == f"b-1~{identity[:8]}/0/1"
    await desk.upload()
    assert await desk.files() == [f"durabatch~b-1~{identity[:8]}~0~1~{desk.record()['digest']}~g1.jsonl"]
    assert json.loads((desk.folder / "b-1/plan.json").read_text())["scoped_id"] == scoped("b-1", identity)
    await desk.plan()
    assert desk.summary.store == identity


async def test_a_plan_of_another_store_is_not_gone_on_with(desk: Any) -> None:
    await desk.plan(desk.chat("a"))
    plan = (desk.folder / "b-1/plan.json").read_bytes()
    (desk.folder / IDENTITY).unlink()  # a copy of a store, which is to be another deployment's
    await identify(desk.store)
    error = await desk.refused(desk.plan())
    assert error.type == "store_mismatch"
    assert (desk.folder / "b-1/plan.json").read_bytes() == plan


def request(desk: Any, **fields: Any) -> PlanRequest:
    spec = BatchSpec(provider="gpt", model="gpt-4o-mini", requests=INLINE)
    return PlanRequest(batch_id=desk.batch_id, spec=spec, now=desk.now, execution="run-1", **fields)


@pytest.mark.parametrize("step", ["plan", "recall"])
async def test_a_batch_that_was_reset_is_not_planned_anew_in_an_empty_mount_point(desk: Any, step: str) -> None:
    error = await desk.refused(desk.step(getattr(Plan(desk.resources), step), request(desk, reset=True)))
    assert (error.type, error.non_retryable) == ("store_mismatch", False)
    assert list(desk.folder.iterdir()) == []


async def test_a_worker_that_sees_another_store_than_the_client_refuses_to_plan(desk: Any) -> None:
    for there in (False, True):
        if there:
            await identify(desk.store)
        error = await desk.refused(desk.step(Plan(desk.resources).plan, request(desk, store="1" * 32)))
        assert error.type == "store_mismatch"
    assert [path.name for path in desk.folder.iterdir()] == [IDENTITY]


async def test_a_look_for_an_earlier_plan_writes_nothing(desk: Any) -> None:
    recalled = await desk.step(Plan(desk.resources).recall, request(desk))
    assert (recalled, list(desk.folder.iterdir())) == (Recalled(plan=None), [])


@pytest.mark.parametrize("gave_up", [True, False])
async def test_what_a_batch_bought_that_gave_up_on_its_store_is_gone_on_with(desk: Any, gave_up: bool) -> None:
    await desk.reopen(max_rows=1)
    await desk.plan(desk.chat("a"), desk.chat("b"))
    await desk.create(await desk.upload(), noted=0)
    result = {"batch_id": "b-1", "status": "failed", "results": None if gave_up else "file:///somewhere"}
    (desk.folder / "b-1/result.json").write_text(json.dumps(result))
    await desk.reopen(max_rows=2)
    desk.execution = "run-2"  # another start
    assert (await desk.plan(desk.chat("a"), desk.chat("b"), desk.chat("c"))).rows == (2 if gave_up else 3)
