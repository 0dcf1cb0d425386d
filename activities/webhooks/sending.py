"""One attempt to deliver an event: signed, to an address of the internet, within some seconds, and nothing is read."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from typing import Any

import aiohttp
from standardwebhooks import Webhook

from ...contract.webhooks import Delivery
from .addresses import is_public
from .endpoint import Endpoint
from .outcome import Outcome

_SECONDS = 15.0
_TIMEOUT = aiohttp.ClientTimeout(total=_SECONDS, sock_connect=5.0)


class _Private(OSError):
    """An address that is not of the internet. All of them say the same, or their words would be joined into others."""


def _public_socket(info: tuple[Any, ...]) -> socket.socket:
    """Make the socket for one of the addresses that a name resolves to.

    It is asked for the very address that is connected to next, so a name that resolves to another one by now, or a
    literal that no resolver sees, is checked like any other.
    """
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise _Private("not public")
    return socket.socket(family, kind, protocol)


def open_session(endpoint: Endpoint) -> aiohttp.ClientSession:
    """Return what sends to an endpoint. No proxy, cookie or login of this machine takes part."""
    connector = aiohttp.TCPConnector(
        use_dns_cache=False, socket_factory=None if endpoint.allow_private else _public_socket
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=_TIMEOUT,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


async def send(session: aiohttp.ClientSession, endpoint: Endpoint, delivery: Delivery) -> Outcome:
    """Send an event once. What the receiver answers beyond its status is not read; a redirect is not followed."""
    if endpoint.secret is None:
        return Outcome(
            error="Its secret is not set where the worker runs: the variable that secret_env names is empty."
        )
    body, now = json.dumps(delivery.payload(), separators=(",", ":")), datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "user-agent": "durabatch",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(endpoint.secret).sign(delivery.id, now, body),
    }
    try:
        async with session.post(endpoint.url, data=body.encode(), headers=headers, allow_redirects=False) as answer:
            status = answer.status
    except Exception as error:  # whatever a receiver's answer leads to, its own words are not repeated
        return Outcome(error=_words(error))
    if 200 <= status < 300:
        return Outcome(status)
    if 300 <= status < 400:
        return Outcome(status, f"It answered {status}: redirects are not followed.")
    return Outcome(status, f"It answered {status}.")


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, _Private):
        return "Its address is not one of the internet, and allow_private is not set."
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "Its name cannot be resolved."
    if isinstance(error, aiohttp.ClientSSLError):
        return "Its certificate cannot be verified."
    if isinstance(error, TimeoutError):
        return f"It did not answer within {_SECONDS:g} seconds."
    if isinstance(error, aiohttp.ClientConnectorError):
        return "It cannot be connected to."
    if isinstance(error, aiohttp.InvalidURL):
        return "Its address is no valid URL."
    return "The connection broke off."
