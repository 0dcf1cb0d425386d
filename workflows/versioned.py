"""The workflows for workers that use Worker Versioning: the same code, with a versioning behaviour declared.

Such a worker does not start without one, and a server refuses every task of another worker that has one, so there are
two of each. All of them upgrade automatically, which is safe: histories of every version replay (promise G10). If they
were pinned, a batch would need the workers of its version for days, and a ledger, which lives as long as it is needed,
for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import VersioningBehavior

from ..contract import BATCH_WORKFLOW
from ..contract.gateway_batch import GATEWAY_WORKFLOW
from ..contract.gateway_limits import TURNS_WORKFLOW
from ..contract.ledger import LEDGER_WORKFLOW
from ..contract.names import SHARD_WORKFLOW
from ..contract.rates import RATES_WORKFLOW
from ..contract.webhooks import WEBHOOK_WORKFLOW
from .batch import BatchWorkflow
from .gateway_batch import GatewayBatchWorkflow
from .ledger import LedgerWorkflow
from .rate_ledger import RatesWorkflow
from .shard_workflow import ShardWorkflow
from .turns import TurnsWorkflow
from .webhook import WebhookWorkflow


def _versioned(base: type, workflow_type: str, *failures: type[BaseException]) -> type:
    """Return a workflow with a versioning behaviour.

    Args:
        base: the workflow without one.
        failures: exceptions that fail it, as `base` declares them.
    """
    name = f"Versioned{base.__name__}"
    body = {one: _own(base.__dict__[one], name) for one in ("__init__", "run")}
    made = type(name, (base,), {"__module__": __name__, "__doc__": base.__doc__, **body})
    declare: Callable[[type], type] = workflow.defn(
        name=workflow_type,
        failure_exception_types=failures,
        versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )
    return declare(made)


def _own(method: Any, owner: str) -> Any:
    """Return a method as one of another class's own: Temporal wants `init` and `run` in the class itself."""
    own = FunctionType(method.__code__, method.__globals__, method.__name__, method.__defaults__, method.__closure__)
    own.__dict__.update(method.__dict__)  # what its decorators noted
    own.__annotations__ = method.__annotations__
    own.__module__, own.__qualname__ = __name__, f"{owner}.{method.__name__}"
    return own


# Each by its name, by which Temporal's sandbox imports it.
VersionedBatchWorkflow = _versioned(BatchWorkflow, BATCH_WORKFLOW)
VersionedShardWorkflow = _versioned(ShardWorkflow, SHARD_WORKFLOW, ValidationError)
VersionedLedgerWorkflow = _versioned(LedgerWorkflow, LEDGER_WORKFLOW, ValidationError)
VersionedRatesWorkflow = _versioned(RatesWorkflow, RATES_WORKFLOW, ValidationError)
VersionedGatewayBatchWorkflow = _versioned(GatewayBatchWorkflow, GATEWAY_WORKFLOW, ValidationError)
VersionedTurnsWorkflow = _versioned(TurnsWorkflow, TURNS_WORKFLOW, ValidationError)
VersionedWebhookWorkflow = _versioned(WebhookWorkflow, WEBHOOK_WORKFLOW, ValidationError)

#: What a worker runs; and, by it, what one with Worker Versioning runs instead.
WORKFLOWS: dict[type, type] = {
    BatchWorkflow: VersionedBatchWorkflow,
    ShardWorkflow: VersionedShardWorkflow,
    LedgerWorkflow: VersionedLedgerWorkflow,
    RatesWorkflow: VersionedRatesWorkflow,
    GatewayBatchWorkflow: VersionedGatewayBatchWorkflow,
    TurnsWorkflow: VersionedTurnsWorkflow,
    WebhookWorkflow: VersionedWebhookWorkflow,
}
