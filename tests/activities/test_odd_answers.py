"""The adapters over HTTP against a provider whose answers are odd: errors of the contract, and nothing bought twice."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from durabatch.activities.providers import (
    Content,
    Creation,
    Provider,
    ProviderSettings,
    Wanted,
    open_provider,
)
from durabatch.activities.providers.openai.batch_object import DIGEST_KEY
from durabatch.activities.providers.pagination import MAX_PAGES, ListingIncomplete, Page, page, pages
from durabatch.contract import AnswerLost, ProviderError, ProviderStatus, ProviderUnavailable
from durabatch.contract.names import MARKER_KEY
from durabatch.contract.steps import Snapshot
from durabatch.sandbox import Sandbox

SINCE = datetime.now(UTC) - timedelta(minutes=1)
MARKER, DIGEST = "b-1/0/1", "0123456789abcdef"
WANTED = Wanted(marker=MARKER, digest=DIGEST, rows=1, since=SINCE)
CREATION = Creation(marker=MARKER, digest=DIGEST, endpoint="/v1/chat/completions", completion_window="24h")
ROW = {"model": "gpt-4o-mini", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
#: What is put in the place of a field, or of a whole answer.
#: (All of them for every field of a batch are in tests/unit/test_parsing.py, which needs no server.)
VALUES: tuple[Any, ...] = (None, 37.5, "text", [None, 1, {}], {"a": 1}, "x" * 100_000)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path / "state") as running:
        yield running


@asynccontextmanager
async def opened(kind: str, url: str) -> AsyncIterator[Provider]:
    root = f"{url}/v1" if kind == "openai" else url
    provider = open_provider(
        ProviderSettings(name="odd", kind=kind, base_url=root, api_key=SecretStr("sk-odd-1234567"))
    )
    try:
        yield provider
    finally:
        await provider.close()


@pytest.fixture
async def gpt(sandbox: Sandbox) -> AsyncIterator[Provider]:
    async with opened("openai", sandbox.url) as provider:
        yield provider


@pytest.fixture
async def claude(sandbox: Sandbox) -> AsyncIterator[Provider]:
    async with opened("anthropic", sandbox.url) as provider:
        yield provider


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


def rows(name: str = "durabatch~b-1~0~1~x~g1.jsonl") -> Content:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": ROW}
    data = json.dumps(line).encode() + b"\n"
    return Content(name=name, size=len(data), chunks=chunks(data))


def inline() -> Content:
    data = json.dumps({"requests": [{"custom_id": "a", "params": {**ROW, "model": "claude-haiku-4-5"}}]}).encode()
    return Content(name="unused", size=len(data), chunks=chunks(data))


async def bought(gpt: Provider) -> Snapshot:
    return await gpt.batches.create(replace(CREATION, file_id=await gpt.files.upload(rows())))


Call = Callable[[Provider, Snapshot], Awaitable[Any]]

OPENAI: dict[str, tuple[str, str, tuple[str, ...], Call]] = {
    "upload": (
        "files.create",
        "POST /files",
        ("/id", "/bytes", "/status"),
        lambda gpt, batch: gpt.files.upload(rows()),
    ),
    "create": (
        "batches.create",
        "POST /batches",
        ("/id", "/status", "/created_at", "/errors", "/request_counts", "/metadata", "/usage"),
        lambda gpt, batch: bought(gpt),
    ),
    "retrieve": (
        "batches.retrieve",
        "GET /batches/",
        ("/id", "/status", "/created_at", "/errors", "/request_counts", "/request_counts/total", "/output_file_id"),
        lambda gpt, batch: gpt.batches.retrieve(batch.id),
    ),
    "cancel": ("batches.cancel", "GET /batches/", ("/id", "/status"), lambda gpt, batch: gpt.batches.cancel(batch.id)),
    "find": (
        "batches.list",
        "GET /batches",
        (
            "/data",
            "/data/0",
            "/data/1",
            "/data/-",
            "/data/0/created_at",
            "/data/0/status",
            "/data/1/metadata",
            "/has_more",
        ),
        lambda gpt, batch: gpt.batches.find(replace(WANTED, sent=True)),
    ),
    "find at first": (
        "batches.list",
        "GET /batches",
        ("/data", "/data/0/created_at", "/has_more"),
        lambda gpt, batch: gpt.batches.find(replace(WANTED, marker="b-2/0/1", sent=False)),
    ),
    "list batches": (
        "batches.list",
        "GET /batches",
        ("/data/0/id", "/data/0"),
        lambda gpt, batch: gpt.markers.marked(SINCE),
    ),
    "find files": (
        "files.list",
        "GET /files",
        ("/data", "/data/0", "/data/0/id", "/data/0/filename", "/data/0/bytes", "/data/0/created_at", "/has_more"),
        lambda gpt, batch: gpt.files.find("durabatch~", SINCE),
    ),
    "delete": ("files.delete", "", ("/id", "/deleted"), lambda gpt, batch: gpt.files.delete("file-nothing")),
    "probe": ("models", "GET /models", ("/data",), lambda gpt, batch: gpt.probe()),
}


async def under_each(
    sandbox: Sandbox, op: str, pointers: tuple[str, ...], asking: Callable[[], Awaitable[Any]]
) -> AsyncIterator[tuple[str, Any, Any]]:
    """Yield (pointer, value, what came of it) for each oddity of an answer: a result or an error of the contract."""
    oddities: list[tuple[str, Any, dict[str, Any]]] = [
        (pointer, value, {"put": {pointer: value}}) for pointer in ("", *pointers) for value in VALUES
    ]
    oddities += [(pointer, "missing", {"drop": [pointer]}) for pointer in pointers]
    oddities += [("", body, {"body": body, "media": media}) for body, media in PAGES]
    for pointer, value, fault in oddities:
        set_ = await sandbox.fault(op, "override", **fault)
        try:
            found = await asking()
        except ProviderError as error:
            found = error
        await sandbox.clear(set_["id"])
        yield pointer, value, found


PAGES = (
    ("<html><title>Sign in</title></html>", "text/html"),
    ("", "application/json"),
    ('{"id": ', "application/json"),
)


@pytest.mark.parametrize("call", OPENAI)
async def test_an_odd_answer_of_openais_api_is_read_or_named_by_its_route(
    sandbox: Sandbox, gpt: Provider, call: str
) -> None:
    op, route, pointers, asking = OPENAI[call]
    first, _ = (
        await bought(gpt),
        await gpt.batches.create(replace(CREATION, marker="b-9/0/1", file_id=await gpt.files.upload(rows()))),
    )
    async with aclosing(under_each(sandbox, op, pointers, lambda: asking(gpt, first))) as cases:
        async for pointer, value, found in cases:
            if isinstance(found, ProviderError):
                assert type(found) is (AnswerLost if call == "create" else ProviderUnavailable), found
                assert route in found.message and "Error" not in found.message, found.message
                needed = {"", "/id", "/status", "/data", "/has_more", "/data/0", "/data/1"}
                assert pointer in needed and route, (pointer, value, found)
            elif call == "retrieve":
                assert found.id == first.id
            elif call == "cancel":
                assert found.id == first.id and found.status is not ProviderStatus.IN_PROGRESS
            elif call == "find" and pointer in ("/data/0", "/data/-", "/data/0/created_at", "/data/0/status"):
                assert found is not None and found.id == first.id, (pointer, value)


ANTHROPIC: dict[str, tuple[str, str, tuple[str, ...], Call]] = {
    "create": (
        "batches.create",
        "POST /v1/messages/batches",
        ("/id", "/processing_status", "/created_at", "/request_counts", "/results_url"),
        lambda claude, batch: claude.batches.create(replace(CREATION, content=inline())),
    ),
    "retrieve": (
        "batches.retrieve",
        "GET /v1/messages/batches/",
        ("/id", "/processing_status", "/created_at", "/request_counts", "/request_counts/succeeded", "/results_url"),
        lambda claude, batch: claude.batches.retrieve(batch.id),
    ),
    "cancel": (
        "batches.cancel",
        "GET /v1/messages/batches/",
        ("/id", "/processing_status"),
        lambda claude, batch: claude.batches.cancel(batch.id),
    ),
    "find": (
        "batches.list",
        "GET /v1/messages/batches",
        ("/data", "/data/-", "/data/0/created_at", "/data/0/request_counts", "/data/0/processing_status", "/has_more"),
        lambda claude, batch: claude.batches.find(WANTED),
    ),
    "probe": ("models", "GET /v1/models", ("/data",), lambda claude, batch: claude.probe()),
}


@pytest.mark.parametrize("call", ANTHROPIC)
async def test_an_odd_answer_of_anthropics_api_is_read_or_named_by_its_route(
    sandbox: Sandbox, claude: Provider, call: str
) -> None:
    await sandbox.settings(batch_seconds=600)
    op, route, pointers, asking = ANTHROPIC[call]
    first = await claude.batches.create(replace(CREATION, content=inline()))
    async with aclosing(under_each(sandbox, op, pointers, lambda: asking(claude, first))) as cases:
        async for pointer, value, found in cases:
            if isinstance(found, ProviderError):
                assert type(found) is (AnswerLost if call == "create" else ProviderUnavailable), found
                assert route in found.message and "Error" not in found.message, found.message
                assert pointer in {"", "/id", "/processing_status", "/data", "/has_more"}, (pointer, value, found)
            elif call in ("retrieve", "cancel"):
                assert found.id == first.id
            elif call == "find" and pointer in ("/data/-", "/data/0/created_at", "/data/0/processing_status"):
                assert found is not None and found.id == first.id, (pointer, value)


# --- listings without an end ---


class Shelf:
    """A listing that a test fills; `answer` makes a page of what follows an id."""

    def __init__(self, answer: Callable[[str | None], Any]) -> None:
        self.answer = answer
        self.asked: list[str | None] = []
        self.paths: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        after = request.query.get("after") or request.query.get("after_id")
        self.asked.append(after)
        self.paths.append(request.raw_path)
        return web.json_response(self.answer(after))


@asynccontextmanager
async def shelf(kind: str, answer: Callable[[str | None], Any]) -> AsyncIterator[tuple[Provider, Shelf]]:
    serving = Shelf(answer)
    app = web.Application()
    app.router.add_route("GET", "/{path:.*}", serving.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with opened(kind, f"http://127.0.0.1:{runner.addresses[0][1]}") as provider:
            yield provider, serving
    finally:
        await runner.cleanup()


def listed(id: str, marker: str = "b-9/0/1", **fields: Any) -> dict[str, Any]:
    return {
        "id": id,
        "status": "in_progress",
        "processing_status": "in_progress",
        "filename": "durabatch~x",
        "created_at": datetime.now(UTC).timestamp(),
        "metadata": {MARKER_KEY: marker, DIGEST_KEY: DIGEST},
        "request_counts": {"processing": 7},
        **fields,
    }


def same_again(after: str | None) -> Any:
    return {"data": [listed("batch_1"), listed("batch_2")], "has_more": True}


async def test_a_listing_that_never_advances_ends_and_proves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with shelf("openai", same_again) as (gpt, serving):
        with pytest.raises(ProviderUnavailable, match="promises more after 2 items, and shows no others") as caught:
            await gpt.batches.find(WANTED)  # a create of ours may be among what is not shown
        assert "none is created" in caught.value.message
        assert serving.asked == [None, "batch_2"]
        # Where none was ever sent, none can be there; else no batch could begin at such a provider.
        assert await gpt.batches.find(replace(WANTED, sent=False)) is None
        with pytest.raises(ProviderUnavailable):
            await gpt.markers.marked(SINCE)
        assert len(await gpt.files.find("durabatch~", SINCE)) == 2
        with pytest.raises(ProviderUnavailable):
            await gpt.files.find("durabatch~", SINCE, whole=True)
        assert len(serving.asked) == 10
    assert "lists without end at GET /batches" in caplog.text
    async with shelf("anthropic", same_again) as (claude, serving):
        with pytest.raises(ProviderUnavailable, match="GET /v1/messages/batches"):
            await claude.batches.find(WANTED)
        assert serving.asked == [None, "batch_2"]


async def test_what_a_listing_without_end_shows_is_found_all_the_same() -> None:
    def ours_too(after: str | None) -> Any:
        return {"data": [listed("batch_1"), listed("batch_2", MARKER)], "has_more": True}

    async with shelf("openai", ours_too) as (gpt, _):
        for sent in (True, False):
            found = await gpt.batches.find(replace(WANTED, sent=sent))
            assert found is not None and found.id == "batch_2"


async def test_a_listing_that_always_goes_on_is_left_at_a_bound() -> None:
    asked = 0

    async def one_more(after: Mapping[str, str]) -> Page:
        nonlocal asked
        asked += 1
        return page({"data": [{"id": f"batch_{asked}"}], "has_more": True})

    found = []
    with pytest.raises(ListingIncomplete, match=f"goes on after {MAX_PAGES:,} pages"):
        async for item in pages("odd", "GET /batches", "after", one_more):
            found.append(item)
    assert asked == len(found) == MAX_PAGES


async def test_a_listing_that_does_not_say_whether_there_is_more_is_read_to_its_end() -> None:
    shown = {None: [listed("batch_1")], "batch_1": [listed("batch_2", MARKER)], "batch_2": []}

    async with shelf("openai", lambda after: {"data": shown[after]}) as (gpt, serving):
        found = await gpt.batches.find(WANTED)
        assert found is not None and found.id == "batch_2"
        assert serving.asked == [None, "batch_1", "batch_2"]
    # One that repeats itself and promises nothing has shown all there is.
    async with shelf("openai", lambda after: {"data": shown[None]}) as (gpt, serving):
        assert await gpt.batches.find(WANTED) is None
        assert len(serving.asked) == 2


@pytest.mark.parametrize("odd", [5, 0, -1, "soon", None, {}, "1970-01-01T00:00:00Z"])
async def test_an_item_without_a_readable_time_does_not_end_a_search_for_what_lies_beyond(odd: Any) -> None:
    items = [listed("batch_1", created_at=odd), listed("batch_2", MARKER), listed("batch_3", created_at=1_600_000_000)]
    async with shelf("openai", lambda after: {"data": items, "has_more": False}) as (gpt, _):
        for sent in (True, False):
            found = await gpt.batches.find(replace(WANTED, sent=sent))
            assert found is not None and found.id == "batch_2"
        assert [one.batch.id for one in await gpt.markers.marked(SINCE)] == ["batch_1", "batch_2"]


async def test_our_own_batch_without_an_id_is_not_taken_for_none() -> None:
    answer = {"data": [listed("batch_1"), {**listed("x", MARKER), "id": None}], "has_more": False}
    async with shelf("openai", lambda after: answer) as (gpt, _):
        with pytest.raises(
            ProviderUnavailable, match=r"GET /batches that Durabatch cannot read: field `id` is missing"
        ):
            await gpt.batches.find(WANTED)


async def test_an_answer_about_another_batch_is_not_taken_for_ours() -> None:
    for kind in ("openai", "anthropic"):
        async with shelf(kind, lambda after: listed("batch_2")) as (provider, _):
            with pytest.raises(ProviderUnavailable, match="names another batch"):
                await provider.batches.retrieve("batch_1")


async def test_a_query_of_the_base_url_is_on_every_request(sandbox: Sandbox) -> None:
    seen: list[tuple[str, str]] = []

    async def note(request: web.Request) -> web.Response:
        await request.read()
        seen.append((f"{request.method} {request.path}", request.query_string))
        return web.json_response({**listed("batch_1"), "data": [], "has_more": False})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", note)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/openai/v1/?api-version=2024-10-21"
    gpt = open_provider(ProviderSettings(name="az", kind="openai", base_url=url, api_key=SecretStr("k")))
    await gpt.files.upload(rows())
    await gpt.batches.find(WANTED)
    await gpt.batches.retrieve("batch_1")
    await gpt.batches.cancel("batch_1")
    await gpt.probe()
    await gpt.close()
    await runner.cleanup()
    assert all(path.split()[1].startswith("/openai/v1/") for path, _ in seen)
    assert all("api-version=2024-10-21" in query for _, query in seen)
    assert ("GET /openai/v1/batches", "api-version=2024-10-21&limit=100") in seen


async def test_an_id_with_odd_characters_stays_one_part_of_a_path() -> None:
    id = "a/../b?c#d\t%2f \u00fc"
    for kind in ("openai", "anthropic"):
        async with shelf(kind, lambda after: listed(id)) as (provider, serving):
            assert (await provider.batches.retrieve(id)).id == id
            assert serving.paths[0].endswith("/batches/a%2F..%2Fb%3Fc%23d%09%252f%20%C3%BC")
