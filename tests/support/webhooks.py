"""A receiver of webhooks over real HTTP, which keeps what it is sent and answers as the test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from openai import AsyncOpenAI

#: As OpenAI shows one.
SECRET = "whsec_c2VjcmV0LW9mLWEtdGVzdC1vZi13ZWJob29rcw=="
OTHER_SECRET = "whsec_YW5vdGhlci1zZWNyZXQtb2YtYS10ZXN0LQ=="


@dataclass
class Message:
    """One request that came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def unwrapped(self, secret: str = SECRET) -> Any:
        """Return the event as OpenAI's unmodified client reads it, once it has verified the signature."""
        client = AsyncOpenAI(api_key="any", webhook_secret=secret)
        return client.webhooks.unwrap(self.body, self.headers)


@dataclass
class Receiver:
    """What was received, and how it is answered."""

    url: str = ""  #: Without a path.
    answers: Callable[[Message], int | web.StreamResponse | Awaitable[int]] = lambda message: 204
    messages: list[Message] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, count: int) -> list[Message]:
        """Wait for so many messages; the test's own time limit bounds it."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.messages) >= count)
        return self.messages

    async def _take(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        message = Message(request.path_qs, headers, await request.read())
        answer = self.answers(message)
        async with self._changed:
            self.messages.append(message)
            self._changed.notify_all()
        if not isinstance(answer, int | web.StreamResponse):
            answer = await answer
        return web.Response(status=answer) if isinstance(answer, int) else answer


@contextlib.asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver._take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
