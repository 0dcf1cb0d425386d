"""The sandbox as a server: in this process, or until a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from aiohttp import web

from .client import SandboxAdmin
from .download import untyped
from .errors import SandboxError
from .protocols import PROTOCOLS
from .provider import PROVIDER, Provider
from .routes import add_routes
from .state import State

#: Bytes of a JSON body; uploads are streamed and have limits of their own.
_MAX_BODY = 64 * 1024 * 1024
#: How long the thread that answers batches may keep the event loop waiting, in seconds: Python's 5 ms would be paid for
#: every chunk of an upload, and again for every request.
_SWITCH_SECONDS = 0.0005
#: Seconds that a stopping sandbox waits for answers under way.
_SHUTDOWN_SECONDS = 0.25


class Sandbox(SandboxAdmin):
    """A stand-in LLM provider on loopback, for as long as it is entered; it is its own admin client.

    Args:
        state: The folder to remember everything in; the next sandbox on it goes on where this one stopped.
        port: The port to listen on; 0 picks a free one.
        host: The address to listen on.
        settings: Values of `Settings` to start with; they win over those left by an earlier sandbox.

    Raises:
        SandboxError: On entering: the port is taken, the folder is not writable, or a setting makes no sense.
    """

    def __init__(self, state: Path, port: int = 0, host: str = "127.0.0.1", **settings: Any) -> None:
        super().__init__("")
        self._folder = state
        self._port = port
        self._host = host
        self._settings = settings
        self._state: State | None = None
        self._provider: Provider | None = None
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Sandbox:
        self._state = State(self._folder)
        try:
            self._provider = Provider(self._state, self._settings, PROTOCOLS)
            await self._listen(self._provider)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _listen(self, provider: Provider) -> None:
        app = web.Application(client_max_size=_MAX_BODY)
        app[PROVIDER] = provider
        app.on_response_prepare.append(untyped)
        add_routes(app, PROTOCOLS.values())
        # A client that hangs up ends its live call at once, as a model server ends its generation.
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            where = f"port {self._port} on {self._host}"
            if error.errno == errno.EADDRINUSE:
                raise SandboxError(f"The {where} is already in use.") from error
            raise SandboxError(f"The {where} cannot be listened on: {error.strerror}.") from error
        port = self._runner.addresses[0][1]
        host = "127.0.0.1" if self._host == "0.0.0.0" else self._host
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop; batches under way go on when a sandbox is started on the same folder."""
        if self._provider is not None:
            self._provider.stopping = True
            self._provider.faults.release()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._provider is not None:
            await self._provider.stop()
        if self._state is not None:
            self._state.close()
        self._state = self._provider = self._runner = None


async def serve(state: Path, port: int = 0, host: str = "127.0.0.1", **settings: Any) -> None:
    """Run a sandbox until SIGTERM or SIGINT; says its URL and process id on stdout, in one line of JSON.

    Args:
        state: The folder to remember everything in.
        port: The port to listen on; 0 picks a free one.
        host: The address to listen on.
        settings: Values of `Settings`.

    Raises:
        SandboxError: It cannot start.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Sandbox(state, port, host, **settings) as sandbox:
        ready = msgspec.json.encode({"url": sandbox.url, "pid": os.getpid()}).decode()
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(ready + "\n")
            sys.stdout.flush()
        await stopped.wait()
