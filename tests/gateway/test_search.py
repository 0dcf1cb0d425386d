"""The list of batches, narrowed by status, time and metadata."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.client import Client

from durabatch.activities.store import Store
from durabatch.clients.client import BatchClient
from durabatch.contract.gateway_batch import BatchEntry, GatewayBatch, GatewayStatus
from durabatch.contract.gateway_layout import Listed, index_path, make_id
from durabatch.gateway.context import Context
from durabatch.gateway.errors import ApiError
from durabatch.gateway.search import Bounds, Wanted, search
from durabatch.workers import Settings

from .conftest import Door


async def note(store: Store, second: int, status: str = "completed", tenant: str = "default", **metadata: str) -> str:
    """Put a batch that has ended into a tenant's list, and return its id."""
    id = make_id(Listed.BATCHES, datetime.fromtimestamp(second, UTC), secrets.token_hex(7))
    batch = GatewayBatch(
        tenant=tenant, id=id, input_file_id="file-x", endpoint="/v1/embeddings", created_at=second, metadata=metadata
    )
    final = batch.beginning().model_copy(update={"status": GatewayStatus(status)})
    await store.write(index_path(tenant, id), BatchEntry(request=batch, final=final).model_dump_json().encode())
    return id


async def listed(door: Door, **query: Any) -> list[str]:
    """Return the ids that the official client's own paging finds."""
    return [one.id async for one in door.openai.batches.list(extra_query=query, limit=query.pop("limit", 20))]


async def test_a_list_is_narrowed_by_status_time_and_metadata_page_by_page(door: Door) -> None:
    ids = [
        await note(
            door.store, 1000 + n, "failed" if n % 3 == 0 else "completed", team="ads" if n % 2 else "search", n=str(n)
        )
        for n in range(30)
    ]
    await note(door.store, 1010, "failed", tenant="other", team="ads")
    newest = ids[::-1]
    assert await listed(door, status="failed") == [id for n, id in enumerate(ids) if n % 3 == 0][::-1]
    assert await listed(door, status="failed", limit=3) == [id for n, id in enumerate(ids) if n % 3 == 0][::-1]
    assert await listed(door, **{"metadata[team]": "ads"}, limit=4) == [id for n, id in enumerate(ids) if n % 2][::-1]
    assert await listed(door, **{"metadata[team]": "ads", "metadata[n]": "7"}) == [ids[7]]
    assert await listed(door, **{"metadata[team]": "ads", "metadata[n]": "8"}) == []
    assert await listed(door, created_after=1010, created_before=1020, limit=2) == ids[10:20][::-1]
    assert await listed(door, created_before=1005) == ids[:5][::-1]
    assert await listed(door, created_after=1025) == newest[:5]
    assert await listed(door, created_before=0) == await listed(door, created_after=99_999) == []
    both = await listed(door, status="completed", created_before=1015, **{"metadata[team]": "search"}, limit=1)
    assert both == [id for n, id in enumerate(ids) if n < 15 and n % 3 and not n % 2][::-1]
    page = await door.openai.batches.list(limit=2, after=ids[20], extra_query={"status": "failed"})
    assert ([one.id for one in page.data], page.has_more) == ([ids[18], ids[15]], True)


async def test_a_search_reads_a_bounded_number_of_entries_and_says_where_to_go_on(door: Door) -> None:
    oldest = await note(door.store, 1000, "failed")
    for n in range(30):
        await note(door.store, 2000 + n)
    temporal = await Client.connect("127.0.0.1:1", lazy=True)
    context = Context(Settings.load(door.folder.parent / "durabatch.toml", {}), BatchClient(temporal, door.store))
    failed, bounds = Wanted(status=GatewayStatus.FAILED), Bounds(read=12, at_once=4)
    after, steps = None, 0
    while True:
        steps += 1
        try:
            page, more = await search(context, "default", failed, after, 20, bounds)
            break
        except ApiError as searched:
            assert (searched.status, searched.code, searched.param) == (400, "search_goes_on", "after")
            after = searched.message.partition("after=")[2].partition(",")[0]
    assert (steps, [one.id for one in page], more) == (3, [oldest], False)
    # A page that has some goes on from its last.
    recent = await note(door.store, 2600, "failed")
    page, more = await search(context, "default", failed, None, 20, bounds)
    assert ([one.id for one in page], more) == ([recent], True)


WRONG = [
    {"status": "done"},
    {"created_after": "yesterday"},
    {"created_before": "-1"},
    {"created_before": "9" * 30},
    {"metadata": "x"},
    {"metadata[team": "x"},
    {"metadata.team": "x"},
    {f"metadata[{'k' * 65}]": "x"},
    {"metadata[team]": "x" * 513},
    {"status[]": "failed"},
    {"created_after[gte]": "1"},
    {"status": ["failed", "failed"]},
    {"created_after": ["1", "2"]},
]


@pytest.mark.parametrize("query", WRONG)
async def test_a_filter_that_is_wrong_is_refused(door: Door, query: dict[str, Any]) -> None:
    answer = await door.http.get("/v1/batches", params=query)
    name = next(iter(query))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, name[:100], "invalid_request_error")


async def test_what_is_no_filter_of_ours_is_passed_over(door: Door) -> None:
    made = await note(door.store, 1000)
    assert await listed(door, metadatax="1", starting_after="x") == [made]
