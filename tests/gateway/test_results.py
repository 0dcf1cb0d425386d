"""`GET /v1/batches/{id}/results` through the official client, over real HTTP, Temporal and sandbox."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, BaseModel
from openai.pagination import AsyncCursorPage

from support.gateway import jsonl, line, open_gateway
from support.house import House

ORDER: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


class Row(BaseModel):
    """A row, as whoever uses the official client would write it down."""

    id: str
    custom_id: str
    status: str
    response: dict[str, Any] | None
    error: dict[str, Any] | None


async def rows(client: AsyncOpenAI, batch_id: str, **query: Any) -> list[Row]:
    """Read all rows by the official client's own paging."""
    listed = client.get_api_list(
        f"/batches/{batch_id}/results", model=Row, page=AsyncCursorPage[Row], options={"params": query}
    )
    return [row async for row in listed]


async def test_rows_are_there_while_the_batch_runs_and_stay_there(house: House) -> None:
    async with open_gateway(house) as client, house.worker():
        requests = [line("a"), line("b", "[[sandbox:server_error times=1]]"), line("c", "[[sandbox:invalid_request]]")]
        file_id = (await client.files.create(file=jsonl(requests), purpose="batch")).id
        id = (await client.batches.create(input_file_id=file_id, **ORDER)).id
        while not await house.batches():
            await asyncio.sleep(0.02)
        fault = await house.admin.fault("batches.create", "reset")
        while [row.status for row in await rows(client, id, limit=1)] != ["succeeded", "pending", "pending"]:
            await asyncio.sleep(0.1)
        assert [row.custom_id for row in await rows(client, id, status="pending", limit=1)] == ["b", "c"]
        assert await rows(client, id, status="failed") == []
        await house.admin.clear(fault["id"])
        while (batch := await client.batches.retrieve(id)).status != "completed":
            await asyncio.sleep(0.2)
        ended = await rows(client, id, limit=2)
        assert [(row.custom_id, row.status) for row in ended] == [
            ("a", "succeeded"),
            ("b", "succeeded"),
            ("c", "failed"),
        ]
        output = (await client.files.content(batch.output_file_id or "")).text.splitlines()
        bodies = [row.response and row.response["body"] for row in ended]
        assert bodies[:2] == [json.loads(one)["response"]["body"] for one in output]
        assert ended[2].response and ended[2].response["status_code"] == 400
        assert [row.custom_id for row in await rows(client, id, status="failed,expired", limit=1)] == ["c"]
        # Results outlive the shards that they were made of.
        for entry in shard_files(house, id):
            entry.unlink()
        plan = house.store / f"default.{id}" / "plan.json"
        plan.write_text(json.dumps({**json.loads(plan.read_text()), "spec_digest": ""}))
        assert [row.custom_id for row in await rows(client, id, limit=1)] == ["a", "b", "c"]
        for query in ({"after": "batch_1"}, {"status": "done"}, {"limit": 1001}):
            with pytest.raises(openai.APIStatusError) as refused:
                await rows(client, id, **query)
            assert (refused.value.status_code, refused.value.body["param"]) in (  # type: ignore[index]
                (404, "after"),
                (400, "status"),
                (400, "limit"),
            )


def shard_files(house: House, id: str) -> list[Path]:
    return [path for path in (house.store / f"default.{id}" / "shards").rglob("*") if path.is_file()]


@pytest.mark.slow
async def test_the_figures_of_a_batch_are_there_so_far_and_are_written_down_at_its_end(house: House) -> None:
    async with open_gateway(house) as client, house.worker():
        requests = [line("a"), line("b", "[[sandbox:server_error times=1]]"), line("c", "[[sandbox:invalid_request]]")]
        file_id = (await client.files.create(file=jsonl(requests), purpose="batch")).id
        id = (await client.batches.create(input_file_id=file_id, **ORDER)).id

        async def figures() -> dict[str, Any]:
            return await client.get(f"/batches/{id}/analytics", cast_to=dict[str, Any])

        early = await figures()
        assert (early["batch_id"], early["final"], early["models"], early["cost_usd"]) == (id, False, [], None)
        while (batch := await client.batches.retrieve(id)).status != "completed":
            await asyncio.sleep(0.2)
        found = await figures()
        assert batch.usage and batch.request_counts and batch.completed_at
        assert found["usage"] == batch.usage.model_dump()
        assert found["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
        assert found["errors"] == [{"type": "invalid_request", "requests": 1}]
        (model,) = found["models"]
        assert (model["answers"], model["usage"]) == (2, found["usage"])
        assert model["cost_usd"] == found["cost_usd"] != found["list_cost_usd"] == model["list_cost_usd"]
        assert 2 * float(found["cost_usd"]) == pytest.approx(float(found["list_cost_usd"]))
        assert (found["final"], found["cost_is_lower_bound"]) == (True, False)
        assert found["durations"]["total"] == batch.completed_at - batch.created_at
        # They need nothing but what was written then.
        for entry in (house.store / f"default.{id}").rglob("*.json"):
            entry.unlink()
        assert await figures() == found
