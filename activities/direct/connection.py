"""One connection, on which one call at a time is sent and answered.

aiohttp has made it, and so knows about addresses, TLS and proxies. Most answers say how long they are and come as they
are: those are read here, for a fraction of what aiohttp's parser and streams cost. Every other answer (in chunks,
compressed, up to the connection's end, or unusual in any way) is left to aiohttp from its first byte.
"""

from __future__ import annotations

import asyncio
from collections import deque

import aiohttp
from aiohttp import connector
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from .answer import Answer, TooLong
from .memory import SHORT, Share

#: Bytes of an answer that aiohttp reads ahead; with its 64 KiB long ones come in many small steps. What waits for room
#: has up to twice as many.
_READ_AHEAD = 1 << 17
#: Bytes in which a head has to end that is read here.
_LONGEST_HEAD = 1 << 14
#: Answers that are handed out in one turn of the event loop: thousands that come at the same moment would keep it from
#: everything else.
_A_TURN = 32
_VERSION = b"HTTP/1.1 "
#: Digits of a length that is read here: Python reads no number of thousands.
_MOST_DIGITS = 18
_BLANK_LINE = b"\r\n\r\n"
#: Answers before the answer (1xx) that are passed over; servers send one or two.
_MOST_INTERIM = 32
#: The status of a server that goes on with another protocol, which nobody asked for.
_SWITCHES = 101
#: Statuses whose answers have no body, whatever their heads say.
_NO_BODY = frozenset({204, 205, 304})


class Arrivals:
    """Answers on their way to their calls: some in each turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Connection] = deque()
        self._loop = asyncio.get_running_loop()

    def add(self, connection: Connection) -> None:
        """Have a connection answer its call soon."""
        if not self._waiting:
            self._loop.call_soon(self._hand_out)
        self._waiting.append(connection)

    def _hand_out(self) -> None:
        for _ in range(min(_A_TURN, len(self._waiting))):
            self._waiting.popleft().hand_out()
        if self._waiting:
            self._loop.call_soon(self._hand_out)


class Head:
    """The head of an answer of the usual kind."""

    __slots__ = ("closes", "headers", "length", "status")

    def __init__(self, status: int, headers: CIMultiDict[str], length: int) -> None:
        self.status = status
        self.headers = headers
        self.length = length  #: Bytes of its body.
        #: Whether the server closes the connection behind it.
        self.closes = "close" in headers.get("connection", "").lower()

    @classmethod
    def read(cls, data: bytes) -> Head | None:
        """Read a head, without the blank line that ends it; None if it is not of the usual kind."""
        lines = data.decode("utf-8", "surrogateescape").split("\r\n")
        breaks, status = len(lines) - 1, lines[0][9:12]
        # A line break or a NUL within a line is for a whole parser to judge.
        if not data.count(b"\n") == data.count(b"\r") == breaks or b"\0" in data or lines[0][12:13] not in ("", " "):
            return None
        if not (status.isascii() and status.isdigit()) or int(status) < 200 or int(status) in _NO_BODY:
            return None
        headers = CIMultiDict[str]()
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                return None
            headers.add(name, value.strip(" \t"))
        lengths = headers.getall("content-length", [])
        if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdigit()) or len(lengths[0]) > _MOST_DIGITS:
            return None
        if "transfer-encoding" in headers or "content-encoding" in headers or "upgrade" in headers:
            return None
        return cls(int(status), headers, int(lengths[0]))


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        made: what aiohttp has made.
        arrivals: where its answers are handed out.
        longest: bytes that an answer may have.

    Raises:
        ServerDisconnectedError: it is closed already.
    """

    def __init__(self, made: connector.Connection, arrivals: Arrivals, longest: int) -> None:
        handler, transport = made.protocol, made.transport
        if handler is None or transport is None:
            made.close()
            raise aiohttp.ServerDisconnectedError
        self._made = made
        self._handler = handler
        self._transport = transport
        self._arrivals = arrivals
        self._longest = longest
        self._waiter: asyncio.Future[Head | None] | None = None  # of the call that is under way
        self._head: Head | None = None
        self._parts: list[bytes] = []  # of the head, then of the body
        self._size = 0
        self._share: Share | None = None  # of the call's answer
        self._error: Exception | None = None
        self._spent = False  # whether no other call may follow
        # Of one that is new, what was said before the call is the answer, for want of another: a gateway that is busy
        # may not wait for what it is asked. On one that was used, it is a goodbye, and no call follows.
        self._early = handler.should_close
        if not self._early:
            transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        """Whether a call may be sent on it."""
        return not self._spent and self._waiter is None and not self._transport.is_closing()

    async def call(self, data: bytes, share: Share | None = None) -> Answer:
        """Send a whole request, and return its answer.

        Args:
            data: the request.
            share: what a long answer has of the memory, before it is read; whoever calls gives it back.

        Raises:
            ClientError, HttpProcessingError, OSError: the connection broke, or what came is not HTTP.
            TooLong: the answer is.
        """
        self._waiter = asyncio.get_running_loop().create_future()
        self._share = share
        self._transport.write(data)
        if self._early:
            self._leave(b"")
        head = await self._waiter
        if head is None:
            answer = await self._read_by_aiohttp()
        else:
            answer = Answer(head.status, head.headers, b"".join(self._parts))
        self._waiter, self._head, self._parts, self._size = None, None, [], 0
        return answer

    def hand_out(self) -> None:
        """Give the call that is under way what has come."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._error is not None:
            waiter.set_exception(self._error)
        else:
            waiter.set_result(self._head)

    def close(self) -> None:
        """Close it, whatever is under way."""
        self._spent = True
        self._parts = []
        self._made.close()

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._spent:  # nobody asked for it
            self._spent = True
            self._transport.close()
            return
        if self._head is None:
            if self._parts:
                data = b"".join([*self._parts, data])
            end = data.find(_BLANK_LINE)
            if data[:9] != _VERSION[: len(data)] or (end < 0 and len(data) >= _LONGEST_HEAD):
                return self._leave(data)
            if end < 0:
                self._parts = [data]
                return
            self._head = Head.read(data[:end])
            if self._head is None:
                return self._leave(data)
            if self._head.length > self._longest:
                self._error = TooLong()
                self._transport.pause_reading()
                return self._arrivals.add(self)
            self._parts, data = [], data[end + 4 :]
            if self._head.length - len(data) > SHORT and self._share is not None:
                self._make_room(self._share, self._head.length)
        self._parts.append(data)
        self._size += len(data)
        more = self._size - self._head.length
        if more >= 0:
            self._spent = self._head.closes or more > 0
            if more:  # what follows is nobody's
                self._parts[-1] = data[:-more]
            self._arrivals.add(self)

    def _make_room(self, share: Share, size: int) -> None:
        """Read on only when there is room for the answer."""
        if (waiting := share.take(size)) is not None:
            self._transport.pause_reading()
            waiting.add_done_callback(self._read_on)

    def _read_on(self, waiting: asyncio.Future[None]) -> None:
        if not waiting.cancelled() and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._spent = True
        self._handler.connection_lost(exc)
        if self._head is not None and self._size >= self._head.length:
            return  # the answer is whole
        if self._head is not None:
            self._error = aiohttp.ClientPayloadError()
        else:
            self._error = exc if isinstance(exc, OSError) else aiohttp.ServerDisconnectedError()
        self._arrivals.add(self)

    def _leave(self, data: bytes) -> None:
        """Leave an answer to aiohttp, from its first byte."""
        self._parts = []
        self._transport.set_protocol(self._handler)
        self._handler.set_response_params(read_until_eof=True, auto_decompress=True, read_bufsize=_READ_AHEAD)
        if data:
            self._handler.data_received(data)
        self._arrivals.add(self)

    async def _read_by_aiohttp(self) -> Answer:
        for _ in range(1 + _MOST_INTERIM):
            message, content = await self._handler.read()
            if not 100 <= message.code < 200 or message.code == _SWITCHES:
                break
        if message.code < 200:
            raise HttpProcessingError(message="no answer but interim ones")
        parts, size = list[bytes](), 0
        while part := await content.readany():
            size += len(part)
            if size > self._longest:
                raise TooLong
            parts.append(part)
            # Nobody knows how long it gets, so it takes twice what it has.
            if self._share is not None and size > max(SHORT, self._share.size):
                waiting = self._share.take(2 * size - self._share.size)
                if waiting is not None:
                    await waiting
        answer = Answer(message.code, message.headers, b"".join(parts))
        if self._handler.should_close or self._transport.is_closing():
            self._spent = True
        else:
            self._transport.set_protocol(self)
        return answer
