"""Events on their way to a tenant's webhook: over real HTTP, from a real store, in Temporal's ActivityEnvironment."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from temporalio.testing import ActivityEnvironment

from durabatch.activities.resources import Resources
from durabatch.activities.store import Store
from durabatch.activities.webhooks.announce import queue_events
from durabatch.activities.webhooks.deliver import DeliverWebhooks
from durabatch.activities.webhooks.endpoint import Endpoint
from durabatch.activities.webhooks.outcome import Outcome
from durabatch.activities.webhooks.queue import DeliveryQueue, now_ms, read_delivery
from durabatch.activities.webhooks.schedule import BREAKER, DAY_MS
from durabatch.activities.webhooks.sending import open_session, send
from durabatch.contract.gateway_batch import BatchObject, GatewayStatus
from durabatch.contract.gateway_layout import Listed, delivery_folder, delivery_path, index_path, make_id
from durabatch.contract.webhooks import EVENTS, DeliverAnswer, DeliverRequest, Delivery, DeliveryStatus, EndpointState
from support.webhooks import SECRET, Message, Receiver, receiving

PRIVATE = "Its address is not one of the internet, and allow_private is not set."
STARTED = datetime.now(UTC)


class Post:
    """One endpoint of the tenant `search`, and the step that delivers to it."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        self.store = Store.open(str(folder / "store"))
        self.receiver = receiver
        self.endpoint = Endpoint(
            tenant="search",
            name="hook",
            url=f"{receiver.url}/in?token=t",
            secret=SECRET,
            events=EVENTS,
            allow_private=True,
        )
        self.endpoints = [self.endpoint]
        self.queue = DeliveryQueue(self.store, "search", "hook")

    async def ended(self, number: int = 0, status: str = "completed") -> Delivery:
        """Have a batch end, and return its event."""
        batch = BatchObject(
            id=make_id(Listed.BATCHES, STARTED + timedelta(seconds=number), hashlib.sha256(bytes(number)).hexdigest()),
            endpoint="/v1/chat/completions",
            input_file_id="file-1",
            completion_window="24h",
            created_at=1,
            status=GatewayStatus(status),
            completed_at=7,
        )
        await queue_events(self.store, self.endpoints, "search", batch)
        found = await self.known()
        return next(one for one in found if one.batch_id == batch.id)

    async def deliver(self) -> DeliverAnswer:
        resources = Resources(self.store, lambda name: pytest.fail(name), webhooks=self.endpoints)
        request = DeliverRequest(tenant="search", endpoint="hook")
        answer: DeliverAnswer = await ActivityEnvironment().run(DeliverWebhooks(resources).deliver, request)
        return answer

    async def known(self) -> list[Delivery]:
        ids = [path.rpartition("/")[2][12:] for path in await self.store.page("~gateway/search/index-events", limit=99)]
        return [one for id in ids if (one := await read_delivery(self.store, "search", id))]

    async def of(self, delivery: Delivery) -> Delivery:
        found = await read_delivery(self.store, "search", delivery.id)
        assert found is not None
        return found

    async def due(self) -> list[str]:
        return await self.store.page(delivery_folder("search", "hook"), limit=99)


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    async with receiving() as receiver:
        yield Post(tmp_path, receiver)


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
async def test_an_event_is_one_that_openais_client_takes(post: Post, status: str) -> None:
    event = await post.ended(status=status)
    assert (await post.deliver()).next_at is None
    (message,) = post.receiver.messages
    told = message.unwrapped()
    assert (told.id, told.type, told.data.id) == (event.id, f"batch.{status}", event.batch_id)
    assert (message.id, message.path, told.created_at) == (event.id, "/in?token=t", 7)
    assert ((await post.of(event)).status, await post.due()) == (DeliveryStatus.DELIVERED, [])


async def test_an_end_that_is_announced_again_makes_no_second_event(post: Post) -> None:
    event = await post.ended()
    for path in await post.due():  # as if the worker had been killed before it wrote this
        await post.store.delete(path)
    assert await post.ended() == event
    await post.deliver()
    assert (await post.ended()).status is DeliveryStatus.DELIVERED
    await post.deliver()
    assert len(post.receiver.messages) == 1


async def test_only_the_events_that_an_endpoint_wants_are_sent_and_only_its_tenants(post: Post) -> None:
    other = Endpoint(**{**vars(post.endpoint), "name": "failures", "events": ("batch.failed",)})
    stranger = Endpoint(**{**vars(post.endpoint), "tenant": "ads"})
    post.endpoints = [post.endpoint, other, stranger]
    await post.ended()
    await post.ended(status="failed")
    assert sorted((one.endpoint, one.type) for one in await post.known()) == [
        ("failures", "batch.failed"),
        ("hook", "batch.completed"),
        ("hook", "batch.failed"),
    ]
    assert len({one.id for one in await post.known()}) == 3
    assert await post.store.page("~gateway/ads", limit=9) == []


async def test_an_attempt_that_fails_is_made_again_later_under_the_same_id(post: Post) -> None:
    event = await post.ended()
    post.receiver.answers = lambda message: 503
    next_at = (await post.deliver()).next_at
    waiting = await post.of(event)
    assert next_at is not None and int(next_at.timestamp() * 1000) == waiting.next_ms > event.next_ms
    assert (waiting.attempts, waiting.response_status) == (len(post.receiver.messages), 503)
    assert waiting.error == "It answered 503."
    await post.queue.put(waiting, waiting := waiting.model_copy(update={"next_ms": now_ms() + 3_600_000}))
    assert (await post.deliver()).next_at == datetime.fromtimestamp(waiting.next_ms / 1000, UTC)
    assert waiting.attempts == len(post.receiver.messages)
    post.receiver.answers = lambda message: 200
    await post.queue.requeue(waiting)
    assert (await post.deliver()).next_at is None
    first, *_, second = post.receiver.messages
    assert (first.id, first.body) == (second.id, second.body)
    assert ((await post.of(event)).attempts, await post.queue.state()) == (1, EndpointState())


async def test_ten_failures_in_a_row_end_the_attempts_until_one_is_delivered(post: Post) -> None:
    events = [await post.ended(number) for number in range(14)]
    post.receiver.answers = lambda message: 500
    next_at = (await post.deliver()).next_at
    state = await post.queue.state()
    assert len(post.receiver.messages) == BREAKER == state.failures
    assert next_at is not None and int(next_at.timestamp() * 1000) == state.probe_ms
    await post.queue.note(state.model_copy(update={"probe_ms": 1}))  # the pause is over
    await post.deliver()
    assert len(post.receiver.messages) == BREAKER + 1
    assert (await post.queue.state()).probe_ms > now_ms()
    post.receiver.answers = lambda message: 200
    await post.queue.note(state.model_copy(update={"probe_ms": 1}))
    await post.deliver()
    assert await post.queue.state() == EndpointState()
    untried = {event.id for event in events} - {message.id for message in post.receiver.messages[:BREAKER]}
    assert {message.id for message in post.receiver.messages[BREAKER:]} >= untried


async def test_an_endpoint_that_says_gone_is_left_alone_until_it_is_enabled(post: Post) -> None:
    event = await post.ended()
    post.receiver.answers = lambda message: 410
    assert (await post.deliver()).next_at is None
    await post.ended(1)
    assert (await post.deliver()).next_at is None
    assert (len(post.receiver.messages), (await post.queue.state()).disabled) == (1, True)
    post.receiver.answers = lambda message: 200
    await post.queue.note(EndpointState())
    await post.queue.requeue(await post.of(event))
    assert (await post.deliver()).next_at is None
    assert {one.status for one in await post.known()} == {DeliveryStatus.DELIVERED}


async def test_an_event_whose_day_is_over_is_given_up_and_can_be_sent_by_hand(post: Post) -> None:
    event = await post.ended()
    old = event.model_copy(update={"queued_ms": event.queued_ms - DAY_MS - 1})
    await post.queue.put(event, old)
    assert (await post.deliver()).next_at is None
    given_up = await post.of(event)
    assert (given_up.status, post.receiver.messages, await post.due()) == (DeliveryStatus.FAILED, [], [])
    await post.queue.requeue(given_up)
    await post.deliver()
    assert [message.id for message in post.receiver.messages] == [event.id]


async def test_names_that_a_killed_worker_has_left_are_cleared_away(post: Post) -> None:
    event = await post.ended()
    later = event.model_copy(update={"next_ms": event.next_ms - 100_000})
    await post.store.write(delivery_path("search", "hook", later.next_ms, event.id), b"")
    await post.store.write(delivery_path("search", "hook", 1, f"evt_{0:024x}"), b"")
    await post.store.write(f"{delivery_folder('search', 'hook')}/0-what", b"")
    assert (await post.deliver()).next_at is None
    assert (len(post.receiver.messages), await post.due()) == (1, [])


async def test_an_event_is_not_lost_that_is_queued_while_the_step_looks_for_what_is_due(post: Post) -> None:
    event = await post.ended()
    await post.deliver()
    delivered = await post.of(event)
    # As `requeue` does, stopped between its two writes while the step looks.
    again = delivered.model_copy(update={"status": DeliveryStatus.PENDING, "next_ms": now_ms()})
    await post.store.write(delivery_path("search", "hook", again.next_ms, event.id), b"")
    next_at = (await post.deliver()).next_at
    assert next_at is not None and len(post.receiver.messages) == 1
    await post.store.write(index_path("search", event.id), again.model_dump_json().encode())
    assert (await post.deliver()).next_at is None
    assert [message.id for message in post.receiver.messages] == [event.id, event.id]
    assert ((await post.of(event)).status, await post.due()) == (DeliveryStatus.DELIVERED, [])


async def test_a_webhook_that_is_not_configured_any_more_or_has_no_secret_says_so(post: Post) -> None:
    event = await post.ended()
    post.endpoints = [Endpoint(**{**vars(post.endpoint), "secret": None})]
    await post.deliver()
    said = (await post.of(event)).error or ""  # its tenant sees it, and where the secret is kept is the operator's
    assert said.startswith("Its secret is not set where the worker runs") and "HOOK" not in said
    post.endpoints = []
    await post.queue.requeue(event)
    await post.deliver()
    assert (await post.of(event)).error == "No webhook of this name is configured where the worker runs."
    assert post.receiver.messages == []


# --- one attempt ---


async def attempt(receiver: Receiver, **changes: Any) -> Outcome:
    """Send one event to a receiver, as to an endpoint that may not be in a private network."""
    fields = {"tenant": "search", "name": "hook", "url": receiver.url, "secret": SECRET}
    endpoint = Endpoint(**{**fields, "events": EVENTS, **changes})
    event = Delivery(
        id=f"evt_{1:024x}", endpoint="hook", type=EVENTS[0], batch_id="b", created_at=1, queued_ms=1, next_ms=1
    )
    async with open_session(endpoint) as session:
        return await send(session, endpoint, event)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"])
async def test_no_name_and_no_literal_leads_to_this_machine(host: str) -> None:
    async with receiving() as receiver:
        port = receiver.url.rpartition(":")[2]
        for scheme in ("http", "https"):
            outcome = await attempt(receiver, url=f"{scheme}://{host}:{port}/")
            assert outcome == Outcome(error=PRIVATE)
        assert receiver.messages == []


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f000001", "0177.0.0.1"])
async def test_a_number_that_is_read_as_an_address_of_this_machine_is_refused(host: str) -> None:
    async with receiving() as receiver:
        outcome = await attempt(receiver, url=f"http://{host}:{receiver.url.rpartition(':')[2]}/")
        assert outcome.error is not None and receiver.messages == []


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with receiving() as receiver:
        receiver.answers = lambda message: web.Response(status=307, headers={"location": f"{receiver.url}/secret"})
        outcome = await attempt(receiver, allow_private=True)
        assert outcome == Outcome(307, "It answered 307: redirects are not followed.")
        assert [message.path for message in receiver.messages] == ["/"]


async def test_an_answer_is_not_read_beyond_its_status() -> None:
    received = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
        except OSError:
            received.set()  # the connection was closed
        finally:
            writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    assert await attempt(Receiver(), url=url, allow_private=True) == Outcome(200)
    await received.wait()
    server.close()
    await server.wait_closed()


FAULTS = [
    (b"", "The connection broke off."),
    (b"SSH-2.0-OpenSSH\r\n\r\n", "The connection broke off."),
    (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000 + b"\r\n\r\n", "The connection broke off."),
]


@pytest.mark.parametrize(("answer", "error"), FAULTS)
async def test_what_is_no_answer_is_a_failure_in_our_own_words(answer: bytes, error: str) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await attempt(Receiver(), url=f"http://127.0.0.1:{port}/?t=t", allow_private=True) == Outcome(error=error)
    server.close()
    await server.wait_closed()
    refused = await attempt(Receiver(), url=f"http://127.0.0.1:{port}/?t=t", allow_private=True)
    assert refused == Outcome(error="It cannot be connected to.")
    unknown = await attempt(Receiver(), url="https://nobody.invalid/?t=t")
    assert unknown == Outcome(error="Its name cannot be resolved.")


async def test_what_is_sent_is_signed_anew_at_each_attempt() -> None:
    async with receiving() as receiver:
        kept: list[Message] = receiver.messages
        for _ in range(2):
            assert (await attempt(receiver, allow_private=True)).delivered
        assert {message.unwrapped().type for message in kept} == {"batch.completed"}
        assert all(abs(int(message.headers["webhook-timestamp"]) - now_ms() // 1000) < 300 for message in kept)
