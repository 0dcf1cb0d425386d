"""Notes of creates: between a search and the create that relies on it no other create can be sent (promise G1)."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from moto.server import ThreadedMotoServer

from durabatch.activities.notes import AttemptNotes, notes_below
from durabatch.activities.store import Entry, Store
from durabatch.contract import AnswerLost, StoreError
from durabatch.contract.layout import SHARDS
from durabatch.contract.steps import Attempt, CreateAnswer

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return Store.open(str(tmp_path / "store"))
    server = request.getfixturevalue("s3_server")
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test-id",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{secrets.token_hex(6)}"
    httpx2.put(f"{server}/{bucket}").raise_for_status()
    return Store.open(f"s3://{bucket}/prefix")


def notes_in(store: Store, account: str = "acc") -> AttemptNotes:
    return AttemptNotes(
        store, Attempt(scoped_id="b", provider="p", root=store.uri("b"), shard=0, number=1, store="s"), account
    )


@pytest.fixture
def notes(store: Store) -> AttemptNotes:
    return notes_in(store)


async def names(store: Store) -> list[str]:
    return [path.rpartition("/")[2] for path, _ in await store.list()]


# --- the notes themselves ---


async def test_a_create_that_knows_of_all_others_gets_the_next_number(notes: AttemptNotes, store: Store) -> None:
    assert (await notes.read()).newest == 0
    assert not (await notes.read()).may_have_bought
    assert [await notes.write(FIRST + timedelta(hours=n), known=n, digest="d") for n in range(3)] == [1, 2, 3]
    found = await notes.read()
    assert (found.newest, found.at, found.account, found.may_have_bought) == (3, FIRST, "acc", True)
    assert await names(store) == ["intent", "intent-2", "intent-3"]


@pytest.mark.parametrize("known", [0, 1])
async def test_a_create_that_does_not_know_of_another_is_not_sent(
    notes: AttemptNotes, store: Store, known: int
) -> None:
    await notes.write(FIRST, 0, "d")
    await notes.write(FIRST, 1, "d")
    before = await names(store)
    with pytest.raises(AnswerLost, match="was begun since it was last looked for; this one was not sent"):
        await notes.write(FIRST, known, "d")
    assert await names(store) == before


async def test_a_note_of_another_account_counts_as_one_of_this(notes: AttemptNotes, store: Store) -> None:
    await store.write("b/shards/00000/attempt-1/intent", b"2026-01-01T00:00:00+00:00 another d")
    found = await notes.read()
    assert (found.newest, found.at, found.account) == (1, FIRST, "another")
    with pytest.raises(AnswerLost):
        await notes.write(FIRST, 0, "d")
    assert await notes.write(FIRST, 1, "d") == 2


@pytest.mark.parametrize(
    "text", [b"", b"2026-01", b"2026-01-01T00:00:00+00:00", b"2026-01-01T00:00:00+00:00 acc", b"\xff\xfe"]
)
async def test_a_note_that_was_cut_off_is_a_note_of_that_time(notes: AttemptNotes, store: Store, text: bytes) -> None:
    began = datetime.now(UTC) - timedelta(seconds=2)
    await store.write("b/shards/00000/attempt-1/intent", text)
    found = await notes.read()
    assert (found.newest, found.account) == (1, "acc")
    assert found.at is not None
    assert began <= found.at <= datetime.now(UTC) + timedelta(seconds=2)


async def test_what_else_lies_in_the_folder_is_no_note(notes: AttemptNotes, store: Store) -> None:
    for name in ("output.jsonl", "intent.bak", "intent-", "intent-x", "withdrawn", "deep/intent", "rows.json"):
        await store.write(f"b/shards/00000/attempt-1/{name}", b"")
    assert (await notes.read()).newest == 0
    for name in ("intent", "intent-2"):
        await store.write(f"b/shards/00000/attempt-2/{name}", b"")
    paths = [f"b/shards/00000/attempt-2/{name}" for name in ("intent", "intent-2")]
    assert await notes_below(store, "b", SHARDS) == paths
    assert await notes_below(store, "b", "shards/00000/attempt-1") == []


async def test_a_note_that_is_withdrawn_tells_of_no_purchase_and_keeps_its_number(
    notes: AttemptNotes, store: Store
) -> None:
    await notes.withdraw(await notes.write(FIRST, 0, "d"))
    found = await notes.read()
    assert (found.newest, found.may_have_bought) == (1, False)
    with pytest.raises(AnswerLost):
        await notes.write(FIRST, 0, "d")  # it comes late, and by now another may be on its way
    assert await notes.write(FIRST, 1, "d") == 2
    assert await names(store) == ["intent-2"]


async def test_the_earliest_note_that_stands_tells_since_when_to_search(notes: AttemptNotes) -> None:
    for n in range(3):
        await notes.write(FIRST + timedelta(hours=n), known=n, digest="d")
    await notes.withdraw(1)
    assert (await notes.read()).at == FIRST + timedelta(hours=1)
    await notes.withdraw(3)
    assert ((await notes.read()).at, (await notes.read()).newest) == (FIRST + timedelta(hours=1), 3)


async def test_an_outage_leaves_no_pile_of_notes_and_every_create_gets_through(
    notes: AttemptNotes, store: Store
) -> None:
    for _ in range(20):
        known = (await notes.read()).newest
        await notes.withdraw(await notes.write(FIRST, known, "d"))
    assert (await notes.read()).newest == 20
    assert await names(store) == ["withdrawn-20"]


class Overtaken(Store):
    """A store in which others do something right after the next listing of it."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def entries(self, *arguments: Any) -> list[Entry]:
        found = await super().entries(*arguments)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return found


@pytest.mark.parametrize("further", [False, True])
async def test_a_number_that_is_free_again_is_given_to_nobody(tmp_path: Path, further: bool) -> None:
    mine, others = Overtaken.open(str(tmp_path)), notes_in(Store.open(str(tmp_path)))

    async def overtake() -> None:
        await others.withdraw(await others.write(FIRST, 0, "d"))
        if further:  # which clears away what is left of the first
            await others.write(FIRST, 1, "d")

    assert isinstance(mine, Overtaken)
    mine.meanwhile = overtake
    with pytest.raises(AnswerLost):
        await notes_in(mine).write(FIRST, 0, "d")
    assert (await others.read()).newest == (2 if further else 1)
    assert (await others.read()).may_have_bought is further


async def test_a_note_that_cannot_be_written_lets_no_create_through(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "store" / "b").write_text("A file is where the batch's folder should be.")
    with pytest.raises(StoreError):
        await notes_in(store).write(FIRST, 0, "d")


RACER = """
import asyncio, sys
from datetime import UTC, datetime
from durabatch.activities.notes import AttemptNotes
from durabatch.activities.store import Entry, Store
from durabatch.contract import AnswerLost
from durabatch.contract.layout import SHARDS
from durabatch.contract.steps import Attempt

async def race():
    store = Store.open(sys.argv[1])
    sys.stdin.readline()
    for shard in range(30):
        attempt = Attempt(scoped_id="b", provider="p", root=store.uri("b"), shard=shard, number=1, store="s")
        notes = AttemptNotes(store, attempt, "acc")
        for known in range(3):
            try:
                print(shard, await notes.write(datetime.now(UTC), known, "d"))
            except AnswerLost:
                pass

asyncio.run(race())
"""


def test_of_processes_that_race_for_a_number_one_gets_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACER, str(tmp_path)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [line for racer in racers for line in racer.communicate()[0].splitlines()]
    assert len(won) == len(set(won))  # none was given out twice
    assert {int(line.split()[0]) for line in won} == set(range(30))


async def test_whatever_others_do_meanwhile_two_creates_never_rely_on_the_same_search(tmp_path: Path) -> None:
    """Any order of notes, refusals and delays: of the creates that are sent, each knew of all those before it."""
    store = Store.open(str(tmp_path))
    sent: list[int] = []

    async def run(seed: int) -> None:
        notes = notes_in(store)
        for turn in range(12):
            known = (await notes.read()).newest
            await asyncio.sleep((seed * 7 + turn * 3) % 5 / 1000)
            try:
                number = await notes.write(FIRST, known, "d")
            except AnswerLost:
                continue
            # Nobody who searched before this note may send after it.
            assert number == known + 1
            sent.append(number)
            if (seed + turn) % 3:
                await notes.withdraw(number)

    await asyncio.gather(*(run(seed) for seed in range(8)))
    assert sent
    assert len(sent) == len(set(sent))
    assert (await notes_in(store).read()).newest == max(sent)


# --- the steps ---


@pytest.fixture(params=["gpt", "claude"])
async def planned(request: pytest.FixtureRequest, desk: Any) -> Any:
    """A batch of three rows at either provider."""
    if request.param == "gpt":
        await desk.plan(*(desk.chat(f"r-{n}") for n in range(3)))
    else:
        body = {"max_tokens": 5, "messages": [{"role": "user", "content": "Hi."}]}
        rows = ({"custom_id": f"r-{n}", "params": {"model": "claude-haiku-4-5", **body}} for n in range(3))
        await desk.plan(*rows, provider="claude")
    return desk


async def creates(desk: Any) -> int:
    return int((await desk.sandbox.books(summary=True))["requests"].get("batches.create", 0))


async def test_a_create_that_is_started_again_after_its_search_is_not_sent(planned: Any) -> None:
    """As by a reset to the task between the two, or by `temporal activity unpause` and `reset`."""
    found = await planned.find()
    uploaded = await planned.upload()
    created = await planned.create(uploaded, noted=found.noted)
    assert (found.noted, created.answer) == (0, CreateAnswer.CREATED)

    again = await planned.create(uploaded, noted=found.noted)

    assert (again.answer, again.code, again.batch) == (CreateAnswer.LOST, "answer_lost", None)
    assert "this one was not sent" in (again.reason or "")
    assert await creates(planned) == 1
    found = await planned.find()
    assert (found.noted, found.standing) == (1, 1)
    assert found.batch is not None and found.batch.id == created.batch.id


async def test_of_creates_at_once_that_rely_on_the_same_search_one_is_sent(planned: Any) -> None:
    uploaded = await planned.upload()
    answers = [one.answer for one in await asyncio.gather(*(planned.create(uploaded, noted=0) for _ in range(6)))]
    assert sorted(answers) == [CreateAnswer.CREATED, *[CreateAnswer.LOST] * 5]
    assert await creates(planned) == len((await planned.sandbox.books())["batches"]) == 1


async def test_what_is_noted_while_the_provider_is_searched_is_not_known(planned: Any) -> None:
    uploaded = await planned.upload()
    await planned.create(uploaded, noted=0)  # so that there is a search at either provider
    fault = await planned.sandbox.fault("batches.list", "hold_before", times=1)
    search = asyncio.create_task(planned.find(sent=True))
    while not any(one["waiting"] for one in await planned.sandbox.faults()):
        await asyncio.sleep(0.01)
    await planned.create(uploaded, noted=1)  # by another run, while the listing is on its way
    await planned.sandbox.clear(fault["id"])
    found = await search
    assert found.noted == 1
    assert (await planned.create(uploaded, noted=found.noted)).answer is CreateAnswer.LOST


@pytest.mark.parametrize("status", [400, 401, 404, 429])
async def test_a_create_that_was_refused_may_be_tried_again_and_one_that_comes_late_may_not(
    planned: Any, status: int
) -> None:
    uploaded = await planned.upload()
    await planned.sandbox.fault("batches.create", "status", status=status, times=1)
    refused = await planned.create(uploaded, noted=0)
    assert refused.answer in (CreateAnswer.REFUSED, CreateAnswer.DEFERRED)
    found = await planned.find()
    assert (found.batch, found.standing, found.noted) == (None, 0, 1)
    assert (await planned.create(uploaded, noted=found.noted)).answer is CreateAnswer.CREATED
    assert (await planned.create(uploaded, noted=0)).answer is CreateAnswer.LOST
    assert len((await planned.sandbox.books())["batches"]) == 1


async def test_a_worker_that_stood_still_leaves_no_note_of_a_purchase(planned: Any) -> None:
    uploaded = await planned.upload()
    created = await planned.create(uploaded, noted=0, heartbeat_timeout=timedelta(0))
    assert (created.answer, created.code) == (CreateAnswer.DEFERRED, "provider_unavailable")
    found = await planned.find()
    assert (found.standing, await creates(planned)) == (0, 0)
