"""Ordinary calls to one provider: bytes in; status, headers and bytes out. Nothing is repeated here.

aiohttp rather than the client of the control calls: a call costs it a tenth of the processor time.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import aiohttp
from yarl import URL

from ...contract import ConfigurationError
from ..providers import ProviderSettings
from ..providers.http_client import CONNECT_SECONDS, ended, named_proxies, proxy_of, reason_of_system, trust_of
from .answer import Answer, NoAnswer

#: Bytes of an answer that are read ahead: with aiohttp's 64 KiB long ones come in many small steps.
_READ_AHEAD = 1 << 20
#: Seconds that an idle connection is kept. Servers close theirs after 5 s (uvicorn) and more, and a call that crosses
#: with that is lost.
_IDLE_SECONDS = 4.0
#: aiohttp warns of larger bodies that are bytes.
_LARGE_BODY = 1 << 20
#: What the calls are sent with instead.
_SKIPPED = ("Content-Type", "Accept", "User-Agent")


class Calls:
    """The connections to one provider. Made in the event loop that uses it.

    How many calls there are at a time, and how long one may take, whoever calls decides: a call that is cancelled
    closes its connection.

    Args:
        settings: the provider's settings.
        headers: what every call carries.

    Raises:
        ConfigurationError: a certificate file or a proxy of the environment cannot be used.
    """

    def __init__(self, settings: ProviderSettings, headers: Mapping[str, str]) -> None:
        self._settings = settings
        self._proxy = _proxy(settings)
        self._urls: dict[str, URL] = {}
        connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=_IDLE_SECONDS, ssl=trust_of(settings), ttl_dns_cache=60
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": "durabatch", **headers},
            skip_auto_headers=_SKIPPED,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            read_bufsize=_READ_AHEAD,
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send one call and return its answer, whatever its status.

        Raises:
            NoAnswer: there was no connection, it broke, or what came is not HTTP.
        """
        target = self._urls.get(url)
        if target is None:
            target = self._urls[url] = URL(url, encoded=True)
        data = body if len(body) <= _LARGE_BODY else io.BytesIO(body)
        try:
            async with self._session.post(
                target, data=data, headers=headers, proxy=self._proxy, allow_redirects=False
            ) as response:
                return Answer(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, OSError) as error:
            raise self._no_answer(error, url) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    def _no_answer(self, error: Exception, url: str) -> NoAnswer:
        unreached = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
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
        (
            aiohttp.ClientResponseError,
            "it broke off, or what it sent is not HTTP; should its base_url begin with https://?",
        ),
    )
    return next((said for kind, said in words if isinstance(error, kind)), "the connection broke")
