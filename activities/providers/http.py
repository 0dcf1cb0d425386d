"""One HTTP connection to one account: what an answer, or none, means as an error of the contract.

It sends every request once. Who may repeat a call, and when, is decided above: a create must never be repeated blindly.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import Any

import httpx
import msgspec

from ...contract import (
    AnswerLost,
    AuthenticationFailed,
    ProviderError,
    ProviderNotFound,
    ProviderRefused,
    ProviderUnavailable,
    QueueFull,
    RateLimited,
)
from .redirects import MAX_REDIRECTS, origin, range_of, redirects, target
from .settings import ProviderSettings

#: Codes and words by which providers say that their queue, rather than the request rate, is full.
QUEUE_WORDS = (
    "token_limit_exceeded",
    "enqueued token limit",
    "too many batches",
    "batch_limit",
    "too many active",
)
#: A provider's own words are kept to this length in errors and in Temporal's history.
MAX_WORDS = 300

#: A provider is asked again after a day, whatever it says (in seconds).
LONGEST_WAIT = 24 * 3600.0

_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")
_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Http:
    """Calls one provider.

    Args:
        settings: the provider's settings, key included.
        headers: what every request carries, beside what the settings add to it.
        explain: returns (code, message) of an error body in the provider's own envelope.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        headers: Mapping[str, str],
        explain: Callable[[Any], tuple[str | None, str | None]],
    ) -> None:
        self._name = settings.name
        self._key = settings.api_key.get_secret_value() if settings.api_key else ""
        self._explain = explain
        self._client = httpx.AsyncClient(
            base_url=settings.url,
            headers=_joined(headers, settings.headers),
            timeout=httpx.Timeout(settings.timeout.total_seconds(), connect=10),
            # httpx repeats nothing by itself. (A transport of our own would not know the environment's proxies.)
            limits=httpx.Limits(max_keepalive_connections=20),
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        creates: bool = False,
    ) -> Any:
        """Send one request and return the JSON of its answer.

        Raises:
            AnswerLost: `creates`, and the request may have taken effect.
            ProviderError: one of the others; with `creates`, nothing was created.
        """
        request = self._client.build_request(
            method, path.lstrip("/"), json=json, content=content, headers=headers, params=params
        )
        try:
            response = await self._client.send(request)
        except httpx.RequestError as error:
            raise self._transport_error(error, creates) from None
        if not response.is_success:
            raise self._status_error(response, response.content, creates)
        try:
            return msgspec.json.decode(response.content)
        except ValueError:  # msgspec's errors, and those of text that is not UTF-8
            message = f"Provider {self._name} answered {method} {path} with something that is not JSON."
            raise (AnswerLost if creates else ProviderUnavailable)(message) from None

    @contextlib.asynccontextmanager
    async def stream(self, path: str, start: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Download from byte `start` on, whether or not the provider takes ranges.

        Redirects are followed, as servers send them that keep their files in a blob store. No header of ours but the
        range goes to another origin: neither a key, by whatever name, nor what the configuration adds.

        Raises:
            ProviderUnavailable: the download cannot be had now, or broke off.
            ProviderError: one of the others: the provider refuses it.
        """
        # A range counts the bytes that are sent, and `start` those of the content: they must be the same ones.
        headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"} if start else {}
        request = self._client.build_request("GET", path.lstrip("/"), headers=headers)
        response, abroad = await self._follow(request, headers)
        try:
            if response.status_code == 416 and start:  # nothing lies beyond what we have
                yield _nothing()
                return
            if not response.is_success:
                content = await _read_quietly(response)
                if abroad:
                    status = response.status_code
                    raise self._abroad_error(response.request.url, f"answers {status}", status)
                raise self._status_error(response, content, False)
            yield self._chunks(response, start)
        finally:
            await response.aclose()

    async def _follow(self, request: httpx.Request, headers: Mapping[str, str]) -> tuple[httpx.Response, bool]:
        """Return the answer at the end of a download's redirects, and whether another origin gave it."""
        abroad = False
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = await self._client.send(request, stream=True)
            except httpx.RequestError as error:
                if abroad:
                    raise self._abroad_error(request.url, f"cannot be reached ({type(error).__name__})") from None
                raise self._transport_error(error, False) from None
            if not redirects(response):
                return response, abroad
            await response.aclose()
            url = target(request.url, response.headers["location"])
            if url is None:
                raise ProviderUnavailable(
                    f"Provider {self._name} sends a download on to an address that is not https, which is not followed."
                )
            # Once abroad, always abroad: another host must not choose what is asked for with our key.
            abroad = abroad or origin(url) != origin(request.url)
            kept = headers if abroad else request.headers
            request = httpx.Request("GET", url, headers=kept, extensions=request.extensions)
        raise ProviderUnavailable(
            f"Provider {self._name} sends a download from address to address, more than {MAX_REDIRECTS} times."
        )

    async def _chunks(self, response: httpx.Response, start: int) -> AsyncIterator[bytes]:
        """Yield the content from byte `start` on.

        Raises:
            ProviderUnavailable: it broke off: less came than its content-length, or its last chunk is missing.
        """
        begin, total = 0, None
        if response.status_code == 206:
            begin, total = range_of(response.headers, start)
        skip, got = start - begin, begin
        if skip < 0:
            raise ProviderUnavailable(f"Provider {self._name} sends a download from byte {begin:,} on, not {start:,}.")
        try:
            # As they come: what httpx gathers to make larger ones is lost when the connection breaks.
            async for chunk in response.aiter_bytes():
                got += len(chunk)
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                yield chunk[skip:]
                skip = 0
        except httpx.RequestError as error:
            raise self._transport_error(error, False) from None
        if skip or (total is not None and got < total):
            raise ProviderUnavailable(f"Provider {self._name} ended a download after {got:,} bytes; asking again.")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _transport_error(self, error: httpx.RequestError, creates: bool) -> ProviderError:
        what = f"Provider {self._name} cannot be reached ({type(error).__name__})."
        # Only these are known to have failed before a byte of the request left.
        unsent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
        if creates and not isinstance(error, unsent):
            return AnswerLost(
                f"The connection to provider {self._name} broke before it answered ({type(error).__name__})."
            )
        return ProviderUnavailable(what)

    def _abroad_error(self, url: httpx.URL, what: str, status: int = 0) -> ProviderError:
        """Return what a failure of another host means: our key is not refused there, and a new link may be good.

        The host is named and no more: the rest of such a link is as good as a key.
        """
        found = ProviderNotFound if status in (404, 410) else ProviderUnavailable
        return found(f"Provider {self._name} sends the download on to {url.host}, which {what}.")

    def _status_error(self, response: httpx.Response, content: bytes, creates: bool) -> ProviderError:
        status = response.status_code
        try:
            code, message = self._explain(msgspec.json.decode(content))
        except (ValueError, AttributeError, TypeError, KeyError):
            code = message = None
        words = self._scrub(message or code or response.reason_phrase or "no reason given")
        told = f"Provider {self._name} answered {status}: {words}"
        wait = retry_after(response.headers)
        if status in (401, 403):
            # Providers quote parts of a refused key in their words, so these are ours.
            return AuthenticationFailed(
                f"Provider {self._name} refuses the key ({status}); check the environment variable that holds it, and "
                "the key's permissions."
            )
        if status == 404:
            return ProviderNotFound(told)
        if status == 429:
            full = any(word in f"{code} {message}".lower() for word in QUEUE_WORDS)
            return (QueueFull if full else RateLimited)(told, retry_after=wait)
        if status >= 500 or status == 408:
            # A server, or a proxy before it, that gave up waiting may have passed the request on.
            return (AnswerLost if creates else ProviderUnavailable)(told, retry_after=wait)
        if status == 425:
            return ProviderUnavailable(told, retry_after=wait)
        if any(word in f"{code} {message}".lower() for word in QUEUE_WORDS):
            return QueueFull(told, retry_after=wait)
        return ProviderRefused(told)

    def _scrub(self, words: str) -> str:
        if self._key:
            words = words.replace(self._key, "[key]")
        words = " ".join(words.split())
        return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"


def _joined(headers: Mapping[str, str], others: Mapping[str, str]) -> httpx.Headers:
    found = httpx.Headers(headers)
    found.update(others)  # whatever the case, a header is there once
    return found


def retry_after(headers: Mapping[str, str], now: float | None = None) -> timedelta | None:
    """Return how long the provider asks to be left alone: Retry-After (seconds or a date), or its own headers."""
    seconds = _seconds_asked(headers, time.time() if now is None else now)
    return None if seconds is None else timedelta(seconds=min(max(seconds, 0.0), LONGEST_WAIT))


def _seconds_asked(headers: Mapping[str, str], now: float) -> float | None:
    if _NUMBER.fullmatch(milliseconds := headers.get("retry-after-ms", "").strip()):
        return float(milliseconds) / 1000
    value = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(value):
        return float(value)
    if value:
        try:
            return email.utils.parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    for what in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{what}") == "0":
            found = _GO_DURATION.findall(headers.get(f"x-ratelimit-reset-{what}", ""))
            if found:
                return sum(float(number) * _SECONDS[unit] for number, unit in found)
    return None


async def _read_quietly(response: httpx.Response) -> bytes:
    try:
        return await response.aread()
    except httpx.RequestError:
        return b""


async def _nothing() -> AsyncIterator[bytes]:
    empty: tuple[bytes, ...] = ()
    for chunk in empty:
        yield chunk
