"""Ordinary calls to one provider: bytes in; status, headers and bytes out. Nothing is repeated here.

aiohttp makes the connections. The request is written here, as its head is the same for every row but for one line, and
most answers are read here (`connection.py`): what aiohttp does for each request costs more than all else that a row
needs. So does what its pool does, and connections are kept here, too.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from ...contract import ConfigurationError
from ..providers import ProviderSettings
from ..providers.http_client import CONNECT_SECONDS, ended, named_proxies, proxy_of, reason_of_system, trust_of
from .answer import LONGEST, Answer, NoAnswer
from .beginnings import Beginnings
from .connection import Arrivals, Connection
from .memory import Memory, Share

#: Seconds that an idle connection is kept. Servers close theirs after 5 s (uvicorn) and more, and a call that crosses
#: with that is lost.
_IDLE_SECONDS = 4.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
#: Headers that depend on the body.
_OF_THE_BODY = frozenset({"content-length", "transfer-encoding"})


class _Target(NamedTuple):
    """Where calls go."""

    request: aiohttp.ClientRequest  #: What aiohttp makes connections by.
    head: bytes  #: How every request begins.
    idle: deque[tuple[Connection, float]]  #: Connections without a call, and since when, the latest last.


class Calls:
    """The connections to one provider. Made in the event loop that uses it.

    How many calls there are at a time, and how long one may take, whoever calls decides: a call that is cancelled
    closes its connection.

    Args:
        settings: the provider's settings.
        headers: what every call carries.
        longest: bytes that an answer may have.
        memory: what answers may take, those of other providers included; by default there are none.

    Raises:
        ConfigurationError: a certificate file or a proxy of the environment cannot be used.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        headers: Mapping[str, str],
        longest: int = LONGEST,
        memory: Memory | None = None,
    ) -> None:
        self.memory = memory or Memory()
        self._settings = settings
        self._longest = longest
        self._headers = {"user-agent": "durabatch", **headers}
        self._proxy = _proxy(settings)
        self._targets: dict[str, _Target] = {}
        self._arrivals = Arrivals()
        self._beginnings = Beginnings()
        self._sweep: asyncio.TimerHandle | None = None
        self._connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=_IDLE_SECONDS, ssl=trust_of(settings), ttl_dns_cache=60
        )
        self._session = aiohttp.ClientSession(connector=self._connector, cookie_jar=aiohttp.DummyCookieJar())

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, share: Share | None = None) -> Answer:
        """Send one call and return its answer, whatever its status.

        Args:
            url: where to.
            headers: what only this call carries; plain ASCII without line breaks.
            body: what is posted.
            share: what a long answer has of the memory, before it is read; whoever calls gives it back.

        Raises:
            NoAnswer: there was no connection, it broke, or what came is not HTTP.
            TooLong: the answer is.
        """
        target = self._targets.get(url)
        if target is None:
            target = self._targets[url] = self._target(url)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        data = b"%b%bcontent-length: %d\r\n\r\n%b" % (target.head, lines.encode("ascii"), len(body), body)
        connection = self._kept(target)
        if connection is None:
            await self._beginnings.turn()
            try:
                made = await self._connector.connect(target.request, [], _TIMEOUT)
                connection = Connection(made, self._arrivals, self._longest)
            except (aiohttp.ClientError, OSError) as error:
                raise self._no_answer(error, url, unreached=True) from None
        try:
            answer = await connection.call(data, share)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            connection.close()
            raise self._no_answer(error, url, unreached=False) from None
        except BaseException:
            connection.close()
            raise
        self._keep(target, connection)
        return answer

    def _kept(self, target: _Target) -> Connection | None:
        """Return a connection that is there already, the one that was used last."""
        while target.idle:
            connection, since = target.idle.pop()
            if connection.usable and time.monotonic() - since < _IDLE_SECONDS:
                return connection
            connection.close()
        return None

    def _keep(self, target: _Target, connection: Connection) -> None:
        if not connection.usable or self._session.closed:
            connection.close()
            return
        target.idle.append((connection, time.monotonic()))
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        """Close connections that had no call for long; look again when the next one may be due."""
        now, self._sweep = time.monotonic(), None
        for target in self._targets.values():
            while target.idle and now - target.idle[0][1] >= _IDLE_SECONDS:
                target.idle.popleft()[0].close()
        first = min((target.idle[0][1] for target in self._targets.values() if target.idle), default=None)
        if first is not None:
            self._sweep = asyncio.get_running_loop().call_later(first + _IDLE_SECONDS - now, self._close_idle)

    def _target(self, url: str) -> _Target:
        where, proxy = URL(url, encoded=True), None
        of_proxy: dict[str, str] = {}
        if self._proxy is not None:
            proxy = URL(self._proxy)
            if proxy.user:
                named = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
                of_proxy = {"Proxy-Authorization": f"Basic {named}"}
            proxy = proxy.with_user(None)
        request = aiohttp.ClientRequest(
            "POST",
            where,
            headers=self._headers,
            loop=asyncio.get_running_loop(),
            session=self._session,
            proxy=proxy,
            proxy_headers=of_proxy,
        )
        path = where.raw_path_qs
        lines = [f"{name}: {value}" for name, value in request.headers.items() if name.lower() not in _OF_THE_BODY]
        if proxy is not None and where.scheme == "http":  # the proxy reads the request itself; else it has a tunnel
            path = url
            lines += [f"{name}: {value}" for name, value in of_proxy.items()]
        return _Target(request, "\r\n".join([f"POST {path} HTTP/1.1", *lines, ""]).encode("ascii"), deque())

    async def close(self) -> None:
        """Close the connections."""
        if self._sweep is not None:
            self._sweep.cancel()
        for target in self._targets.values():
            while target.idle:
                target.idle.pop()[0].close()
        await self._session.close()

    def _no_answer(self, error: Exception, url: str, *, unreached: bool) -> NoAnswer:
        why = reason_of_system(error, url) or _of_client(error)
        return NoAnswer(f"Provider {self._settings.name} cannot be reached: {ended(why)}", unreached=unreached)


def _proxy(settings: ProviderSettings) -> str | None:
    found = proxy_of(settings.url)
    if found is not None and URL(found).scheme not in ("http", "https"):
        raise ConfigurationError(
            f"Provider {settings.name} cannot be reached through the proxy that {named_proxies()} names: direct mode "
            "speaks to HTTP proxies only; write it as http://host:port, or put the provider's host into NO_PROXY."
        )
    return found


def _of_client(error: Exception) -> str:
    words: tuple[tuple[type[Exception], str], ...] = (
        (aiohttp.ClientHttpProxyError, f"the proxy that {named_proxies()} names refused the connection"),
        (aiohttp.ConnectionTimeoutError, f"no connection within {CONNECT_SECONDS:g} s"),
        (aiohttp.ClientConnectorError, "the connection cannot be made"),
        (aiohttp.ClientPayloadError, "its answer broke off, or cannot be decompressed"),
        (HttpProcessingError, "what it sent is not HTTP; should its base_url begin with https://?"),
    )
    return next((said for kind, said in words if isinstance(error, kind)), "the connection broke")
