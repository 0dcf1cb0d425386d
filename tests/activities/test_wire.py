"""What the adapters send, against what the providers' own clients send: method, path, query, headers and body."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import BodyPartReader, web
from pydantic import SecretStr

from durabatch.activities.providers import (
    Content,
    Creation,
    Provider,
    ProviderSettings,
    ResultFile,
    Wanted,
    open_provider,
)
from durabatch.activities.providers.anthropic.adapter import VERSION
from durabatch.activities.rows import parse
from durabatch.contract import BatchSpec
from durabatch.contract.names import MARKER_KEY

KEY = "sk-test"
SINCE = datetime.now(UTC) - timedelta(hours=1)
#: Never used on loopback; loading the certificates anew for every client would be most of the tests' time.
TLS = ssl.create_default_context()
ROWS = [b'{"custom_id":"a","method":"POST"}\n', b'{"custom_id":"b","method":"POST"}\n']
#: Headers that decide what a request means; the others are a client's own business.
RELEVANT = ("anthropic-version", "anthropic-beta", "openai-organization", "openai-project", "range")


@dataclass
class Call:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    key: str  #: Anthropic takes it in either of two headers; OpenAI in one.
    media: str  #: The content type's main part; "" without a body.
    body: Any = field(repr=False)
    length: str | None = field(default=None, compare=False)  #: The Content-Length.


class Recorder:
    """A server on loopback that writes down what it is asked, and answers what a client can live with."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[Call] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.append(await record(request))
        answer = self._answer(request.method, request.path)
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="application/x-jsonl")
        return web.json_response(answer)

    def _answer(self, method: str, path: str) -> Any:
        if path.endswith(("/content", "/results")):
            return b'{"custom_id":"a","result":{"type":"expired"}}\n'
        if method == "GET" and path in ("/v1/files", "/v1/batches", "/v1/messages/batches", "/v1/models"):
            return {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}
        if path.startswith("/v1/files"):
            return {"id": "file-1", "object": "file", "bytes": 3, "created_at": 1, "filename": "x", "purpose": "batch"}
        if path.startswith("/v1/batches"):
            return {"id": "batch_1", "object": "batch", "status": "in_progress", "created_at": 1}
        return {
            "id": "msgbatch_1",
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 1},
            "created_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-02T00:00:00Z",
            "results_url": f"{self.url}/v1/messages/batches/msgbatch_1/results",
        }

    async def of(self, asking: Awaitable[Any]) -> list[Call]:
        """The requests that something makes."""
        self.calls = []
        await asking
        return self.calls


async def record(request: web.Request) -> Call:
    body: Any = None
    if request.content_type == "multipart/form-data":
        body = await parts(request)
    elif data := await request.read():
        body = json.loads(data)
    return Call(
        method=request.method,
        path=request.path,
        query=dict(request.query),
        headers={name: request.headers[name] for name in RELEVANT if name in request.headers},
        key=request.headers.get("x-api-key") or request.headers["Authorization"].removeprefix("Bearer "),
        media=request.content_type if body is not None else "",
        body=body,
        length=request.headers.get("Content-Length"),
    )


async def parts(request: web.Request) -> dict[str, Any]:
    """The fields of a multipart form; a file is (name, media type, content)."""
    found: dict[str, Any] = {}
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        assert isinstance(part, BodyPartReader) and part.name is not None and part.name not in found
        data = bytes(await part.read())
        media = part.headers.get("Content-Type")
        found[part.name] = (part.filename, media, data) if part.filename else data.decode()
    return found


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recording = Recorder()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", recording.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    recording.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield recording
    await runner.cleanup()


async def chunked(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def drained(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


# --- OpenAI ---

FILE_LIFE = 30 * 24 * 3600
METADATA = {MARKER_KEY: "b-1/0/1", "durabatch_rows": "0123456789abcdef"}


@pytest.fixture
async def gpt(recorder: Recorder) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = openai.DefaultAsyncHttpxClient(verify=TLS)
    async with openai.AsyncOpenAI(
        base_url=f"{recorder.url}/v1", api_key=KEY, max_retries=0, timeout=60, http_client=transport
    ) as client:
        yield client


@pytest.fixture
async def openai_adapter(recorder: Recorder) -> AsyncIterator[Provider]:
    settings = ProviderSettings(name="gpt", kind="openai", base_url=f"{recorder.url}/v1", api_key=SecretStr(KEY))
    provider = open_provider(settings)
    yield provider
    await provider.close()


async def listed(pages: Any) -> None:
    async for _ in pages:
        pass


WANTED = Wanted(marker="b-1/0/1", digest="0123456789abcdef", rows=2, since=SINCE)
CREATION = Creation(
    marker="b-1/0/1",
    digest="0123456789abcdef",
    endpoint="/v1/chat/completions",
    completion_window="24h",
    file_id="file-1",
)
Official = Callable[[Any], Awaitable[Any]]
Ours = Callable[[Provider], Awaitable[Any]]

OPENAI_CALLS: dict[str, tuple[Official, Ours]] = {
    "upload": (
        lambda gpt: gpt.files.create(
            file=("durabatch~b-1~0~1~0123~g1.jsonl", b"".join(ROWS), "application/jsonl"),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": FILE_LIFE},
        ),
        lambda ours: ours.files.upload(
            Content(name="durabatch~b-1~0~1~0123~g1.jsonl", size=len(b"".join(ROWS)), chunks=chunked(*ROWS))
        ),
    ),
    "find files": (
        lambda gpt: listed(gpt.files.list(purpose="batch", limit=1000, order="desc")),
        lambda ours: ours.files.find("durabatch~", SINCE),
    ),
    "list batches": (lambda gpt: listed(gpt.batches.list(limit=100)), lambda ours: ours.markers.marked(SINCE)),
    "delete file": (lambda gpt: gpt.files.delete("file-1"), lambda ours: ours.files.delete("file-1")),
    "create": (
        lambda gpt: gpt.batches.create(
            input_file_id="file-1",
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata=METADATA,
            output_expires_after={"anchor": "created_at", "seconds": FILE_LIFE},
        ),
        lambda ours: ours.batches.create(CREATION),
    ),
    "find": (lambda gpt: listed(gpt.batches.list(limit=100)), lambda ours: ours.batches.find(WANTED)),
    "retrieve": (lambda gpt: gpt.batches.retrieve("batch_1"), lambda ours: ours.batches.retrieve("batch_1")),
    "cancel": (lambda gpt: gpt.batches.cancel("batch_1"), lambda ours: ours.batches.cancel("batch_1")),
    "content": (
        lambda gpt: gpt.files.content("file-1"),
        lambda ours: drained(ours.batches.download(ResultFile(reference="file-1", name="output"), 0)),
    ),
    "probe": (lambda gpt: gpt.models.list(), lambda ours: ours.probe()),
}


@pytest.mark.parametrize("call", OPENAI_CALLS)
async def test_the_openai_adapter_sends_what_openais_client_sends(
    recorder: Recorder, gpt: openai.AsyncOpenAI, openai_adapter: Provider, call: str
) -> None:
    official, ours = OPENAI_CALLS[call]
    expected = await recorder.of(official(gpt))
    assert await recorder.of(ours(openai_adapter)) == expected
    assert len(expected) == 1 and expected[0].key == KEY


async def test_an_upload_says_how_long_it_is(recorder: Recorder, openai_adapter: Provider) -> None:
    content = Content(name="ü.jsonl", size=len(b"".join(ROWS)), chunks=chunked(*ROWS))
    (call,) = await recorder.of(openai_adapter.files.upload(content))
    # A server that believed a wrong length would have cut the form, or waited for the rest of it.
    assert call.length is not None and call.body["file"] == ("ü.jsonl", "application/jsonl", b"".join(ROWS))


# --- Anthropic ---

REQUESTS: list[dict[str, Any]] = [
    {
        "model": "claude-haiku-4-5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Größe?"}],
        "system": "Be kind.",
        "metadata": {"user_id": "u-1"},
        "stop_sequences": ["END"],
    },
    {
        "model": "claude-opus-4-8",
        "max_tokens": 8,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}],
    },
]


@pytest.fixture
async def claude(recorder: Recorder) -> AsyncIterator[anthropic.AsyncAnthropic]:
    transport = anthropic.DefaultAsyncHttpxClient(verify=TLS)
    # Its newest releases send a newer version, which refuses sampling parameters.
    async with anthropic.AsyncAnthropic(
        base_url=recorder.url,
        api_key=KEY,
        max_retries=0,
        timeout=60,
        http_client=transport,
        default_headers={"anthropic-version": VERSION},
    ) as client:
        yield client


@pytest.fixture
async def anthropic_adapter(recorder: Recorder) -> AsyncIterator[Provider]:
    settings = ProviderSettings(name="claude", kind="anthropic", base_url=recorder.url, api_key=SecretStr(KEY))
    provider = open_provider(settings)
    yield provider
    await provider.close()


def framed(provider: Provider, rows: list[bytes]) -> Content:
    """Rows as an attempt's content."""
    spec = BatchSpec(provider="claude", input="rows.jsonl")
    wired = []
    for number, row in enumerate(rows):
        prepared = provider.rows.prepare(parse(row), spec)
        sent_as = provider.rows.sent_id("any id", "b-1/0/1", number)
        wired.append(provider.rows.join(provider.rows.with_id(prepared, sent_as), not number))
    wired.append(provider.rows.join(None, not rows))
    return Content(name="unused", size=len(b"".join(wired)), chunks=chunked(*wired))


def native() -> list[bytes]:
    return [json.dumps({"custom_id": f"row {n}", "params": params}).encode() for n, params in enumerate(REQUESTS)]


def as_chats() -> list[bytes]:
    """The same two requests as a user of OpenAI's writes them."""
    first = {
        "model": "claude-haiku-4-5",
        "max_completion_tokens": 64,
        "messages": [{"role": "developer", "content": "Be kind."}, *REQUESTS[0]["messages"]],
        "user": "u-1",
        "stop": "END",
    }
    line = {"method": "POST", "url": "/v1/chat/completions"}
    return [
        json.dumps({"custom_id": "1", **line, "body": first}).encode(),
        json.dumps({"custom_id": "2", **line, "body": REQUESTS[1]}).encode(),
    ]


@pytest.mark.parametrize("rows", [native, as_chats])
async def test_a_create_at_anthropic_is_what_anthropics_client_sends(
    recorder: Recorder, claude: anthropic.AsyncAnthropic, anthropic_adapter: Provider, rows: Callable[[], list[bytes]]
) -> None:
    ids = [anthropic_adapter.rows.sent_id("any id", "b-1/0/1", number) for number in range(2)]
    requests: Any = [{"custom_id": i, "params": params} for i, params in zip(ids, REQUESTS, strict=True)]
    expected = await recorder.of(claude.messages.batches.create(requests=requests))
    content = framed(anthropic_adapter, rows())
    creation = Creation(marker="b-1/0/1", digest="d", endpoint="e", completion_window="24h", content=content)
    ours = await recorder.of(anthropic_adapter.batches.create(creation))
    assert ours == expected
    assert expected[0].body == {"requests": requests} and ours[0].length == str(content.size)


ANTHROPIC_CALLS: dict[str, tuple[Official, Ours]] = {
    "find": (lambda claude: listed(claude.messages.batches.list(limit=100)), lambda ours: ours.batches.find(WANTED)),
    "retrieve": (
        lambda claude: claude.messages.batches.retrieve("msgbatch_1"),
        lambda ours: ours.batches.retrieve("msgbatch_1"),
    ),
    "cancel": (
        lambda claude: claude.messages.batches.cancel("msgbatch_1"),
        lambda ours: ours.batches.cancel("msgbatch_1"),
    ),
    "results": (
        # The client retrieves the batch for its results_url first; so do we, when we poll.
        lambda claude: claude.messages.batches.results("msgbatch_1"),
        lambda ours: fetched(ours, "msgbatch_1"),
    ),
    "probe": (lambda claude: claude.models.list(limit=1), lambda ours: ours.probe()),
}


async def fetched(provider: Provider, batch_id: str) -> list[bytes]:
    batch = await provider.batches.retrieve(batch_id)
    return [await drained(provider.batches.download(one, 0)) for one in await provider.batches.result_files(batch)]


@pytest.mark.parametrize("call", ANTHROPIC_CALLS)
async def test_the_anthropic_adapter_sends_what_anthropics_client_sends(
    recorder: Recorder, claude: anthropic.AsyncAnthropic, anthropic_adapter: Provider, call: str
) -> None:
    official, ours = ANTHROPIC_CALLS[call]
    expected = await recorder.of(official(claude))
    assert await recorder.of(ours(anthropic_adapter)) == expected
    assert expected and all(call.key == KEY for call in expected)
    assert all(call.headers == {"anthropic-version": "2023-06-01"} for call in expected)
