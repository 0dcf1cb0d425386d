"""The HTTP client of one account: what has to be right before it can be set up, and why a server is out of reach."""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
import ssl
import unicodedata
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from ...contract import ConfigurationError
from .settings import ProviderSettings, is_loopback

#: Seconds for a connection to be made.
CONNECT_SECONDS = 10.0
#: The variables that name a proxy.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def _without_query(record: logging.LogRecord) -> bool:
    """Take the query out of the URLs that httpx2 logs at INFO: that of a signed download link is as good as a key."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            arg.copy_with(query=None, fragment=None) if isinstance(arg, httpx2.URL) else arg for arg in record.args
        )
    return True


# Our own worker does not show these lines; other people's, into which the plugin is built, may.
logging.getLogger("httpx2").addFilter(_without_query)


def open_client(settings: ProviderSettings, headers: Mapping[str, str]) -> httpx2.AsyncClient:
    """Return a client for an account; it connects at its first call.

    Args:
        settings: the provider's settings, key included.
        headers: what every request carries, beside what the settings add to it.

    Raises:
        ConfigurationError: the key, the base URL, a proxy or a certificate file cannot be used; says which and why.
    """
    check_key(settings)
    _check_url(settings)
    silence = settings.timeout.total_seconds()
    timeout = httpx2.Timeout(silence, connect=min(silence, CONNECT_SECONDS))
    # httpx2 repeats nothing by itself. Connections are not limited: who may call how often is decided above.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
    trust = trust_of(settings)
    # A transport of our own does not know the environment's proxies, which could not reach our loopback.
    direct = httpx2.AsyncHTTPTransport(verify=trust, limits=limits) if is_loopback(settings.url) else None
    try:
        return httpx2.AsyncClient(
            base_url=settings.url,
            params=settings.query,
            headers=_joined(headers, settings.headers),
            timeout=timeout,
            limits=limits,
            verify=trust,
            transport=direct,
        )
    except ImportError:  # httpx2 speaks SOCKS with a package that is not ours to require
        raise ConfigurationError(
            f"Provider {settings.name} cannot be reached through the SOCKS proxy that {named_proxies()} names: unset "
            "it, put the provider's host into NO_PROXY, or install its support with `pip install socksio`."
        ) from None
    except (httpx2.InvalidURL, ValueError, TypeError):  # a proxy's URL, which may hold a password
        raise ConfigurationError(
            f"The proxy that {named_proxies()} names cannot be used for provider {settings.name}: write it as "
            "http://host:port, or unset it."
        ) from None


def check(settings: ProviderSettings) -> None:
    """Check that a provider can be called from this machine, as far as that shows without a call.

    Raises:
        ConfigurationError: as `open_client`.
    """
    open_client(settings, {})  # nothing is connected, so nothing needs to be closed


def check_key(settings: ProviderSettings) -> None:
    """Check that a provider's key can be sent at all.

    Raises:
        ConfigurationError: it holds a character that no header may hold; says where and which, not what is around it.
    """
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    for place, char in enumerate(key, 1):
        if not "!" <= char <= "~":
            name = unicodedata.name(char, f"U+{ord(char):04X}")
            named = {"\n": "a line break", "\r": "a carriage return", " ": "a space", "\t": "a tab"}.get(char, name)
            raise ConfigurationError(
                f"The key of provider {settings.name} cannot be one: character {place} of {len(key)} is {named}. Copy "
                f"the whole key into the environment variable {settings.key_variable} again, and restart."
            )


def _check_url(settings: ProviderSettings) -> None:
    """Check the base URL by itself: an environment's proxy that is not a URL raises the same error."""
    try:
        httpx2.URL(settings.url)
    except httpx2.InvalidURL:  # its message quotes the URL
        raise ConfigurationError(
            f"The base_url of provider {settings.name} is not a URL that can be called: write one such as "
            "https://api.openai.com/v1."
        ) from None


def trust_of(settings: ProviderSettings) -> ssl.SSLContext:
    """Return what decides whom to trust.

    Raises:
        ConfigurationError: the environment names certificates that cannot be read.
    """
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    try:
        return _trust(file, folder)
    except (OSError, ssl.SSLError) as error:
        variable = "SSL_CERT_FILE" if file else "SSL_CERT_DIR" if folder else "the system's certificates"
        why = "holds no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read ({error.strerror})"
        raise ConfigurationError(
            f"Provider {settings.name} cannot be called safely: {variable} ({file or folder}) {why}; correct the "
            "environment variable, or unset it to trust the system's certificate authorities."
            if file or folder
            else f"Provider {settings.name} cannot be called safely: {variable} cannot be read."
        ) from None


@functools.lru_cache(maxsize=4)
def _trust(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Return what decides whom to trust, by the variables that httpx2 reads; loading it takes 0.1 s."""
    return httpx2.create_ssl_context()


def _joined(headers: Mapping[str, str], others: Mapping[str, str]) -> httpx2.Headers:
    found = httpx2.Headers(headers)
    found.update(others)  # whatever the case, a header is there once
    return found


def named_proxies() -> str:
    """Name the proxy variables that are set, never their values, which may hold a password."""
    found = [name for upper in _PROXIES for name in (upper, upper.lower()) if os.environ.get(name)]
    return " or ".join(dict.fromkeys(found)) or "the system"


def proxy_of(url: str) -> str | None:
    """Return the proxy through which the environment has a URL's host reached; None for a direct connection."""
    parts = urlsplit(url)
    if is_loopback(url) or proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def reason(error: httpx2.RequestError, seconds: float, url: httpx2.URL) -> str:
    """Return why there was no answer, as the end of a sentence for whoever runs the worker.

    Args:
        error: what the client raised.
        seconds: how long it was to wait for an answer.
        url: what was to be called.
    """
    why = reason_of_system(error, str(url)) or _of_client(error, seconds)
    return ended(why)


def reason_of_system(error: BaseException, url: str) -> str | None:
    """Return what TLS, the name service or the network say of an error, whichever client raised it; None if nothing.

    Args:
        error: what the client raised; the reason is in what led to it.
        url: what was to be called.
    """
    of_system = _of_system if proxy_of(url) is None else _of_proxy
    return next((why for cause in _causes(error) if (why := of_system(cause)) is not None), None)


def ended(why: str) -> str:
    """Return a reason as the end of a sentence."""
    return why if why.endswith("?") else f"{why}."


def _of_system(cause: BaseException) -> str | None:
    """Return what TLS, the name service or the network say; None if it is something else."""
    if isinstance(cause, ssl.SSLError) and not hasattr(cause, "reason"):
        return None  # a client's own error, as aiohttp's are: the one that it was raised for knows the reason
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({cause.verify_message or 'unknown reason'}); if it is meant to be, set "
            "SSL_CERT_FILE to a file with the certificate of its authority"
        )
    if isinstance(cause, ssl.SSLError):
        said = (cause.reason or "unknown reason").replace("_", " ").lower()
        return f"it does not speak TLS as expected ({said}); is its base_url meant to begin with http://?"
    if isinstance(cause, socket.gaierror):
        if cause.errno == socket.EAI_AGAIN:
            return "the name service (DNS) does not answer for its host; check base_url and the network"
        return "the name service (DNS) does not know its host; check base_url and the network"
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused, so nothing listens there; is it running, and is its base_url right?"
    if isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return "there is no way to its network"
    return None


def _of_proxy(cause: BaseException) -> str | None:
    """Return what TLS says, or what the name service or the network say of the proxy; None if it is something else."""
    fix = "correct the variable, or put the provider's host into NO_PROXY"
    if isinstance(cause, socket.gaierror):
        return f"the name service (DNS) does not find the host of the proxy that {named_proxies()} names; {fix}"
    if isinstance(cause, ConnectionRefusedError):
        return f"nothing listens at the proxy that {named_proxies()} names (connection refused); {fix}"
    if isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return f"there is no way to the network of the proxy that {named_proxies()} names; {fix}"
    return _of_system(cause)


def _of_client(error: httpx2.RequestError, seconds: float) -> str:
    words: tuple[tuple[type[httpx2.RequestError], str], ...] = (
        (httpx2.ProxyError, f"the proxy that {named_proxies()} names refused the connection"),
        (httpx2.ConnectTimeout, f"no connection within {min(seconds, CONNECT_SECONDS):g} s"),
        (httpx2.TimeoutException, f"no answer within {seconds:g} s"),
        (
            httpx2.RemoteProtocolError,
            "it broke off, or what it sent is not HTTP; should its base_url begin with https://?",
        ),
        (httpx2.DecodingError, "its answer cannot be decompressed"),
        (httpx2.ConnectError, "the connection cannot be made"),
    )
    return next((said for kind, said in words if isinstance(error, kind)), "the connection broke")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what led to it, groups included."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        waiting += [one.__cause__, one.__context__]
