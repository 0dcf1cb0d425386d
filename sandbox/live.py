"""The ordinary endpoints, which answer at once."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from .directives import FAILURES, Directives, read_directives
from .errors import Refusal
from .prompt import Prompt, check_model
from .protocol import Endpoint, Handler, Protocol
from .provider import LIVE, LIVE_ROWS, account_of, answer, json_body, new_id, provider_of
from .replies import Call


def live(endpoint: Endpoint, protocol: Protocol) -> Handler:
    """The handler of one endpoint."""

    async def call(request: web.Request) -> web.Response:
        provider, account = provider_of(request), account_of(request)
        body = await json_body(request)
        try:
            prompt = _prompt(endpoint, body)
        except Refusal as refusal:
            raise protocol.reworded(refusal) from None
        directives = read_directives(prompt.text)
        if directives.times is not None:
            submission = provider.state.submit(account, f"live {prompt.digest}", new_id("call_"))
            if submission > directives.times:
                directives = directives.without_misbehaviour()
        if directives.delay_seconds:
            await asyncio.sleep(directives.delay_seconds)
        if directives.misbehaviour in FAILURES:
            raise protocol.failure(directives.misbehaviour)
        done = endpoint.reply(Call(body, prompt, directives, int(time.time()), protocol.live_tier))
        provider.counts.add(LIVE, endpoint.op)
        provider.counts.add(LIVE, "input_tokens", done.input_tokens)
        provider.counts.add(LIVE, "output_tokens", done.output_tokens)
        provider.counts.add(LIVE_ROWS, f"{account}/{prompt.digest}")
        await provider.counts.written()
        return _spoilt(answer(done.body), directives)

    return call


def _prompt(endpoint: Endpoint, body: dict[str, object]) -> Prompt:
    if body.get("stream"):
        raise Refusal(400, "The sandbox does not stream.", code="unsupported_value", param="stream")
    prompt = endpoint.read(body)
    check_model(prompt.model)
    return prompt


def _spoilt(response: web.Response, directives: Directives) -> web.Response:
    if directives.misbehaviour == "malformed" and isinstance(response.body, bytes):
        response.body = response.body[: len(response.body) // 2]
    return response
