"""What Anthropic's routes answer without Temporal: lists, headers, models, and what they refuse."""

from __future__ import annotations

import contextlib
import json
import secrets
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic

from durabatch.activities.store import Store
from durabatch.contract.gateway_batch import (
    BatchEntry,
    GatewayBatch,
    GatewayStatus,
    MessageCounts,
    Shape,
    message_rows_path,
)
from durabatch.contract.gateway_layout import Listed, index_path, make_id, message_results_path

from .conftest import Door, Opener
from .test_hostile import raw, until

MIB = 1024 * 1024
PATH = "/v1/messages/batches"
VERSION = {"anthropic-version": "2023-06-01"}
ROUTES = """
[[gateway.routes]]
model = "claude-haiku-4-5"
provider = "anthropic"
[[gateway.routes]]
model = "claude-*"
provider = "anthropic"
[[gateway.routes]]
model = "gpt-5-mini"
provider = "openai"
"""


def element(custom_id: str, text: str = "Hi", model: str = "claude-haiku-4-5") -> bytes:
    params = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
    return json.dumps({"custom_id": custom_id, "params": params}).encode()


@contextlib.asynccontextmanager
async def official(door: Door) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        base_url=door.url, api_key="any", max_retries=0, timeout=60, _strict_response_validation=True
    ) as client:
        yield client


def error_of(answer: httpx2.Response) -> tuple[int, str, str]:
    """Return an error's status, type and words; its envelope must be Anthropic's."""
    body = answer.json()
    assert body["type"] == "error" and body["error"].keys() == {"type", "message"}
    assert body["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
    return answer.status_code, body["error"]["type"], body["error"]["message"]


async def ended(store: Store, number: int, began: datetime) -> str:
    """Note a batch that has ended, so many hours ago."""
    batch_id = make_id(Listed.MESSAGES, began - timedelta(hours=number), secrets.token_hex(7))
    batch = GatewayBatch(
        tenant="default",
        id=batch_id,
        input_file_id="",
        endpoint="/v1/messages",
        created_at=1_700_000_000,
        shape=Shape.ANTHROPIC,
        rows=1,
    )
    final = batch.beginning().model_copy(
        update={"status": GatewayStatus.CANCELLED, "cancelled_at": 1_700_000_009, "cancelling_at": 1_700_000_005}
    )
    entry = BatchEntry(request=batch, final=final, outcomes=MessageCounts(canceled=1))
    await store.write(index_path("default", batch_id), entry.model_dump_json().encode())
    await store.write(message_results_path("default", batch_id), b'{"custom_id":"a","result":{"type":"canceled"}}\n')
    return batch_id


async def test_batches_are_listed_newest_first_in_both_directions(door: Door) -> None:
    began = datetime.now(UTC)
    ids = [await ended(door.store, number, began) for number in range(23)]
    async with official(door) as client:
        batches = client.messages.batches
        assert [one.id async for one in batches.list(limit=5)] == ids
        page = await batches.list(limit=5, after_id=ids[4])
        assert ([one.id for one in page.data], page.has_more) == (ids[5:10], True)
        page = await batches.list(limit=5, before_id=ids[10])
        assert ([one.id for one in page.data], page.has_more) == (ids[5:10], True)
        page = await batches.list(limit=100, before_id=ids[3])
        assert ([one.id for one in page.data], page.has_more) == (ids[:3], False)
        back = [one.id async for one in batches.list(limit=4, before_id=ids[10])]
        assert sorted(back) == sorted(ids[:10])
        none = await batches.list(after_id=ids[-1])
        assert (none.data, none.has_more, none.first_id) == ([], False, None)
        assert [one.id async for one in client.beta.messages.batches.list(limit=1000)] == ids
    assert [one.id async for one in door.openai.batches.list()] == []


async def test_results_that_are_being_deleted_are_not_made_up(door: Door) -> None:
    batch_id = await ended(door.store, 0, datetime.now(UTC))
    entry = BatchEntry.model_validate_json(await door.store.read(index_path("default", batch_id)))
    published = entry.model_copy(update={"published": True}).model_dump_json().encode()
    await door.store.write(index_path("default", batch_id), published)
    await door.store.write(message_rows_path("default", batch_id), element("a") + b"\n")
    await door.store.delete(message_results_path("default", batch_id))
    answer = await door.http.get(f"{PATH}/{batch_id}/results", headers=VERSION)
    assert error_of(answer)[:2] == (404, "not_found_error")
    assert await door.store.entry(message_results_path("default", batch_id)) is None


async def test_a_batch_looks_as_anthropics_do(door: Door) -> None:
    batch_id = await ended(door.store, 0, datetime.now(UTC))
    answer = await door.http.get(f"{PATH}/{batch_id}", headers=VERSION)
    assert answer.headers["request-id"].startswith("req_")
    assert answer.json() == {
        "id": batch_id,
        "type": "message_batch",
        "processing_status": "ended",
        "request_counts": {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 1, "expired": 0},
        "created_at": "2023-11-14T22:13:20+00:00",
        "expires_at": "2023-11-15T22:13:20+00:00",
        "ended_at": "2023-11-14T22:13:29+00:00",
        "cancel_initiated_at": "2023-11-14T22:13:25+00:00",
        "archived_at": None,
        "results_url": f"{door.url}{PATH}/{batch_id}/results",
    }
    lines = await door.http.get(f"{PATH}/{batch_id}/results", headers=VERSION)
    assert lines.headers["content-type"] == "application/x-jsonl"
    assert lines.json() == {"custom_id": "a", "result": {"type": "canceled"}}
    assert (await door.http.get(f"/v1/batches/{batch_id}")).status_code == 404


async def test_results_are_where_callers_reach_the_gateway(opened: Opener) -> None:
    async with opened('public_url = "https://batches.example/llm/"') as door:
        batch_id = await ended(door.store, 0, datetime.now(UTC))
        answer = await door.http.get(f"{PATH}/{batch_id}", headers=VERSION)
        assert answer.json()["results_url"] == f"https://batches.example/llm{PATH}/{batch_id}/results"


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (None, "anthropic-version: header is required"),
        ("", 'anthropic-version: "" is not a valid version'),
        ("latest", 'anthropic-version: "latest" is not a valid version'),
    ],
)
async def test_a_version_must_be_named(door: Door, version: str | None, words: str) -> None:
    headers = {} if version is None else {"anthropic-version": version}
    for method, path in (("POST", PATH), ("GET", PATH), ("GET", f"{PATH}/x"), ("DELETE", f"{PATH}/x")):
        answer = await door.http.request(method, path, headers=headers)
        assert error_of(answer) == (400, "invalid_request_error", words)


async def test_other_refusals_have_anthropics_envelope_too(door: Door) -> None:
    for method, path, status, kind in (
        ("GET", f"{PATH}/msgbatch_0123456789a0123456789abc", 404, "not_found_error"),
        ("GET", f"{PATH}/batch_0123456789a0123456789abc", 404, "not_found_error"),
        ("POST", f"{PATH}/..%2f..%2fx/cancel", 404, "not_found_error"),
        ("GET", f"{PATH}/msgbatch_%00/results", 404, "not_found_error"),
        ("GET", "/v1/messages/nothing", 404, "not_found_error"),
        ("PUT", PATH, 405, "invalid_request_error"),
        ("GET", f"{PATH}?limit=0", 400, "invalid_request_error"),
        ("GET", f"{PATH}?limit=1001", 400, "invalid_request_error"),
        ("GET", f"{PATH}?limit=x", 400, "invalid_request_error"),
        ("GET", f"{PATH}?after_id=batch_1", 400, "invalid_request_error"),
        (
            "GET",
            f"{PATH}?after_id=msgbatch_0123456789a0123456789abc&before_id=msgbatch_0123456789a0123456789abc",
            400,
            "invalid_request_error",
        ),
    ):
        answer = await door.http.request(method, path, headers=VERSION)
        assert error_of(answer)[:2] == (status, kind), path


async def test_a_refused_key_is_an_authentication_error(opened: Opener) -> None:
    key = f'[[gateway.keys]]\ntenant = "search"\nsha256 = "{"0" * 64}"\n'
    async with opened(key) as door, official(door) as client:
        with pytest.raises(anthropic.AuthenticationError, match="invalid x-api-key"):
            await client.messages.batches.list()
        answer = await door.http.get(PATH, headers=VERSION)
        assert error_of(answer) == (401, "authentication_error", "x-api-key header is required")


async def test_models_are_in_the_shape_of_whose_client_asks(opened: Opener) -> None:
    async with opened(ROUTES) as door, official(door) as client:
        assert [one.id async for one in client.models.list(limit=1)] == ["claude-haiku-4-5", "gpt-5-mini"]
        page = await client.models.list(before_id="gpt-5-mini")
        assert ([one.id for one in page.data], page.has_more) == (["claude-haiku-4-5"], False)
        assert (await client.models.retrieve("claude-opus-4-5")).lifecycle == "active"
        with pytest.raises(anthropic.NotFoundError, match="does not exist"):
            await client.models.retrieve("nothing")
        with pytest.raises(anthropic.BadRequestError, match="There is no model x"):
            await client.models.list(after_id="x")
        assert [one.id async for one in door.openai.models.list()] == ["claude-haiku-4-5", "gpt-5-mini"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{}", "requests: Field required"),
        (b'{"requests":[%b,%b]}' % (element("a"), element("a")), "requests.1.custom_id: the custom_id a is"),
        (b'{"requests":[%b,%b]}' % (element("a"), element("b", model="gpt-5-mini")), "requests.1.params.model: gpt-5"),
        (b'{"requests":[%b]}' % element("a", model="x"), "requests.0.params.model: the model x does not exist"),
        (b'{"requests":[%b],"metadata":{}}' % element("a"), "metadata: Extra inputs are not permitted"),
        (b'{"requests":[%b],"provider":"x"}' % element("a"), "Invalid value: 'x'. Supported values are"),
        (b'{"requests":[%b],"provider":7}' % element("a"), "Invalid type for 'provider'"),
        (b'{"requests":[%b],"idempotency_key":""}' % element("a"), "Invalid 'idempotency_key'"),
        (b"\x1f\x8b\x08", "The request body is not valid JSON."),
        (b'{"requests":[' + b'{"a":' * 100_000, "The request body is nested more than 250 levels deep."),
    ],
    ids=range(10),
)  # fmt: skip
async def test_a_create_that_is_refused_leaves_nothing(opened: Opener, body: bytes, words: str) -> None:
    async with opened(ROUTES) as door:
        answer = await door.http.post(PATH, content=body, headers=VERSION)
        status, kind, said = error_of(answer)
        assert (status, kind) == (400, "invalid_request_error")
        assert said.startswith(words)
        assert door.objects() == []


async def test_a_create_that_is_cut_leaves_nothing(opened: Opener) -> None:
    async with opened(ROUTES) as door, raw(door) as client:
        head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nanthropic-version: 2023-06-01\r\n"
        rows = b",".join(element(f"r{number}", "x" * 1000) for number in range(3000))
        await client.send(f"{head}Content-Length: {100 * MIB}\r\n\r\n".encode(), b'{"requests":[', rows)
        await until(lambda: any(".durabatch-" in path for path in door.objects()))
        client.writer.close()
        await until(lambda: not door.objects())
        assert (await door.http.get(PATH, headers=VERSION)).json()["data"] == []


async def test_a_create_that_is_too_large_is_refused(opened: Opener) -> None:
    async with opened(f"max_file_bytes = 1000\n{ROUTES}") as door, official(door) as client:
        params: Any = json.loads(element("a", "x" * 1000))
        with pytest.raises(anthropic.RequestTooLargeError) as refused:
            await client.messages.batches.create(requests=[params])
        assert refused.value.status_code == 413
        assert door.objects() == []


@pytest.mark.slow
async def test_a_large_create_takes_no_memory(opened: Opener) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"requests":['
        for number in range(0, 15_000, 500):
            yield (b"," if number else b"") + b",".join(
                element(f"r{one}", "x" * 1000) for one in range(number, number + 500)
            )
        yield b"}"  # so that Temporal is not needed

    async with opened(ROUTES) as door:
        tracemalloc.start()
        try:
            answer = await door.http.post(PATH, content=body(), headers=VERSION)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert error_of(answer)[2] == "The request body is not valid JSON."
        assert peak < 12 * MIB
        assert door.objects() == []
