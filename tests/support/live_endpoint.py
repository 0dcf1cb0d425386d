"""An ordinary endpoint of a test's own, for answers that no sandbox gives; it keeps books of every call."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from durabatch.activities.providers.base import CHECK


@dataclass(frozen=True)
class Say:
    """An answer."""

    status: int = 200
    body: bytes | None = None  #: None: a good one.
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: float = 0.0  #: Seconds before it comes.
    broken: bool = False  #: Whether the connection breaks instead.


#: Returns the answer to a row's text, by how many times it was asked, from 1.
Script = Callable[[str, int], Say]


def good(text: str) -> bytes:
    """A chat's answer."""
    message = {"role": "assistant", "content": f"You said: {text}"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps({"id": "c", "model": "gpt-4o-mini", "choices": choices, "usage": usage}).encode()


def error(status: int, message: str, code: str | None = None) -> Say:
    """A refusal in OpenAI's words."""
    said = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return Say(status, json.dumps(said).encode())


class LiveEndpoint:
    """Answers chats by a script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.url = ""
        self.calls = Counter[str]()  #: By the row's text.
        self.headers: list[dict[str, str]] = []
        self.open = self.most_open = 0
        self.models = 404  #: What the list of models answers.
        self.check: Callable[[int], Say] = lambda times: (
            Say()
        )  #: What a check call is answered, by how many there were.
        self.checks = 0
        self._peers = set[object]()
        self.idle = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many connections the calls came by."""
        return len(self._peers)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body: Any = await request.json()
        text = body["messages"][0]["content"]
        if text == CHECK:
            self.checks += 1
        else:
            self.calls[text] += 1
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self._peers.add(request.transport and request.transport.get_extra_info("peername"))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.idle.clear()
        try:
            say = self.check(self.checks) if text == CHECK else self.script(text, self.calls[text])
            if say.hang:
                await asyncio.sleep(say.hang)
            if say.broken:
                assert request.transport is not None
                request.transport.abort()
            content = good(text) if say.body is None else say.body
            headers = {"content-type": "application/json", "x-request-id": f"req-{text}", **say.headers}
            return web.Response(status=say.status, body=content, headers=headers)
        finally:
            self.open -= 1
            if not self.open:
                self.idle.set()

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": []}, status=self.models)


@asynccontextmanager
async def live_endpoint(script: Script = lambda text, times: Say()) -> AsyncIterator[LiveEndpoint]:
    """Serve one on loopback."""
    endpoint = LiveEndpoint(script)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", endpoint.answer)
    app.router.add_get("/v1/models", endpoint.list_models)
    # A handler ends when its client is gone, so that the books say which calls are open.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield endpoint
    finally:
        await runner.cleanup()
