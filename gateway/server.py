"""The HTTP server: uvicorn, with the limits on slow and huge requests that it lacks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..contract import ConfigurationError

#: Bytes of a head. httptools itself takes any number.
HEAD_BYTES = 64 * 1024
#: Seconds that an idle connection stays open: longer than official clients keep theirs (5 s), so that none is closed
#: just when it is used again.
_KEEP_ALIVE_SECONDS = 65
#: Requests that may wait behind the one that is answered: what is read at once may hold thousands.
_PIPELINED = 16
#: Seconds that requests under way have at the end of the process.
_GRACE_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a connection waits for its client, in seconds."""

    #: For the head of a request, from its first byte on, or from the connection on.
    head: float = 10.0
    #: For the rest of a body that was answered before its end. It is read and thrown away: a client that is still
    #: sending when the connection closes never sees its answer.
    rest: float = 30.0
    #: For what is written to it to be taken: how late it may be by `least` bytes a second. The systems on both sides
    #: pass on megabytes at a time, so that one who reads without a pause seems to take nothing for minutes.
    unread: float = 300.0
    least: int = 16 * 1024


class Outgoing:
    """A connection's transport, which is broken off when its client does not take what is written to it.

    Nothing else ends that: a transport that is closed waits until it has sent all, and so do its answer and the file
    that this is read from.
    """

    def __init__(self, transport: asyncio.Transport, patience: Patience, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._patience = patience
        self._loop = loop
        self._written = 0
        self._taken = 0  #: When the timer was started.
        self._left = patience.unread  #: Seconds that it may wait, from then on.
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._transport.write(data)
        self._written += len(data)
        if self._timer is None and self._transport.get_write_buffer_size():
            self._left = self._patience.unread
            self._wait()

    def stop(self) -> None:
        """Watch no longer: the connection is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._taken = self._written - self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self._left, self._look)

    def _look(self) -> None:
        self._timer = None
        if not (waiting := self._transport.get_write_buffer_size()):
            return
        if taken := self._written - waiting - self._taken:
            self._left = min(self._patience.unread, taken / self._patience.least)
            self._wait()
        else:
            self._transport.abort()


class Connection(HttpToolsProtocol):
    """One connection, which is closed when a head is late or long, or a body goes on after its answer.

    What comes behind a body in chunks, its trailers, is not kept: nobody reads it, and it has no end but the client's.

    Args:
        most: connections at a time; one more takes the place of the one that has rested longest between requests, so
            that strangers who only connect keep nobody out, and leave files for the store.
    """

    def __init__(self, patience: Patience, most: int, **options: Any) -> None:
        super().__init__(**options)
        self._patience = patience
        self._most = most
        self._rests_since = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._in_body = False
        self._head_bytes = 0
        self._framing_bytes = 0  #: Since the last bytes of a body: sizes of chunks, and trailers.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._outgoing = Outgoing(transport, self._patience, self.loop)
        super().connection_made(cast(asyncio.Transport, self._outgoing))
        # asyncio does so by itself only for sockets that it has made. Without, each answer whose head and body are
        # written one after the other is late by the client's delayed acknowledgement: 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._close_in(self._patience.head)
        if len(self.connections) > self._most:
            self._make_room()

    def _make_room(self) -> None:
        others = [one for one in self.connections if isinstance(one, Connection) and one is not self]
        resting = [one for one in others if one._rests and not one.transport.is_closing()]
        # One whose client has still to take its answer comes last.
        found = min(
            resting, key=lambda one: (one._outgoing.get_write_buffer_size() > 0, one._rests_since), default=self
        )
        found.transport.abort()

    @property
    def _rests(self) -> bool:
        """Whether no request of it waits for an answer."""
        return not self.pipeline and (self.cycle is None or bool(self.cycle.response_complete))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stay()
        self._outgoing.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        else:
            self._framing_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._in_head:
            if self._framing_bytes > HEAD_BYTES:
                self._refuse(431, "What is around the request's body is too large.")
        elif self._head_bytes > HEAD_BYTES:
            self._refuse(431, "The request's head is too large.")
        elif self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._close_in(self._patience.head)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stay()
        super().on_headers_complete()
        if len(self.pipeline) > _PIPELINED:
            raise _TooMany
        self._in_head, self._in_body = False, True
        self._head_bytes = self._framing_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stay()
        self._in_head, self._in_body = True, False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._rests_since = self.loop.time()
        if self._in_body and not self.transport.is_closing():
            self._close_in(self._patience.rest)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "The request is no valid HTTP.")

    def _refuse(self, status: int, message: str) -> None:
        # A second answer would be taken for a part of the first, and one that is too early for that of another request.
        answered = self.cycle is not None and self.cycle.response_complete
        own = self.cycle is None or answered if self._in_head else not self.cycle.response_started
        if self.pipeline or not own:
            self.transport.close()
            return
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps({"error": error}).encode()
        head = f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _close_in(self, seconds: float) -> None:
        self._stay()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stay(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _TooMany(Exception):
    """More requests are sent ahead than may wait. The parser ends with it."""


_PATIENCE = Patience()
#: Open files that are asked for at most.
_MOST_FILES = 16_384


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The command has its own way to end.
        yield


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp, host: str, port: int, patience: Patience = _PATIENCE, connections: int | None = None
) -> AsyncIterator[str]:
    """Serve an application for as long as the block lasts, and yield its URL.

    Args:
        port: 0 for a free one.
        patience: with clients that are slow.
        connections: how many there may be at a time; by default half as many as the process may have open files.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    with _listen(host, port) as listener:
        config = uvicorn.Config(
            app,
            http=functools.partial(Connection, patience, connections or _open_files() // 2),  # type: ignore[arg-type]  # it makes the protocol
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # its warnings are of requests that are no HTTP, of which anybody may send any number
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve([listener]))
        try:
            shown = f"[{host}]" if ":" in host else host
            yield f"http://{shown}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            # Those that do not take their answers would keep a later Python waiting.
            last = asyncio.get_running_loop().call_later(_GRACE_SECONDS + 1, _break_off, server)
            await task
            last.cancel()


def _open_files() -> int:
    """Return how many files this process may have open, once it has asked for more where it has few."""
    try:
        import resource
    except ImportError:  # Windows
        return _MOST_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def _break_off(server: uvicorn.Server) -> None:
    for connection in list(server.server_state.connections):
        connection.transport.abort()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # Listening from here on: who connects before the server is up waits for it.
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # what follows repeats the address
        raise ConfigurationError(
            f"The gateway cannot listen on {host}:{port} ({why}): choose another --host or --port."
        ) from None
