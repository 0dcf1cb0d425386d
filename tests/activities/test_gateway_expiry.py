"""What goes of batches that have ended, and what must not: entries and rows in a folder, and nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from durabatch.activities.gateway.expiry import expire
from durabatch.activities.store import Store
from durabatch.contract.gateway_batch import BatchEntry, GatewayBatch, GatewayStatus, Intake, inner_id
from durabatch.contract.gateway_layout import Listed, idempotency_path_of, index_path, made_at_ms, make_id, retry_path
from durabatch.contract.gateway_limits import Keep

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
