"""The rows of a batch while it runs, in input order: what is settled, what an attempt brought, and gaps."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from durabatch.activities.row_pages import PENDING, Place, RowSoFar
from durabatch.activities.so_far import SoFar
from durabatch.contract import RowStatus

from .conftest import Desk, unique


async def opened(desk: Desk, id: str) -> SoFar:
    while (found := await SoFar.open(desk.client.store, id)) is None:
        await asyncio.sleep(0.05)
    return found


async def read(so_far: SoFar, limit: int, *statuses: str) -> list[RowSoFar]:
    """Read all pages, as a client does that goes on behind the last row of each."""
    found: list[RowSoFar] = []
    after, more = None, True
    while more:
        page, more = await so_far.page(after, limit, frozenset(statuses) or None)
        assert len(page) <= limit
        assert page or not more
        found += page
        after = Place.parse(str(page[-1].place)) if page else None
        assert after == (page[-1].place if page else None)
    return found


async def shown(desk: Desk, id: str) -> dict[str, str]:
    return {row.custom_id: row.status for row in await read(await opened(desk, id), 3)}


async def until(desk: Desk, id: str, wanted: dict[str, str]) -> None:
    """Wait until the rows are as wanted; the test's own time limit bounds it."""
    while (found := await shown(desk, id)) != wanted:
        assert not found or list(found) == list(wanted)
        await asyncio.sleep(0.1)


async def test_pages_of_a_batch_that_has_ended_are_its_results_in_their_order(desk: Desk) -> None:
    bad = {2, 3, 7, 8, 9, 10, 14}
    rows: list[dict[str, Any]] = [
        {"custom_id": f"r{n}", "input": f"{'[[sandbox:invalid_request]] ' if n in bad else ''}{n}"} for n in range(16)
    ]
    rows.insert(5, {"custom_id": "r1", "input": "the same id again"})
    id = await desk.start(rows, id=unique("pages"), on_invalid_row="fail_row", limits={"max_rows": 4})
    uri = (await desk.client.result(id)).results or ""
    lines = b"".join(desk.client.store.stream(desk.client.store.path(uri))).splitlines()
    so_far = await opened(desk, id)
    for limit, statuses in itertools.product((1, 3, 5, 100), ([], ["failed"], ["succeeded"], ["expired", "failed"])):
        expected = [line for line in lines if not statuses or json.loads(line)["status"] in statuses]
        assert [row.result for row in await read(so_far, limit, *statuses)] == expected
    assert await read(so_far, 2, PENDING) == []
    # A place whose byte is wrong is looked for by its number.
    page, _ = await so_far.page(Place(1, 0, "r", 7), 1)
    assert page[0].place.row == 1


async def test_rows_of_a_batch_that_runs_come_as_they_are_known_with_gaps_for_the_others(desk: Desk) -> None:
    # The first attempt has ended and the second is held up: what failed may be tried again; what succeeded is known.
    rows = {"a": "Say one.", "b": "[[sandbox:server_error times=1]] two", "c": "Say three."}
    id = await desk.start(rows, id=unique("second"), deadline="1h")
    while not await desk.bought():
        await asyncio.sleep(0.02)
    fault = await desk.sandbox.fault("batches.create", "reset")
    await until(desk, id, {"a": "succeeded", "b": PENDING, "c": "succeeded"})
    assert [row.custom_id async for row in desk.client.retrieve(id, so_far=True)] == ["a", "c"]
    so_far = await opened(desk, id)
    assert [row.custom_id for row in await read(so_far, 1, PENDING)] == ["b"]
    assert [row.custom_id for row in await read(so_far, 1, "succeeded")] == ["a", "c"]
    assert await read(so_far, 1, "failed") == []
    await desk.sandbox.clear(fault["id"])
    await desk.client.result(id)
    assert await shown(desk, id) == dict.fromkeys("abc", "succeeded")


@pytest.mark.slow
async def test_rows_that_direct_mode_has_kept_are_shown_before_the_others_have_an_answer(desk: Desk) -> None:
    rows = {"a": "Say one.", "b": "[[sandbox:hang]] two", "c": "[[sandbox:invalid_request]] three", "d": "Say four."}
    id = await desk.start(rows, id=unique("kept"), mode="direct", limits={"max_rows": 3})
    await until(desk, id, {"a": "succeeded", "b": PENDING, "c": PENDING, "d": "succeeded"})
    (row,) = [row async for row in desk.client.retrieve(id, so_far=True) if row.custom_id == "a"]
    assert (row.status, row.mode) == (RowStatus.SUCCEEDED, "direct")
    assert "Say one." in (row.text or "")
    await desk.client.cancel(id)
    await desk.client.result(id)
    assert await shown(desk, id) == {"a": "succeeded", "b": "canceled", "c": "failed", "d": "succeeded"}


@pytest.mark.parametrize("text", ["", "row_1", "row_1_0", "row_-1_1", "row_1_2_x9", "row_1_2_r", "batch_1", "row_1_2 "])
def test_a_text_that_names_no_row_is_no_place(text: str) -> None:
    assert Place.parse(text) is None
