"""A chat endpoint that costs next to nothing, so that whoever calls it is what is measured.

    python benchmarks/live_server.py [--seconds 0.5] [--answer-bytes 600] [--most-at-a-time 50]

HTTP/1.1 by hand on one asyncio protocol: it answers every POST alike, after so many seconds. With --most-at-a-time it
works at so many calls at a time for each value of the header `x-worker`, as if each had a model server of its own
behind the same gateway; the others wait for their turn. `GET /books` says how many calls it has answered, in all and to
whom, how many different ones by `x-client-request-id`, and how many were open at most and are open now. Prints its URL
as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import deque
from typing import Any

_END = b"\r\n\r\n"


def answer_of(size: int) -> bytes:
    """Return the whole answer, head and body."""
    usage = {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52}
    body: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini"}
    message = {"role": "assistant", "content": ""}
    body |= {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    message["content"] = "x" * max(1, size - len(json.dumps(body)))
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\ncontent-length: {len(data)}"
    return head.encode() + _END + data


def value_of(header: bytes, head: bytes) -> bytes:
    """Return a header's value; empty where there is none."""
    found = head.find(header)
    return head[found + len(header) :].split(b"\r\n", 1)[0].strip() if found >= 0 else b""


class Books:
    """What all connections have seen."""

    def __init__(self) -> None:
        self.calls = self.open = self.most_open = self.dropped = 0
        self.times: dict[bytes, int] = {}
        self.slots: dict[str, WorkerSlots] = {}

    def said(self) -> bytes:
        facts: dict[str, Any] = {"calls": self.calls, "open": self.open, "most_open": self.most_open}
        facts |= {"dropped": self.dropped, "distinct": len(self.times)}
        facts["repeated"] = sum(times - 1 for times in self.times.values())
        facts["calls_by_worker"] = {name: slots.calls for name, slots in self.slots.items()}
        data = json.dumps(facts).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d" % len(data) + _END + data


class WorkerSlots:
    """Answers so many calls of one worker at a time; the others wait in line."""

    def __init__(self, room: int, seconds: float) -> None:
        self.calls = 0
        self._room = room
        self._seconds = seconds
        self._waiting: deque[Chat] = deque()

    def take(self, chat: Chat) -> None:
        if self._room:
            self._room -= 1
            self._work(chat)
        else:
            self._waiting.append(chat)

    def _work(self, chat: Chat) -> None:
        asyncio.get_running_loop().call_later(self._seconds, self._done, chat)

    def _done(self, chat: Chat) -> None:
        self.calls += 1
        chat.reply()
        if self._waiting:
            self._work(self._waiting.popleft())
        else:
            self._room += 1


class Chat(asyncio.Protocol):
    """One connection."""

    def __init__(self, books: Books, answer: bytes, seconds: float, most: int | None) -> None:
        self._books = books
        self._answer = answer
        self._seconds = seconds
        self._most = most
        self._buffer = b""
        self._waiting = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (at := self._buffer.find(_END)) >= 0:
            head = self._buffer[:at].lower()
            length = int(value_of(b"content-length:", head) or 0)
            if len(self._buffer) < at + 4 + length:
                return
            self._buffer = self._buffer[at + 4 + length :]
            if head.startswith(b"get "):
                self._transport.write(self._books.said())
            else:
                self._call(head)

    def _call(self, head: bytes) -> None:
        books = self._books
        if name := value_of(b"x-client-request-id:", head):
            books.times[name] = books.times.get(name, 0) + 1
        books.open += 1
        self._waiting += 1
        books.most_open = max(books.most_open, books.open)
        if self._most:
            worker = value_of(b"x-worker:", head).decode()
            if worker not in books.slots:
                books.slots[worker] = WorkerSlots(self._most, self._seconds)
            books.slots[worker].take(self)
        elif self._seconds:
            asyncio.get_running_loop().call_later(self._seconds, self.reply)
        else:
            self.reply()

    def reply(self) -> None:
        if self._waiting:
            self._waiting -= 1
            self._books.open -= 1
            self._books.calls += 1
            self._transport.write(self._answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._books.open -= self._waiting
        self._books.dropped += self._waiting
        self._waiting = 0


async def serve(seconds: float, answer_bytes: int, most: int | None) -> None:
    books, answer = Books(), answer_of(answer_bytes)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Chat(books, answer, seconds, most), "127.0.0.1", 0, backlog=10_000)
    host, port = server.sockets[0].getsockname()
    print(json.dumps({"url": f"http://{host}:{port}"}), flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--answer-bytes", type=int, default=600)
    parser.add_argument("--most-at-a-time", type=int, help="calls of each worker that it works at")
    given = parser.parse_args()
    asyncio.run(serve(given.seconds, given.answer_bytes, given.most_at_a_time))


if __name__ == "__main__":
    main()
