"""What comes before every route: counting, faults, keys and the error envelopes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web

from .connection import abort, cut
from .errors import Refusal
from .faults import AFTER, BEFORE, Fault
from .override import overridden
from .protocol import Handler, Protocol, Route
from .provider import REQUESTS, Provider, answer, new_id, provider_of


def guarded(route: Route, protocol: Protocol) -> Handler:
    """A route's handler with everything in front of it. It goes on to its end, even if the client hangs up.

    Args:
        route: Its handler does the work; it may raise `Refusal`.
        protocol: Whose envelope refusals are put into.
    """
    inner = answered(route, protocol)

    async def guard(request: web.Request) -> web.StreamResponse:
        provider = provider_of(request)
        provider.counts.add(REQUESTS, route.op)
        return await asyncio.shield(provider.task(inner(request)))

    return guard


def answered(route: Route, protocol: Protocol) -> Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]:
    """A route's handler with latency, faults and keys in front of it, and refusals in the protocol's envelope."""
    op, handler = route.op, route.handler

    async def answer(request: web.Request) -> web.StreamResponse:
        provider = provider_of(request)
        if provider.settings.latency_seconds:
            await asyncio.sleep(provider.settings.latency_seconds)
        fault = provider.faults.take(op, BEFORE | AFTER)
        if fault is None:
            return await _handle(provider, request, protocol, handler)
        if fault.kind in BEFORE:
            stopped = await _before(provider, fault, request, protocol, route.streamed)
            return await _handle(provider, request, protocol, handler) if stopped is None else stopped
        response = await _handle(provider, request, protocol, handler)
        return await _after(provider, fault, request, response, protocol)

    return answer


async def _handle(provider: Provider, request: web.Request, protocol: Protocol, handler: Handler) -> web.StreamResponse:
    request_id = new_id("req_")
    try:
        provider.authenticate(request, protocol)
        response = await handler(request)
    except Refusal as refusal:
        response = _refuse(refusal, protocol, request_id)
    except (web.RequestPayloadError, web.HTTPRequestEntityTooLarge) as error:
        status = 413 if isinstance(error, web.HTTPRequestEntityTooLarge) else 400
        response = _refuse(Refusal(status, "The body of your request could not be read."), protocol, request_id)
    except ConnectionError:
        return web.Response(status=400)  # the caller hung up in the middle of its request; nobody will see this
    if not response.prepared:
        response.headers[protocol.request_id_header] = request_id
    return response


def _refuse(refusal: Refusal, protocol: Protocol, request_id: str) -> web.Response:
    response = answer(protocol.envelope(refusal, request_id), refusal.status)
    if refusal.retry_after is not None:
        response.headers["retry-after"] = f"{refusal.retry_after:g}"
    response.headers.update(refusal.headers)
    response.headers[protocol.request_id_header] = request_id
    return response


async def _before(
    provider: Provider, fault: Fault, request: web.Request, protocol: Protocol, streamed: bool
) -> web.StreamResponse | None:
    """Apply a fault that comes before the effect; None lets the request go on."""
    if fault.kind == "status":
        return _refuse(_as_refusal(fault), protocol, new_id("req_"))
    if fault.kind == "hold_before":
        if not streamed:
            with contextlib.suppress(ConnectionError, web.RequestPayloadError):  # the handler meets them again
                await request.read()  # the caller may hang up meanwhile, and the request still takes effect
        await provider.faults.hold(fault)
        return None
    return abort(request)


async def _after(
    provider: Provider, fault: Fault, request: web.Request, response: web.StreamResponse, protocol: Protocol
) -> web.StreamResponse:
    """Apply a fault to the answer of a request that took its effect."""
    if fault.kind == "lost_answer":
        return abort(request)
    if fault.kind == "reset_answer":
        return response if response.prepared else await cut(request, response, fault.fraction)
    if fault.kind == "lost_answer_status":
        return _refuse(_as_refusal(fault), protocol, new_id("req_"))
    if fault.kind == "override":
        return overridden(fault, response)
    if fault.kind == "hold":
        await provider.faults.hold(fault)
    else:
        await asyncio.sleep(fault.delay_seconds)
    return response


def _as_refusal(fault: Fault) -> Refusal:
    return Refusal(
        fault.status or 500,
        fault.message or f"The sandbox was told to answer with status {fault.status}.",
        code=fault.code,
        type=fault.type,
        retry_after=fault.retry_after,
    )
