"""What goes of batches that have ended, and what must not: entries and rows in a folder, and nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from durabatch.activities.gateway.collecting import collect
from durabatch.activities.gateway.expiry import expire, is_needed, note_end
from durabatch.activities.store import Store
from durabatch.contract.gateway_batch import (
    OUTPUT_FAILED,
    BatchEntry,
    ErrorList,
    GatewayBatch,
    GatewayStatus,
    Intake,
    LineError,
    inner_id,
)
from durabatch.contract.gateway_layout import (
    DUE,
    Listed,
    content_path,
    due_path,
    idempotency_path_of,
    index_path,
    made_at_ms,
    make_id,
    parse_due_path,
    retry_path,
)
from durabatch.contract.gateway_limits import Keep
from durabatch.contract.webhooks import Delivery, event_id

TENANT = "search"
NOW = datetime(2026, 7, 31, 12, tzinfo=UTC)
AT_ONCE, LONG = timedelta(0), timedelta(days=99)
ALL, ROWS = Keep(AT_ONCE, AT_ONCE), Keep(AT_ONCE, LONG)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def order(days_ago: float, **fields: Any) -> GatewayBatch:
    id = make_id(Listed.BATCHES, NOW - timedelta(days=days_ago), "0" * 13)
    created_at = made_at_ms(id) // 1000
    return GatewayBatch(
        **{"tenant": TENANT, "id": id, "input_file_id": "f", "endpoint": "/", "created_at": created_at, **fields}
    )


async def note(store: Store, batch: GatewayBatch, **entry: Any) -> None:
    data = BatchEntry(request=batch, **entry).model_dump_json().encode()
    await store.write(index_path(TENANT, batch.id), data)


async def end(store: Store, batch: GatewayBatch) -> str:
    """Note that a batch has run and ended; return the path of its results."""
    done = {"status": GatewayStatus.COMPLETED, "completed_at": batch.created_at}
    final = batch.beginning().model_copy(update=done)
    await note(store, batch, intake=Intake(rows=1), final=final, published=True)
    path = f"{inner_id(TENANT, batch.id)}/results.jsonl"
    await store.write(path, b"{}\n")
    return path


async def there(store: Store, *paths: str) -> list[bool]:
    return [await store.entry(path) is not None for path in paths]


async def test_what_a_retry_has_left_over_stays_until_the_next_one_has_read_it(store: Store) -> None:
    batch = order(9)
    first = order(8, retry_of=batch.id, left_by=batch.id)
    second = order(7, retry_of=batch.id, left_by=first.id)
    for number, retry in enumerate((first, second), 1):
        await store.write(retry_path(TENANT, batch.id, number), retry.model_dump_json().encode())
    await note(store, second)  # no worker has looked at it yet
    rows = await end(store, first)
    for keep in (ROWS, ALL):
        assert await expire(store, TENANT, first.id, keep, NOW) == NOW.date() + timedelta(days=1)
        assert await there(store, rows, index_path(TENANT, first.id)) == [True, True]
    await note(store, second, intake=Intake(rows=1))
    await expire(store, TENANT, first.id, ROWS, NOW)
    assert await there(store, rows, index_path(TENANT, first.id)) == [False, True]


async def test_a_batch_that_is_about_to_end_is_looked_at_again(store: Store) -> None:
    batch = order(0)
    await note(store, batch, intake=Intake(rows=1))
    await note_end(store, TENANT, batch.id)
    await collect(store, ALL)  # between the note and the entry that says how it has ended
    today = datetime.now(UTC).date()
    days = [due[0] for path, _ in await store.list(DUE) if (due := parse_due_path(path))]
    assert days and days[0] > today
    await end(store, batch)
    await expire(store, TENANT, batch.id, ALL, datetime.now(UTC))
    assert await there(store, index_path(TENANT, batch.id)) == [False]


async def test_rows_whose_output_could_not_be_written_stay_until_it_is(store: Store) -> None:
    batch = order(9)
    rows = await end(store, batch)
    failed = {"status": GatewayStatus.FAILED, "failed_at": batch.created_at}
    why = ErrorList(data=(LineError(code=OUTPUT_FAILED, message="…"),))
    final = batch.beginning().model_copy(update={**failed, "errors": why})
    await note(store, batch, intake=Intake(rows=1), final=final)
    assert await expire(store, TENANT, batch.id, Keep(AT_ONCE, None), NOW) is None
    assert await there(store, rows) == [True] and await is_needed(store, TENANT, batch.id)
    await end(store, batch)
    assert not await is_needed(store, TENANT, batch.id)
    await expire(store, TENANT, batch.id, ROWS, NOW)
    assert await there(store, rows) == [False]


async def test_events_go_with_their_batch_and_others_stay(store: Store) -> None:
    batch, other = order(9), order(8)
    same_time = order(9, id=f"{batch.id[:-1]}1")
    events = []
    for one in (batch, same_time, other):
        await end(store, one)
        for number in range(30):
            id = event_id(TENANT, f"hook-{number}", one.id, "batch.completed")
            delivery = Delivery(
                id=id, endpoint="hook", type="batch.completed", batch_id=one.id, created_at=0, queued_ms=0, next_ms=0
            )
            await store.write(index_path(TENANT, id), delivery.model_dump_json().encode())
            events.append(id)
    await expire(store, TENANT, batch.id, ALL, NOW)
    left = [path.rpartition("-")[2] for path, _ in await store.list(f"~gateway/{TENANT}/{Listed.EVENTS}")]
    assert sorted(left) == sorted(id.rpartition("-")[2] for id in events[30:])


async def test_one_that_is_damaged_keeps_none_of_the_others(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    damaged, sound = order(9), order(8)
    for batch in (damaged, sound):
        await end(store, batch)
        await note_end(store, TENANT, batch.id)
    await store.write(retry_path(TENANT, damaged.id, 1), b"{")
    await store.write(f"{DUE}/2026-02-31/{TENANT}/{damaged.id}", b"")  # no day of the calendar
    assert (await collect(store, ALL)).batches == 1
    assert await there(store, index_path(TENANT, damaged.id), index_path(TENANT, sound.id)) == [True, False]
    assert f"{damaged.id} of the tenant {TENANT} could not be removed" in caplog.text


async def test_a_file_that_is_being_registered_is_not_taken_for_a_broken_upload(store: Store) -> None:
    now = datetime.now(UTC)
    young, old = [make_id(Listed.FILES, now - timedelta(days=days), "0" * 13) for days in (0, 8)]
    for id in (young, old):
        await store.write(content_path(TENANT, id), b"{}")
        await store.write(due_path(now.date(), TENANT, id), b"")
    assert (await collect(store)).files == 1
    assert await there(store, content_path(TENANT, young), content_path(TENANT, old)) == [True, False]


async def test_the_retries_of_a_batch_go_after_it_one_by_one_and_know_each_other_until_the_last(store: Store) -> None:
    batch = order(9)
    retries = [order(8 - number, retry_of=batch.id, left_by=batch.id) for number in range(2)]
    for number, retry in enumerate(retries, 1):
        await store.write(retry_path(TENANT, batch.id, number), retry.model_dump_json().encode())
    for one in (batch, *retries):
        await end(store, one)
    orders = [retry_path(TENANT, batch.id, number) for number in (1, 2)]
    for removed, one in enumerate((batch, *retries)):
        for later in (batch, *retries)[removed + 1 :]:
            assert await expire(store, TENANT, later.id, ALL, NOW) == NOW.date() + timedelta(days=1)
        assert await there(store, *orders) == [True, True]
        assert await expire(store, TENANT, one.id, ALL, NOW) is None
    assert await store.list("") == []


async def test_a_retry_is_listed_for_as_long_as_its_batch_is(store: Store) -> None:
    batch = order(9)
    retry = order(8, retry_of=batch.id, left_by=batch.id)
    await store.write(retry_path(TENANT, batch.id, 1), retry.model_dump_json().encode())
    for one in (batch, retry):
        await end(store, one)
    # Without its entry, the next retry would run what it has run already.
    assert await expire(store, TENANT, retry.id, ALL, NOW) == NOW.date() + timedelta(days=1)
    assert await there(store, index_path(TENANT, retry.id)) == [True]
    for one in (batch, retry):
        assert await expire(store, TENANT, one.id, ALL, NOW) is None
    assert await store.list("") == []


@pytest.mark.parametrize(("names", "stays"), [("its own", False), ("the next one", True)])
async def test_an_idempotency_key_that_names_another_batch_by_now_stays(store: Store, names: str, stays: bool) -> None:
    batch, next_one = order(9, idempotency="d1"), order(0)
    path = idempotency_path_of(TENANT, "d1")
    named = batch.id if names == "its own" else next_one.id
    await store.write(path, json.dumps({"id": named, "fingerprint": "f"}).encode())
    await end(store, batch)
    await expire(store, TENANT, batch.id, ALL, NOW)
    assert await there(store, path, index_path(TENANT, batch.id)) == [stays, False]
