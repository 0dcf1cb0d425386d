"""What `invoke` returns: a batch that has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from ..contract import BatchResult, BatchStatus, ResultRow


@dataclass(frozen=True, kw_only=True)
class BatchOutcome:
    """A batch that has ended: iterate over it for its rows, in order."""

    result: BatchResult
    retrieve: Callable[[str], AsyncIterator[ResultRow]] = field(repr=False)  #: Reads the rows of a batch by its id.

    @property
    def succeeded(self) -> bool:
        """Whether every row succeeded."""
        counts = self.result.counts
        return self.result.status is BatchStatus.COMPLETED and counts.succeeded == counts.total

    def __aiter__(self) -> AsyncIterator[ResultRow]:
        return self.retrieve(self.result.batch_id)

    async def rows(self) -> dict[str, ResultRow]:
        """Return every row by its id, all in memory, in order."""
        return {row.custom_id: row async for row in self}
