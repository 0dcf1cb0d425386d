"""The ordinary endpoints, which answer at once: within the served limits, and with every call in the books."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from .calls import Calls, How, LiveCall
from .connection import abort, cut, is_gone, was_reset
from .directives import FAILURES, Directives, read_directives
from .errors import Refusal
from .guard import answered
from .limits import Meter, Shortage
from .prompt import Prompt, check_model
from .protocol import Endpoint, Handler, Protocol, Route
from .provider import Provider, account_of, answer, json_body, new_id, provider_of
from .replies import Call, output_cap

#: In a live request: its entry in the books, and the books.
_ENTRY = web.RequestKey("entry", tuple[LiveCall, Calls])
#: The share of its body that comes before an answer is reset, where a directive asks for that.
_HALF = 0.5


def live(path: str, endpoint: Endpoint, protocol: Protocol) -> Handler:
    """The handler of one endpoint; a client that closes its connection cancels it."""
    inner = answered(Route("POST", path, endpoint.op, _answering(endpoint, protocol)), protocol)

    async def entered(request: web.Request) -> web.StreamResponse:
        provider, headers = provider_of(request), request.headers
        books = provider.calls
        row, key = headers.get("X-Client-Request-Id"), headers.get("Idempotency-Key")
        entry = books.begin(endpoint.op, account_of(request), row, key)
        request[_ENTRY] = entry, books
        how, status = How.RESET, 0
        try:
            response = await inner(request)
            how, status = _end(request, response)
            return response
        except asyncio.CancelledError:
            if not provider.stopping:
                how = How.DROPPED
            raise
        finally:
            books.end(entry, how, status)

    return entered


def _end(request: web.Request, response: web.StreamResponse) -> tuple[How, int]:
    if was_reset(request):
        return How.RESET, 0
    if is_gone(request):
        return How.DROPPED, 0
    return (How.ANSWERED if response.status < 400 else How.REFUSED), response.status


def _answering(endpoint: Endpoint, protocol: Protocol) -> Handler:
    async def call(request: web.Request) -> web.StreamResponse:
        provider = provider_of(request)
        entry, books = request[_ENTRY]
        body = await json_body(request)
        try:
            prompt = _prompt(endpoint, body)
            protocol.check_live(request, body)
        except Refusal as refusal:
            raise protocol.reworded(refusal) from None
        books.name(entry, prompt.model, prompt.digest)
        meter, cap = provider.meter(entry.account, prompt.model), output_cap(body)
        entry.reserved = prompt.tokens + cap
        try:
            shortage = await _admit(provider, meter, entry, prompt.tokens, cap)
            if shortage is not None:
                raise protocol.over_limit(prompt.model, shortage)
            try:
                directives = await _waited(provider, entry, prompt)
                if directives.misbehaviour in FAILURES:
                    raise protocol.failure(directives.misbehaviour)
                if directives.misbehaviour == "reset":
                    return abort(request)
                done = endpoint.reply(Call(body, prompt, directives, int(time.time()), protocol.live_tier))
                books.bill(entry, done.input_tokens, done.output_tokens)
                meter.used(provider.rates, done.input_tokens, done.output_tokens)
            finally:
                meter.leave(provider.settings.max_in_flight)
        except Refusal as refusal:
            if provider.rates.limits:
                refusal.headers = {**protocol.limit_headers(meter.standings(provider.rates)), **refusal.headers}
            raise
        response = answer(done.body)
        if provider.rates.limits:
            response.headers.update(protocol.limit_headers(meter.standings(provider.rates)))
        if directives.misbehaviour == "reset_answer":
            return await cut(request, response, _HALF)
        return _spoilt(response, directives)

    return call


def _prompt(endpoint: Endpoint, body: dict[str, object]) -> Prompt:
    if body.get("stream"):
        raise Refusal(400, "The sandbox does not stream.", code="unsupported_value", param="stream")
    prompt = endpoint.read(body)
    check_model(prompt.model)
    endpoint.check(body)
    return prompt


async def _admit(provider: Provider, meter: Meter, entry: LiveCall, input_tokens: int, cap: int) -> Shortage | None:
    """Let a call pass the limits and take its place in flight, or say which limit is in its way."""
    most, waits = provider.settings.max_in_flight, provider.settings.in_flight_waits
    if not waits and not meter.has_room(most):
        return Shortage(None, most or 0)
    now = time.monotonic()
    shortage = meter.take(provider.rates, now, input_tokens, cap)
    if shortage is None:
        entry.taken = now
        await meter.enter(most)
    return shortage


async def _waited(provider: Provider, entry: LiveCall, prompt: Prompt) -> Directives:
    """Let the time pass that a call takes; returns what its prompt asks for this time."""
    directives, settings = read_directives(prompt.text), provider.settings
    if directives.times is not None:
        submission = provider.state.submit(entry.account, f"live {prompt.digest}", new_id("call_"))
        if submission > directives.times:
            directives = directives.without_misbehaviour()
    seconds = settings.live_seconds + directives.delay_seconds
    if settings.live_spread_seconds:
        seconds += settings.live_spread_seconds * int(prompt.digest[:6], 16) / 0x1000000
    if seconds:
        await asyncio.sleep(seconds)
    if directives.misbehaviour == "hang":
        await asyncio.get_running_loop().create_future()  # until the client gives up, or the sandbox stops
    return directives


def _spoilt(response: web.Response, directives: Directives) -> web.Response:
    if directives.misbehaviour == "malformed" and isinstance(response.body, bytes):
        response.body = response.body[: len(response.body) // 2]
    return response
