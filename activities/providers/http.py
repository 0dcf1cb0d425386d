"""One HTTP connection to one account: what an answer, or none, means as an error of the contract.

It sends every request once. Who may repeat a call, and when, is decided above: a create must never be repeated blindly.
"""

from __future__ import annotations

import contextlib
import email.utils
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2

from ...contract import (
    AnswerLost,
    ProviderError,
    ProviderNotFound,
    ProviderUnavailable,
)
from . import http_client, parsing, redaction, refusals
from .redirects import MAX_REDIRECTS, origin, range_of, redirects, target
from .settings import ProviderSettings
from .status_errors import secret_of, status_error

#: Where routes that list something end: a 404 of one is no word about a batch or a file.
_LISTINGS = ("batches", "files")
T = TypeVar("T")


class Http:
    """Calls one provider.

    Args:
        settings: the provider's settings, key included.
        headers: what every request carries, beside what the settings add to it.

    Raises:
        ConfigurationError: no request can ever be sent with these settings, or in this environment.
    """

    def __init__(self, settings: ProviderSettings, headers: Mapping[str, str]) -> None:
        self.name = settings.name
        self._settings = settings
        self._key = secret_of(settings)
        self._timeout = settings.timeout.total_seconds()
        self._client = http_client.open_client(settings, headers)
        #: The provider's clock at its last answer that had a date.
        self.clock: datetime | None = None

    async def call(
        self,
        method: str,
        path: str,
        *,
        read: Callable[[Any], T],
        json: Any = None,
        content: AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        creates: bool = False,
    ) -> T:
        """Send one request and return what `read` makes of the JSON of its answer.

        Raises:
            AnswerLost: `creates`, and the request may have taken effect: also where its answer cannot be read.
            ProviderUnavailable: the answer cannot be read; says which route, which field and why.
            ProviderError: one of the others; with `creates`, nothing was created.
        """
        answer = await self.send(
            method, path, json=json, content=content, headers=headers, params=params, creates=creates
        )
        try:
            return read(parsing.decode(answer))
        except Exception as error:
            # Whatever our own code stumbles over, it is the provider's answer that it could not read: it may be read
            # later, or by a newer version, and a batch that exists must not be lost by it. No value is quoted.
            why = str(error) if isinstance(error, parsing.Unreadable) else f"{type(error).__name__} while reading it"
            if isinstance(error, parsing.Unreadable) and (page := refusals.page(answer)):
                why = f"it is {page}"
            message = (
                f"Provider {self.name} answered {method} {path} with a body that Durabatch cannot read: "
                f"{redaction.redacted(why, self._key)}."
            )
            raise (AnswerLost if creates else ProviderUnavailable)(message, status=200) from None

    async def send(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        creates: bool = False,
    ) -> bytes:
        """Send one request and return the body of its answer, whatever that is.

        Raises:
            AnswerLost, ProviderError: as `call`.
        """
        request = self._client.build_request(
            method, path.lstrip("/"), json=json, content=content, headers=headers, params=params
        )
        try:
            response = await self._client.send(request)
        except httpx2.RequestError as error:
            raise self._transport_error(error, creates) from None
        self.clock = _date(response.headers) or self.clock
        if not response.is_success:
            raise self._status_error(response, response.content, creates)
        return response.content

    @contextlib.asynccontextmanager
    async def stream(self, path: str, start: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Download from byte `start` on, whether or not the provider takes ranges.

        Redirects are followed, as servers send them that keep their files in a blob store. No header of ours but the
        range goes to another origin: neither a key, by whatever name, nor what the configuration adds.

        Raises:
            ProviderUnavailable: the download is not available now, or broke off.
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

    async def _follow(self, request: httpx2.Request, headers: Mapping[str, str]) -> tuple[httpx2.Response, bool]:
        """Return the answer at the end of a download's redirects, and whether another origin gave it."""
        abroad = False
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = await self._client.send(request, stream=True)
            except httpx2.RequestError as error:
                if abroad:
                    said = http_client.reason(error, self._timeout, request.url)
                    why = said.partition(";")[0].rstrip(".")  # no advice
                    raise self._abroad_error(request.url, f"cannot be reached: {why}") from None
                raise self._transport_error(error, False) from None
            if not redirects(response):
                return response, abroad
            await response.aclose()
            url = target(request.url, response.headers["location"])
            if url is None:
                raise ProviderUnavailable(
                    f"Provider {self.name} sends a download on to an address that is not https, which is not followed."
                )
            # Once abroad, always abroad: another host must not choose what is asked for with our key.
            abroad = abroad or origin(url) != origin(request.url)
            kept = headers if abroad else request.headers
            request = httpx2.Request("GET", url, headers=kept, extensions=request.extensions)
        raise ProviderUnavailable(
            f"Provider {self.name} sends a download from address to address, more than {MAX_REDIRECTS} times."
        )

    async def _chunks(self, response: httpx2.Response, start: int) -> AsyncIterator[bytes]:
        """Yield the content from byte `start` on.

        Raises:
            ProviderUnavailable: it broke off: less came than its content-length, or its last chunk is missing.
        """
        begin, total = 0, None
        if response.status_code == 206:
            begin, total = range_of(response.headers, start)
        skip, got = start - begin, begin
        if skip < 0:
            raise ProviderUnavailable(f"Provider {self.name} sends a download from byte {begin:,} on, not {start:,}.")
        try:
            # As they come: what httpx2 gathers to make larger ones is lost when the connection breaks.
            async for chunk in response.aiter_bytes():
                got += len(chunk)
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                yield chunk[skip:]
                skip = 0
        except httpx2.RequestError as error:
            raise self._transport_error(error, False) from None
        if skip or (total is not None and got < total):
            raise ProviderUnavailable(f"Provider {self.name} ended a download after {got:,} bytes; asking again.")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _transport_error(self, error: httpx2.RequestError, creates: bool) -> ProviderError:
        why = http_client.reason(error, self._timeout, self._client.base_url)
        # Only these are known to have failed before a byte of the request left.
        unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
        if creates and not isinstance(error, unsent):
            return AnswerLost(f"The connection to provider {self.name} was lost before it answered: {why}")
        return ProviderUnavailable(f"Provider {self.name} cannot be reached: {why}")

    def _abroad_error(self, url: httpx2.URL, what: str, status: int = 0) -> ProviderError:
        """Return what a failure of another host means: our key is not refused there, and a new link may be good.

        The host is named and no more: the rest of such a link is as good as a key.
        """
        found = ProviderNotFound if status in (404, 410) else ProviderUnavailable
        return found(f"Provider {self.name} sends the download on to {url.host}, which {what}.")

    def _status_error(self, response: httpx2.Response, content: bytes, creates: bool) -> ProviderError:
        route = response.request.url.path.rstrip("/").rpartition("/")[2]
        return status_error(
            self._settings,
            response.status_code,
            response.headers,
            content,
            moved=_moved(response),
            listing=response.request.method == "GET" and route in _LISTINGS,
            creates=creates,
        )


def path_part(reference: str) -> str:
    """Return an id as one part of a path, whatever is in it."""
    return quote(reference, safe="")


def _moved(response: httpx2.Response) -> str:
    """Return where a redirect leads, without what may be secret of it; empty for any other answer."""
    url = target(response.url, response.headers["location"]) if redirects(response) else None
    return f"it has moved to {url.scheme}://{url.host}{url.path}; correct base_url" if url else ""


def _date(headers: Mapping[str, str]) -> datetime | None:
    try:
        found = email.utils.parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return None
    return found if found.tzinfo else None


async def _read_quietly(response: httpx2.Response) -> bytes:
    try:
        return await response.aread()
    except httpx2.RequestError:
        return b""


async def _nothing() -> AsyncIterator[bytes]:
    empty: tuple[bytes, ...] = ()
    for chunk in empty:
        yield chunk
