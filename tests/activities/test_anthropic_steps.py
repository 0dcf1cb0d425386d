"""A shard's way through Anthropic, step by step: plan, create, poll, fetch, settle, with the store and the sandbox."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import anthropic
import pytest
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from durabatch.activities.follow import Follow
from durabatch.activities.notes import AttemptNotes
from durabatch.activities.plan import Plan
from durabatch.activities.providers import ProviderSettings
from durabatch.activities.resources import Resources
from durabatch.activities.settle import Settle
from durabatch.activities.store import Store
from durabatch.activities.submit import Submit
from durabatch.contract import BatchSpec, ErrorClass, ProviderStatus, RetryPolicy, RowStatus
from durabatch.contract.steps import (
    Attempt,
    AttemptRecord,
    BatchRequest,
    CreateAnswer,
    Created,
    CreateRequest,
    Fetched,
    FetchRequest,
    FindRequest,
    Found,
    PlanRequest,
    PlanSummary,
    SettleRequest,
    Snapshot,
    UploadRequest,
)
from durabatch.sandbox import Sandbox

KEY = "sk-test"
Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Shard:
    """One shard of a batch in the hands of a worker."""

    def __init__(self, resources: Resources, folder: Path, batch_id: str = "b-1") -> None:
        self.resources = resources
        self.folder = folder
        self.batch_id = batch_id
        self.spec = BatchSpec(provider="claude", input=resources.store.uri("input.jsonl"), model="claude-haiku-4-5")
        self.shard, self.number = 0, 1
        self.summary: PlanSummary

    async def step(self, step: Callable[[Request], Awaitable[Answer]], request: Request) -> Answer:
        environment = ActivityEnvironment()
        answer: Answer = await environment.run(step, request)
        return answer

    async def plan(self, *rows: dict[str, Any], **fields: Any) -> PlanSummary:
        (self.folder / "input.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.spec = self.spec.model_copy(update=fields)
        request = PlanRequest(batch_id=self.batch_id, spec=self.spec, now=datetime.now(UTC), execution="run-1")
        self.summary = await self.step(Plan(self.resources).plan, request)
        return self.summary

    @property
    def attempt(self) -> Attempt:
        return self.summary.attempt(self.batch_id, self.shard, self.number)

    @property
    def where(self) -> dict[str, Any]:
        return {"attempt": self.attempt, "account": self.summary.provider.account}

    async def create(self) -> Created:
        upload = UploadRequest(**self.where, generation=1, since=self.summary.planned_at, spec=self.spec)
        uploaded = await self.step(Submit(self.resources).upload, upload)
        assert uploaded.file_id is None
        noted = (await AttemptNotes(self.resources.store, self.attempt, self.where["account"]).read()).newest
        request = CreateRequest(**self.where, file_id=None, rows=uploaded.rows, spec=self.spec, noted=noted)
        return await self.step(Submit(self.resources).create, request)

    async def find(self, rows: int, *strangers: str) -> Found:
        request = FindRequest(**self.where, since=self.summary.planned_at, rows=rows, strangers=strangers)
        return await self.step(Submit(self.resources).find, request)

    async def ended(self, batch: Snapshot) -> Snapshot:
        while not batch.status.ended:
            request = BatchRequest(**self.where, provider_batch_id=batch.id)
            batch = await self.step(Follow(self.resources).poll, request)
        return batch

    async def fetch(self, batch: Snapshot, provisional: bool = False) -> Fetched:
        request = FetchRequest(**self.where, batch=batch, provisional=provisional)
        return await self.step(Follow(self.resources).fetch, request)

    async def settle(self, *batches: Snapshot, unfinished: RowStatus | None = RowStatus.FAILED) -> list[dict[str, Any]]:
        """Settle after attempts that had these batches; return the rows of the results."""
        records = [AttemptRecord(number=n, provider_batch_id=batch.id) for n, batch in enumerate(batches, 1)]
        request = SettleRequest(
            attempt=self.attempt, attempts=tuple(records), retry=RetryPolicy(), unfinished=unfinished
        )
        settled = await self.step(Settle(self.resources).settle, request)
        assert settled.strays.unknown == settled.strays.unreadable == 0
        if settled.retry_rows:
            return []
        return [json.loads(line) for line in self.file("results.jsonl").read_text().splitlines()]

    def file(self, name: str) -> Path:
        return self.folder / self.batch_id / "shards/00000" / name


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path / "state") as running:
        yield running


@asynccontextmanager
async def worker(sandbox: Sandbox, folder: Path, **options: Any) -> AsyncIterator[Shard]:
    settings = ProviderSettings(
        name="claude", kind="anthropic", base_url=sandbox.url, api_key=SecretStr(KEY), **options
    )
    folder.mkdir(exist_ok=True)
    resources = Resources(Store.open(str(folder)), lambda _: settings)
    try:
        yield Shard(resources, folder)
    finally:
        await resources.close()


@pytest.fixture
async def shard(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[Shard]:
    async with worker(sandbox, tmp_path / "store") as one:
        yield one


def native(custom_id: str, text: str = "Hi.") -> dict[str, Any]:
    params = {"model": "claude-opus-4-8", "max_tokens": 32, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "params": params}


async def created(shard: Shard) -> Snapshot:
    answer = await shard.create()
    assert answer.answer is CreateAnswer.CREATED and answer.batch is not None
    return answer.batch


async def test_rows_of_every_form_and_with_any_id_come_back_in_order_under_their_own_ids(
    shard: Shard, sandbox: Sandbox
) -> None:
    chat = {"model": "claude-sonnet-5", "messages": [{"role": "user", "content": "A chat."}]}
    rows = [
        native("mit Leerzeichen", "A native row."),
        {"custom_id": "ü/é\\\"'", "method": "POST", "url": "/v1/chat/completions", "body": chat},
        {"custom_id": "日本" * 100, "input": "A short one."},
        *(native(f"x-{number}") for number in range(40)),
    ]
    await shard.plan(*rows)
    batch = await shard.ended(await created(shard))
    fetched = await shard.fetch(batch)
    assert (fetched.rows, fetched.stranger) == (43, False)
    results = await shard.settle(batch)
    assert [row["custom_id"] for row in results] == [row["custom_id"] for row in rows]
    assert {row["status"] for row in results} == {"succeeded"}
    assert [row["text"].split(" (")[0][:16] for row in results[:3]] == [
        "You said: A nati",
        "You said: A chat",
        "You said: A shor",
    ]
    assert [row["model"] for row in results[:3]] == ["claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5"]
    assert set((await sandbox.books())["rows"].values()) == {1}


async def test_no_shard_is_larger_on_the_wire_than_a_batch_may_be(sandbox: Sandbox, tmp_path: Path) -> None:
    most = 2000
    await sandbox.settings(anthropic_max_bytes=most)
    async with worker(sandbox, tmp_path / "store", max_bytes=most) as shard:
        # Short ids, so that they grow on their way.
        summary = await shard.plan(*(native(chr(number)) for number in range(ord("0"), ord("z"))))
        assert summary.shards > 3
        sent = 0
        for shard.shard in range(summary.shards):
            sent += (await created(shard)).total
    assert sent == summary.rows


async def test_only_the_rows_worth_it_are_sent_again_under_ids_of_their_own(shard: Shard, sandbox: Sandbox) -> None:
    await shard.plan(
        native("a"), native("b", "[[sandbox:overloaded times=1]]"), native("c", "[[sandbox:invalid_request]]")
    )
    first = await shard.ended(await created(shard))
    await shard.fetch(first)
    assert await shard.settle(first, unfinished=None) == []  # one more attempt is due
    await sandbox.clear()
    shard.number = 2
    second = await shard.ended(await created(shard))
    assert second.total == 1
    await shard.fetch(second)
    a, b, c = await shard.settle(first, second)
    assert (a["status"], a["attempts"], a["provider_batch_id"]) == ("succeeded", 1, first.id)
    assert (b["status"], b["attempts"], b["provider_batch_id"]) == ("succeeded", 2, second.id)
    assert (c["status"], c["attempts"], c["error"]["type"]) == ("failed", 1, "invalid_request")


async def test_a_batch_whose_answer_was_lost_is_adopted_and_verified(shard: Shard, sandbox: Sandbox) -> None:
    await shard.plan(native("a"), native("b"))
    await sandbox.fault("batches.create", "lost_answer", times=1)
    assert (await shard.create()).answer is CreateAnswer.LOST
    found = await shard.find(2)
    assert found.provisional and found.batch is not None
    batch = await shard.ended(found.batch)
    fetched = await shard.fetch(batch, provisional=True)
    assert (fetched.rows, fetched.stranger) == (2, False)
    assert [row["status"] for row in await shard.settle(batch)] == ["succeeded", "succeeded"]
    assert len((await sandbox.books())["batches"]) == 1


@pytest.mark.parametrize("theirs", ["another tool's", "another batch of ours"])
async def test_a_strangers_batch_is_let_go_with_nothing_stored(
    shard: Shard, sandbox: Sandbox, tmp_path: Path, theirs: str
) -> None:
    await sandbox.settings(finish_after_polls=1)
    await shard.plan(native("a"), native("b"))
    await sandbox.fault("batches.create", "reset", times=1)
    assert (await shard.create()).answer is CreateAnswer.LOST  # so something of ours may exist
    if theirs == "another tool's":
        client = anthropic.AsyncAnthropic(base_url=sandbox.url, api_key=KEY, max_retries=0, timeout=60)
        requests: Any = [native("a"), native("b")]
        await client.messages.batches.create(requests=requests)
        await client.close()
    else:
        async with worker(sandbox, tmp_path / "another store") as other:
            other.batch_id = "b-2"
            await other.plan(native("a"), native("b"))
            await created(other)
    found = await shard.find(2)
    assert found.provisional and found.batch is not None
    batch = await shard.ended(found.batch)
    fetched = await shard.fetch(batch, provisional=True)
    assert fetched == Fetched(rows=0, bytes=0, stranger=True)
    assert not list((shard.folder / shard.batch_id).rglob("output.jsonl"))
    assert (await shard.find(2, batch.id)).batch is None
    # Now that its results are there to be seen, it is not even a candidate.
    assert (await shard.find(2)).batch is None


async def test_a_candidate_whose_results_tell_nothing_counts_as_ours(shard: Shard, sandbox: Sandbox) -> None:
    await shard.plan(native("a", "[[sandbox:missing]]"))
    batch = await shard.ended(await created(shard))
    assert await shard.fetch(batch, provisional=True) == Fetched(rows=0, bytes=0)
    (row,) = await shard.settle(batch)
    assert (row["status"], row["error"]["type"]) == ("failed", "missing")


async def test_verifying_outlives_a_results_endpoint_that_is_down(shard: Shard, sandbox: Sandbox) -> None:
    await shard.plan(native("a"))
    batch = await shard.ended(await created(shard))
    await sandbox.fault("batches.results", "status", status=529, times=1)
    with pytest.raises(ApplicationError) as caught:
        await shard.fetch(batch, provisional=True)
    assert caught.value.type == "provider_unavailable" and not caught.value.non_retryable
    assert not (await shard.fetch(batch, provisional=True)).stranger


async def test_a_cut_download_is_resumed_and_whole(shard: Shard, sandbox: Sandbox) -> None:
    await shard.plan(*(native(f"r{number}", "text " * 200) for number in range(100)))
    batch = await shard.ended(await created(shard))
    await sandbox.fault("batches.results", "truncate", fraction=0.3, times=3)
    assert (await shard.fetch(batch)).rows == 100
    assert {row["status"] for row in await shard.settle(batch)} == {"succeeded"}


async def test_cancelled_rows_are_lines_of_the_results_as_well(shard: Shard, sandbox: Sandbox) -> None:
    await sandbox.settings(batch_seconds=3600, cancel_fraction=0.5)
    await shard.plan(*(native(f"r{number}") for number in range(10)))
    batch = await created(shard)
    request = BatchRequest(**shard.where, provider_batch_id=batch.id)
    batch = await shard.ended(await shard.step(Follow(shard.resources).cancel, request))
    assert batch.status is ProviderStatus.CANCELED
    assert (await shard.fetch(batch)).rows == 10
    results = await shard.settle(batch, unfinished=RowStatus.CANCELED)
    assert sorted(row["status"] for row in results) == ["canceled"] * 5 + ["succeeded"] * 5
    assert {row["error"]["type"] for row in results if row["error"]} == {ErrorClass.CANCELED}


async def test_a_row_that_cannot_be_translated_is_told_by_line_and_field_before_anything_is_sent(
    shard: Shard, sandbox: Sandbox
) -> None:
    odd = {"custom_id": "b", "body": {"messages": [{"role": "user", "content": "Hi."}], "tools": [{}]}}
    with pytest.raises(ApplicationError, match=r"line 2, body\.tools: cannot be translated for Anthropic"):
        await shard.plan(native("a"), odd)
    assert (await sandbox.books())["requests"] == {}


async def test_another_account_is_never_asked(shard: Shard) -> None:
    await shard.plan(native("a"))
    batch = await shard.ended(await created(shard))
    request = FetchRequest(attempt=shard.attempt, account="another", batch=batch, provisional=True)
    with pytest.raises(ApplicationError) as caught:
        await shard.step(Follow(shard.resources).fetch, request)
    assert caught.value.type == "account_mismatch"


async def test_a_search_does_not_look_further_back_than_the_batch_is_old(shard: Shard) -> None:
    await shard.plan(native("a"))
    await created(shard)
    shard.summary = shard.summary.model_copy(update={"planned_at": datetime.now(UTC) + timedelta(hours=1)})
    assert (await shard.find(1)).batch is None
