"""What the plan step is asked: which batch, which run of it, and which store its client used."""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow

from ..contract import BatchSpec
from ..contract.names import STORE_MEMO
from ..contract.steps import PlanRequest

#: What ends a new batch at once: its client and its worker use different stores. One that was reset waits, as something
#: of it may be bought.
ANOTHER_STORE = frozenset({"store_mismatch"})


def plan_request(spec: BatchSpec, started_at: datetime, execution: str) -> PlanRequest:
    """Return the request for the plan of the batch that this workflow is, which was started as the run `execution`."""
    info = workflow.info()
    used = workflow.memo().get(STORE_MEMO)
    return PlanRequest(
        batch_id=info.workflow_id,
        spec=spec,
        now=started_at,
        execution=execution,
        scoped=True,
        store=used if isinstance(used, str) else "",
        reset=info.original_execution_run_id not in ("", info.run_id),
    )
