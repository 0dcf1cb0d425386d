"""Steps of direct mode that answer as a test wants, in place of those that call a provider."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from durabatch.activities.attempt_rows import AttemptRows
from durabatch.activities.providers import open_provider
from durabatch.activities.providers.base import LiveCalls
from durabatch.activities.registry import all_activities
from durabatch.activities.resources import Resources
from durabatch.activities.store import Store
from durabatch.contract.layout import OUTPUT, answers_path
from durabatch.contract.steps import (
    COLLECT,
    RUN_ROWS,
    Attempt,
    Collected,
    CollectRequest,
    Ran,
    RunRequest,
)
from durabatch.workers.plugin import PASSED_THROUGH
from durabatch.workflows import WORKFLOWS

from .house import House


@dataclass
class Endpoint:
    """Answers rows as it is told to, and counts how often each of them was sent."""

    store: Store
    live: LiveCalls
    a_run: int | None = None  #: Rows that one run answers before it stops.
    reason: str = "The endpoint does not answer."  #: Why it stops.
    waits: bool = False  #: Whether that is only a wait for the rate.
    fails_with: str | None = None  #: A code that each run fails with after its rows.
    holds: bool = False  #: A run that has answered its rows goes on until it is cancelled.
    whole_from: int = 100  #: Attempts from this number on are answered at once, whatever else is said.
    statuses: dict[int, list[int]] = field(default_factory=dict)  #: By row, what its first calls answer.
    sent: dict[str, list[int]] = field(default_factory=dict)  #: By attempt, the rows in the order they were sent.
    kept: dict[str, dict[int, bytes]] = field(default_factory=dict)
    runs: int = 0
    priorities: list[Any] = field(default_factory=list)

    @activity.defn(name=RUN_ROWS.name)
    async def run_rows(self, request: RunRequest) -> Ran:
        self.runs += 1
        self.priorities.append(activity.info().priority)
        rows = await self._rows(request.attempt)
        kept = self.kept.setdefault(request.attempt.marker, {})
        sent = self.sent.setdefault(request.attempt.marker, [])
        left = [number for number in rows if number not in kept]
        whole = request.attempt.number >= self.whole_from
        for number in left if whole else left[: self.a_run]:
            sent.append(number)
            kept[number] = self._answer(number, rows[number])
            activity.heartbeat({"rows": len(kept)})
        if self.fails_with:
            raise ApplicationError("The key is refused.", type=self.fails_with, non_retryable=True)
        while self.holds and not whole:
            activity.heartbeat({"rows": len(kept)})
            await asyncio.sleep(0.1)
        reason = None if len(kept) == len(rows) else self.reason
        return Ran(rows=len(rows), kept=len(kept), reason=reason, waits=reason is not None and self.waits)

    @activity.defn(name=COLLECT.name)
    async def collect(self, request: CollectRequest) -> Collected:
        attempt = request.attempt
        kept = self.kept.get(attempt.marker, {})
        lines = [kept[number] for number in sorted(kept)]
        path = answers_path(self.store.path(attempt.root), attempt.shard, attempt.number, OUTPUT)
        await self.store.write(path, b"".join(line + b"\n" for line in lines))
        good = sum(json.loads(line)["response"]["status_code"] == 200 for line in lines)
        return Collected(lines=len(lines), succeeded=good, repeated=max(0, self.runs - 1))

    async def _rows(self, attempt: Attempt) -> dict[int, str]:
        taken = await AttemptRows.read(self.store, attempt)
        return {
            number: row.custom_id for number, row in await asyncio.to_thread(lambda: list(taken.read_sent(self.store)))
        }

    def _answer(self, number: int, custom_id: str) -> bytes:
        said = self.statuses.get(number, [])
        status = said.pop(0) if said else 200
        if status != 200:
            return self.live.line(custom_id, status, None, b'{"error": {"message": "told to fail", "code": null}}')
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        message = {"role": "assistant", "content": f"Answer {number}."}
        body = {"object": "chat.completion", "model": "gpt-4o-mini", "choices": [{"message": message}], "usage": usage}
        return self.live.line(custom_id, 200, f"req-{number}", json.dumps(body).encode())


@contextlib.asynccontextmanager
async def direct_worker(house: House, endpoint: Endpoint) -> AsyncIterator[Worker]:
    """Run a worker of the house whose direct mode is this endpoint."""
    settings = house.settings
    resources = Resources(endpoint.store, settings.provider, settings.worker.heartbeat)
    own = {RUN_ROWS.name, COLLECT.name}
    steps = [run for run in all_activities(resources) if activity._Definition.must_from_callable(run).name not in own]
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH)
    async with Worker(
        house.client,
        task_queue=house.task_queue,
        workflows=list(WORKFLOWS),
        activities=[*steps, endpoint.run_rows, endpoint.collect],
        workflow_runner=SandboxedWorkflowRunner(restrictions=restrictions),
        graceful_shutdown_timeout=timedelta(0),
    ) as running:
        try:
            yield running
        finally:
            await resources.close()


def endpoint_of(house: House, **told: Any) -> Endpoint:
    live = open_provider(house.settings.provider("sandbox")).live
    assert live is not None
    return Endpoint(Store.open(house.settings.store.url), live, **told)
