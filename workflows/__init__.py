"""What must happen, in which order: deterministic code only. Read `batch.py` first."""

from .batch import BatchWorkflow
from .gateway_batch import GatewayBatchWorkflow
from .ledger import LedgerWorkflow
from .rate_ledger import RatesWorkflow
from .shard_workflow import ShardWorkflow
from .turns import TurnsWorkflow
from .versioned import WORKFLOWS
from .webhook import WebhookWorkflow

__all__ = [
    "WORKFLOWS",
    "BatchWorkflow",
    "GatewayBatchWorkflow",
    "LedgerWorkflow",
    "RatesWorkflow",
    "ShardWorkflow",
    "TurnsWorkflow",
    "WebhookWorkflow",
]
