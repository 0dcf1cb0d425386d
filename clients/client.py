"""`BatchClient`: batches from Python."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from temporalio.client import Client

from ..activities.store import Store
from ..contract import (
    TASK_QUEUE,
    BatchNotFound,
    BatchProgress,
    BatchResult,
    CancelRequest,
    DurabatchError,
    ResultRow,
)
from ..contract.ledger import LedgerView
from ..workers.settings import Settings
from . import stored
from .connecting import Connecting
from .connection import connection, translated
from .execution import cancel, ending, wait_for_ending
from .ledgers import ledgers
from .listing import BatchRecord, Status
from .outcome import BatchOutcome
from .progress import batch_progress
from .reading import results_uri, retrieved
from .requests import Requests, Rows, gathered
from .spec_fields import SpecFields
from .start import Started, joined, start
from .watch import watch

if TYPE_CHECKING:
    from .retrying import Retried
    from .tries import Trial


class BatchClient:
    """Starts, steers and watches batches.

    ::

        async with BatchClient.connect() as client:
            outcome = await client.invoke({"a": "Say hi", "b": "Say ho"}, provider="openai", model="gpt-5-mini")
            async for row in outcome:
                print(row.custom_id, row.status, row.text)

    Everything it knows is at Temporal and in the store: any other client, in any other process, sees the same batches.

    Args:
        client: a Temporal client whose data converter is `temporalio.contrib.pydantic.pydantic_data_converter`.
        store: the workers' store, or its URL.
        task_queue: the task queue that the workers poll.
    """

    def __init__(self, client: Client, store: Store | str, *, task_queue: str = TASK_QUEUE) -> None:
        self.temporal = client
        self.store = store if isinstance(store, Store) else Store.open(store)
        self.task_queue = task_queue
        self._exits = AsyncExitStack()

    @classmethod
    def connect(cls, settings: Settings | None = None) -> Connecting[Self]:
        """Connect as the environment says: `await` it, or use it as an async context manager.

        Temporal is the one that its own environment configuration names (TEMPORAL_ADDRESS, …, temporal.toml), or else
        the embedded one that `durabatch dev` runs in the current folder. Store and task queue come from the settings.

        Args:
            settings: the configuration; durabatch.toml by default.

        Raises:
            ConfigurationError: no Temporal is configured and none is embedded here, or the configuration is wrong.
            TemporalUnavailable: Temporal cannot be reached.
        """

        async def opened() -> Self:
            found = settings or Settings.load()
            async with AsyncExitStack() as stack:
                way = await stack.enter_async_context(connection())
                client = cls(way.client, found.store.url, task_queue=found.worker.task_queue)
                client._exits = stack.pop_all()
                return client

        return Connecting(opened)

    async def close(self) -> None:
        """Let go of what `connect` took hold of. The batches go on."""
        await self._exits.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def create(
        self, requests: Requests, *, provider: str, id: str | None = None, **fields: Unpack[SpecFields]
    ) -> str:
        """Start a batch and return its id.

        The same id with the same requests and spec is the same batch, also when it has ended: nothing is bought twice.
        How often the provider is asked (`poll`) may differ. A batch that failed before anything was submitted may be
        started again, with any spec.

        Args:
            requests: a dict of id to prompt, messages or whole body; rows, as an iterable or async iterable of dicts;
                or a JSONL file, a folder of them or a pattern such as "data/*.jsonl.gz", as a local path or as a URI
                in the store. Rows go to the store, never to Temporal.
            provider: the provider's name in the workers' configuration.
            id: the batch's id. Without one it is made from the requests, the provider and the rest of the spec, so that
                the same call again finds the same batch.
            fields: the other fields of `BatchSpec`: model, params, endpoint, deadline, …, as `SpecFields` lists them.

        Raises:
            InvalidInput: there are no requests, or they cannot be read.
            InvalidSpec: a field of the spec, or the id, is wrong.
            BatchConflict: the id belongs to a batch with another spec.
            StoreError: the store failed.
            TemporalUnavailable: Temporal does not answer.
        """
        return (await self.start(requests, provider=provider, id=id, **fields)).id

    async def start(
        self, requests: Requests | Rows, *, provider: str, id: str | None = None, **fields: Unpack[SpecFields]
    ) -> Started:
        """Do what `create` does, and say also whether the batch is new."""
        async with gathered(requests, self.store) as rows:
            return await start(self.temporal, self.store, rows, {"provider": provider, **fields}, id, self.task_queue)

    async def find(
        self, requests: Requests | Rows, *, provider: str, id: str | None = None, **fields: Unpack[SpecFields]
    ) -> Started | None:
        """Return the batch that `create` would join, None if it would start one. It starts nothing.

        Raises:
            as `create`.
        """
        async with gathered(requests, self.store) as rows:
            return await joined(self.temporal, self.store, rows, {"provider": provider, **fields}, id)

    async def try_rows(
        self,
        requests: Requests | Rows,
        *,
        provider: str,
        rows: int = 20,
        first: bool = False,
        report: Callable[[BatchProgress], object] | None = None,
        say: Callable[[str], object] | None = None,
        **fields: Unpack[SpecFields],
    ) -> Trial:
        """Run some rows now, in direct mode, and return their results and what all of them would cost.

        It is a small batch of its own, of an hour at most. What it stores is removed again, also when the awaiting task
        is cancelled, and the try with it; `create` knows nothing of it afterwards.

        Args:
            requests, provider, fields: as `create`; of the fields, what concerns the batch as a whole is left out.
            rows: how many are tried, 1,000 at most; all of them where there are no more.
            first: whether to try the first rows, rather than rows of all parts of the input.
            report: called with where the try is, now and then, until it has ended.
            say: called with sentences for a person where the awaiting task is cancelled: what is done, what is left.

        Raises:
            InvalidSpec: so many rows cannot be tried, the provider has no direct mode, or a field is wrong.
            DurabatchError: no row was sent; says why. As `create` besides.
        """
        from .tries import try_rows  # it brings the price list, which nothing else here needs

        given = {"provider": provider, **fields}
        return await try_rows(
            self.temporal, self.store, requests, given, self.task_queue, count=rows, first=first, report=report, say=say
        )

    async def status(self, id: str) -> BatchProgress:
        """Return where a batch is; `result` in it is set once it has ended.

        Without a worker that could report it, `waiting_for` says so and the counts are unknown. Temporal forgets a
        batch some days after its end; then its folder in the store says how it ended, or, in `waiting_for`, that it
        never did.

        Raises:
            BatchNotFound: neither Temporal nor the store knows such a batch.
            StoreError: the store failed.
            TemporalUnavailable: Temporal does not answer.
        """
        try:
            with translated(self.temporal, id):
                return (await batch_progress(self.temporal, id))[0]
        except BatchNotFound:
            kept = await stored.progress(self.store, id)
            if kept is None:
                raise
            return kept

    async def result(self, id: str) -> BatchResult:
        """Wait until a batch has ended, however long that takes, and return how; outages of Temporal are waited out.

        Raises:
            BatchNotFound: there is no such batch, nor a result of one in the store.
            DurabatchError: it ended without accounts: its spec was wrong, or it was terminated at Temporal.
        """
        ended = await wait_for_ending(self.temporal, self.store, id)
        if ended.result is None:
            raise ended.error or DurabatchError()
        return ended.result

    async def failure(self, id: str) -> DurabatchError | None:
        """Wait until a batch has ended and return why it failed: an InvalidInput names the rows; None if it did not.

        Raises:
            BatchNotFound: as `result`.
        """
        return (await wait_for_ending(self.temporal, self.store, id)).error

    async def retry(self, id: str, *, provider: str | None = None, **fields: Unpack[SpecFields]) -> Retried:
        """Run the rows of a batch that did not succeed once more, as a new batch; return at once.

        The first retry, `<id>.retry-1`, takes the rows that failed, expired or were canceled, and each later one those
        that the retry before it has left over; a call while one runs joins it. Rows that cannot be sent stay out.

        Args:
            id: the batch, or one of its retries.
            provider, fields: what shall differ from the batch's own spec. Its output folder is not taken over.

        Raises:
            NotRetryable: nothing is left to retry, it ended before its rows were run, or its input has changed.
            BatchNotFinished, BatchConflict: it runs still, or its retry does, with another spec. Else as `create`.
        """
        from .retrying import retry  # it brings the price list

        given = {**fields, **({} if provider is None else {"provider": provider})}
        return await retry(self.temporal, self.store, id, given, self.task_queue)

    async def retrieve(self, id: str, *, retries: bool = False, so_far: bool = False) -> AsyncGenerator[ResultRow]:
        """Yield the rows of a batch that has ended: one for every request, in the order of the requests.

        Args:
            retries: whether to take a row from the batch's retry in which it has succeeded, or that ran it last.
            so_far: whether a batch that runs is fine: then the rows come that have a result by now.

        Raises:
            BatchNotFound: there is no such batch.
            BatchNotFinished: it has not ended yet.
            DurabatchError: it failed before it had rows; says why.
            StoreError: the store failed.
        """
        async for row in retrieved(self.temporal, self.store, id, retries=retries, so_far=so_far):
            yield row

    async def results_uri(self, id: str, *, errors: bool = False) -> str:
        """Return where the results of a batch that has ended are, or those of them that did not succeed.

        Raises:
            as `retrieve`.
        """
        return await results_uri(self.temporal, self.store, id, errors=errors)

    async def ledgers(self) -> list[LedgerView]:
        """Return the queues that Durabatch keeps of providers' accounts, one for each account and model in use.

        Raises:
            DurabatchError: no worker answers for one of them.
            TemporalUnavailable: Temporal does not answer.
        """
        with translated(self.temporal):
            return await ledgers(self.temporal)

    async def list(self, status: Status | None = None, *, limit: int = 100) -> AsyncGenerator[BatchRecord]:
        """Yield batches, the newest first; then those that Temporal has forgotten, the one that ended last first.

        Args:
            status: only those that are "running", or ended as "completed", "failed", "expired" or "canceled".
            limit: how many at most. All names in the store are listed if Temporal knows fewer.

        Raises:
            StoreError: the store failed.
            TemporalUnavailable: Temporal does not answer.
        """
        async with contextlib.aclosing(stored.all_batches(self.temporal, self.store, status, limit)) as records:
            async for record in records:
                yield record

    async def cancel(self, id: str, *, reason: str | None = None, requested_by: str | None = None) -> bool:
        """Ask a batch to end now, at the provider too. It keeps the rows that are finished and ends as `canceled`.

        Returns at once; `result` waits for the end.

        Returns:
            False if the batch had ended already, which nothing changes.

        Raises:
            BatchNotFound: there is no such batch.
        """
        request = CancelRequest(reason=reason, requested_by=requested_by)
        return await ending(self.temporal, self.store, id) is None and await cancel(self.temporal, id, request)

    async def watch(self, id: str) -> AsyncGenerator[BatchProgress]:
        """Yield where a batch is, every half second at first and every 5 seconds later, until it has ended.

        The last one has `result`. Where no worker, or no Temporal, answers, `waiting_for` says so and watching goes on.

        Raises:
            BatchNotFound: there is no such batch.
        """
        async with contextlib.aclosing(watch(self.temporal, self.store, id)) as progresses:
            async for progress in progresses:
                yield progress

    async def invoke(
        self,
        requests: Requests,
        *,
        provider: str,
        id: str | None = None,
        cancel_on_exit: bool = False,
        **fields: Unpack[SpecFields],
    ) -> BatchOutcome:
        """Create a batch, wait for its end without any time limit, and return its result and rows.

        If the awaiting task is cancelled the batch goes on, and the same call again finds it.

        Args:
            requests, provider, id, fields: as `create`.
            cancel_on_exit: cancel the batch too if the awaiting task is cancelled.

        Raises:
            as `create` and `result`.
        """
        batch_id = await self.create(requests, provider=provider, id=id, **fields)
        try:
            return BatchOutcome(result=await self.result(batch_id), retrieve=self.retrieve)
        except asyncio.CancelledError:
            if cancel_on_exit:
                await self.cancel(batch_id, reason="the caller was cancelled")
            raise
