"""Whole batches at a provider whose answers are odd, field by field: none is stuck, loses a row or buys one twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner

from durabatch.contract import BatchStatus
from support.house import House, connect, open_house

pytestmark = pytest.mark.slow

ROWS = 2
#: What a field says instead, for a while or for good.
VALUES: dict[str, Any] = {
    "null": None,
    "empty": "",
    "number": 7,
    "text": "text",
    "list": [],
    "huge": 10**15,
}
MISSING = "missing"
#: The fields of each answer, as JSON pointers; "" is the whole answer.
FIELDS = {
    "openai": {
        "files.list": ("", "/data", "/has_more"),
        "files.create": ("", "/id", "/bytes", "/filename", "/status"),
        "files.delete": ("", "/deleted"),
        "batches.list": (
            *("", "/data", "/data/0", "/data/0/id", "/data/0/status", "/data/0/created_at", "/data/0/metadata"),
            *("/data/0/request_counts", "/data/0/errors", "/has_more"),
        ),
        "batches.create": ("", "/id", "/status", "/created_at", "/errors", "/request_counts", "/metadata", "/usage"),
        "batches.retrieve": (
            *("", "/id", "/status", "/created_at", "/errors", "/metadata", "/usage", "/output_file_id"),
            *("/error_file_id", "/request_counts", "/request_counts/total", "/request_counts/completed"),
            "/request_counts/failed",
        ),
    },
    "anthropic": {
        "batches.list": (
            *("", "/data", "/data/0", "/data/0/id", "/data/0/processing_status", "/data/0/created_at"),
            *("/data/0/request_counts", "/has_more"),
        ),
        "batches.create": ("", "/id", "/processing_status", "/created_at", "/request_counts", "/results_url"),
        "batches.retrieve": (
            *("", "/id", "/processing_status", "/created_at", "/ended_at", "/results_url", "/request_counts"),
            *("/request_counts/processing", "/request_counts/succeeded", "/request_counts/errored"),
        ),
    },
}
#: Ids that could be somebody's: what is not found under one is waited for, for an hour and more.
WRONG_IDS = ("number", "text", "huge")
#: Without these for good nobody can tell what there is, which batch it is, how it is, or where its results are.
NEEDED = ("", "/data", "/id", "/status", "/processing_status", "/output_file_id", "/results_url")


class Case(NamedTuple):
    """One answer that is odd in one field."""

    protocol: str
    op: str
    pointer: str
    value: str  #: Its name in VALUES, or MISSING.

    @property
    def override(self) -> dict[str, Any]:
        return {"drop": [self.pointer]} if self.value == MISSING else {"put": {self.pointer: VALUES[self.value]}}

    @property
    def misleads(self) -> bool:
        """Whether it names a batch or a file that does not exist."""
        if self.value not in WRONG_IDS:
            return False
        batch = self.op in ("batches.create", "batches.list") and self.pointer.endswith("/id")
        return batch or self.pointer == "/error_file_id" or (self.op, self.pointer) == ("files.create", "/id")

    def __str__(self) -> str:
        return f"{self.protocol} {self.op} {self.pointer or '(all)'} = {self.value}"


#: Each answer of either protocol.
ANSWERS = [(protocol, op) for protocol, answers in FIELDS.items() for op in answers]


def cases(protocol: str, op: str) -> Iterator[Case]:
    for pointer, value in itertools.product(FIELDS[protocol][op], (*VALUES, MISSING)):
        if pointer or value != MISSING:
            yield Case(protocol, op, pointer, value)


async def run(house: House, case: Case, name: str, *, lasting: bool) -> str | None:
    """Run a batch against an odd answer; return what went wrong, None if nothing did."""
    await house.admin.clear()
    times = {} if lasting else {"times": 2}
    if case.op == "batches.list":
        # Only a search for a batch whose create was lost relies on the listing. One that hides the batch for longer
        # than the configured lag is what nobody can see through, so it is odd once, when that search comes.
        await house.admin.fault("batches.create", "lost_answer", times=1)
        times = {"times": 1, "skip": 1 if case.protocol == "openai" else 0}
    await house.admin.fault(case.op, "override", **case.override, **times)
    texts = [f"Say something. [[sandbox:billed_as={name}-{n}]]" for n in range(ROWS)]
    provider = "sandbox" if case.protocol == "openai" else "claude"
    handle = await house.start(texts, id=name, provider=provider)
    try:
        async with asyncio.timeout(90):
            result = await handle.result()
    except TimeoutError:
        progress = await house.progress(handle)
        await handle.terminate()
        return f"{case}: stuck: {progress.phase}, {progress.waiting_for}, {progress.last_error}"
    except Exception as error:  # it is reported with all others
        return f"{case}: {error!r} {error.__cause__!r}"
    await house.admin.clear()
    billed = (await house.admin.books())["rows"]
    times_billed = [n for row, n in billed.items() if row.partition("/")[2].startswith(f"{name}-")]
    if times_billed != [1] * ROWS:
        return f"{case}: billed {times_billed}"
    if result.status is not BatchStatus.COMPLETED or result.counts.succeeded != ROWS:
        rows = [json.dumps(row["error"]) for row in house.results(name)]
        return f"{case}: {result.status}, {result.counts.model_dump()}, {result.error}, {rows}"
    return None


@contextlib.asynccontextmanager
async def houses(server: str, folder: Path, count: int) -> AsyncIterator[list[House]]:
    """Open providers, each with a worker and a store of its own, so that an odd answer reaches one batch only."""
    client = await connect(server)
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for number in range(count):
            (folder / str(number)).mkdir()
            house = await stack.enter_async_context(
                open_house(client, folder / str(number), {"listing_lag": "1s", "timeout": "5s"})
            )
            await house.admin.settings(finish_after_polls=1)
            # Without the sandbox that loads modules anew for each workflow: there are hundreds of them.
            await stack.enter_async_context(house.worker(workflow_runner=UnsandboxedWorkflowRunner()))
            opened.append(house)
        yield opened


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("protocol", "op"), ANSWERS)
async def test_an_answer_that_is_odd_for_a_while_loses_nothing_and_buys_nothing_twice(
    server: str, tmp_path: Path, protocol: str, op: str
) -> None:
    queue = [(number, case) for number, case in enumerate(cases(protocol, op)) if not case.misleads]
    wrong: list[str] = []

    async def work(house: House) -> None:
        while queue:
            number, case = queue.pop()
            if problem := await run(house, case, f"odd-{protocol}-{op}-{number}", lasting=False):
                wrong.append(problem)

    async with houses(server, tmp_path, 10) as opened:
        await asyncio.gather(*(work(house) for house in opened))
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("protocol", "op"), [one for one in ANSWERS if one[1] != "batches.list"])
async def test_an_answer_that_is_odd_for_good_in_a_field_that_is_not_needed_changes_nothing(
    fast_house: House, protocol: str, op: str
) -> None:
    # Hours of patience, which is for results that may only be late, pass in no time here.
    lasting = [case for case in cases(protocol, op) if case.pointer not in NEEDED]
    assert not await one_by_one(fast_house, lasting, lasting=True)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("protocol", "op"),
    [one for one in ANSWERS if any(case.misleads for case in cases(*one)) and one[1] != "files.create"],
)
async def test_what_an_answer_names_that_is_not_there_is_waited_for_and_searched_for(
    fast_house: House, protocol: str, op: str
) -> None:
    misleading = [case for case in cases(protocol, op) if case.misleads]
    assert not await one_by_one(fast_house, misleading, lasting=False)


async def test_a_batch_of_a_file_that_is_not_there_is_refused_and_costs_nothing(house: House) -> None:
    await house.admin.fault("files.create", "override", put={"/id": "text"})
    async with house.worker():
        with pytest.raises(WorkflowFailureError) as caught:
            await (await house.start(ROWS)).result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert "2 invalid_request" in caught.value.cause.message
    assert (await house.admin.books())["rows"] == {}


async def one_by_one(house: House, some: list[Case], *, lasting: bool) -> list[str]:
    """Run a batch for each case; return what went wrong."""
    wrong: list[str] = []
    await house.admin.settings(finish_after_polls=1)
    async with house.worker(workflow_runner=UnsandboxedWorkflowRunner()):
        for number, case in enumerate(some):
            if problem := await run(house, case, f"odd-{case.protocol}-{number}", lasting=lasting):
                wrong.append(problem)
    return wrong
