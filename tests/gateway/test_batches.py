"""`/v1/batches` through the official client, over real HTTP, Temporal and sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from durabatch.activities.store import Store
from durabatch.clients.client import BatchClient
from durabatch.contract.gateway_batch import BatchEntry, GatewayBatch, GatewayStatus, workflow_id
from durabatch.contract.gateway_layout import Listed, index_path, make_id
from durabatch.gateway.app import create_app
from durabatch.gateway.context import Context
from durabatch.gateway.server import serving
from support.gateway import jsonl, line, open_gateway
from support.house import House, asked

ORDER: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
ENDED = ("completed", "failed", "expired", "cancelled")


async def upload(client: AsyncOpenAI, rows: int = 3) -> str:
    return (await client.files.create(file=jsonl([line(f"r{n}") for n in range(rows)]), purpose="batch")).id


async def until_ended(client: AsyncOpenAI, batch_id: str) -> Batch:
    while (batch := await client.batches.retrieve(batch_id)).status not in ENDED:
        await asyncio.sleep(0.3)
    return batch


async def test_the_official_clients_whole_flow(house: House) -> None:
    async with open_gateway(house) as client, house.worker():
        file_id = await upload(client)
        made = await client.batches.create(input_file_id=file_id, metadata={"team": "search"}, **ORDER)
        assert (made.status, made.input_file_id, made.metadata) == ("validating", file_id, {"team": "search"})
        assert made.request_counts and made.request_counts.total == 0
        assert [one.id async for one in client.batches.list()] == [made.id]
        ended = await until_ended(client, made.id)
        assert (ended.status, ended.model, ended.created_at) == ("completed", "gpt-4o-mini", made.created_at)
        assert ended.request_counts and ended.request_counts.completed == ended.request_counts.total == 3
        assert ended.output_file_id and ended.error_file_id is None
        text = (await client.files.content(ended.output_file_id)).text
        assert [json.loads(one)["custom_id"] for one in text.splitlines()] == ["r0", "r1", "r2"]
        (kept,) = [file async for file in client.files.list(purpose="batch_output")]
        assert (kept.id, kept.bytes, kept.filename) == (
            ended.output_file_id,
            len(text.encode()),
            f"{made.id}_output.jsonl",
        )
        with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
            await client.batches.cancel(made.id)
        assert [one.status async for one in client.batches.list()] == ["completed"]


async def test_a_file_that_is_not_there_fails_the_batch_later(house: House) -> None:
    async with open_gateway(house) as client, house.worker():
        made = await client.batches.create(input_file_id="file-none", **ORDER)
        assert made.status == "validating"
        ended = await until_ended(client, made.id)
    assert ended.status == "failed" and ended.errors and ended.errors.data
    assert (ended.errors.data[0].param, ended.errors.data[0].code) == ("file_id", "invalid_request")


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"endpoint": "/v1/nothing"}, "endpoint", "invalid_value"),
    ({"completion_window": "25h"}, "completion_window", "invalid_value"),
    ({"input_file_id": "../x"}, "input_file_id", "invalid_value"),
    ({"input_file_id": 7}, "input_file_id", "invalid_type"),
    ({"input_file_id": None}, "input_file_id", "missing_required_parameter"),
    ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    ({"metadata": {"a": "x" * 513}}, "metadata.a", "string_above_max_length"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_properties"),
    ({"provider": "claude"}, "provider", "invalid_value"),
    ({"idempotency_key": ""}, "idempotency_key", "invalid_value"),
    ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds", "invalid_value"),
]


async def test_an_order_that_is_wrong_is_refused_and_leaves_nothing(house: House) -> None:
    async with open_gateway(house) as client:
        for order, param, code in WRONG:
            with pytest.raises(openai.BadRequestError) as refused:
                await client.post("/batches", body={"input_file_id": "file-x", **ORDER, **order}, cast_to=object)
            assert (refused.value.param, refused.value.code) == (param, code)
        # A key in the header is looked at as well where the body has one.
        with pytest.raises(openai.BadRequestError, match="1 to 255 characters"):
            await client.batches.create(
                input_file_id="file-x",
                extra_headers={"Idempotency-Key": "k" * 256},
                extra_body={"idempotency_key": "k"},
                **ORDER,
            )
        assert [one.id async for one in client.batches.list()] == []


async def test_a_gateway_that_routes_to_no_provider_refuses_a_batch_and_says_what_is_missing(house: House) -> None:
    async with open_gateway(house, provider=None) as client:
        with pytest.raises(openai.BadRequestError, match=r"\[\[gateway.routes\]\].*--provider") as refused:
            await client.batches.create(input_file_id="file-x", **ORDER)
        assert refused.value.code == "no_route"
        assert [one.id async for one in client.batches.list()] == []


async def test_creates_with_one_idempotency_key_are_one_batch(house: House) -> None:
    async with open_gateway(house) as client, house.worker():
        file_id = await upload(client)

        async def create(**more: Any) -> Batch:
            return await client.batches.create(input_file_id=file_id, **{**ORDER, **more})

        made = await asyncio.gather(
            *(create(extra_headers={"Idempotency-Key": "nightly"}) for _ in range(4)),
            *(create(extra_body={"idempotency_key": "nightly"}) for _ in range(4)),
        )
        assert len({one.id for one in made}) == 1
        with pytest.raises(openai.ConflictError, match="different parameters"):
            await create(extra_body={"idempotency_key": "nightly"}, metadata={"other": "1"})
        ended = await until_ended(client, made[0].id)
        assert (await create(extra_body={"idempotency_key": "nightly"})).status == ended.status == "completed"
        # The same create at a gateway whose operator has chosen another provider since.
        opened = BatchClient(house.client, str(house.store), task_queue=house.task_queue)
        async with serving(create_app(Context(house.settings, opened, "claude")), "127.0.0.1", 0) as url:
            client = client.with_options(base_url=f"{url}/v1")
            assert (await create(extra_body={"idempotency_key": "nightly"})).id == ended.id
            with pytest.raises(openai.ConflictError, match="different parameters"):
                await create(extra_body={"idempotency_key": "nightly", "provider": "claude"})
    assert len(await house.batches()) == 1


async def test_a_file_that_is_deleted_while_its_batch_runs_is_run_to_its_end(house: House) -> None:
    async with open_gateway(house) as client, house.worker():
        rows = [line("fine"), line("again", "[[sandbox:rate_limited times=1]]")]
        file_id = (await client.files.create(file=jsonl(rows), purpose="batch")).id
        made = await client.batches.create(input_file_id=file_id, **ORDER)
        while not await house.batches():
            await asyncio.sleep(0.05)
        await client.files.delete(file_id)
        ended = await until_ended(client, made.id)
        assert ended.request_counts and (ended.status, ended.request_counts.completed) == ("completed", 2)
        assert len(await house.batches()) == 2
    assert not (house.store / "~gateway/default/files" / file_id / "content").exists()


async def test_a_batch_is_cancelled_once_however_often_it_is_asked(house: House) -> None:
    await house.admin.settings(finish_after_polls=100_000, cancel_fraction=0.34)
    async with open_gateway(house) as client, house.worker():
        made = await client.batches.create(input_file_id=await upload(client), **ORDER)
        while not await house.batches():
            await asyncio.sleep(0.05)
        shown = [await client.batches.cancel(made.id) for _ in range(2)]
        assert {one.status for one in shown} <= {"cancelling", "cancelled"}
        assert all(one.cancelling_at for one in shown)
        ended = await until_ended(client, made.id)
        assert ended.status == (await client.batches.cancel(made.id)).status == "cancelled"
        assert ended.request_counts and ended.request_counts.completed == 1
        assert ended.output_file_id and ended.error_file_id


async def test_another_tenants_batch_is_not_there(house: House) -> None:
    keys = "".join(
        f'[[gateway.keys]]\ntenant = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
        for name in ("search", "ads")
    )
    async with open_gateway(house, keys, key="search") as search, house.worker():
        ads = search.with_options(api_key="ads")
        file_id = await upload(search)
        made = await search.batches.create(input_file_id=file_id, extra_body={"idempotency_key": "k"}, **ORDER)
        for call in (ads.batches.retrieve, ads.batches.cancel):
            with pytest.raises(openai.NotFoundError, match=f"No batch found with id '{made.id}'"):
                await call(made.id)
        assert [one.id async for one in ads.batches.list()] == []
        assert [one.id async for one in ads.batches.list(after=made.id)] == []
        theirs = await ads.batches.create(input_file_id=file_id, extra_body={"idempotency_key": "k"}, **ORDER)
        assert theirs.id != made.id
        ended = await until_ended(ads, theirs.id)
        assert ended.errors and ended.errors.data
        assert ended.errors.data[0].message == f"Cannot find file {file_id}."
        assert (await until_ended(search, made.id)).status == "completed"


async def test_rows_are_routed_by_their_models(house: House) -> None:
    routes = (
        '[[gateway.routes]]\nmodel = "claude-*"\nprovider = "claude"\n'
        '[[gateway.routes]]\nmodel = "gpt-*"\nprovider = "sandbox"\n'
    )

    def asking(custom_id: str, model: str) -> dict[str, Any]:
        row = line(custom_id)
        return {**row, "body": {**row["body"], "model": model}}

    async with open_gateway(house, routes, provider=None) as client, house.worker():

        async def run(*models: str) -> Batch:
            data = jsonl([asking(f"r{n}", model) for n, model in enumerate(models)])
            file = await client.files.create(file=data, purpose="batch")
            made = await client.batches.create(input_file_id=file.id, **ORDER)
            return await until_ended(client, made.id)

        claude = await run("claude-haiku-4-5")
        wrong = await run("gpt-4o-mini", "claude-haiku-4-5", "nobodys-model")
        text = (await client.files.content(claude.output_file_id or "")).text
    assert claude.status == "completed" and claude.model == "claude-haiku-4-5"
    body = openai.types.chat.ChatCompletion.model_validate(json.loads(text)["response"]["body"], strict=True)
    assert body.choices[0].message.content and body.usage and body.usage.total_tokens
    assert wrong.errors and wrong.errors.data
    assert [(one.line, one.code) for one in wrong.errors.data] == [(2, "mismatched_model"), (3, "model_not_found")]
    assert "claude" in (wrong.errors.data[0].message or "") and "sandbox" in (wrong.errors.data[0].message or "")


async def test_a_batch_whose_workflow_was_lost_is_started_again_by_whoever_asks(house: House) -> None:
    async with open_gateway(house) as client:
        made = await client.batches.create(input_file_id=await upload(client), **ORDER)
        handle = house.client.get_workflow_handle(workflow_id("default", made.id))
        await asked(lambda: handle.terminate("by an operator"))
        async with house.worker():
            assert (await until_ended(client, made.id)).status == "completed"
    assert len(await house.batches()) == 1


@pytest.mark.slow
async def test_a_batch_that_temporal_refuses_never_runs(server: str, house: House) -> None:
    house.client = await Client.connect(server, namespace="nowhere", data_converter=pydantic_data_converter)
    async with open_gateway(house) as client:
        with pytest.raises(openai.InternalServerError):
            await client.batches.create(input_file_id="file-x", **ORDER)
        (batch,) = [one async for one in client.batches.list()]
    assert batch.status == "failed" and batch.errors and batch.errors.data
    assert batch.errors.data[0].code == "not_started"


async def test_all_batches_are_listed_once_newest_first(house: House) -> None:
    store, began = Store.open(str(house.store)), datetime.now(UTC)
    expected = []
    for number in range(230):
        batch_id = make_id(Listed.BATCHES, began - timedelta(minutes=17 * number), f"{number:013x}")
        batch = GatewayBatch(
            tenant="default", id=batch_id, input_file_id="file-x", endpoint=ORDER["endpoint"], created_at=number
        )
        final = batch.beginning().model_copy(update={"status": GatewayStatus.COMPLETED})
        entry = BatchEntry(request=batch, final=final)
        await store.write(index_path("default", batch_id), entry.model_dump_json().encode())
        expected.append(batch_id)
    async with open_gateway(house) as client:
        page = await client.batches.list(limit=100)
        assert (len(page.data), page.has_more) == (100, True)
        assert [one.id async for one in page] == expected
        last = await client.batches.list(limit=30, after=expected[199])
        assert (len(last.data), last.has_more) == (30, False)
        for wrong, code in ((0, "integer_below_min_value"), (101, "integer_above_max_value")):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.batches.list(limit=wrong)
            assert refused.value.code == code


async def test_rows_may_be_run_directly(house: House) -> None:
    config = house.settings.source
    assert config is not None
    config.write_text(config.read_text().replace("[providers.sandbox]\n", '[providers.sandbox]\nmode = "direct"\n'))
    async with open_gateway(house) as client, house.worker():
        data = jsonl([line("r0"), line("r1", "[[sandbox:invalid_request]]"), line("r2")])
        file = await client.files.create(file=data, purpose="batch")
        made = await client.batches.create(input_file_id=file.id, **ORDER)
        ended = await until_ended(client, made.id)
        assert (ended.status, ended.model) == ("completed", "gpt-4o-mini")
        assert ended.request_counts and (ended.request_counts.completed, ended.request_counts.failed) == (2, 1)
        text = (await client.files.content(ended.output_file_id or "")).text
        (wrong,) = (await client.files.content(ended.error_file_id or "")).text.splitlines()
    assert [json.loads(one)["custom_id"] for one in text.splitlines()] == ["r0", "r2"]
    assert json.loads(wrong)["response"]["status_code"] == 400
    assert await house.batches() == []
