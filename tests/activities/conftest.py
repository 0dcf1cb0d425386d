"""The steps, one by one: a real store, a real sandbox over HTTP, and Temporal's own ActivityEnvironment."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from durabatch.activities.apply import Apply
from durabatch.activities.direct.collect import Collect
from durabatch.activities.direct.governors import Governors
from durabatch.activities.direct.run import RunRows
from durabatch.activities.follow import Follow
from durabatch.activities.notes import AttemptNotes
from durabatch.activities.plan import Plan
from durabatch.activities.providers import ProviderSettings
from durabatch.activities.resources import Resources
from durabatch.activities.settle import Settle
from durabatch.activities.store import Store
from durabatch.activities.submit import Submit
from durabatch.contract import BatchSpec, RetryPolicy, RowStatus
from durabatch.contract.errors import error_classes
from durabatch.contract.rates import RateAsk, RateLease, RatesStart, Shares
from durabatch.contract.steps import (
    Applied,
    ApplyRequest,
    Attempt,
    AttemptRecord,
    BatchRequest,
    Collected,
    CollectRequest,
    Created,
    CreateRequest,
    Fetched,
    FetchRequest,
    FindRequest,
    Found,
    PlanRequest,
    PlanSummary,
    Ran,
    RunRequest,
    Settled,
    SettleRequest,
    Snapshot,
    TidyRequest,
    Uploaded,
    UploadRequest,
)
from durabatch.sandbox import Sandbox

KEY = "sk-test"
URL = "/v1/chat/completions"
Request = TypeVar("Request")
Answer = TypeVar("Answer")


def chat(custom_id: str, text: str = "Say hi.", model: str | None = "gpt-4o-mini", **body: Any) -> dict[str, Any]:
    """OpenAI's line."""
    named = {} if model is None else {"model": model}
    messages = [{"role": "user", "content": text}]
    return {"custom_id": custom_id, "method": "POST", "url": URL, "body": {**named, "messages": messages, **body}}


def jsonl(*rows: Any) -> bytes:
    """Rows as one program would write them; bytes are lines that are special in some way."""
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


class OwnLedger:
    """A rate ledger that leases everything to the one worker there is."""

    label = "desk"

    def __init__(self, of: RatesStart) -> None:
        pass

    async def lease(self, ask: RateAsk) -> RateLease:
        limits = ask.limits
        amounts = Shares(
            requests=limits.requests_per_minute and limits.requests_per_minute / 60,
            tokens=limits.tokens_per_minute and limits.tokens_per_minute / 60,
            slots=limits.slots,
        )
        most = limits.tokens_per_minute
        return RateLease(seq=ask.obeys + 1, ttl=ask.ttl, renew_in=ask.ttl / 3, amounts=amounts, most_tokens=most)

    async def release(self, worker: str) -> None:
        pass


class Desk:
    """One batch in the hands of a worker: each step as Temporal calls it, with the newest answers filled in."""

    chat = staticmethod(chat)
    jsonl = staticmethod(jsonl)

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.store = Store.open(str(folder))
        self.options: dict[str, Any] = {}  #: Provider settings; they count from the next `resources` on.
        self.resources = self._resources()
        self.batch_id = "b-1"
        self.spec = BatchSpec(provider="gpt", input=self.store.uri("input.jsonl"))
        self.now = datetime.now(UTC)
        self.execution = "run-1"
        self.summary: PlanSummary
        self.shard, self.number = 0, 1
        self.sent: list[AttemptRecord] = []  #: The attempts that settle is given.

    def _resources(self) -> Resources:
        return Resources(self.store, self._settings, governors=Governors(timedelta(minutes=1), OwnLedger))

    def _settings(self, name: str) -> ProviderSettings:
        kinds = {"gpt": ("openai", f"{self.sandbox.url}/v1"), "claude": ("anthropic", self.sandbox.url)}
        kind, url = kinds[name]
        return ProviderSettings(
            **{"name": name, "kind": kind, "base_url": url, "api_key": SecretStr(KEY), **self.options}
        )

    async def reopen(self, **options: Any) -> None:
        """Go on as another worker, configured so."""
        await self.resources.close()
        self.options = options
        self.resources = self._resources()

    async def step(self, step: Callable[[Request], Awaitable[Answer]], request: Request, **info: Any) -> Answer:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, **{"heartbeat_timeout": timedelta(minutes=1), **info})
        answer: Answer = await environment.run(step, request)
        return answer

    # --- the steps ---

    async def plan(self, *rows: Any, source: bytes | None = None, **fields: Any) -> PlanSummary:
        """Plan these rows, or, without any, what lies in the store."""
        if rows or source is not None:
            (self.folder / "input.jsonl").write_bytes(jsonl(*rows) if source is None else source)
        self.spec = BatchSpec(**{**self.spec.model_dump(exclude_unset=True), **fields})
        request = PlanRequest(batch_id=self.batch_id, spec=self.spec, now=self.now, execution=self.execution)
        self.summary = await self.step(Plan(self.resources).plan, request)
        return self.summary

    @property
    def attempt(self) -> Attempt:
        return self.summary.attempt(self.batch_id, self.shard, self.number)

    @property
    def _where(self) -> dict[str, Any]:
        return {"attempt": self.attempt, "account": self.summary.provider.account}

    async def upload(self, generation: int = 1) -> Uploaded:
        request = UploadRequest(**self._where, generation=generation, since=self.now, spec=self.spec)
        return await self.step(Submit(self.resources).upload, request)

    async def find(self, rows: int = 0, sent: bool = False) -> Found:
        request = FindRequest(**self._where, since=self.now, rows=rows, sent=sent)
        return await self.step(Submit(self.resources).find, request)

    async def create(self, uploaded: Uploaded, *, noted: int | None = None, **info: Any) -> Created:
        """Create the provider batch, as after a look just now; `noted` is what an earlier one found."""
        if noted is None:
            noted = (await AttemptNotes(self.store, self.attempt, self.summary.provider.account).read()).newest
        sent = {"file_id": uploaded.file_id, "rows": uploaded.rows, "noted": noted}
        request = CreateRequest(**self._where, **sent, spec=self.spec)
        return await self.step(Submit(self.resources).create, request, **info)

    async def tidy(self, file_id: str | None = None) -> None:
        request = TidyRequest(**self._where, since=self.now, file_id=file_id)
        await self.step(Submit(self.resources).tidy, request)

    async def poll(self, batch_id: str) -> Snapshot:
        request = BatchRequest(**self._where, provider_batch_id=batch_id)
        return await self.step(Follow(self.resources).poll, request)

    async def cancel(self, batch_id: str) -> Snapshot:
        request = BatchRequest(**self._where, provider_batch_id=batch_id)
        return await self.step(Follow(self.resources).cancel, request)

    async def fetch(self, batch: Snapshot, **how: Any) -> Fetched:
        return await self.step(Follow(self.resources).fetch, FetchRequest(**self._where, batch=batch, **how))

    async def run_rows(self, **info: Any) -> Ran:
        return await self.step(RunRows(self.resources).run_rows, RunRequest(**self._where, spec=self.spec), **info)

    async def collect(self) -> Collected:
        return await self.step(Collect(self.resources).collect, CollectRequest(**self._where))

    async def settle(self, unfinished: RowStatus | None = None, **fields: Any) -> Settled:
        request = SettleRequest(
            **{
                "attempt": self.attempt,
                "attempts": tuple(self.sent),
                "retry": RetryPolicy(),
                "unfinished": unfinished,
                **fields,
            }
        )
        return await self.step(Settle(self.resources).settle, request)

    async def apply(self) -> Applied:
        facts = self.summary.model_dump(include={"root", "shards", "rows", "store"})
        request = ApplyRequest(batch_id=self.batch_id, **facts)
        return await self.step(Apply(self.resources).apply, request)

    # --- several at once ---

    async def ended(self, batch: Snapshot | None) -> Snapshot:
        """Poll until the provider batch has ended."""
        assert batch is not None
        while not batch.status.ended:
            batch = await self.poll(batch.id)
        return batch

    async def through(self, **record: Any) -> Snapshot:
        """Take the attempt through the provider, and note it for settle."""
        batch = await self.ended((await self.create(await self.upload())).batch)
        if batch.output or batch.errors:
            await self.fetch(batch)
        self.sent.append(AttemptRecord(number=self.number, provider_batch_id=batch.id, **record))
        return batch

    def answered(self, *lines: Any, name: str = "output", **record: Any) -> None:
        """Put results into the attempt's folder by hand, as if fetched, and note the attempt for settle."""
        self.path(f"attempt-{self.number}/{name}.jsonl").parent.mkdir(parents=True, exist_ok=True)
        self.path(f"attempt-{self.number}/{name}.jsonl").write_bytes(jsonl(*lines))
        if not self.sent or self.sent[-1].number != self.number:
            batch_id = f"batch_{self.number}"
            self.sent.append(AttemptRecord(**{"number": self.number, "provider_batch_id": batch_id, **record}))

    # --- what is in the store and at the provider ---

    def path(self, name: str) -> Path:
        """A file of the shard's."""
        return self.folder / self.batch_id / f"shards/{self.shard:05d}" / name

    def rows(self, name: str = "results.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path(name).read_bytes().splitlines()]

    def index(self) -> list[Any]:
        return self.rows("rows.jsonl")

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path("shard.json").read_bytes())
        return found

    async def files(self) -> list[str]:
        """Names of the files that are at the provider now."""
        books = await self.sandbox.books()
        return [file["filename"] for file in books["files"] if not file["deleted"]]

    async def uploaded_bytes(self, file_id: str | None) -> bytes:
        """A file as the provider has it."""
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(headers=headers, trust_env=False, verify=False) as client:
            return (await client.get(f"{self.sandbox.url}/v1/files/{file_id}/content")).content

    # --- errors ---

    async def refused(self, call: Awaitable[Any]) -> ApplicationError:
        """Await a step that fails, and check what every failure must be like."""
        with pytest.raises(ApplicationError) as caught:
            await call
        error = caught.value
        assert error.type in error_classes(), f"{error.type}: {error.message}"
        assert error.__cause__ is None  # a cause goes into history, too
        assert error.non_retryable or error_classes()[error.type].retryable
        return error


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path / "sandbox") as running:
        yield running


@pytest.fixture
async def desk(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Desk]:
    folder = tmp_path / "store"
    folder.mkdir()
    found = Desk(folder, sandbox)
    yield found
    await found.resources.close()
