"""ShardWorkflow: one of several shards, as a child workflow with a history of its own."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from temporalio import workflow

from ..contract import BatchSpec, CancelRequest, Phase
from ..contract._base import Reply
from ..contract.steps import PlanSummary
from .shard import Shard
from .state import ShardOutcome, ShardState
from .steering import Steering
from .wishes import heed, read_cancel

SHARD_WORKFLOW = "DurabatchShard"
#: A run of the workflow ends at this many events and goes on as a new one (promise G6 allows 4,000).
MAX_EVENTS = 3_000


class ShardRequest(Reply):
    """What a shard needs to know."""

    batch_id: str
    spec: BatchSpec
    plan: PlanSummary
    shard: int
    deadline_at: datetime
    #: Carried when the workflow continues as new.
    state: ShardState | None = None
    cancel: CancelRequest | None = None


class _Continue(Exception):
    """The history has grown long: go on in a new run."""


@workflow.defn(name=SHARD_WORKFLOW)
class ShardWorkflow:
    """One shard through the provider. BatchWorkflow starts it; nobody else needs to."""

    @workflow.init
    def __init__(self, request: ShardRequest) -> None:
        self._request = request
        self._phase = Phase.UPLOADING
        self._steering = Steering(request.deadline_at, self._tell)
        self._steering.cancel = request.cancel
        self._steering.heartbeat = request.plan.provider.heartbeat
        self._shard = Shard(
            request.batch_id,
            self._steering,
            request.spec,
            request.plan,
            request.state or ShardState(shard=request.shard),
            self._enter,
        )
        self._steering.breathe = self._breathe

    @workflow.signal(description="Stop the shard; the batch sends this to all of its shards")
    def cancel(self, request: Any = None, *ignored: Any) -> None:
        self._want_cancel(read_cancel(request))

    @workflow.signal(description="Ask the provider now instead of at the next poll")
    def poll_now(self, *ignored: Any) -> None:
        self._steering.poll_now = True

    @workflow.run
    async def run(self, request: ShardRequest) -> ShardOutcome:
        try:
            return await heed(asyncio.create_task(self._shard.run()), self._want_cancel)
        except _Continue:
            await workflow.wait_condition(workflow.all_handlers_finished)
            carried = request.model_copy(
                update={
                    "state": self._shard.state,
                    "cancel": self._steering.cancel,
                    "deadline_at": self._steering.deadline_at,
                }
            )
            workflow.continue_as_new(carried)

    async def _breathe(self) -> None:
        info = workflow.info()
        if info.is_continue_as_new_suggested() or info.get_current_history_length() >= MAX_EVENTS:
            raise _Continue

    def _want_cancel(self, request: CancelRequest) -> None:
        if self._steering.cancel is None:
            self._steering.cancel = request
            self._tell()

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._tell()

    def _tell(self) -> None:
        batch = self._shard.state.attempt.batch if hasattr(self, "_shard") else None
        lines = [f"**{self._phase}**, attempt {self._shard.state.attempt.number}" if batch else f"**{self._phase}**"]
        if batch:
            lines.append(f"- Provider batch `{batch.id}`: **{batch.raw_status}**")
        if self._steering.waiting_for:
            lines.append(f"- Waiting: {self._steering.waiting_for}")
        if self._steering.last_error:
            lines.append(f"- Last error: {self._steering.last_error}")
        workflow.set_current_details("\n".join(lines))
