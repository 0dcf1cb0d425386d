"""What clients may do to a gateway that means no harm: slow, cut, huge and crooked requests leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import httpx2
import pytest
from starlette.responses import PlainTextResponse

from durabatch.gateway.body import Pace
from durabatch.gateway.errors import ApiError
from durabatch.gateway.metrics import Metrics
from durabatch.gateway.observed import Observed
from durabatch.gateway.places import Places
from durabatch.gateway.server import HEAD_BYTES, Outgoing, Patience, serving

from .conftest import LINE, Door, Opener

MIB = 1024 * 1024
BOUNDARY = "----parts"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'
).encode()
GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()


class Raw:
    """A connection on which bytes are sent as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, object]]:
        """Return an answer's status and its error."""
        status, body = await self.whole()
        return status, body["error"]

    async def whole(self) -> tuple[int, dict[str, Any]]:
        """Return an answer's status and what it says."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = json.loads(await self.reader.readexactly(length))
        return int(head.split()[1]), body

    async def closed(self) -> bool:
        """Wait until the server closes the connection, and return whether it said nothing more."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


@contextlib.asynccontextmanager
async def raw(door: Door) -> AsyncIterator[Raw]:
    url = httpx2.URL(door.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def upload_head(length: int | None) -> bytes:
    size = f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked"
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    return f"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}\r\n{size}\r\n\r\n".encode()


async def until(condition: object) -> None:
    """Wait until something is so; the test's own time limit bounds it."""
    assert callable(condition)
    while not condition():
        await asyncio.sleep(0.02)


async def test_an_upload_that_is_cut_leaves_nothing(door: Door) -> None:
    async with raw(door) as client:
        await client.send(upload_head(100 * MIB), HEAD, LINE * 30_000)
        await until(lambda: any(".durabatch-" in path for path in door.objects()))
    await until(lambda: not door.objects())
    assert (await door.http.get("/v1/files")).json()["data"] == []


async def test_an_upload_that_ends_before_its_last_boundary_leaves_nothing(door: Door) -> None:
    body = HEAD + LINE
    answer = await door.http.post(
        "/v1/files", content=body, headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    )
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "Unexpected end of multipart stream" in answer.json()["error"]["message"]
    assert door.objects() == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", HEAD + LINE + TAIL),
        (f"multipart/form-data; boundary={BOUNDARY}", b""),
        (f"multipart/form-data; boundary={BOUNDARY}", b"no form at all"),
        (f"multipart/form-data; boundary={BOUNDARY}", HEAD.replace(b"form-data", b"form-\xff") + TAIL),
        (
            f"multipart/form-data; boundary={BOUNDARY}",
            HEAD.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 9000 + b"\r\n\r\n"),
        ),
        (f"multipart/form-data; boundary={BOUNDARY}", HEAD.replace(b"batch", b"b" * 5000) + LINE + TAIL),
        (f"multipart/form-data; boundary={BOUNDARY}", HEAD.replace(b"batch", b"\xff") + LINE + TAIL),
        (f"multipart/form-data; boundary={BOUNDARY}", HEAD + LINE + b"\r\n" + HEAD + LINE + TAIL),
        (f"multipart/form-data; boundary={BOUNDARY}", (HEAD + LINE + b"\r\n") * 40 + TAIL),
        (f"multipart/form-data; boundary={'b' * 3000}", HEAD + LINE + TAIL),
        ("multipart/mixed; boundary=x", b"--x--"),
    ],
    ids=[
        *("JSON", "no boundary", "empty", "text", "bad header", "long header", "long field", "field in no encoding"),
        *("two files", "forty parts", "long boundary", "another multipart"),
    ],
)
async def test_a_body_that_is_no_form_with_a_file_is_refused(door: Door, kind: str, body: bytes) -> None:
    answer = await door.http.post("/v1/files", content=body, headers={"content-type": kind})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert "\\x" not in error["message"] and "Error(" not in error["message"]
    assert door.objects() == []


@pytest.mark.parametrize("announced", [True, False])
async def test_an_upload_that_is_too_large_is_refused_as_soon_as_that_is_known(opened: Opener, announced: bool) -> None:
    async with opened(f"max_file_bytes = {MIB}") as door, raw(door) as client:
        if announced:
            # Not one byte of the body is waited for.
            await client.send(upload_head(100 * MIB))
        else:
            await client.send(upload_head(None))
            for piece in (HEAD, *[LINE * 1000] * 20):
                await client.send(f"{len(piece):x}\r\n".encode(), piece, b"\r\n")
        status, error = await client.answer()
        assert (status, error["code"]) == (413, "request_too_large")
        assert door.objects() == []
    async with opened(f"max_file_bytes = {len(LINE)}") as door:
        fitting = await door.http.post("/v1/files", data={"purpose": "batch"}, files={"file": LINE})
        assert fitting.status_code == 200
        over = await door.http.post("/v1/files", data={"purpose": "batch"}, files={"file": LINE + b" "})
        assert (over.status_code, over.json()["error"]["code"]) == (413, "file_too_large")


@pytest.mark.parametrize("pace", [Pace(idle=0.2), Pace(idle=60, grace=0.3, least=MIB)], ids=["idle", "slow"])
async def test_an_upload_that_comes_too_slowly_is_ended(opened: Opener, pace: Pace) -> None:
    async with opened(pace=pace) as door, raw(door) as client:
        await client.send(upload_head(100 * MIB), HEAD, LINE)
        if pace.idle > 1:

            async def trickle() -> None:
                while True:
                    await client.send(b" ")
                    await asyncio.sleep(0.01)

            drip = asyncio.create_task(trickle())
        status, error = await client.answer()
        assert (status, error["code"]) == (408, "request_timeout")
        if pace.idle > 1:
            drip.cancel()
            await asyncio.gather(drip, return_exceptions=True)
        assert await client.closed()
        await until(lambda: not door.objects())


async def test_the_time_for_which_an_upload_waits_for_others_is_not_its_own(opened: Opener) -> None:
    async with opened("uploads = 1", Pace(idle=0.5, grace=0.5)) as door, raw(door) as first:
        await first.send(upload_head(len(HEAD) + len(LINE) * 2 + len(TAIL)), HEAD, LINE)
        await until(door.objects)
        second = asyncio.create_task(door.http.post("/v1/files", data={"purpose": "batch"}, files={"file": LINE}))
        status, _ = await first.answer()
        assert status == 408
        assert (await second).status_code == 200


async def test_uploads_beyond_those_that_may_wait_are_sent_away(opened: Opener) -> None:
    async with opened("uploads = 1", queued=0.1) as door, raw(door) as first:
        await first.send(upload_head(100 * MIB), HEAD, LINE)
        await until(door.objects)
        answer = await door.http.post("/v1/files", data={"purpose": "batch"}, files={"file": LINE})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    "id",
    [
        "..",
        "..%2f..%2fsecret",
        "file-%00",
        "file-0123456789abcdef0123456",
        "a" * 4000,
        "%ff",
        "file-\u202e",
        "~gateway",
    ],
)
async def test_an_id_that_is_none_is_404_in_every_route(door: Door, id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = await door.http.request(method, f"/v1/files/{id}{path}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\x00b\r\n\r\n",
        b"no HTTP at all\r\n\r\n",
        b"GET http:///v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
    ids=["two lengths", "two values", "NUL", "no HTTP", "no host"],
)
async def test_a_request_that_two_servers_could_read_differently_is_refused(door: Door, request_: bytes) -> None:
    async with raw(door) as client:
        await client.send(request_)
        status, error = await client.answer()
        assert (status, error["type"]) == (400, "invalid_request_error")
        assert await client.closed()


async def test_a_head_that_is_too_long_is_refused(door: Door) -> None:
    async with raw(door) as client:
        await client.send(b"GET /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", b"y" * (HEAD_BYTES + MIB))
        status, error = await client.answer()
        assert (status, error["message"]) == (431, "The request's head is too large.")


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"], ids=["first", "later"])
@pytest.mark.parametrize(
    ("head", "drop"), [(b"\r\n", b"\r\n"), (b"GET / HTTP/1.1\r\n", b"X: y\r\n")], ids=["blank", "fields"]
)
async def test_a_head_that_never_ends_is_not_waited_for(
    opened: Opener, before: bytes, head: bytes, drop: bytes
) -> None:
    async with opened(patience=Patience(head=0.3)) as door, raw(door) as client:
        if before:
            await client.send(before)
            await client.reader.readuntil(b"}")
        with contextlib.suppress(ConnectionError):
            await client.send(head)
            while not client.reader.at_eof():  # until the connection is closed
                await client.send(drop)
                await asyncio.sleep(0.01)
        assert await client.closed()


async def test_a_connection_on_which_nothing_comes_is_closed_and_one_that_rests_between_requests_is_not(
    opened: Opener,
) -> None:
    async with opened(patience=Patience(head=0.3)) as door, raw(door) as resting:
        await resting.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await resting.reader.readuntil(b"}")
        async with raw(door) as silent:
            assert await silent.closed()
        await resting.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await resting.reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")


async def test_a_body_that_goes_on_after_its_answer_is_not_read_for_ever(opened: Opener) -> None:
    async with opened(f"max_file_bytes = {MIB}", patience=Patience(rest=0.3)) as door, raw(door) as client:
        await client.send(upload_head(100 * MIB))
        status, _ = await client.answer()
        assert status == 413
        with contextlib.suppress(ConnectionError):
            while True:  # until the connection is closed
                await client.send(b" " * 1000)
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("piece", [b"y", b"y\r\nX: "], ids=["one", "many"])
async def test_trailers_that_never_end_are_not_read(opened: Opener, piece: bytes) -> None:
    trailers = b"0\r\nX: " + piece * (HEAD_BYTES // len(piece) + 1)
    head = b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    form = b"Content-Type: multipart/form-data; boundary=" + BOUNDARY.encode() + b"\r\nExpect: 100-continue\r\n\r\n"
    async with opened() as door:
        async with raw(door) as client:
            await client.send(head, form)
            await client.reader.readuntil(b"100 Continue\r\n\r\n")  # it waits for the body
            await client.send(trailers)
            status, error = await client.answer()
            assert (status, error["message"]) == (431, "What is around the request's body is too large.")
            assert await client.closed()
        async with raw(door) as client:
            await client.send(head, b"\r\n")
            status, _ = await client.answer()  # no form
            assert status == 400
            await client.send(trailers)
            assert await client.closed()


async def test_an_upload_that_was_fast_may_not_be_slow_for_as_long(opened: Opener) -> None:
    async with opened(pace=Pace(idle=60, grace=0.3, least=1024)) as door, raw(door) as client:
        await client.send(upload_head(100 * MIB), HEAD, LINE * (8 * MIB // len(LINE)))  # two hours at the least pace
        status, error = await client.answer()
        assert (status, error["code"]) == (408, "request_timeout")


async def test_a_download_that_is_not_read_is_broken_off_and_gives_its_place_back(opened: Opener) -> None:
    async with opened(patience=Patience(unread=0.3)) as door:
        made = await door.http.post("/v1/files", data={"purpose": "user_data"}, files={"file": b"x" * 16 * MIB})
        path = f"/v1/files/{made.json()['id']}/content"
        for more in (b"", b"Connection: close\r\n"):
            async with raw(door) as client:
                client.writer.transport.pause_reading()
                await client.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode(), more, b"\r\n")
                await until(lambda: door.context.downloads.active == 1)
                await until(lambda: door.context.downloads.active == 0)
                client.writer.transport.resume_reading()
                with contextlib.suppress(ConnectionResetError):
                    assert len(await client.reader.read(-1)) < 16 * MIB
        assert len((await door.http.get(path)).content) == 16 * MIB


async def test_a_connection_is_broken_off_only_where_too_little_is_taken_for_minutes() -> None:
    class Slow:
        """A transport whose client takes what the test says."""

        waiting, aborted = 0, False

        def write(self, data: bytes) -> None:
            self.waiting += len(data)

        def get_write_buffer_size(self) -> int:
            return self.waiting

        def abort(self) -> None:
            self.aborted = True

    class Later:
        """A clock that strikes when the test says so."""

        def __init__(self) -> None:
            self.due: list[tuple[float, Callable[[], None]]] = []

        def call_later(self, seconds: float, call: Callable[[], None]) -> Later:
            self.due.append((seconds, call))
            return self

        def strike(self) -> float | None:
            """Strike, and return in how many seconds the next time is."""
            self.due.pop()[1]()
            return self.due[0][0] if self.due else None

    transport, loop = Slow(), Later()
    outgoing = Outgoing(cast(Any, transport), Patience(unread=300, least=10), cast(Any, loop))
    outgoing.write(b"x" * 10_000)
    for taken, left in ((1500, 150), (2000, 200), (5000, 300)):  # no more is saved up
        transport.waiting -= taken
        assert loop.strike() == left and not transport.aborted
    transport.waiting = 0
    assert loop.strike() is None  # nobody is waited for
    outgoing.write(b"x" * 1500)
    assert loop.due[0][0] == 300
    for taken, left in ((1000, 100), (100, 10)):  # ever less
        transport.waiting -= taken
        outgoing.write(b"x" * 1500)
        assert loop.strike() == left and not transport.aborted
    assert loop.strike() is None and transport.aborted


async def test_an_answer_that_the_end_of_the_process_breaks_off_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    began = asyncio.Event()

    async def endless(*_: object) -> None:
        began.set()
        await asyncio.sleep(3600)

    async def nothing(*_: object) -> Any:
        raise AssertionError

    scope = {"type": "http", "path": "/", "headers": []}
    request = asyncio.create_task(Observed(endless, Metrics())(scope, nothing, nothing))
    await began.wait()
    request.cancel()
    await request
    assert [one.levelname for one in caplog.records] == ["WARNING"]


async def test_of_two_tenants_none_holds_all_places() -> None:
    places = Places("uploads", 4, shared=True, patience=0.05)
    async with contextlib.AsyncExitStack() as held:
        for _ in range(3):
            await held.enter_async_context(places.one("greedy"))
        with pytest.raises(ApiError, match="Too many uploads at a time: try again in a few seconds") as busy:
            await held.enter_async_context(places.one("greedy"))
        assert (busy.value.status, busy.value.headers) == (429, {"Retry-After": "2"})
        async with places.one("modest"):
            with pytest.raises(ApiError):
                await held.enter_async_context(places.one("third"))
        async with places.one("third"):
            pass
    assert places.active == 0
    single = Places("uploads", 4, shared=False, patience=0.05)
    async with contextlib.AsyncExitStack() as held:
        for _ in range(4):
            await held.enter_async_context(single.one("only"))


async def test_a_place_that_is_given_back_goes_to_whoever_may_have_it_and_none_is_lost() -> None:
    places = Places("uploads", 1, shared=True, patience=60)
    order: list[str] = []

    async def visit(name: str) -> None:
        async with places.one(name[0]):
            order.append(name)

    async with places.one("a"):
        waiting = [asyncio.create_task(visit(name)) for name in ("a1", "b1", "a2")]
        await until(lambda: places.active == 4)
        waiting[1].cancel()
        await asyncio.gather(waiting[1], return_exceptions=True)
    await asyncio.gather(waiting[0], waiting[2])
    assert (order, places.active) == (["a1", "a2"], 0)


async def test_long_reads_and_downloads_beyond_a_tenants_share_are_sent_away(door: Door) -> None:
    door.context.long_reads = Places("searches and pages of results", 1, shared=False, patience=0.05)
    door.context.downloads = Places("downloads", 1, shared=False, patience=0.05)
    file = (await door.http.post("/v1/files", data={"purpose": "batch"}, files={"file": LINE})).json()["id"]
    for places, path in (
        (door.context.long_reads, "/v1/batches?status=failed"),
        (door.context.downloads, f"/v1/files/{file}/content"),
    ):
        async with places.one("default"):
            answer = await door.http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert (await door.http.get("/v1/batches")).status_code == 200
        assert (await door.http.get(path)).status_code == 200


async def test_connections_on_which_nothing_happens_make_room_for_new_ones() -> None:
    begun, go_on, large = asyncio.Event(), asyncio.Event(), 32 * MIB

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            begun.set()
            await go_on.wait()
        text = "x" * large if scope["path"] == "/large" else "fine"
        await PlainTextResponse(text)(scope, receive, send)

    async with contextlib.AsyncExitStack() as stack:
        url = httpx2.URL(await stack.enter_async_context(serving(app, "127.0.0.1", 0, connections=4)))

        async def connected(*request: bytes) -> Raw:
            reader, writer = await asyncio.open_connection(url.host, url.port)
            stack.callback(writer.close)
            client = Raw(reader, writer)
            await client.send(*request)
            return client

        busy = await connected(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await begun.wait()
        reading = await connected(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await reading.reader.readuntil(b"\r\n\r\n")  # its client has still to take what follows
        used, silent = await connected(GET), await connected(b"GET / HT")
        assert (await used.reader.readuntil(b"fine")).startswith(b"HTTP/1.1 200")
        for _ in range(5):  # each takes the place of the one that has rested longest
            assert (await (await connected(GET)).reader.readuntil(b"fine")).startswith(b"HTTP/1.1 200")
        assert await used.closed() and await silent.closed()
        assert await reading.reader.readexactly(large) == b"x" * large
        go_on.set()
        assert (await busy.reader.readuntil(b"fine")).startswith(b"HTTP/1.1 200")


async def test_the_largest_create_that_there_may_be_is_read_and_no_larger_one(door: Door) -> None:
    smile = "\U0001f600"  # two escapes of six bytes
    metadata = {f"{n:x}" + smile * 63: smile * 512 for n in range(16)}
    order = {"input_file_id": "file-" + "x" * 95, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    body = json.dumps({**order, "metadata": metadata, "idempotency_key": smile * 255})
    for more, status in ((0, 400), (20_000, 413)):
        answer = await door.http.post("/v1/batches", content=body + " " * more)
        assert answer.status_code == status
    # It was read, and a gateway without routes takes none.
    assert (await door.http.post("/v1/batches", content=body)).json()["error"]["code"] == "no_route"


async def test_requests_that_are_sent_ahead_are_answered_in_order_and_only_so_many_wait(door: Door) -> None:
    paths = ["/v1/files?limit=1", "/healthz", "/v1/files?limit=0"]
    async with raw(door) as client:
        await client.send(*(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() for path in paths))
        found = [await client.whole() for _ in paths]
        assert [(status, "error" in said) for status, said in found] == [(200, False), (200, False), (400, True)]
    async with raw(door) as client:
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 3000)
        assert await client.closed()


async def test_what_is_no_request_behind_one_is_not_answered_as_if_it_were_that_one(door: Door) -> None:
    async with raw(door) as client:
        await client.send(b"GET /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nno request\r\n\r\n")
        assert await client.closed()


@pytest.mark.parametrize("limit", ["1_0", " 7", "\u0663", "0x1", "1.0"])
async def test_a_number_is_written_in_digits(door: Door, limit: str) -> None:
    answer = await door.http.get("/v1/files", params={"limit": limit})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_type")


async def test_a_second_host_is_looked_at_as_the_first(door: Door) -> None:
    async with raw(door) as client:
        await client.send(b"GET /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n")
        assert (await client.answer())[0] == 403


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS"])
async def test_a_method_that_a_route_has_not_and_a_path_that_is_none_are_told(door: Door, method: str) -> None:
    answer = await door.http.request(method, "/v1/files")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_supported")
    for path in ("/v1/nothing", "/v1/files/", "//v1/files", "/"):
        answer = await door.http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


async def test_a_large_upload_and_its_download_take_no_memory(door: Door) -> None:
    size, piece = 64 * MIB, LINE * (MIB // len(LINE))

    async def body() -> AsyncIterator[bytes]:
        yield HEAD
        for _ in range(size // len(piece)):
            yield piece
        yield TAIL

    tracemalloc.start()
    try:
        made = await door.http.post(
            "/v1/files", content=body(), headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        )
        received = 0
        async with door.http.stream("GET", f"/v1/files/{made.json()['id']}/content") as answer:
            async for part in answer.aiter_raw():
                received += len(part)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made.json()["bytes"] == received == size // len(piece) * len(piece)
    assert peak < 16 * MIB


async def test_an_answer_does_not_wait_for_the_clients_acknowledgement(door: Door) -> None:
    await door.http.get("/healthz")  # the connection is kept open
    port = httpx2.URL(door.url).port
    served = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found = socket.socket(fileno=int(descriptor))
        except OSError:  # no socket
            continue
        try:
            if found.family == socket.AF_INET and found.getsockname()[1] == port:
                served.append((found.getpeername()[0], found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        except OSError:  # what listens has no peer
            pass
        finally:
            found.detach()
    assert served == [("127.0.0.1", 1)]
