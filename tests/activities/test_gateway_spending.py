"""What a tenant's batches of a day may cost, counted in a store by any number of processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from durabatch.activities.gateway.spending import forget, reserve, settle
from durabatch.activities.gateway.tokens import UNBOUNDED, Tokens
from durabatch.activities.prices import PICO, Prices, dollars
from durabatch.activities.store import Store
from durabatch.contract.gateway_layout import spent_folder

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[Store]]:
    """The same store as two processes have it."""
    yield [Store.open(str(tmp_path / "store")) for _ in range(2)]


async def spent(store: Store, now: datetime = NOON) -> int:
    """Return the sum of a day, by its newest entry, which must be the sum of all of them."""
    paths = await store.page(spent_folder("search", now.date()), limit=1000)
    entries = [json.loads(await store.read(path)) for path in paths]
    total = sum(entry["amount"] for entry in entries)
    assert (entries[0]["total"] if entries else 0) == total
    assert len({entry["key"] for entry in entries}) == len(entries)
    return total


def test_rows_of_anthropics_are_counted_by_their_own_limit() -> None:
    tokens = Tokens("/v1/messages")
    tokens.add(b'{"custom_id":"a","params":{"model":"m","max_tokens":77,"messages":[]}}')
    tokens.add(b'{"custom_id":"b","params":{"model":"m"}}')
    assert tokens.output == {"m": 77 + UNBOUNDED} and tokens.input["m"] > 0


async def test_of_many_at_once_only_those_are_taken_that_the_day_has_room_for(stores: list[Store]) -> None:
    asked = [reserve(stores[n % 2], "search", f"batch_{n}", 10, 75, NOON) for n in range(20)]
    refused = [found for found in await asyncio.gather(*asked) if found is not None]
    assert len(refused) == 13 and set(refused) == {70}
    assert await spent(stores[0]) == 70
    assert await reserve(stores[0], "ads", "batch_x", 75, 75, NOON) is None  # another tenant's day
    assert await reserve(stores[0], "search", "batch_x", 75, 75, NOON + DAY) is None


async def test_a_batch_is_counted_once_however_often_it_is_asked_for(stores: list[Store]) -> None:
    store = stores[0]
    await reserve(store, "search", "batch_0", 5, 100, NOON)
    await asyncio.gather(*(reserve(stores[n % 2], "search", "batch_1", 10, 100, NOON) for n in range(12)))
    await reserve(store, "search", "batch_2", 20, 100, NOON)
    assert await reserve(store, "search", "batch_1", 10, 100, NOON + DAY) is None  # a reset, a day later
    assert (await spent(store), await spent(store, NOON + DAY)) == (35, 0)


async def test_a_batch_that_has_ended_is_counted_by_what_it_cost(stores: list[Store]) -> None:
    store = stores[0]
    await reserve(store, "search", "batch_1", 60, 100, NOON)
    assert await reserve(store, "search", "batch_2", 60, 100, NOON) == 60
    await asyncio.gather(*(settle(one, "search", "batch_1", 7) for one in stores * 3))
    await settle(store, "search", "batch_2", 5)  # it was refused, and counts nothing
    assert await spent(store) == 7
    assert await reserve(store, "search", "batch_2", 60, 100, NOON) is None
    await settle(store, "search", "batch_2", 60)
    assert await spent(store) == 67
    await forget(store, "search", "batch_1")
    await settle(store, "search", "batch_1", 7)
    assert await spent(store) == 67


async def test_a_process_that_is_killed_between_its_note_and_its_entry_is_gone_on_with(stores: list[Store]) -> None:
    store = stores[0]
    await reserve(store, "search", "batch_0", 5, 100, NOON)
    await reserve(store, "search", "batch_1", 10, 100, NOON)
    (newest, *_) = await store.page(spent_folder("search", NOON.date()), limit=1)
    await store.delete(newest)  # as if it had not been written
    await settle(store, "search", "batch_1", 3)
    assert await spent(store) == 5
    await reserve(store, "search", "batch_2", 10, 100, NOON)
    assert await reserve(store, "search", "batch_1", 10, 100, NOON) is None
    assert await spent(store) == 25


def test_a_batchs_cost_is_bounded_by_its_input_and_by_what_each_row_allows() -> None:
    prices = Prices("openai", 0.5)

    def cost(*bodies: dict[str, object], endpoint: str = "/v1/chat/completions") -> int | str:
        tokens = Tokens(endpoint)
        for body in bodies:
            tokens.add(json.dumps({"custom_id": "a", "body": {"model": "gpt-4o-mini", **body}}).encode())
        return tokens.cost(prices)

    capped, twice, unbounded, odd = (
        cost({"max_tokens": 1_000_000}),
        cost({"max_completion_tokens": 1_000_000, "n": 2}),
        cost({}),
        cost({"max_tokens": "many"}),
    )
    assert isinstance(capped, int) and isinstance(twice, int) and isinstance(unbounded, int)
    assert 0.6 * PICO <= capped <= 0.601 * PICO and 1.2 * PICO <= twice <= 1.201 * PICO  # 0.60 USD a million
    assert 0.6 * UNBOUNDED * 10**6 <= unbounded <= 0.61 * UNBOUNDED * 10**6 and isinstance(odd, int)
    assert odd >= unbounded
    assert cost({"model": "nobodys-model"}) == "nobodys-model"
    huge = cost({"max_tokens": 10**4000, "n": 10**4000})  # as many digits as JSON may have
    assert isinstance(huge, int) and len(dollars(huge)) < 30 and huge > 10**6 * twice
    nested = Tokens("/v1/chat/completions")
    nested.add(b'{"custom_id": "a", "body": {"model": "m", "max_tokens": [%b1], "n": {}}}' % (b"[]," * 1000))
    assert nested.output == {"m": UNBOUNDED}
    claude = Tokens("/v1/messages")
    claude.add(json.dumps({"custom_id": "a", "params": {"model": "claude-haiku-4-5", "max_tokens": 10}}).encode())
    assert claude.output == {"claude-haiku-4-5": 10}
    embedded = cost({"model": "text-embedding-3-small"}, endpoint="/v1/embeddings")
    assert isinstance(embedded, int) and embedded < 10**7
