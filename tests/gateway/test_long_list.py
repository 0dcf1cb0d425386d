"""A list of a hundred thousand batches, read by the official client's own paging."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from openai import AsyncOpenAI

from durabatch.contract.gateway_batch import BatchEntry, GatewayBatch, GatewayStatus
from durabatch.contract.gateway_layout import DEFAULT_TENANT, Listed, index_path, make_id

from .conftest import Door

BATCHES = 100_000


def seed(door: Door, count: int) -> list[str]:
    """Put ended batches of the last weeks into the store, as a gateway writes them; return their ids, newest first."""
    ids = [
        make_id(Listed.BATCHES, datetime.now(UTC) - timedelta(seconds=19 * number), f"{number:013x}")
        for number in range(count)
    ]
    batch = GatewayBatch(
        tenant=DEFAULT_TENANT, id=ids[0], input_file_id="file-x", endpoint="/v1/chat/completions", created_at=1
    )
    final = batch.beginning().model_copy(update={"status": GatewayStatus.COMPLETED})
    entry = BatchEntry(request=batch, final=final).model_dump_json()
    for id in ids:
        path = door.folder / index_path(DEFAULT_TENANT, id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry.replace(ids[0], id))
    return ids


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_batch_of_a_hundred_thousand_is_listed_once_newest_first(door: Door) -> None:
    ids = seed(door, BATCHES)
    async with AsyncOpenAI(base_url=f"{door.url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        assert [batch.id async for batch in client.batches.list(limit=100)] == ids
        # And from the middle on, by the default page.
        page = await client.batches.list(after=ids[BATCHES // 2])
        assert [batch.id for batch in page.data] == ids[BATCHES // 2 + 1 : BATCHES // 2 + 21]
        assert page.has_more
