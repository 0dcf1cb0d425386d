"""What must happen, in which order: deterministic code only. Read `batch.py` first."""

from .batch import BatchWorkflow
from .ledger import LedgerWorkflow
from .shard_workflow import ShardWorkflow

__all__ = ["BatchWorkflow", "LedgerWorkflow", "ShardWorkflow"]
