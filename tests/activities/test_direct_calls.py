"""One call over HTTP: what is sent, by which way, and in which words it fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic import SecretStr

from durabatch.activities.direct.answer import Answer, NoAnswer, TooLong
from durabatch.activities.direct.calls import Calls
from durabatch.activities.direct.connection import Head
from durabatch.activities.providers import ProviderSettings
from support.live_endpoint import live_endpoint

BODY = b'{"messages": [{"content": "a"}]}'
PATH = "/chat/completions"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    """Serve connections by hand on loopback; yields host and port. It ends when the client has closed all of them."""
    talks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
    await asyncio.gather(*talks)


def saying(answer: bytes, heard: list[bytes]) -> Talk:
    """Answer each connection once, whatever it asks, and close it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    return talk


async def post(base_url: str, body: bytes = BODY, **headers: str) -> Answer:
    settings = ProviderSettings(name="p", kind="openai", base_url=base_url, api_key=SecretStr("k"))
    calls = Calls(settings, {"authorization": "Bearer k"})
    try:
        return await calls.post(f"{base_url}{PATH}", headers, body)
    finally:
        await calls.close()


async def failed(base_url: str) -> NoAnswer:
    with pytest.raises(NoAnswer) as caught:
        await post(base_url)
    return caught.value


async def test_connections_are_kept_and_used_again() -> None:
    async with live_endpoint() as endpoint:
        settings = ProviderSettings(name="p", kind="openai", base_url=endpoint.url, api_key=SecretStr("k"))
        calls = Calls(settings, {"authorization": "Bearer k"})
        try:
            for number in range(3):
                answer = await calls.post(f"{endpoint.url}{PATH}", {"x-client-request-id": f"id-{number}"}, BODY)
                assert (answer.status, answer.headers["X-Request-Id"]) == (200, "req-a")
        finally:
            await calls.close()
        assert [head["x-client-request-id"] for head in endpoint.headers] == ["id-0", "id-1", "id-2"]
        assert endpoint.connections == 1


async def test_a_body_of_many_megabytes_goes_whole() -> None:
    body = b'{"messages": [{"content": "a"}], "text": "%b"}' % (b"x" * (20 << 20))
    async with live_endpoint() as endpoint:
        assert (await post(endpoint.url, body)).status == 200
        assert endpoint.headers[0]["content-length"] == str(len(body))


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, b"{}"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"{}"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", 307, b""),
    ],
)
async def test_any_answer_of_http_is_read(answer: bytes, status: int, body: bytes) -> None:
    async with listening(saying(answer, [])) as where:
        found = await post(f"http://{where}/v1")
        assert (found.status, found.body) == (status, body)


@pytest.mark.parametrize("size", [1, 7, 40])
async def test_an_answer_may_come_in_any_pieces(size: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Request-Id: r\r\nContent-Length: 30\r\n\r\n" + b"x" * 30

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for first in range(0, len(answer), size):
            writer.write(answer[first : first + size])
            await writer.drain()
            await asyncio.sleep(0)

    async with listening(talk) as where:
        found = await post(f"http://{where}/v1")
    assert (found.status, found.headers["x-request-id"], found.body) == (200, "r", b"x" * 30)


@pytest.mark.parametrize(
    "first",
    [
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",  # an answer to nothing
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
async def test_a_connection_that_said_more_than_it_should_or_is_to_close_is_not_used_again(first: bytes) -> None:
    answers = [first, OK]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))
        await reader.read()

    async with listening(talk) as where:
        settings = ProviderSettings(name="p", kind="openai", base_url=f"http://{where}/v1", api_key=SecretStr("k"))
        calls = Calls(settings, {})
        try:
            assert [(await calls.post(f"http://{where}/v1", {}, b"")).body for _ in range(2)] == [b"{}", b"{}"]
        finally:
            await calls.close()
    assert not answers


@pytest.mark.parametrize(
    "lines",
    [
        ["HTTP/1.1 200 OK", "content-length: 2", "content-length: 3"],
        ["HTTP/1.1 200 OK", "content-length: +2"],
        ["HTTP/1.1 200 OK", "content-length: 2", "transfer-encoding: chunked"],
        ["HTTP/1.1 200 OK", "content-length: 2", "content-encoding: gzip"],
        ["HTTP/1.1 200 OK", "content-length: 2", " folded: line"],
        ["HTTP/1.1 200 OK", "content-length: 2", "x: a\nb: c"],
        ["HTTP/1.1 200 OK", "content-length: 2", "x : a"],
        ["HTTP/1.1 200 OK", f"content-length: {'9' * 5000}"],
        ["HTTP/1.1 20x OK", "content-length: 2"],
        ["HTTP/1.1 204 No Content", "content-length: 2"],
        ["HTTP/1.1 100 Continue", "content-length: 0"],
        ["HTTP/1.1 200 OK"],
    ],
)
def test_a_head_that_is_unusual_is_left_to_a_whole_parser(lines: list[str]) -> None:
    assert Head.read("\r\n".join(lines).encode()) is None


def test_a_head_of_the_usual_kind_is_read() -> None:
    head = Head.read(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After:  2 \r\nX-Odd: \xff\r\nContent-Length: 12")
    assert head is not None
    assert (head.status, head.length, head.closes) == (429, 12, False)
    assert (head.headers["retry-after"], head.headers["x-odd"]) == ("2", "\udcff")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the connection broke"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "what it sent is not HTTP; should its base_url begin with https://?"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{", "its answer broke off, or cannot be decompressed"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
            "its answer broke off, or cannot be decompressed",
        ),
    ],
)
async def test_what_is_no_answer_is_said_in_words(answer: bytes, words: str) -> None:
    async with listening(saying(answer, [])) as where:
        error = await failed(f"http://{where}/v1")
    assert error.reason.startswith(f"Provider p cannot be reached: {words}")
    assert not error.unreached


async def test_a_server_that_announces_an_answer_for_ever_is_not_listened_to() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while True:  # until the connection is closed
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
            await writer.drain()
            await asyncio.sleep(0)

    async with listening(talk) as where:
        assert "what it sent is not HTTP" in (await failed(f"http://{where}/v1")).reason


async def test_a_server_that_is_not_there_was_not_reached() -> None:
    async with listening(saying(OK, [])) as where:
        pass
    error = await failed(f"http://{where}/v1")
    assert error.unreached
    assert "connection refused, so nothing listens there; is it running" in error.reason


async def test_a_call_that_is_cancelled_closes_its_connection() -> None:
    closed = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        closed.set()
        writer.close()

    async with listening(talk) as where:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await post(f"http://{where}/v1")
        await closed.wait()


async def test_another_host_is_called_through_the_proxy_and_loopback_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []
    async with listening(saying(OK, heard)) as proxy, live_endpoint() as endpoint:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@{proxy}")
        monkeypatch.setenv("http_proxy", f"http://me:secret@{proxy}")
        monkeypatch.setenv("no_proxy", "")
        assert (await post("http://model.example/v1")).body == b"{}"
        assert (await post(endpoint.url)).status == 200
    [head] = heard
    assert head.startswith(b"POST http://model.example/v1/chat/completions HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n" in head
    assert b"Host: model.example\r\n" in head


async def test_a_tunnel_is_asked_of_the_proxy_for_https(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []
    async with listening(saying(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", heard)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://{proxy}")
        error = await failed("https://model.example/v1")
    assert heard[0].startswith(b"CONNECT model.example:443 HTTP/1.1\r\n")
    assert b"Bearer" not in heard[0]
    assert error.unreached
    assert "the proxy that https_proxy names refused the connection" in error.reason


async def test_what_a_server_says_on_an_idle_connection_is_no_answer_to_the_next_call() -> None:
    taken, said = asyncio.Event(), asyncio.Event()
    served = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.rpartition(b"content-length: ")[2]))
                served += 1
                writer.write(OK)
                await writer.drain()
                if served == 1:
                    await taken.wait()
                    writer.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 3\r\n\r\nbye")
                    await writer.drain()
                    said.set()
        writer.close()

    async with listening(talk) as where:
        settings = ProviderSettings(name="p", kind="openai", base_url=f"http://{where}/v1", api_key=SecretStr("k"))
        calls = Calls(settings, {})
        try:
            for _ in range(3):
                answer = await calls.post(f"http://{where}/v1{PATH}", {}, BODY)
                assert (answer.status, answer.body) == (200, b"{}")
                taken.set()
                await said.wait()
                await asyncio.sleep(0.05)  # until it has arrived
        finally:
            await calls.close()
    assert served == 3


async def test_a_proxy_s_password_goes_to_the_proxy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []
    async with listening(saying(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", heard)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://me:a%2Fb@{proxy}")
        await failed("https://model.example/v1")
    assert b"\r\nProxy-Authorization: Basic bWU6YS9i\r\n" in heard[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 3000000000\r\n\r\nonly the beginning of it",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\nmore of\r\n9\r\n it comes\r\n0\r\n\r\n",
    ],
)
async def test_an_answer_that_is_too_long_is_not_read_to_its_end(answer: bytes) -> None:
    async with listening(saying(answer, [])) as where:
        settings = ProviderSettings(name="p", kind="openai", base_url=f"http://{where}/v1", api_key=SecretStr("k"))
        calls = Calls(settings, {}, longest=10)
        try:
            with pytest.raises(TooLong):
                await calls.post(f"http://{where}/v1{PATH}", {}, BODY)
        finally:
            await calls.close()
