"""Whose turn is next in an account's queue: decisions over values, without Temporal."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic_core import to_json

from durabatch.contract.ledger import PAGE, Reservation, page
from durabatch.contract.names import batch_of
from durabatch.workflows.queue import Queue

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def reservation(holder: str, tokens: int = 10, minute: int = 0, **fields: Any) -> Reservation:
    return Reservation(
        holder=f"{holder}/0/1",
        workflow_id=holder,
        tokens=tokens,
        since=NOON + timedelta(minutes=minute),
        **fields,
    )


def names(reservations: list[Reservation]) -> list[str]:
    return [one.workflow_id for one in reservations]


def asked(limit: int, *reservations: Reservation) -> Queue:
    queue = Queue(limit)
    for one in reservations:
        queue.reserve(one)
    return queue


def test_room_is_given_up_to_the_limit_and_not_beyond() -> None:
    queue = asked(30, reservation("a", 10), reservation("b", 20, 1), reservation("c", 1, 2))
    assert names(queue.grant()) == ["a", "b"]
    assert queue.in_use == 30
    assert names(queue.waiting) == ["c"]
    queue.release("a/0/1")
    assert names(queue.grant()) == ["c"]


def test_who_asked_first_comes_first_whatever_order_the_claims_arrive_in() -> None:
    queue = asked(10, reservation("late", 10, 5), reservation("early", 10, 1))
    assert names(queue.grant()) == ["early"]


def test_a_lower_priority_number_comes_first() -> None:
    queue = asked(
        10,
        reservation("usual", 10, 1),
        reservation("urgent", 10, 5, priority=1),
        reservation("idle", 10, 0, priority=5),
    )
    order = []
    while granted := queue.grant():
        order += names(granted)
        queue.release(granted[0].holder)
    assert order == ["urgent", "usual", "idle"]


def test_a_batch_with_many_shards_lets_others_have_their_turn() -> None:
    queue = Queue(20)
    for shard in range(4):
        since = NOON + timedelta(seconds=shard)
        queue.reserve(Reservation(holder=f"big/{shard}/1", workflow_id=f"big/shards/{shard}", tokens=10, since=since))
    queue.reserve(reservation("small", 10, 5))
    assert [one.holder for one in queue.grant()] == ["big/0/1", "small/0/1"]


def test_batches_with_one_fairness_key_share_one_turn() -> None:
    queue = asked(
        20,
        reservation("tenant-a-1", 10, 0, fairness_key="a"),
        reservation("tenant-a-2", 10, 1, fairness_key="a"),
        reservation("tenant-b-1", 10, 2, fairness_key="b"),
    )
    assert names(queue.grant()) == ["tenant-a-1", "tenant-b-1"]


def test_nobody_overtakes_a_large_one_whose_turn_it_is() -> None:
    queue = asked(30, reservation("first", 20))
    queue.grant()
    queue.reserve(reservation("large", 25, 1))
    queue.reserve(reservation("small", 5, 2))
    assert queue.grant() == []
    queue.release("first/0/1")
    assert names(queue.grant()) == ["large", "small"]


def test_one_that_is_larger_than_the_limit_goes_alone() -> None:
    queue = asked(30, reservation("huge", 500), reservation("small", 1, 1))
    assert names(queue.grant()) == ["huge"]
    assert queue.grant() == []
    queue.release("huge/0/1")
    assert names(queue.grant()) == ["small"]


def test_the_same_holder_asking_again_keeps_its_room_and_is_counted_once() -> None:
    queue = asked(30, reservation("a", 10))
    queue.grant()
    queue.reserve(reservation("a", 10, 9))
    assert queue.in_use == 10
    assert queue.grant() == []
    assert queue.place("a/0/1").granted


def test_one_that_waits_and_asks_again_keeps_its_place() -> None:
    queue = asked(10, reservation("holder", 10))
    queue.grant()
    for one in (reservation("a", 10, 1), reservation("b", 10, 2), reservation("a", 10, 1)):
        queue.reserve(one)
    assert names(queue.waiting) == ["a", "b"]
    assert queue.place("b/0/1").ahead == 1


def test_what_the_provider_has_already_is_counted_whatever_the_limit() -> None:
    queue = asked(10, reservation("a", 10))
    queue.grant()
    queue.reserve(reservation("found", 25, 1, held=True))
    assert queue.in_use == 35
    assert queue.place("found/0/1").granted


def test_what_a_workflow_never_gave_back_is_free_when_its_next_attempt_asks() -> None:
    queue = asked(10, reservation("a", 10))
    queue.grant()
    second = reservation("a", 6, 5).model_copy(update={"holder": "a/0/2"})
    queue.reserve(second)
    assert names(queue.grant()) == ["a"]
    assert (queue.in_use, queue.place("a/0/1").granted, queue.place("a/0/2").granted) == (6, False, True)
    queue.reserve(reservation("a", 10))  # the workflow was reset, and the first attempt is under way again
    assert names(queue.grant()) == ["a"]
    assert (queue.in_use, queue.place("a/0/1").granted, queue.place("a/0/2").granted) == (10, True, False)


def test_what_is_adopted_is_carried_in_a_page_at_most() -> None:
    queue = asked(10)
    for number in range(1000):
        queue.reserve(reservation(f"found-{number}", 1, held=True))
    assert 200 < len(queue.holding) < 1000
    assert len(to_json(queue.holding)) <= 64 * 1024
    for number in range(1000):
        queue.release(f"found-{number}/0/1")
    assert queue.empty


def test_giving_back_what_nobody_has_changes_nothing() -> None:
    queue = asked(10, reservation("a", 10))
    queue.release("b/0/1")
    assert names(queue.grant()) == ["a"]


def test_a_lowered_limit_gives_nothing_out_before_there_is_room_again() -> None:
    queue = asked(30, reservation("a", 15), reservation("b", 15, 1), reservation("c", 5, 2))
    queue.grant()
    queue.limit = 10
    queue.release("a/0/1")
    assert queue.grant() == []
    queue.release("b/0/1")
    assert names(queue.grant()) == ["c"]


def test_what_is_carried_to_a_new_run_fits_into_a_payload() -> None:
    queue = Queue(10**9)
    for number in range(2000):
        queue.reserve(reservation(f"batch-{number:04d}-" + "x" * 180, 1, number))
    queue.grant()
    carried = sum(len(one.model_dump_json()) for one in queue.holding)
    page = sum(len(one.model_dump_json()) for one in queue.page())
    assert 0 < carried <= PAGE and 0 < page <= PAGE
    assert queue.page() == list(queue.waiting)[: len(queue.page())]


@pytest.mark.parametrize("seed", range(20))
def test_the_limit_holds_and_everybody_has_a_turn_in_any_order_of_events(seed: int) -> None:
    draw = random.Random(seed)
    queue, limit, left, held, done = Queue(100), 100, list(range(80)), set[str](), set[str]()
    while len(done) < 80:
        if left and draw.random() < 0.5:
            number = left.pop()
            queue.reserve(
                reservation(
                    f"b{number}",
                    draw.randint(1, 60),
                    draw.randint(0, 50),
                    priority=draw.randint(1, 5),
                    fairness_key=draw.choice(["", "x", "y"]),
                )
            )
        for one in queue.grant():
            assert one.holder not in held | done
            held.add(one.holder)
        assert queue.in_use <= limit
        if held and draw.random() < 0.5:
            holder = draw.choice(sorted(held))
            queue.release(holder)
            held.remove(holder)
            done.add(holder)
    assert queue.empty


class Simple:
    """A queue of few, which sorts all who wait whenever it is asked: what `Queue` is to do."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.holding: dict[str, Reservation] = {}
        self.waiters: dict[str, Reservation] = {}

    @property
    def in_use(self) -> int:
        return sum(one.tokens for one in self.holding.values())

    @property
    def waiting(self) -> list[Reservation]:
        given = Counter[str]()
        for one in self.holding.values():
            given[one.fairness_key or batch_of(one.holder)] += one.tokens
        return sorted(
            self.waiters.values(),
            key=lambda one: (one.priority, given[one.fairness_key or batch_of(one.holder)], one.since, one.holder),
        )

    def reserve(self, reservation: Reservation) -> bool:
        room = reservation.held or reservation.holder in self.holding
        for one in [*self.holding.values(), *self.waiters.values()]:
            if reservation.workflow_id == one.workflow_id or reservation.holder == one.holder:
                self.release(one.holder)
        (self.holding if room else self.waiters)[reservation.holder] = reservation
        return room

    def release(self, holder: str) -> None:
        self.holding.pop(holder, None)
        self.waiters.pop(holder, None)

    def grant(self) -> list[Reservation]:
        granted = []
        while self.waiters:
            first = self.waiting[0]
            if self.holding and self.in_use + first.tokens > self.limit:
                break
            self.holding[first.holder] = self.waiters.pop(first.holder)
            granted.append(first)
        return granted


@pytest.mark.parametrize("seed", range(60))
def test_any_order_of_events_gives_the_turns_that_sorting_all_who_wait_would_give(seed: int) -> None:
    draw = random.Random(seed)
    limit = draw.choice([50, 100, 1000])
    simple, queue = Simple(limit), Queue(limit)
    for _ in range(200):
        number, attempt, event = draw.randint(0, 25), draw.randint(1, 2), draw.random()
        holder = f"b{number % 9}/{number}/{attempt}"
        if event < 0.5:
            one = Reservation(
                holder=holder,
                workflow_id=f"w{number if draw.random() < 0.9 else number + 1}",
                tokens=draw.randint(0, 60),
                since=NOON + timedelta(seconds=draw.randint(0, 20)),
                priority=draw.randint(1, 4),
                fairness_key=draw.choice(["", "", "x", "y"]),
                held=draw.random() < 0.1,
            )
            assert queue.reserve(one) == simple.reserve(one)
        elif event < 0.8:
            simple.release(holder)
            queue.release(holder)
        elif event < 0.85:
            simple.limit = queue.limit = draw.choice([30, limit])
        else:
            assert queue.grant() == simple.grant()
        assert {one.holder: one for one in queue.holding} == simple.holding
        assert list(queue.waiting) == simple.waiting
        assert queue.page() == page(simple.waiting)
        assert [queue.place(one.holder).ahead for one in simple.waiting] == list(range(len(simple.waiting)))
        assert (queue.in_use, queue.empty) == (simple.in_use, not (simple.holding or simple.waiters))
        assert (queue.holders, queue.waiters) == (len(simple.holding), len(simple.waiters))
        assert queue.waiting_tokens == sum(one.tokens for one in simple.waiting)


def lines(work: Callable[[], object]) -> int:
    """Return how many lines of Python some work runs: its cost, the same on any machine."""
    count = 0

    def trace(*_: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("batches", [1, 7, 5000], ids=["of one batch", "of seven batches", "each of its own batch"])
def test_five_thousand_who_wait_cost_no_more_a_turn_than_fifty_do(batches: int) -> None:
    def waiting(count: int) -> Queue:
        queue = Queue(40_000)
        for number in range(count):
            holder = f"b{number % batches}/{number}/1"
            since = NOON + timedelta(seconds=number % 1000)
            queue.reserve(Reservation(holder=holder, workflow_id=holder, tokens=1000, since=since))
        return queue

    def turns(queue: Queue) -> None:
        for _ in range(5):  # 200 turns in all, 40 at a time
            for one in queue.grant():
                queue.release(one.holder)
                queue.reserve(one)  # and asks anew

    few = lines(lambda: turns(waiting(50))) - lines(lambda: waiting(50))
    many = lines(lambda: turns(waiting(5000))) - lines(lambda: waiting(5000))
    assert many < 2 * few
    assert lines(lambda: waiting(5000)) < 150 * lines(lambda: waiting(50))
    queue = waiting(5000)
    assert len(queue.grant()) == 40
    last = list(queue.waiting)[-1]
    assert lines(lambda: queue.place(last.holder)) < 10 * 5000
    assert queue.place(last.holder).ahead == 4959


def test_a_turn_of_many_gives_room_to_a_page_of_them_at_most() -> None:
    queue = Queue(10**9)
    for number in range(5000):
        queue.reserve(Reservation(holder=f"{number}/0/1", workflow_id=f"{number}", tokens=1, since=NOON))
    assert 300 < len(queue.grant()) < 400
    assert queue.grant() == []
