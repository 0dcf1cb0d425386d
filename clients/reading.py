"""Which results of a batch are read: its own, those of its retries as well, or what there is so far."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from temporalio.client import Client

from ..activities.row_pages import PENDING, RowSoFar
from ..activities.so_far import SoFar
from ..activities.store import Store
from ..contract import BatchNotFinished, DurabatchError, ResultRow, RowStatus
from .connection import translated
from .execution import describe, ending
from .result_rows import as_row, merged_rows, rows
from .retry_chain import results_of_all
from .start import spec_of

#: Rows that are read at a time.
_PAGE = 1000
_WITH_RESULT = frozenset(status.value for status in RowStatus)


async def results_uri(client: Client, store: Store, batch_id: str, *, errors: bool = False) -> str:
    """Return where the results of a batch that has ended are, or those of them that did not succeed.

    Raises:
        as `BatchClient.retrieve`.
    """
    ended = await ending(client, store, batch_id)
    if ended is None:
        raise BatchNotFinished(f"The batch {batch_id!r} has not ended yet; `status` says where it is.")
    uri = ended.result and (ended.result.errors if errors else ended.result.results)
    if not uri:
        raise ended.error or DurabatchError(f"The batch {batch_id!r} ended without results.")
    return uri


async def retrieved(
    client: Client, store: Store, batch_id: str, *, retries: bool, so_far: bool
) -> AsyncGenerator[ResultRow]:
    """Yield rows of a batch, as `BatchClient.retrieve`."""
    if so_far and await ending(client, store, batch_id) is None:
        async for row in rows_so_far(client, store, batch_id):
            if row.result is not None:
                yield as_row(row.result, f"The row {row.custom_id!r}")
        return
    uris = await results_of_all(client, store, batch_id) if retries else [await results_uri(client, store, batch_id)]
    async for found in rows(store, uris[0]) if len(uris) == 1 else merged_rows(store, uris):
        yield found


async def rows_so_far(client: Client, store: Store, batch_id: str, *, all: bool = False) -> AsyncGenerator[RowSoFar]:
    """Yield the rows of a batch that runs which have a result by now, in the order of the requests.

    Args:
        all: the others as well.

    Raises:
        BatchNotFound: Temporal does not know it.
        StoreError: the store failed.
        TemporalUnavailable: Temporal does not answer.
    """
    with translated(client, batch_id):
        spec = await spec_of(client, await describe(client, batch_id))
    opened = await SoFar.open(store, store.path(spec.output) if spec and spec.output else batch_id)
    after, more = None, opened is not None
    while opened is not None and more:
        page, more = await opened.page(after, _PAGE, _WITH_RESULT | {PENDING} if all else _WITH_RESULT)
        for row in page:
            yield row
        after = page[-1].place if page else None
