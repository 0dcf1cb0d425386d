"""Every route there is: what it says of itself, whom it answers, and that nobody sees what another tenant made."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

from durabatch.activities.gateway.files import register
from durabatch.activities.store import Store
from durabatch.activities.webhooks.queue import DeliveryQueue
from durabatch.contract.gateway import FileRecord
from durabatch.contract.gateway_batch import BatchEntry, GatewayBatch, GatewayStatus, Shape, message_rows_path
from durabatch.contract.gateway_layout import Listed, content_path, index_path, make_id
from durabatch.contract.webhooks import Delivery, event_id
from support.gateway import jsonl, line, open_gateway
from support.house import House, connect, dev_server, open_house
from support.openapi import Document

from .conftest import LINE, Door, Opener
from .every_route import VISITS, Shows, every_route

OWNER, OTHER = "search", "ads"
KEYS = (
    "".join(
        f'[[gateway.keys]]\ntenant = "{name}"\nsha256 = "{hashlib.sha256(f"key-{name}".encode()).hexdigest()}"\n'
        for name in (OWNER, OTHER)
    )
    + '[[gateway.routes]]\nmodel = "gpt-5-mini"\nprovider = "openai"\n'
)


async def things(store: Store, tenant: str) -> dict[str, str]:
    """Put into the store what a tenant made, and return its ids by the names that paths have for them."""
    at = datetime.now(UTC)
    file_id, batch_id = (make_id(listed, at, secrets.token_hex(7)) for listed in (Listed.FILES, Listed.BATCHES))
    await store.write(content_path(tenant, file_id), LINE)
    record = FileRecord(id=file_id, bytes=len(LINE), created_at=1, filename=f"of-{tenant}.jsonl", purpose="batch")
    await register(store, tenant, record)
    batch = GatewayBatch(
        tenant=tenant, id=batch_id, input_file_id=file_id, endpoint="/v1/chat/completions", created_at=1
    )
    final = batch.beginning().model_copy(update={"status": GatewayStatus.COMPLETED, "output_file_id": file_id})
    entry = BatchEntry(request=batch, final=final)
    await store.write(index_path(tenant, batch_id), entry.model_dump_json().encode())
    delivery = Delivery(
        id=event_id(tenant, "hook", batch_id, "batch.completed"),
        endpoint="hook",
        type="batch.completed",
        batch_id=batch_id,
        created_at=1,
        queued_ms=1,
        next_ms=1,
    )
    await DeliveryQueue(store, tenant, "hook").add(delivery)
    messages_id = make_id(Listed.MESSAGES, at, secrets.token_hex(7))
    messages = batch.model_copy(update={"id": messages_id, "shape": Shape.ANTHROPIC, "rows": 1})
    entry = BatchEntry(request=messages, final=final.model_copy(update={"id": messages_id}))
    await store.write(index_path(tenant, messages_id), entry.model_dump_json().encode())
    await store.write(message_rows_path(tenant, messages_id), LINE)
    return {
        "file_id": file_id,
        "batch_id": batch_id,
        "message_batch_id": messages_id,
        "model": "gpt-5-mini",
        "provider": "openai",
        "delivery_id": delivery.id,
        "name": "hook",
    }


async def document_of(http: httpx2.AsyncClient, key: str = f"key-{OWNER}") -> Document:
    answer = await http.get("/openapi.json", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200
    return Document(answer.json())


def test_every_route_has_its_visit_and_no_other_has() -> None:
    assert sorted(every_route()) == sorted(VISITS)


async def test_the_document_has_every_route_and_no_other(opened: Opener) -> None:
    async with opened(KEYS) as door:
        document = await document_of(door.http)
    assert sorted(document.operations) == sorted(every_route())
    for route, operation in document.operations.items():
        assert operation["summary"].endswith("."), route
        assert operation["responses"].keys() > {"4XX", "5XX"}, route
        assert {one["name"] for one in operation["parameters"] if one["in"] == "path"} == {
            part[1:-1] for part in route.split("/") if part.startswith("{")
        }
        assert (operation["security"] == []) == (VISITS[route].shows is Shows.OPEN), route
    assert len({one["operationId"] for one in document.operations.values()}) == len(document.operations)
    for name, schema in document.document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("description"), f"{name} has no docstring"


async def test_a_gateway_without_keys_says_that_none_is_needed(door: Door) -> None:
    answer = await door.http.get("/openapi.json")
    assert {str(one["security"]) for one in Document(answer.json()).operations.values()} == {"[]"}


@pytest.mark.parametrize("key", [None, "", "wrong", "Key-search", "key-search\u00e9", "x" * 10_000])
async def test_no_route_but_the_monitors_answers_without_a_known_key(opened: Opener, key: str | None) -> None:
    async with opened(KEYS) as door:
        document, ids = await document_of(door.http), await things(door.store, OWNER)
        before = door.objects()
        headers = {} if key is None else {"authorization": f"Bearer {key}".strip().encode()}
        for route, visit in VISITS.items():
            method, _, path = route.partition(" ")
            answer = await door.http.request(method, path.format_map(ids), headers=headers)
            document.check(route, answer)
            if visit.shows is Shows.OPEN:
                assert answer.status_code in visit.own, route
                continue
            assert answer.status_code == 401, route
            assert not any(id in answer.text for id in ids.values()), route
        # Not even whether there is such a route.
        assert (await door.http.get("/v1/nothing", headers=headers)).status_code == 401
        assert door.objects() == before


async def test_a_method_that_a_path_has_not_is_refused_with_those_that_it_has(door: Door) -> None:
    for path in {route.partition(" ")[2] for route in VISITS}:
        refused = await door.http.request("PUT", path)
        error = refused.json()["error"]
        assert (refused.status_code, error["type"]) == (405, "invalid_request_error"), path
        assert path.startswith("/v1/messages") or error["code"] == "method_not_supported", path
        has = {route.partition(" ")[0] for route in VISITS if route.endswith(f" {path}")}
        assert set(refused.headers["allow"].split(", ")) - {"HEAD"} == has, path


async def test_no_route_shows_or_changes_what_another_tenant_made(opened: Opener) -> None:
    async with opened(KEYS) as door:
        await walk(door.http, door.store, temporal=False)


@pytest.mark.slow
async def test_what_is_described_is_what_is_answered_where_batches_run(tmp_path: Path) -> None:
    with dev_server() as address:
        client = await connect(address)
        async with open_house(client, tmp_path, {"listing_lag": "1s", "timeout": "5s"}) as house:
            keys = KEYS.replace('"openai"', '"sandbox"').replace("gpt-5-mini", "gpt-4o-mini")
            async with (
                open_gateway(house, keys, provider=None) as official,
                house.worker(),
                httpx2.AsyncClient(base_url=str(official.base_url).removesuffix("/v1/"), timeout=60) as http,
            ):
                await walk(http, Store.open(str(house.store)), temporal=True, model="gpt-4o-mini", provider="sandbox")
                await lives(http, house)


async def lives(http: httpx2.AsyncClient, house: House) -> None:
    """Hold batches against the document at every look, until they have ended in each of three ways."""
    document, headers = await document_of(http), {"authorization": f"Bearer key-{OWNER}"}
    good, bad = [line("a"), line("b")], [line("a"), line("a"), {"custom_id": "c"}]
    for rows, cancelled, status in ((good, False, "completed"), (bad, False, "failed"), (good, True, "cancelled")):
        files = {"file": ("rows.jsonl", jsonl(rows)), "purpose": (None, "batch")}
        uploaded = await http.post("/v1/files", files=files, headers=headers)
        order = {"input_file_id": uploaded.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        answer = await http.post("/v1/batches", json=order, headers=headers)
        document.check("POST /v1/batches", answer)
        batch_id = answer.json()["id"]
        if cancelled:
            await house.admin.settings(finish_after_polls=100_000)
            answer = await http.post(f"/v1/batches/{batch_id}/cancel", headers=headers)
            document.check("POST /v1/batches/{batch_id}/cancel", answer)
        while answer.json()["status"] not in ("completed", "failed", "cancelled", "expired"):
            await asyncio.sleep(0.2)
            answer = await http.get(f"/v1/batches/{batch_id}", headers=headers)
            document.check("GET /v1/batches/{batch_id}", answer)
        assert answer.json()["status"] == status, answer.text
        assert bool(answer.json()["errors"]) == (status == "failed"), answer.text
        document.check("GET /v1/batches", await http.get("/v1/batches", headers=headers))


async def walk(http: httpx2.AsyncClient, store: Store, *, temporal: bool, **names: str) -> None:
    """Ask every route for what a tenant made, as another one and then as its owner.

    Args:
        temporal: whether there is one.
        names: what paths name that nobody makes, where it is called otherwise.
    """
    document = await document_of(http)
    ids, theirs = [{**await things(store, tenant), **names} for tenant in (OWNER, OTHER)]
    for route, visit in VISITS.items():
        if visit.temporal and not temporal:
            continue
        others = await visit.send(http, route, ids, key=f"key-{OTHER}")
        document.check(route, others)
        if visit.shows is Shows.OWNED:
            assert others.status_code == 404, f"{route}: {others.text}"
        else:
            assert others.status_code in visit.own, f"{route}: {others.text}"
        if visit.shows is Shows.LIST:
            shown = {one["id"] for one in others.json()["data"]}
            assert shown and not shown & set(ids.values()), route
            assert shown & set(theirs.values()), route
        mine = await visit.send(http, route, ids, key=f"key-{OWNER}")
        document.check(route, mine)
        # It was there all the time, whatever the other one did.
        assert mine.status_code in visit.own, f"{route}: {mine.text}"
        if visit.shows is Shows.LIST:
            assert {one["id"] for one in mine.json()["data"]} & set(ids.values()), route
        if visit.shows is Shows.MADE:
            assert made(mine) != made(others), route


def made(answer: httpx2.Response) -> Any:
    return answer.json()["id"]
