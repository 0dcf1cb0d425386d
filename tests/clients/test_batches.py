"""Polling, steering and reading batches that are there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from pathlib import Path

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError, RPCStatusCode

from durabatch import BatchClient
from durabatch.clients import TemporalUnavailable
from durabatch.clients.connection import translated
from durabatch.contract import (
    BatchNotFinished,
    BatchNotFound,
    BatchStatus,
    ConfigurationError,
    Phase,
    RowStatus,
)
from durabatch.workers import Settings, open_worker
from durabatch.workers.embedded import embedded, temporal_server
from support.house import dev_server as just_begun

from .conftest import Desk, unique


async def polling(desk: Desk, id: str) -> None:
    """Wait until a batch is at the provider."""
    async with contextlib.aclosing(desk.client.watch(id)) as progresses:
        async for progress in progresses:
            if progress.provider_batch_id:
                return


async def bought_one(desk: Desk) -> None:
    """Wait until the provider has a batch; the test's own time limit bounds it."""
    while not await desk.bought():
        await asyncio.sleep(0.05)


async def test_invoke_returns_every_row_whatever_became_of_it(desk: Desk) -> None:
    outcome = await desk.client.invoke(
        {"good": "Say one.", "bad": "[[sandbox:invalid_request]]", "lost": "[[sandbox:skipped]]"},
        **desk.fields(id=unique("invoke"), retry={"max_attempts": 1}),
    )
    assert outcome.result.status is BatchStatus.COMPLETED
    assert not outcome.succeeded
    rows = await outcome.rows()
    assert list(rows) == ["good", "bad", "lost"]
    assert [row.status for row in rows.values()] == [RowStatus.SUCCEEDED, RowStatus.FAILED, RowStatus.FAILED]
    assert rows["lost"].error and rows["lost"].error.type == "missing"
    assert [row.custom_id async for row in outcome] == list(rows)


async def test_an_invoke_that_is_cancelled_leaves_the_batch_running(desk: Desk) -> None:
    await desk.sandbox.settings(batch_seconds=3600)
    id = unique("left")
    task = asyncio.create_task(desk.client.invoke({"a": "x"}, **desk.fields(id=id)))
    await bought_one(desk)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await desk.client.status(id)).result is None
    await desk.sandbox.settings(batch_seconds=0)
    assert (await desk.client.invoke({"a": "x"}, **desk.fields(id=id))).succeeded
    assert await desk.bought() == 1


async def test_an_invoke_can_take_its_batch_with_it(desk: Desk) -> None:
    await desk.sandbox.settings(batch_seconds=3600)
    id = unique("taken")
    task = asyncio.create_task(desk.client.invoke({"a": "x"}, **desk.fields(id=id), cancel_on_exit=True))
    await bought_one(desk)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    result = await desk.client.result(id)
    assert result.status is BatchStatus.CANCELED
    assert result.cancel_reason == "the caller was cancelled"


async def test_results_outlive_what_temporal_remembers(desk: Desk, tmp_path: Path) -> None:
    id, forgotten = unique("known"), unique("forgotten")
    assert (await desk.client.invoke({"a": "x", "b": "y"}, **desk.fields(id=id))).succeeded
    folder = tmp_path / "store" / id
    told = (folder / "result.json").read_text()
    folder.rename(tmp_path / "store" / forgotten)
    result = tmp_path / "store" / forgotten / "result.json"
    result.write_text(told.replace(id, forgotten))
    assert [row.custom_id async for row in desk.client.retrieve(forgotten)] == ["a", "b"]
    result.write_text(told)  # another batch's
    with pytest.raises(BatchNotFound):
        await desk.client.results_uri(forgotten)


async def test_cancel_tells_why_and_by_whom_and_only_while_there_is_something_to_cancel(desk: Desk) -> None:
    await desk.sandbox.settings(batch_seconds=3600)
    id = await desk.start(id=unique("cancel"))
    await polling(desk, id)
    with pytest.raises(BatchNotFinished):
        await desk.client.results_uri(id)
    assert await desk.client.cancel(id, reason="wrong prompt", requested_by="me")
    result = await desk.client.result(id)
    assert (result.status, result.cancel_reason, result.canceled_by) == (BatchStatus.CANCELED, "wrong prompt", "me")
    assert [row.status async for row in desk.client.retrieve(id)] == [RowStatus.CANCELED] * 2
    assert not await desk.client.cancel(id)
    assert [record.batch_id async for record in desk.client.list("canceled", limit=1)] == [id]


async def test_an_unknown_batch_is_told_in_a_sentence(idle: Desk) -> None:
    other = unique("other")
    await idle.client.temporal.start_workflow("SomethingElse", id=other, task_queue="nobody")
    for id in ("nobody-knows", other):
        for call in (idle.client.status, idle.client.result, idle.client.failure, idle.client.cancel):
            with pytest.raises(BatchNotFound, match="There is no batch"):
                await call(id)
        for walk in (idle.client.retrieve, idle.client.watch):
            with pytest.raises(BatchNotFound, match="There is no batch"):
                [one async for one in walk(id)]


async def test_watching_says_that_no_worker_answers_and_goes_on_when_one_does(idle: Desk) -> None:
    id = await idle.start(id=unique("watched"))
    seen = []
    async with contextlib.AsyncExitStack() as stack:
        async for progress in idle.client.watch(id):
            if not seen:
                assert "no worker answers on task queue" in (progress.waiting_for or "")
                assert (progress.phase, progress.provider) == (Phase.PLANNING, "stand_in")
                await stack.enter_async_context(idle.worker())
            seen.append(progress)
    assert seen[-1].result is not None
    assert seen[-1].result.status is BatchStatus.COMPLETED
    assert all(progress.result is None for progress in seen[:-1])
    # A batch that has ended needs no worker to be asked about.
    assert (await idle.client.status(id)).result == seen[-1].result


async def test_listing_tells_each_batch_once_with_how_it_ended(desk: Desk) -> None:
    provider = unique("p")
    good, bad, running = unique("good"), unique("bad"), unique("running")
    await desk.client.result(await desk.start(id=good, metadata={"team": provider}))
    await desk.client.failure(await desk.start([{"input": "no id"}], id=bad, metadata={"team": provider}))
    await desk.client.failure(await desk.start([{"input": "no id"}], id=bad, metadata={"team": provider}))
    await desk.sandbox.settings(batch_seconds=3600)
    await desk.start(id=running, metadata={"team": provider})

    async def listed(*arguments: str) -> list[tuple[str, str]]:
        return [
            (record.batch_id, record.status)
            async for record in desk.client.list(*arguments, limit=1000)  # type: ignore[arg-type]
            if record.metadata == {"team": provider} and record.provider == "stand_in"
        ]

    while len(await listed()) < 3:
        await asyncio.sleep(0.1)
    assert await listed() == [(running, "running"), (bad, "failed"), (good, "completed")]
    assert await listed("running") == [(running, "running")]
    assert await listed("failed") == [(bad, "failed")]
    assert await listed("completed") == [(good, "completed")]
    await desk.client.cancel(running)
    await desk.client.result(running)


async def test_a_batch_that_was_reset_is_one_line_and_its_newest_run_counts(desk: Desk) -> None:
    id, label = unique("reset"), {"team": unique("r")}
    await desk.client.result(await desk.start(id=id, metadata=label))
    temporal = desk.client.temporal
    first = (await temporal.get_workflow_handle(id).describe()).run_id
    events = [event async for event in temporal.get_workflow_handle(id).fetch_history_events()]
    task = next(event.event_id for event in events if event.HasField("workflow_task_completed_event_attributes"))

    async def listed(*arguments: str) -> list[tuple[str, str]]:
        return [
            (record.batch_id, record.status)
            async for record in desk.client.list(*arguments, limit=1000)  # type: ignore[arg-type]
            if record.metadata == label
        ]

    async def reset() -> None:
        await temporal.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=temporal.namespace,
                workflow_execution=WorkflowExecution(workflow_id=id),
                reason="test",
                request_id=str(uuid.uuid4()),
                workflow_task_finish_event_id=task,
            )
        )

    # Each reset of a batch that runs leaves a run that counts as terminated.
    async with contextlib.AsyncExitStack() as stack:
        await desk.sandbox.settings(batch_seconds=3600)
        for _ in range(3):
            await reset()
        stack.push_async_callback(desk.client.result, id)
        while len([run async for run in temporal.list_workflows(f"WorkflowId = '{id}'")]) < 4:
            await asyncio.sleep(0.1)
        assert (await temporal.get_workflow_handle(id).describe()).run_id != first
        assert await listed() == await listed("running") == [(id, "running")]
        assert await listed("failed") == await listed("completed") == []
        await desk.sandbox.settings(batch_seconds=0)
    while await listed() != [(id, "completed")]:
        await asyncio.sleep(0.1)
    assert await listed("failed") == []
    assert await listed("completed") == [(id, "completed")]


async def test_a_start_by_hand_with_nonsense_is_told_and_harms_nothing(desk: Desk) -> None:
    id = unique("by-hand")
    await desk.client.temporal.start_workflow("BatchWorkflow", {"x": 1}, id=id, task_queue=desk.client.task_queue)
    progress = [progress async for progress in desk.client.watch(id)][-1]
    assert progress.result is not None
    assert progress.result.status is BatchStatus.FAILED
    assert "started with a spec that is wrong" in (progress.result.error or "")
    # Nothing was bought under this id, so it is free.
    await desk.start(id=id)
    assert (await desk.client.result(id)).status is BatchStatus.COMPLETED


async def test_a_result_outlives_a_restart_of_temporal(tmp_path: Path, idle: Desk) -> None:
    folder = tmp_path / "embedded"
    await idle.sandbox.settings(batch_seconds=3600)
    async with embedded(folder) as server:
        temporal = await Client.connect(server.address, data_converter=pydantic_data_converter)
        client = BatchClient(temporal, idle.settings.store.url)
        async with open_worker(temporal, idle.settings):
            id = await client.create({"a": "x"}, **idle.fields())
            progresses = client.watch(id)
            async for progress in progresses:
                if progress.provider_batch_id:
                    break
            result = asyncio.create_task(client.result(id))
            pid = temporal_server(folder)._pid()
            assert pid is not None
            os.kill(pid, 9)
            await idle.sandbox.settings(batch_seconds=0)
            last = [progress async for progress in progresses][-1]
            assert last.result is not None and last.result.counts.succeeded == 1
            assert last.result == await result
    assert await idle.bought() == 1


async def test_without_any_temporal_it_is_told_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "none.toml"))
    monkeypatch.delenv("TEMPORAL_ADDRESS", raising=False)
    with pytest.raises(ConfigurationError, match="set TEMPORAL_ADDRESS, or start one here with `durabatch dev`"):
        await BatchClient.connect()


async def test_a_temporal_out_of_reach_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    with pytest.raises(TemporalUnavailable, match=r"127\.0\.0\.1:1 cannot be reached \(connection refused\)"):
        await BatchClient.connect()


async def test_the_client_connects_by_temporals_own_environment(
    dev_server: str, idle: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", dev_server)
    async with BatchClient.connect(idle.settings) as client:
        assert client.task_queue == "durabatch"
    client = await BatchClient.connect(idle.settings)
    with pytest.raises(BatchNotFound):
        await client.status("nobody-knows")
    await client.close()


async def test_a_wrong_namespace_is_told_in_a_sentence(
    dev_server: str, idle: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", dev_server)
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "nowhere")
    async with BatchClient.connect(idle.settings) as client:
        with pytest.raises(ConfigurationError, match="no namespace 'nowhere'"):
            await client.status("any")


async def test_a_namespace_that_was_there_before_is_only_out_of_reach(dev_server: str, idle: Desk) -> None:
    """A busy server says "not found" of a namespace that it could not read from its database in time."""
    lost = RPCError("Namespace default is not found.", RPCStatusCode.NOT_FOUND, b"")
    client = await Client.connect(dev_server, data_converter=pydantic_data_converter)
    with pytest.raises(ConfigurationError, match="no namespace 'default'"), translated(client):
        raise lost
    with translated(client):
        await client.count_workflows()
    with pytest.raises(TemporalUnavailable, match="namespace 'default', which was there before"), translated(client):
        raise lost


@pytest.mark.slow
async def test_a_temporal_that_has_only_just_begun_is_not_taken_for_one_without_the_namespace(
    idle: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        with just_begun() as address:
            monkeypatch.setenv("TEMPORAL_ADDRESS", address)
            while True:
                try:
                    async with BatchClient.connect(idle.settings) as client:
                        with pytest.raises(BatchNotFound):
                            await client.status("any")
                    break
                except TemporalUnavailable:
                    await asyncio.sleep(0.01)


def test_the_door_is_complete_and_cheap() -> None:
    import durabatch
    import durabatch.clients as door

    for name in door.__all__:
        assert getattr(door, name) is not None
    assert durabatch.BatchClient is BatchClient
    with pytest.raises(AttributeError):
        _ = door.Nothing
    assert Settings.load is not None
