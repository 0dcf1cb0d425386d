"""A download that is sent on to another host: followed, and no key of ours goes there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import httpx2
import pytest
from aiohttp import web
from pydantic import SecretStr

from durabatch.activities.providers import Provider, ProviderSettings, open_provider
from durabatch.activities.providers.base import ResultFile
from durabatch.activities.providers.redirects import MAX_REDIRECTS, target
from durabatch.contract import ProviderError, ProviderNotFound, ProviderRefused, ProviderUnavailable

KEY = "sk-very-secret"
CONTENT = b"".join(b'{"custom_id": "%d"}\n' % number for number in range(1000))
#: The kinds, and the path of their API on a host.
PATHS = {"openai": "/v1", "anthropic": ""}
#: What may reach a host that is not the provider's.
HARMLESS = {"host", "range", "accept-encoding"}


class Host:
    """A server on loopback, on a port of its own, which makes it another origin than any other one."""

    def __init__(self, answers: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.answers = answers
        self.seen: list[web.Request] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        return await self.answers(request)


class Hosts:
    def __init__(self) -> None:
        self.stack = AsyncExitStack()

    async def open(self, answers: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Host:
        host = Host(answers)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", host.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return host

    def adapter(self, kind: str, host: Host) -> Provider:
        settings = ProviderSettings(
            name="gpt",
            kind=kind,
            base_url=host.url + PATHS[kind],
            api_key=SecretStr(KEY),
            headers={"X-Team": "red", "X-Gateway-Route": "internal"},
        )
        found = open_provider(settings)
        self.stack.push_async_callback(found.close)
        return found


@pytest.fixture
async def hosts() -> AsyncIterator[Hosts]:
    found = Hosts()
    async with found.stack:
        yield found


def to(location: Callable[[], str], status: int = 302) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        # The cookie is for the host that sets it, and 127.0.0.1 is one host whatever the port.
        return web.Response(status=status, headers={"Location": location(), "Set-Cookie": "session=secret; Path=/"})

    return answer


async def whole(request: web.Request) -> web.Response:
    given = request.headers.get("Range")
    if given is None:
        return web.Response(body=CONTENT)
    start = int(given.removeprefix("bytes=").removesuffix("-"))
    headers = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
    return web.Response(status=206, body=CONTENT[start:], headers=headers)


async def read(adapter: Provider, start: int = 0) -> bytes:
    file = ResultFile(reference="one", name="output")
    return b"".join([chunk async for chunk in adapter.batches.download(file, start)])


def secrets(request: web.Request) -> set[str]:
    return {name.lower() for name in request.headers} - HARMLESS


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("start", [0, 700])
async def test_a_download_is_followed_to_another_host_and_no_header_of_ours_goes_there(
    hosts: Hosts, kind: str, status: int, start: int
) -> None:
    store = await hosts.open(whole)
    provider = await hosts.open(to(lambda: f"{store.url}/blob?signature=x", status))
    adapter = hosts.adapter(kind, provider)
    for _ in range(2):  # the second time with whatever cookies the first one left
        assert await read(adapter, start) == CONTENT[start:]
    key = "authorization" if kind == "openai" else "x-api-key"
    assert secrets(provider.seen[0]) >= {key, "x-team", "x-gateway-route"}
    assert [secrets(request) for request in store.seen] == [set(), set()]
    assert {request.headers.get("Range") for request in store.seen} == {f"bytes={start}-" if start else None}
    assert [request.path_qs for request in store.seen] == ["/blob?signature=x"] * 2


async def test_no_log_holds_the_signature_of_a_link(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    store = await hosts.open(whole)
    provider = await hosts.open(to(lambda: f"{store.url}/blob?signature=secret"))
    with caplog.at_level("INFO"):
        assert await read(hosts.adapter("openai", provider)) == CONTENT
    assert f"{store.url}/blob" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("kind", PATHS)
async def test_a_download_that_is_sent_on_within_its_own_host_keeps_its_key(hosts: Hosts, kind: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await (whole(request) if request.path == "/moved" else to(lambda: "/moved")(request))

    provider = await hosts.open(answer)
    assert await read(hosts.adapter(kind, provider)) == CONTENT
    assert [secrets(request) >= {"x-team", "x-gateway-route"} for request in provider.seen] == [True, True]


async def test_a_download_that_comes_back_from_another_host_comes_without_a_key(hosts: Hosts) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await (whole(request) if request.path == "/back" else to(lambda: store.url)(request))

    provider = await hosts.open(answer)
    store = await hosts.open(to(lambda: f"{provider.url}/back"))
    assert await read(hosts.adapter("openai", provider)) == CONTENT
    assert [secrets(request) for request in (store.seen[0], provider.seen[1])] == [set(), set()]


async def test_a_download_that_is_sent_in_a_circle_ends(hosts: Hosts) -> None:
    provider = await hosts.open(to(lambda: "/again"))
    with pytest.raises(ProviderUnavailable, match="from address to address"):
        await read(hosts.adapter("openai", provider))
    assert len(provider.seen) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "https://:0:0"])
async def test_a_download_is_sent_nowhere_else_than_to_a_web_server(hosts: Hosts, location: str) -> None:
    provider = await hosts.open(to(lambda: location))
    with pytest.raises(ProviderUnavailable):
        await read(hosts.adapter("openai", provider))
    assert len(provider.seen) == 1


@pytest.mark.parametrize(
    ("here", "location", "there"),
    [
        ("https://a/x", "https://b/y?z", "https://b/y?z"),
        ("https://a/x", "/y", "https://a/y"),
        ("https://a/x", "//b/y", "https://b/y"),
        ("https://a/x", "http://a/x", None),
        ("https://a/x", "http://b/y", None),
        ("http://a/x", "http://b/y", "http://b/y"),
        ("http://a/x", "https://b/y", "https://b/y"),
        ("https://a/x", "HTTPS://b/y", "https://b/y"),
        ("https://a/x", "ftp://b/y", None),
        ("https://a/x", "data:text/plain,x", None),
        ("https://a/x", "https://b:port/", None),
    ],
)
def test_where_a_redirect_may_lead(here: str, location: str, there: str | None) -> None:
    found = target(httpx2.URL(here), location)
    assert (None if found is None else str(found)) == there


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, ProviderNotFound), (410, ProviderNotFound), (403, ProviderUnavailable), (400, ProviderUnavailable)],
)
async def test_what_another_host_refuses_is_no_refusal_of_our_key_and_no_link_is_quoted(
    hosts: Hosts, status: int, error: type[ProviderError]
) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=status, text="signature sk-very-secret")

    store = await hosts.open(refuse)
    provider = await hosts.open(to(lambda: f"{store.url}/blob?signature=hidden"))
    with pytest.raises(ProviderError) as caught:
        await read(hosts.adapter("openai", provider))
    assert type(caught.value) is error
    expected = f"Provider gpt sends the download on to 127.0.0.1, which answers {status}."
    assert caught.value.message == expected


async def test_another_host_that_is_not_there_is_named(hosts: Hosts) -> None:
    provider = await hosts.open(to(lambda: "http://localhost:9/blob?signature=hidden"))
    with pytest.raises(
        ProviderUnavailable, match=r"to localhost, which cannot be reached: connection refused"
    ) as caught:
        await read(hosts.adapter("openai", provider))
    assert "hidden" not in caught.value.message


async def test_nothing_but_a_download_is_followed(hosts: Hosts) -> None:
    elsewhere = await hosts.open(whole)
    provider = await hosts.open(to(lambda: f"{elsewhere.url}/x", 307))
    adapter = hosts.adapter("openai", provider)
    batches = adapter.batches
    for call in (batches.retrieve("batch_1"), batches.cancel("batch_1"), adapter.files.delete("file-1")):
        with pytest.raises(ProviderRefused):
            await call
    assert elsewhere.seen == []
