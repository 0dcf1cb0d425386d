"""The plan of a batch, and whether an earlier run of the batch may have bought anything."""

from __future__ import annotations

from temporalio import workflow

from ..contract import BatchSpec
from ..contract.names import STORE_MEMO
from ..contract.steps import PLAN, RECALL, PlanRequest, PlanSummary
from .completion import TIDY_PATIENCE
from .decisions import FIXABLE
from .failures import StepFailed, Stopped
from .state import Carried
from .steering import LONG, PATIENCE, Steering

#: What ends a new batch at once: its client and its worker use different stores. One that was reset waits, as something
#: of it may be bought.
ANOTHER_STORE = frozenset({"store_mismatch"})


class Planning:
    """How a batch comes to its plan."""

    def __init__(self, spec: BatchSpec, carried: Carried, steering: Steering) -> None:
        self._spec = spec
        self._carried = carried
        self._steering = steering

    async def run(self) -> PlanSummary:
        """Return the plan that the batch goes by.

        Raises:
            StepFailed: there is none, for good, and there was none before.
            Stopped: a stop came first.
        """
        plan = self._carried.plan
        if plan is None:
            try:
                plan = await self._plan()
            except (Stopped, StepFailed) as stop:
                if isinstance(stop, StepFailed) and stop.code not in FIXABLE:
                    raise
                # A run before this one (it was reset, or terminated) may have bought something with its plan. Then
                # what an operator can fix is waited out, as it always is once something is bought.
                plan = await self._recall()
                if plan is None:
                    raise
            self._carried.keep_plan(plan)
            if plan.bought:
                self._steering.mark_paid()
        self._steering.heartbeat = plan.provider.heartbeat
        return plan

    async def bought_before(self) -> bool:
        """Return whether a run before this one, which was reset or terminated, may have bought anything."""
        try:
            recalled = await self._steering.call(
                RECALL,
                self._request(),
                summary="was anything bought before?",
                submitted=True,
                give_up_at=workflow.now() + TIDY_PATIENCE,
            )
        except StepFailed as failed:
            self._steering.report(failed.message)
            return True  # it is not known, and waiting for an operator loses nothing
        return recalled.plan is not None and recalled.plan.bought

    async def _plan(self) -> PlanSummary:
        if self._steering.stop():
            raise Stopped
        request = self._request()
        return await self._steering.call(
            PLAN,
            request,
            summary="read and check the input",
            timeout=LONG,
            stops=True,
            interrupts=True,
            passes=frozenset() if request.reset else ANOTHER_STORE,
        )

    async def _recall(self) -> PlanSummary | None:
        recalled = await self._steering.call(
            RECALL,
            self._request(),
            summary="was there a plan before?",
            submitted=True,
            give_up_at=self._steering.deadline_at + PATIENCE,
        )
        return recalled.plan

    def _request(self) -> PlanRequest:
        info = workflow.info()
        used = workflow.memo().get(STORE_MEMO)
        return PlanRequest(
            batch_id=info.workflow_id,
            spec=self._spec,
            now=self._carried.started_at,
            execution=self._carried.execution,
            store=used if isinstance(used, str) else "",
            reset=info.original_execution_run_id not in ("", info.run_id),
        )
