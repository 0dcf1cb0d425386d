"""The ledgers of the providers' queues, asked at a real Temporal, and what the command shows of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from durabatch.activities.providers import ProviderSettings
from durabatch.cli.providers import facts, full, sorted_out, table
from durabatch.clients.ledgers import SilentLedger, answers
from durabatch.contract import DurabatchError
from durabatch.contract.ledger import LEDGER_WORKFLOW, Holder, LedgerView, ledger_id
from durabatch.workers import Settings

from .conftest import KEY, Desk

SINCE = datetime(2026, 1, 31, 12, tzinfo=UTC)


@workflow.defn(name=LEDGER_WORKFLOW)
class Told:
    """A ledger that says what it was told to say."""

    def __init__(self) -> None:
        self._view = LedgerView()

    @workflow.run
    async def run(self, view: LedgerView) -> None:
        self._view = view
        await workflow.wait_condition(lambda: False)

    @workflow.query
    def ledger(self) -> LedgerView:
        return self._view


@workflow.defn(name=LEDGER_WORKFLOW)
class Older:
    """A ledger of a version that could not be asked yet."""

    @workflow.run
    async def run(self, view: LedgerView) -> None:
        await workflow.wait_condition(lambda: False)


def view(account: str, model: str = "gpt-4o-mini") -> LedgerView:
    return LedgerView(
        account=account,
        provider="stand_in",
        model=model,
        limit=2_000_000,
        in_use=1_500_000,
        holders=60,
        waiting=1,
        waiting_tokens=700_000,
        holding=tuple(Holder(holder=f"b-{n}/0/1", tokens=25_000, since=SINCE) for n in range(50)),
        queue=(Holder(holder="late/0/1", tokens=700_000, since=SINCE),),
    )


@asynccontextmanager
async def running(desk: Desk, *views: LedgerView) -> AsyncIterator[str]:
    """Run ledgers that say this; yield their task queue."""
    queue, temporal = f"ledgers-{uuid.uuid4().hex[:8]}", desk.client.temporal
    handles = [
        await temporal.start_workflow(Told.run, one, id=ledger_id(one.account, one.model), task_queue=queue)
        for one in views
    ]
    listed = f"WorkflowType = '{LEDGER_WORKFLOW}' AND TaskQueue = '{queue}'"
    while len([run async for run in temporal.list_workflows(listed)]) < len(views):
        await asyncio.sleep(0.1)
    try:
        yield queue
    finally:
        for handle in handles:
            await handle.terminate()
        while [run async for run in temporal.list_workflows(f"{listed} AND ExecutionStatus = 'Running'")]:
            await asyncio.sleep(0.1)


def answering(temporal: Client, queue: str) -> Worker:
    # The interpreter's own modules: the test's file is none of those that Temporal's sandbox could import.
    return Worker(temporal, task_queue=queue, workflows=[Told], workflow_runner=UnsandboxedWorkflowRunner())


async def test_every_ledger_that_runs_is_asked(idle: Desk) -> None:
    assert await idle.client.ledgers() == []
    mine, other = view(f"a-{uuid.uuid4().hex}"), view(f"b-{uuid.uuid4().hex}", "*")
    async with running(idle, other, mine) as queue, answering(idle.client.temporal, queue):
        assert await idle.client.ledgers() == [mine, other]
    assert await idle.client.ledgers() == []


async def test_a_ledger_without_a_worker_is_told(idle: Desk) -> None:
    async with running(idle, view(f"a-{uuid.uuid4().hex}")):
        with pytest.raises(DurabatchError, match=r"No worker answers for the ledger durabatch-ledger/a-"):
            await idle.client.ledgers()


async def test_a_ledger_that_does_not_answer_hides_no_other(idle: Desk) -> None:
    temporal, named = idle.client.temporal, "org/model"
    told, silent = view(f"a-{uuid.uuid4().hex}"), view(f"b-{uuid.uuid4().hex}", named)
    async with running(idle, told) as queue, running(idle, silent) as nobody, answering(temporal, queue):
        views, (one,) = await answers(temporal)
    assert views == [told]
    assert (one.id, one.account, one.model) == (ledger_id(silent.account, named), silent.account, named)
    assert one.task_queue == nobody
    assert one.problem == (
        f"No worker answers for the ledger {one.id} on task queue {nobody!r}: start one with `durabatch worker`."
    )


async def test_a_ledger_whose_worker_does_not_know_the_question_hides_no_other(idle: Desk) -> None:
    temporal = idle.client.temporal
    told, old = view(f"a-{uuid.uuid4().hex}"), view(f"b-{uuid.uuid4().hex}")
    async with running(idle, told) as queue, running(idle, old) as other:
        runner = UnsandboxedWorkflowRunner()
        older = Worker(temporal, task_queue=other, workflows=[Older], workflow_runner=runner)
        async with answering(temporal, queue), older:
            views, (one,) = await answers(temporal)
    assert views == [told]
    assert one.problem.startswith(f"The ledger {one.id} on task queue {other!r} cannot answer (")
    assert one.problem.endswith("the worker's version may be older than this client's; update the worker.")


@pytest.mark.slow
async def test_the_command_shows_the_ledgers_that_answer_and_names_the_others(idle: Desk, tmp_path: Path) -> None:
    mine = idle.settings.provider("stand_in").fingerprint
    told, silent = view(mine), view(mine, "gpt-4o")
    stranger = view(f"s-{uuid.uuid4().hex}")
    temporal = idle.client.temporal
    async with running(idle, told) as queue, running(idle, silent, stranger) as nobody, answering(temporal, queue):
        code, out, err = await command(idle, tmp_path, "--json")
        shown = json.loads(out)
        assert (code, shown["note"], err) == (0, None, "")
        (one,) = [provider for provider in shown["providers"] if provider["name"] == "stand_in"]
        assert [ledger["model"] for ledger in one["ledgers"]] == ["gpt-4o-mini"]
        ids = [ledger_id(mine, "gpt-4o"), ledger_id(stranger.account, stranger.model)]
        # Other tests may have left ledgers at this server, whose workers are gone.
        silent_ones = [ledger for ledger in shown["silent_ledgers"] if ledger["id"] in ids]
        assert [ledger["id"] for ledger in silent_ones] == sorted(ids)
        assert {ledger["task_queue"] for ledger in silent_ones} == {nobody}
        # One provider is shown with its own silent ledgers.
        code, out, err = await command(idle, tmp_path, "stand_in")
        assert (code, err) == (0, "")
        assert "gpt-4o-mini: 1,500,000 of 2,000,000 tokens in use" in out
        assert f"No worker answers for the ledger {ids[0]} " in out and stranger.account not in out


async def command(desk: Desk, folder: Path, *arguments: str) -> tuple[int | None, str, str]:
    """Run `durabatch providers` at the desk's Temporal."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "durabatch", "--config", str(folder / "durabatch.toml"), "providers"),
        *arguments,
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL_", "DURABATCH_"))},
            "TEMPORAL_ADDRESS": desk.client.temporal.service_client.config.target_host,
            "KEY": KEY,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "durabatch.toml"
    file.write_text('[providers.openai]\nkind = "openai"\nmax_enqueued_tokens = 2_000_000\n')
    found = Settings.load(file, {"OPENAI_API_KEY": "sk-secret"})
    local = ProviderSettings(name="local", kind="openai", base_url="http://localhost:1/v1", api_key=SecretStr("x"))
    return found.with_provider(local)


def test_ledgers_stand_beside_the_provider_whose_account_they_are_of(settings: Settings) -> None:
    account = settings.providers["openai"].fingerprint
    views = [view(account), view(account, "*"), view("stranger")]
    accounts, others = sorted_out(settings, views)
    assert [(one.settings.name, one.ledgers) for one in accounts] == [
        ("anthropic", []),
        ("local", []),
        ("openai", views[:2]),
    ]
    assert others == views[2:]
    shown = [" ".join(line.split()) for line in table(accounts, others).splitlines()]
    assert shown == [
        "PROVIDER KIND MODE BASE URL KEY LIMIT MODEL IN USE HOLD WAIT",
        "anthropic anthropic batch https://api.anthropic.com missing none",
        "local openai batch http://localhost:1/v1 set none",
        "openai openai batch https://api.openai.com/v1 set 2,000,000 gpt-4o-mini 1,500,000 60 1 (700,000 tokens)",
        "2,000,000 * 1,500,000 60 1 (700,000 tokens)",
        "stand_in account stranger, not configured here 2,000,000 gpt-4o-mini 1,500,000 60 1 (700,000 tokens)",
    ]
    told = facts(accounts, others, None)
    assert [provider["key"] for provider in told["providers"]] == ["missing", "set", "set"]
    assert [len(provider["ledgers"]) for provider in told["providers"]] == [0, 0, 2]
    assert told["other_ledgers"][0]["account"] == "stranger"
    assert "sk-secret" not in str(told)


def test_one_provider_is_shown_with_who_has_room_and_who_waits(settings: Settings) -> None:
    accounts, _ = sorted_out(settings, [view(settings.providers["openai"].fingerprint)])
    shown = full(accounts[2])
    for words in (
        "Limit     2,000,000 tokens",
        "gpt-4o-mini: 1,500,000 of 2,000,000 tokens in use",
        "60 have room",
        "b-49/0/1  25,000 tokens, since 20",
        "… and 10 more",
        "1 wait, the next one first",
        "late/0/1  700,000 tokens",
    ):
        assert words in shown
    assert "No shard has room in its queue, and none waits." in full(accounts[0])
    silent = SilentLedger(id="x", account=accounts[0].settings.fingerprint, model="m", task_queue="q", problem="Away.")
    assert "No shard" not in full(accounts[0], [silent])  # that is not known
