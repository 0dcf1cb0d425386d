"""What `invoke` returns: a batch that has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..contract import BatchResult, BatchStatus, ResultRow

if TYPE_CHECKING:
    from .client import BatchClient


@dataclass(frozen=True, kw_only=True)
class BatchOutcome:
    """A batch that has ended: iterate over it for its rows, in order."""

    client: BatchClient
    result: BatchResult

    @property
    def succeeded(self) -> bool:
        """Whether every row succeeded."""
        counts = self.result.counts
        return self.result.status is BatchStatus.COMPLETED and counts.succeeded == counts.total

    def __aiter__(self) -> AsyncIterator[ResultRow]:
        return self.client.retrieve(self.result.batch_id)

    async def rows(self) -> dict[str, ResultRow]:
        """Return every row by its id, all in memory, in order."""
        return {row.custom_id: row async for row in self}
