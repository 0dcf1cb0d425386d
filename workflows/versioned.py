"""The workflows for workers that use Worker Versioning: the same code, with a versioning behaviour declared.

Such a worker does not start without one, and a server refuses every task of another worker that has one, so there are
two of each. All of them upgrade automatically, which is safe: histories of every version replay (promise G10). If they
were pinned, a batch would need the workers of its version for days, and a ledger, which lives as long as it is needed,
for ever.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import VersioningBehavior

from ..contract import BATCH_WORKFLOW, BatchResult
from ..contract.gateway_batch import GATEWAY_WORKFLOW, BatchObject
from ..contract.ledger import LEDGER_WORKFLOW, LedgerStart, Reservation
from ..contract.names import SHARD_WORKFLOW
from ..contract.rates import RATES_WORKFLOW, RatesCarried, RatesStart
from .batch import BatchWorkflow
from .gateway_batch import GatewayBatchWorkflow
from .gateway_state import GatewayStart
from .ledger import LedgerWorkflow
from .rate_ledger import RatesWorkflow
from .shard_workflow import ShardRequest, ShardWorkflow
from .state import ShardOutcome


# Temporal wants `init` and `run` in the class itself.
@workflow.defn(name=BATCH_WORKFLOW, versioning_behavior=VersioningBehavior.AUTO_UPGRADE)
class VersionedBatchWorkflow(BatchWorkflow):
    """BatchWorkflow."""

    @workflow.init
    def __init__(self, spec: Any = None, carried: Any = None) -> None:
        super().__init__(spec, carried)

    @workflow.run
    async def run(self, spec: Any = None, carried: Any = None) -> BatchResult:
        return await super().run(spec, carried)


@workflow.defn(
    name=SHARD_WORKFLOW,
    failure_exception_types=[ValidationError],
    versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
)
class VersionedShardWorkflow(ShardWorkflow):
    """ShardWorkflow."""

    @workflow.init
    def __init__(self, request: ShardRequest) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: ShardRequest) -> ShardOutcome:
        return await super().run(request)


@workflow.defn(
    name=LEDGER_WORKFLOW,
    failure_exception_types=[ValidationError],
    versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
)
class VersionedLedgerWorkflow(LedgerWorkflow):
    """LedgerWorkflow."""

    @workflow.init
    def __init__(
        self,
        start: LedgerStart | None = None,
        holding: list[Reservation] | None = None,
        waiting: list[Reservation] | None = None,
    ) -> None:
        super().__init__(start, holding, waiting)

    @workflow.run
    async def run(
        self,
        start: LedgerStart | None = None,
        holding: list[Reservation] | None = None,
        waiting: list[Reservation] | None = None,
    ) -> None:
        await super().run(start, holding, waiting)


@workflow.defn(
    name=RATES_WORKFLOW,
    failure_exception_types=[ValidationError],
    versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
)
class VersionedRatesWorkflow(RatesWorkflow):
    """RatesWorkflow."""

    @workflow.init
    def __init__(self, start: RatesStart | None = None, carried: RatesCarried | None = None) -> None:
        super().__init__(start, carried)

    @workflow.run
    async def run(self, start: RatesStart | None = None, carried: RatesCarried | None = None) -> None:
        await super().run(start, carried)


@workflow.defn(
    name=GATEWAY_WORKFLOW,
    failure_exception_types=[ValidationError],
    versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
)
class VersionedGatewayBatchWorkflow(GatewayBatchWorkflow):
    """GatewayBatchWorkflow."""

    @workflow.init
    def __init__(self, start: GatewayStart) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: GatewayStart) -> BatchObject:
        return await super().run(start)


#: What a worker runs; and, by it, what one with Worker Versioning runs instead.
WORKFLOWS: dict[type, type] = {
    BatchWorkflow: VersionedBatchWorkflow,
    ShardWorkflow: VersionedShardWorkflow,
    LedgerWorkflow: VersionedLedgerWorkflow,
    RatesWorkflow: VersionedRatesWorkflow,
    GatewayBatchWorkflow: VersionedGatewayBatchWorkflow,
}
