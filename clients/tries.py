"""Trying some rows before all of an input is bought: a small batch in direct mode that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
from temporalio.client import Client

from ..activities.prices import picodollars
from ..activities.records import decode_plan
from ..activities.store import Store, identify
from ..contract import (
    BatchNotFound,
    BatchProgress,
    BatchResult,
    CancelRequest,
    DurabatchError,
    InvalidInput,
    Mode,
    ObjectNotFound,
    ResultRow,
    RowStatus,
)
from ..contract.layout import is_record, plan_path, try_path
from .connection import translated
from .execution import Ending, ending, wait_for_ending
from .requests import Requests, Rows, gathered
from .result_rows import rows as result_rows
from .sample import Sample, check_count, write_sample
from .spec_fields import check_fields, spec_from
from .start import start
from .watch import watch
from .whole_cost import CostRange, whole_cost

#: Somebody waits for the answers. What is not answered by then never is.
DEADLINE = timedelta(hours=1)
#: A try whose client was killed may have no worker that could end it; then Temporal does, this long after its deadline.
_GRACE = timedelta(minutes=30)
#: How long a try that is broken off may take to end before it is left to end by itself, in seconds.
_PATIENCE = 15.0
#: Beginning of a try's id, and digits of its random end: each try is a batch of its own.
_PREFIX, _DIGITS = "try-", 12
#: What a try does not take over from its batch: where its results go, who is notified, and its labels.
_LEFT_OUT = ("mode", "output", "on_complete", "metadata", "completion_window")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What some rows of an input were answered, and what all of them would cost."""

    total: int  #: Rows of the whole input.
    first: bool  #: Whether the first rows were tried, rather than rows of all parts of the input.
    rows: tuple[ResultRow, ...]  #: The results of the rows that were tried, with their own ids, in order.
    result: BatchResult  #: Accounts of the rows that were tried; its id is that of the try, and its files are gone.
    #: What the whole input would cost at the batch price, if every row succeeded as those that did; None where the
    #: provider runs no batches, or no price is known.
    batch_cost: CostRange | None
    direct_cost: CostRange | None  #: The same row by row, at the list price; None where no price is known.

    @property
    def cost_is_lower_bound(self) -> bool:
        """Whether it would cost at least so much, as the cost of some answers is not known."""
        return self.direct_cost is not None and self.result.unpriced.total > 0

    def facts(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return {
            "total": self.total,
            "tried": len(self.rows),
            "first": self.first,
            "batch_cost_usd": self.batch_cost and self.batch_cost._asdict(),
            "direct_cost_usd": self.direct_cost and self.direct_cost._asdict(),
            "cost_is_lower_bound": self.cost_is_lower_bound,
            "result": self.result.model_dump(mode="json"),
            "rows": [row.model_dump(mode="json") for row in self.rows],
        }


async def try_rows(
    client: Client,
    store: Store,
    requests: Requests | Rows,
    fields: Mapping[str, Any],
    task_queue: str,
    *,
    count: int,
    first: bool,
    report: Callable[[BatchProgress], object] | None,
    say: Callable[[str], object] | None,
) -> Trial:
    """Run some rows now, and return what came of them.

    Raises:
        as `BatchClient.try_rows`.
    """
    check_count(count)
    check_fields(dict(fields), None)
    async with gathered(requests, store) as rows, _sample(rows, store, count, first) as (sample, chosen):
        batch_id = f"{_PREFIX}{rows.stem}-{uuid.uuid4().hex[:_DIGITS]}"
        async with _leaving_nothing(client, store, batch_id, say or (lambda words: None)):
            await identify(store)
            await store.write(try_path(batch_id), b"{}\n")
            own = _own_fields(fields)
            await start(client, store, chosen, own, batch_id, task_queue, own["deadline"] + _GRACE)
            if report:
                async with contextlib.aclosing(watch(client, store, batch_id)) as progresses:
                    async for progress in progresses:
                        report(progress)
            return await _trial(store, await wait_for_ending(client, store, batch_id), rows.count, sample, first)


@asynccontextmanager
async def _sample(rows: Rows, store: Store, count: int, first: bool) -> AsyncIterator[tuple[Sample, Rows]]:
    """Yield where the rows that are tried came from, and those rows."""
    with tempfile.TemporaryDirectory(prefix="durabatch-") as folder:
        file = Path(folder, "sample.jsonl")
        sample = await write_sample(rows, store, count, file, first=first)
        async with gathered(file, store) as chosen:
            yield sample, chosen


def _own_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec of a try, by that of the batch that it is made for."""
    wanted = spec_from({**fields, "input": "not read yet"}).deadline
    kept = {name: value for name, value in fields.items() if name not in _LEFT_OUT}
    return {**kept, "mode": Mode.DIRECT, "deadline": min(wanted, DEADLINE)}


async def _trial(store: Store, ended: Ending, total: int, sample: Sample, first: bool) -> Trial:
    result = ended.result
    if result is None or not result.results:
        raise _by_own_lines(ended.error or DurabatchError("The try ended without results."), sample)
    own = [row async for row in result_rows(store, result.results)]
    named = [
        row.model_copy(update={"custom_id": sample.custom_id(number, row.custom_id)}) for number, row in enumerate(own)
    ]
    answered = [row for row in named if row.status is RowStatus.SUCCEEDED]
    # Without any known price there is no cost to report; otherwise what is known is a lower bound.
    known = any(row.cost_usd is not None for row in answered)
    costs = [picodollars(row.cost_usd or "0") for row in answered] if known else []
    share = await _batch_share(store, result.batch_id)
    return Trial(
        total=total,
        first=first,
        rows=tuple(named),
        result=result.model_copy(update={"results": None, "errors": None}),
        batch_cost=None if share is None else whole_cost(costs, total, share),
        direct_cost=whole_cost(costs, total),
    )


def _by_own_lines(error: DurabatchError, sample: Sample) -> DurabatchError:
    """Return an error that names the rows by their lines in the input that they were taken from."""
    if not isinstance(error, InvalidInput) or not error.problems:
        return error
    return InvalidInput(error.message, [sample.problem(one) for one in error.problems], error.total)


async def _batch_share(store: Store, batch_id: str) -> Fraction | None:
    """Return what a batch costs of the list price, as the worker that made the plan has it configured."""
    try:
        share = decode_plan(await store.read(plan_path(batch_id))).batch_share
    except (ObjectNotFound, msgspec.MsgspecError):
        return None
    return Fraction(share) if share else None


@asynccontextmanager
async def _leaving_nothing(
    client: Client, store: Store, batch_id: str, say: Callable[[str], object]
) -> AsyncIterator[None]:
    """Remove what a try has stored at the end of the block, whatever ends it; one that runs still is cancelled first.

    A second cancel does not interrupt that. What cannot be removed now is left to `gc`.
    """
    interrupted = False
    try:
        yield
    except asyncio.CancelledError:
        interrupted = True
        say("Ending the try: calls under way are dropped, and what it has stored is removed.")
        raise
    finally:
        clearing = asyncio.create_task(_cleared(client, store, batch_id))
        while not clearing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([clearing])
        why = "it was interrupted" if clearing.cancelled() else clearing.result()
        if interrupted and why is None:
            say("The try is over, and nothing of it is left. Rows that were answered by then are paid for.")
        elif interrupted:
            hours = (DEADLINE + _GRACE) / timedelta(hours=1)
            say(
                f"The try {batch_id} could not be cleared up ({why}). It ends by itself within {hours:g} hours, and "
                "`durabatch gc` removes what it has stored."
            )


async def _cleared(client: Client, store: Store, batch_id: str) -> str | None:
    """End a try, and remove what it has stored; return why that cannot be done now."""
    try:
        await _end(client, store, batch_id)
        await _remove(store, batch_id)
    except TimeoutError:
        return f"it has not ended within {_PATIENCE:g} s"
    except DurabatchError as error:
        return error.message.rstrip(".")
    return None


async def _end(client: Client, store: Store, batch_id: str) -> None:
    """See to it that nothing more comes of a try.

    Raises:
        TimeoutError: it has not ended in time.
        DurabatchError: Temporal or the store failed.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            if await ending(client, store, batch_id) is None:
                request = CancelRequest(reason="the try was broken off")
                with translated(client, batch_id):
                    handle = client.get_workflow_handle(batch_id)
                    await handle.signal("cancel", request.model_dump(exclude_none=True))
                await wait_for_ending(client, store, batch_id)
    except BatchNotFound:
        pass  # it was never started


async def _remove(store: Store, batch_id: str) -> None:
    """Remove the folder of a try. What says whose it is goes last, so that `gc` knows one that is half removed."""
    entries = await store.entries(batch_id)
    last = [entry.path for entry in entries if is_record(entry.path)]
    for entry in entries:
        if entry.path not in (*last, try_path(batch_id)):
            await store.delete(entry.path)
    for path in (*last, try_path(batch_id)):
        await store.delete(path)
    await store.prune(batch_id)
