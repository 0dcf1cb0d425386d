"""A batch and its retries, `<id>.retry-1`, `<id>.retry-2`, …: which ones there are, and what they have."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

from temporalio.client import Client

from ..activities.store import Store
from ..contract import BatchNotFinished, BatchNotFound, BatchStatus, NotRetryable
from .execution import Ending, ending

_RETRY = re.compile(r"(.+)\.retry-([1-9]\d{0,8})")


@dataclass(frozen=True)
class Run:
    """A batch that has ended with results: the original, or one of its retries."""

    id: str
    results: str  #: URI.

    def folder(self, store: Store) -> str:
        """Return the path of its folder in the store."""
        return store.path(self.results).rpartition("/")[0]


def retry_id(batch_id: str, number: int) -> str:
    """Return the id of a batch's retry; they are numbered from 1."""
    return f"{batch_id}.retry-{number}"


async def original_of(client: Client, store: Store, batch_id: str) -> tuple[str, Ending]:
    """Return the batch whose retries an id is one of, itself where it is none, and how it ended."""
    found = _RETRY.fullmatch(batch_id)
    if found:
        with contextlib.suppress(BatchNotFound):  # it is only called so
            return found[1], await ending_for_sure(client, store, found[1])
    return batch_id, await ending_for_sure(client, store, batch_id)


async def check_last(client: Client, store: Store, batch_id: str) -> None:
    """See that what looks like a retry of a batch which nobody knows any more is the last one: it knows what is left.

    Raises:
        NotRetryable: it is not.
    """
    if (found := _RETRY.fullmatch(batch_id)) is None:
        return
    last, number = batch_id, int(found[2])
    with contextlib.suppress(BatchNotFound):
        while True:
            number += 1
            await ending(client, store, retry_id(found[1], number))
            last = retry_id(found[1], number)
    if last != batch_id:
        raise NotRetryable(
            f"The batch {found[1]!r} is not known any more, and {batch_id!r} is not the last of its retries: retry "
            f"{last!r}, which has what is left over."
        )


async def ending_for_sure(client: Client, store: Store, batch_id: str) -> Ending:
    """Return how a batch ended.

    Raises:
        BatchNotFinished: it has not.
        BatchNotFound: neither Temporal nor the store knows it.
    """
    ended = await ending(client, store, batch_id)
    if ended is None:
        raise BatchNotFinished(f"The batch {batch_id!r} has not ended yet, so nothing of it can be retried.")
    return ended


def with_results(batch_id: str, ended: Ending) -> Run:
    """Return a batch by its ending.

    Raises:
        NotRetryable: it has no results.
    """
    if ended.result is None or not ended.result.results:
        why = f" {ended.error.message}" if ended.error else ""
        raise NotRetryable(
            f"The batch {batch_id!r} ended before its rows were run, so there is nothing to retry: give the requests "
            f"again.{why}"
        )
    return Run(batch_id, ended.result.results)


async def runs_of(client: Client, store: Store, original: Run) -> list[Run | None]:
    """Return the original and those of its retries that have ended, in order; None for one without results."""
    runs: list[Run | None] = [original]
    while True:
        id = retry_id(original.id, len(runs))
        try:
            ended = await ending(client, store, id)
        except BatchNotFound:
            return runs
        result = ended.result if ended else None
        if result is not None and result.results:
            runs.append(Run(id, result.results))
        elif result is not None and result.status in (BatchStatus.CANCELED, BatchStatus.EXPIRED):
            runs.append(None)  # it was stopped before it began
        else:
            return runs  # it runs, or failed and goes on under its own id with what it may have bought


async def results_of_all(client: Client, store: Store, batch_id: str) -> list[str]:
    """Return the URIs of the results of a batch and of those of its retries that have ended, in order.

    Raises:
        as `retry`.
    """
    original, ended = await original_of(client, store, batch_id)
    runs = await runs_of(client, store, with_results(original, ended))
    return [run.results for run in runs if run is not None]
