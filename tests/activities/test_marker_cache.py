"""A listing is read anew only as far as it can have changed, and nothing that it shows is missed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from durabatch.activities.providers.marker_cache import Listed, MarkerCache

SETTLE = timedelta(seconds=60)


class Shown:
    """What a provider would list, and how much of it was read."""

    def __init__(self, *batches: tuple[float, str | None]) -> None:
        self.batches = list(batches)
        self.items_read = 0
        self.breaks_after: int | None = None

    async def __call__(self) -> AsyncIterator[Listed]:
        newest_first = sorted(self.batches, key=lambda batch: batch[0], reverse=True)
        for number, batch in enumerate(newest_first):
            if number == self.breaks_after:
                raise ConnectionError("in the middle of it")
            self.items_read += 1
            yield Listed(*batch)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


async def test_a_marker_is_shown_or_not() -> None:
    listing = MarkerCache(Shown((2000, "a/0/1"), (1990, None), (900, "old/0/1")), SETTLE)
    assert await listing.shows("a/0/1", at(1000))
    assert not await listing.shows("a/0/2", at(1000))
    assert not await listing.shows("old/0/1", at(1000))


async def test_only_what_may_be_new_is_read_again() -> None:
    shown = Shown(*((1000.0 + number, f"b/{number}/1") for number in range(1000)))
    listing = MarkerCache(shown, SETTLE)
    assert await listing.shows("b/0/1", at(1000))
    assert shown.items_read == 1000
    shown.items_read = 0
    shown.batches.append((2005, "new/0/1"))
    assert await listing.shows("new/0/1", at(1000))
    assert await listing.shows("b/0/1", at(1500))
    assert shown.items_read < 2 * 70


async def test_one_that_appears_late_is_seen() -> None:
    shown = Shown((1000, "a/0/1"), (2000, "b/0/1"))
    listing = MarkerCache(shown, SETTLE)
    assert not await listing.shows("late/0/1", at(900))
    shown.batches.append((1941, "late/0/1"))
    assert await listing.shows("late/0/1", at(900))


async def test_an_older_batch_of_ours_has_the_listing_read_further_back() -> None:
    shown = Shown((1000, "old/0/1"), (2000, "b/0/1"))
    listing = MarkerCache(shown, SETTLE)
    assert not await listing.shows("old/0/1", at(1500))
    assert await listing.shows("old/0/1", at(900))


async def test_a_plan_later_than_all_that_is_listed_leaves_no_hole() -> None:
    shown = Shown((1000, "a/0/1"))
    listing = MarkerCache(shown, SETTLE)
    assert not await listing.shows("none", at(900))
    shown.batches += [(3000, "b/0/1"), (9000, "c/0/1")]
    assert await listing.shows("c/0/1", at(8000))
    assert await listing.shows("b/0/1", at(2000))


async def test_what_may_still_appear_between_two_readings_is_not_taken_for_known() -> None:
    shown = Shown((1000, "a/0/1"), (5000, "b/0/1"))
    listing = MarkerCache(shown, timedelta(seconds=3000))
    assert not await listing.shows("none", at(4000))
    assert not await listing.shows("late/0/1", at(900))
    shown.batches.append((2500, "late/0/1"))  # within 3,000 s, as promised
    assert await listing.shows("late/0/1", at(900))


async def test_a_batch_dated_to_the_future_hides_none() -> None:
    now = time.time()
    shown = Shown((now + 10**6, "a/0/1"))
    listing = MarkerCache(shown, SETTLE)
    assert not await listing.shows("b/0/1", at(now - 1000))
    shown.batches.append((now, "b/0/1"))
    assert await listing.shows("b/0/1", at(now - 1000))


async def test_a_listing_that_breaks_off_is_read_again() -> None:
    shown = Shown((1000, "a/0/1"), (2000, "b/0/1"), (3000, "c/0/1"))
    listing = MarkerCache(shown, SETTLE)
    shown.breaks_after = 2
    with pytest.raises(ConnectionError):
        await listing.shows("a/0/1", at(900))
    shown.breaks_after = None
    assert await listing.shows("a/0/1", at(900))


async def test_an_account_without_batches_shows_none() -> None:
    listing = MarkerCache(Shown(), SETTLE)
    assert not await listing.shows("a/0/1", at(1000))
    assert not await listing.shows("a/0/1", at(1000))
