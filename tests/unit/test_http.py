"""One HTTP connection to a provider: what an answer, or none, means."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from durabatch.activities.providers import ProviderSettings
from durabatch.activities.providers.http import Http
from durabatch.activities.providers.redaction import MAX_CHARS
from durabatch.activities.providers.settings import NO_KEY
from durabatch.activities.providers.status_errors import LONGEST_WAIT, retry_after, status_error
from durabatch.contract import (
    AnswerLost,
    AuthenticationFailed,
    ProviderError,
    ProviderNotFound,
    ProviderRefused,
    ProviderUnavailable,
    QueueFull,
    QuotaExhausted,
    RateLimited,
)

KEY = "sk-very-secret"
NOW = 1_790_000_000.0  # Mon, 21 Sep 2026 14:13:20 GMT

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


# --- Retry-After ---


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "30"}, 30),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "Mon, 21 Sep 2026 14:14:20 GMT"}, 60),
        ({"retry-after": "Mon, 21 Sep 2026 14:00:00 GMT"}, 0),
        ({"retry-after": "Mon, 99 Sep 2026 14:00:00 GMT"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9),
        ({"retry-after": "99999999999999999999"}, LONGEST_WAIT),
        ({"retry-after": "Mon, 21 Sep 9026 14:00:00 GMT"}, LONGEST_WAIT),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}, 90),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms"}, 0.25),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m"}, 3720),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "1m"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "later"}, None),
    ],
)
def test_how_long_a_provider_asks_to_be_left_alone(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == (None if seconds is None else timedelta(seconds=seconds))


def test_a_date_is_counted_from_now_unless_told_otherwise() -> None:
    assert retry_after({"retry-after": "Fri, 01 Jan 2021 00:00:00 GMT"}) == timedelta(0)


# --- answers ---


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[Http]:
    """A server on loopback that answers everything with a handler, and the connection to it."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    http = connection(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", **options)
    try:
        yield http
    finally:
        await http.close()
        await runner.cleanup()


def connection(url: str, **options: Any) -> Http:
    settings = ProviderSettings(name="gpt", kind="openai", base_url=url, api_key=SecretStr(KEY), **options)
    return Http(settings, {"Authorization": f"Bearer {KEY}"})


def as_it_is(answer: Any) -> Any:
    return answer


def answering(status: int, body: bytes = b"{}", **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return answer


async def test_every_call_carries_the_headers_of_the_settings_too() -> None:
    seen: list[Any] = []

    async def note(request: web.Request) -> web.Response:
        await request.read()
        seen.append(request.headers)
        return web.Response(body=b"{}")

    async with serving(note, headers={"X-Team": "a", "User-Agent": "mine"}) as http:
        await http.call("POST", "/batches", read=as_it_is, json={}, headers={"x-call": "b"})
        async with http.stream("/files/1/content", 0) as chunks:
            assert [chunk async for chunk in chunks] == [b"{}"]
    assert [headers.getall("x-team") for headers in seen] == [["a"], ["a"]]
    assert [headers.getall("user-agent") for headers in seen] == [["mine"], ["mine"]]
    assert [headers["authorization"] for headers in seen] == [f"Bearer {KEY}"] * 2
    assert (seen[0]["x-call"], seen[0]["content-type"]) == ("b", "application/json")


async def failure(http: Http, **options: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await http.call("POST", "/batches", read=as_it_is, **options)
    return caught.value


@pytest.mark.parametrize(
    ("status", "error", "on_create"),
    [
        (307, ProviderRefused, ProviderRefused),
        (400, ProviderRefused, ProviderRefused),
        (401, AuthenticationFailed, AuthenticationFailed),
        (402, QuotaExhausted, QuotaExhausted),
        (403, AuthenticationFailed, AuthenticationFailed),
        (404, ProviderNotFound, ProviderNotFound),
        (408, ProviderUnavailable, AnswerLost),
        (409, ProviderRefused, ProviderRefused),
        (413, ProviderRefused, ProviderRefused),
        (425, ProviderUnavailable, ProviderUnavailable),
        (429, RateLimited, RateLimited),
        (500, ProviderUnavailable, AnswerLost),
        (502, ProviderUnavailable, AnswerLost),
        (503, ProviderUnavailable, AnswerLost),
        (504, ProviderUnavailable, AnswerLost),
        (529, ProviderUnavailable, AnswerLost),
    ],
)
async def test_a_status_means_an_error(status: int, error: type[ProviderError], on_create: type[ProviderError]) -> None:
    async with serving(answering(status)) as http:
        assert type(await failure(http)) is error
        assert type(await failure(http, creates=True)) is on_create


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (429, "token_limit_exceeded", "x"),
        (429, None, "Too many batches: at most 3 may be under way."),
        (400, "x", "Enqueued token limit reached for gpt-4o."),
    ],
)
async def test_a_full_queue_is_told_from_too_many_requests(status: int, code: str | None, message: str) -> None:
    body = f'{{"error": {{"code": "{code}", "message": "{message}"}}}}'.encode()
    async with serving(answering(status, body, retry_after="7")) as http:
        found = await failure(http, creates=True)
        assert type(found) is QueueFull and found.retry_after == timedelta(seconds=7)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"message": "No  such\\nfile.", "code": "x"}}', "No such file."),
        (b'{"error": {"code": "quota"}}', "quota"),
        (b'{"error": {"message": "key sk-very-secret is odd"}}', "key [key] is odd"),
        (
            b'{"detail": [{"type": "missing", "loc": ["body", "endpoint"], "msg": "Field required"}]}',
            "body.endpoint: Field required",
        ),
        (b"upstream connect error", "upstream connect error"),
        (b"<html><head><title>Nope</title></head></html>", 'a web page, "Nope"'),
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503])
async def test_an_error_reports_the_providers_words_whatever_the_status(status: int, body: bytes, words: str) -> None:
    async with serving(answering(status, body)) as http:
        message = (await failure(http)).message
    if status in (401, 403):
        what = "refuses the key" if status == 401 else "does not allow this with the key"
        assert message == (
            f"Provider gpt {what} ({status}): {words.rstrip('.')}. Check the environment variable OPENAI_API_KEY, and "
            "what the key may do."
        )
    else:
        assert message == f"Provider gpt answered {status}: {words}"


@pytest.mark.parametrize(
    ("status", "what"), [(401, "refuses calls without a key"), (403, "does not allow this without a key")]
)
def test_a_server_that_was_sent_no_key_and_wants_one_is_not_said_to_refuse_it(status: int, what: str) -> None:
    bare = ProviderSettings(name="gpt", kind="openai", base_url="http://127.0.0.1:1/v1", api_key=SecretStr(NO_KEY))
    message = status_error(bare, status, {}, b'{"error": "No key."}').message
    assert message == (
        f"Provider gpt {what} ({status}): No key. If it needs one, put it into an environment variable, and name "
        "that by providers.gpt.api_key_env."
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'""',
        b'{"error": null}',
        b'{"error": {"message": null, "code": null}}',
        b"\x00\xff\x01",
    ],
)
@pytest.mark.parametrize("status", [400, 403, 429, 500])
async def test_an_error_without_words_says_that_there_were_none(status: int, body: bytes) -> None:
    async with serving(answering(status, body)) as http:
        message = (await failure(http)).message
    assert "gave no reason" in message and str(status) in message and "None" not in message


@pytest.mark.parametrize(
    ("path", "advised"),
    [
        ("/batches", True),
        ("/files", True),
        ("/messages/batches", True),
        ("/batches/batch_1", False),
        ("/models", False),
    ],
)
async def test_a_listing_that_is_not_there_says_that_the_base_url_is_wrong(path: str, advised: bool) -> None:
    async with serving(answering(404, b'{"error": {"message": "Unknown request URL: GET /batches."}}')) as http:
        with pytest.raises(ProviderNotFound) as caught:
            await http.call("GET", path, read=dict, params={"limit": 1})
    advice = (
        "There is such a listing at the right base_url: see `durabatch doctor`. "
        'A server without batches needs mode = "direct".'
    )
    assert caught.value.message.endswith(f"Unknown request URL: GET /batches. {advice}") is advised


async def test_a_redirect_says_where_it_leads_without_its_query() -> None:
    async with serving(answering(308, b"", location="https://new.example/v2/x?token=abc")) as http:
        assert (await failure(http)).message == (
            "Provider gpt answered 308: it has moved to https://new.example/v2/x; correct base_url"
        )


async def test_long_words_are_cut() -> None:
    body = b'{"error": {"message": "%b"}}' % (b"x " * 1000)
    async with serving(answering(400, body)) as http:
        assert len((await failure(http)).message) <= MAX_CHARS + len("Provider gpt answered 400: ")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "it is a web page"),
        (b"<!DOCTYPE html><title>Log in</title>", 'it is a web page, "Log in"'),
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
    ],
)
async def test_a_success_that_is_no_json_is_no_answer_and_named(body: bytes, why: str) -> None:
    async with serving(answering(200, body)) as http:
        for creates, error in ((False, ProviderUnavailable), (True, AnswerLost)):
            found = await failure(http, creates=creates)
            assert type(found) is error
            assert found.message == (
                f"Provider gpt answered POST /batches with a body that Durabatch cannot read: {why}."
            )


async def test_a_fault_in_reading_an_answer_names_the_route_and_quotes_nothing() -> None:
    def stumble(answer: Any) -> None:
        raise TypeError("'a prompt' is not subscriptable")

    async with serving(answering(200)) as http:
        for creates, error in ((False, ProviderUnavailable), (True, AnswerLost)):
            with pytest.raises(error) as caught:
                await http.call("GET", "/batches/b_1", read=stumble, creates=creates)
            assert caught.value.message == (
                "Provider gpt answered GET /batches/b_1 with a body that Durabatch cannot read: "
                "TypeError while reading it."
            )


@pytest.mark.parametrize(
    "body",
    [b'{"id": "b\xff", "x": 1}', b'\xef\xbb\xbf{"id": "b", "x": NaN}', b'{"id": "b", "x": "\\ud800", "y": "a\x01"}'],
)
async def test_an_odd_byte_in_an_answer_costs_only_itself(body: bytes) -> None:
    async with serving(answering(200, body)) as http:
        assert (await http.call("GET", "/x", read=as_it_is))["id"].startswith("b")


async def test_two_hundred_cancelled_calls_take_no_room_from_the_next_one() -> None:
    hold, arrived = asyncio.Event(), 0

    async def slow(request: web.Request) -> web.Response:
        nonlocal arrived
        if request.method == "POST":
            arrived += 1
            await hold.wait()
        return web.Response(body=b"{}")

    async def rows() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 65_536
            await asyncio.sleep(0)

    async with serving(slow, timeout=timedelta(seconds=30)) as http:
        for at_least in (0, 1, 100):  # while they wait for a connection, are sent, and have been sent
            tasks = [
                asyncio.create_task(http.call("POST", "/files", read=as_it_is, content=rows())) for _ in range(200)
            ]
            while arrived < at_least:
                await asyncio.sleep(0.001)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            arrived = 0
        assert await http.call("GET", "/x", read=as_it_is) == {}
        hold.set()


async def test_a_success_that_cannot_be_decompressed_is_no_answer() -> None:
    async with serving(answering(200, b"not gzip", Content_Encoding="gzip")) as http:
        assert type(await failure(http)) is ProviderUnavailable
        assert type(await failure(http, creates=True)) is AnswerLost


async def test_only_a_connection_that_was_never_made_surely_created_nothing() -> None:
    http = connection("http://127.0.0.1:9")  # the discard port, where nobody listens
    assert type(await failure(http)) is ProviderUnavailable
    assert type(await failure(http, creates=True)) is ProviderUnavailable
    await http.close()


async def test_silence_after_the_request_is_a_lost_answer() -> None:
    silent = asyncio.Event()

    async def never(request: web.Request) -> web.Response:
        await silent.wait()
        return web.Response()

    async with serving(never, timeout=timedelta(seconds=0.05)) as http:
        assert type(await failure(http)) is ProviderUnavailable
        assert type(await failure(http, creates=True)) is AnswerLost
        silent.set()


async def test_a_request_is_sent_once() -> None:
    seen = 0

    async def hang_up(request: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(hang_up) as http:
        assert type(await failure(http, creates=True)) is AnswerLost
    assert seen == 1


# --- downloads ---

CONTENT = b"".join(b'{"row": %d}\n' % number for number in range(50_000))


async def read(http: Http, start: int) -> bytes:
    got = b""
    async with http.stream("/files/f/content", start) as chunks:
        async for chunk in chunks:
            got += chunk
    return got


def serving_content(ranges: bool, compresses: bool) -> Handler:
    async def content(request: web.Request) -> web.Response:
        body, headers, status = CONTENT, {}, 200
        if ranges and "Range" in request.headers:
            start = request.http_range.start
            if start >= len(body):
                return web.Response(status=416)
            status = 206
        if compresses and "gzip" in request.headers.get("Accept-Encoding", ""):
            body, headers = gzip.compress(body), {"Content-Encoding": "gzip"}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body = body[start:]
        return web.Response(status=status, body=body, headers=headers)

    return content


@pytest.mark.parametrize("compresses", [False, True])
@pytest.mark.parametrize("ranges", [False, True])
@pytest.mark.parametrize("start", [0, 1, 300_000, len(CONTENT) - 1, len(CONTENT)])
async def test_a_download_goes_on_at_a_byte_of_the_content(start: int, ranges: bool, compresses: bool) -> None:
    async with serving(serving_content(ranges, compresses)) as http:
        assert await read(http, start) == CONTENT[start:]


async def test_a_download_that_breaks_off_gives_what_came_and_says_so() -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(CONTENT)
        await response.prepare(request)
        await response.write(CONTENT[:300_001])
        assert request.transport is not None
        request.transport.close()
        return response

    got = b""
    async with serving(cut) as http:
        with pytest.raises(ProviderUnavailable):
            async with http.stream("/files/f/content", 0) as chunks:
                async for chunk in chunks:
                    got += chunk
    assert got == CONTENT[:300_001]


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, ProviderNotFound), (416, ProviderRefused), (429, RateLimited), (500, ProviderUnavailable)],
)
async def test_a_download_that_is_refused_raises_the_same_errors(status: int, error: type[ProviderError]) -> None:
    async with serving(answering(status)) as http:
        with pytest.raises(error):
            await read(http, 0)


async def test_a_download_from_nobody_is_unavailable() -> None:
    http = connection("http://127.0.0.1:9")
    with pytest.raises(ProviderUnavailable):
        await read(http, 0)
    await http.close()
