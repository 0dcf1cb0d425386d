"""The requests of a message batch, and its results: a line for each request, in their order."""

from __future__ import annotations

from collections.abc import Iterator

from ...contract import AccountingError, BatchResult, ObjectNotFound, StoreError
from ...contract.gateway_batch import BatchObject, GatewayBatch, GatewayStatus, MessageCounts, message_rows_path
from ...contract.gateway_layout import (
    message_requests_path,
    message_results_path,
    messages_folder,
    parse_message_requests_path,
)
from ..lease import Lease
from ..lines import split_lines
from ..manifest import stream_results
from ..store import Store
from .message_lines import MessageLines

#: Names of a batch's folder, of which there are three at most.
_NAMES = 10
#: What becomes of requests of which none was run, by how their batch ended.
_UNRUN = {GatewayStatus.CANCELLED: "canceled", GatewayStatus.EXPIRED: "expired"}


async def count_requests(store: Store, batch: GatewayBatch) -> None:
    """Count a batch's requests among what its tenant stores, for as long as they are kept.

    Raises:
        StoreError: the store failed.
    """
    size = await store.size(message_rows_path(batch.tenant, batch.id))
    await store.write(message_requests_path(batch.tenant, batch.id, size or 0), b"")


async def remove_requests(store: Store, tenant: str, batch_id: str) -> None:
    """Remove a batch's requests, and what counts them.

    Raises:
        StoreError: the store failed.
    """
    await store.delete(message_rows_path(tenant, batch_id))
    for path in await store.page(messages_folder(tenant, batch_id), limit=_NAMES):
        if parse_message_requests_path(path) is not None:
            await store.delete(path)


def write_messages(
    store: Store, batch: GatewayBatch, shown: BatchObject, result: BatchResult | None, translated: bool, lease: Lease
) -> MessageCounts:
    """Write the results of a batch that has ended, and return what became of its requests. Blocks.

    Args:
        shown: the batch as it ended.
        result: how its rows ended; None where none was run.
        translated: whether the answers are in OpenAI's shape.

    Raises:
        AccountingError: there are not as many results as requests.
        StoreError: the store failed, or the results are damaged or gone.
    """
    made = MessageLines(batch.id, translated=translated)
    ran = result.results if result is not None else None
    with store.writer(message_results_path(batch.tenant, batch.id)) as out:
        lines = _unrun(store, batch, shown, made) if ran is None else _results(store, ran, made)
        number = 0
        for number, line in enumerate(lines, 1):
            if not number % 1024:
                lease.check()
            out.write(line)
            lease.rows = number
        if number != batch.rows and not (number == 0 and ran is None):
            raise AccountingError(
                f"The message batch {batch.id} has {batch.rows:,} requests, and {number:,} results were found."
            )
    if number == 0:
        return MessageCounts(errored=batch.rows)
    return made.counts


def _results(store: Store, uri: str, made: MessageLines) -> Iterator[bytes]:
    for number, line in enumerate(split_lines(stream_results(store, uri)), 1):
        try:
            yield made.line(line)
        except ValueError:
            raise StoreError(f"Line {number} of {uri} is no result row: bring the file back as it was.") from None


def _unrun(store: Store, batch: GatewayBatch, shown: BatchObject, made: MessageLines) -> Iterator[bytes]:
    """Yield a line for each request of a batch of which none was run."""
    outcome = _UNRUN.get(shown.status, "errored")
    listed = shown.errors.data if shown.errors else ()
    of_line = {error.line: error for error in listed if error.line is not None}
    first = next(iter(listed), None)
    try:
        for number, row in enumerate(split_lines(store.stream(message_rows_path(batch.tenant, batch.id))), 1):
            yield made.unrun(row, outcome, of_line.get(number, first))
    except ObjectNotFound:
        return  # nobody can say any more what they were
