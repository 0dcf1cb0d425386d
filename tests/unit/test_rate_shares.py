"""Who may use how much of an account's rate: decisions over values, without Temporal."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from pydantic_core import to_json

from durabatch.contract.rates import MAX_WORKERS, RateAsk, RateLease, RateLimits, RatesCarried, Shares
from durabatch.workflows.division import water_fill, whole
from durabatch.workflows.rate_shares import LEAST, RateShares

NOW = 1_800_000_000.0
LIMITS = RateLimits(requests_per_minute=600, tokens_per_minute=60_000, slots=30)
ALL = math.inf


def ask(worker: str, obeys: RateLease | int = 0, **fields: Any) -> RateAsk:
    number = obeys if isinstance(obeys, int) else obeys.seq
    return RateAsk(worker=worker, obeys=number, **{"limits": LIMITS, **fields})


def amounts(lease: RateLease) -> tuple[float | None, float | None, float | None]:
    return lease.amounts.requests, lease.amounts.tokens, lease.amounts.slots


@pytest.mark.parametrize(
    ("total", "wants", "shares"),
    [
        (90, [(ALL, 1), (ALL, 1), (ALL, 1)], [30, 30, 30]),
        (90, [(10, 1), (ALL, 1), (ALL, 1)], [10, 40, 40]),
        (90, [(10, 1), (20, 1), (ALL, 1)], [10, 20, 60]),
        (90, [(ALL, 2), (ALL, 1)], [60, 30]),
        (90, [(10, 4), (ALL, 1), (ALL, 1)], [10, 40, 40]),
        (90, [(10, 1), (20, 1)], [25, 35]),  # half of what nobody wants
        (90, [(0, 1)], [45]),
        (0, [(ALL, 1), (5, 1)], [0, 0]),
    ],
)
def test_what_one_does_not_want_goes_to_the_others(
    total: float, wants: list[tuple[float, float]], shares: list[float]
) -> None:
    assert water_fill(total, wants) == pytest.approx(shares)


def test_a_division_never_gives_out_more_than_there_is() -> None:
    chance = random.Random(7)
    for _ in range(500):
        wants = [
            (chance.choice([ALL, chance.uniform(0, 50)]), 4.0 ** chance.randint(-2, 2))
            for _ in range(chance.randint(1, 30))
        ]
        total = chance.uniform(0, 200)
        shares = water_fill(total, wants)
        assert sum(shares) <= total + 1e-9
        assert all(share >= 0 for share in shares)
        slots = whole(shares, chance.randint(0, 100))
        assert sum(slots) <= total + 1e-9
        assert all(abs(slot - share) < 1 + 1e-9 for slot, share in zip(slots, shares, strict=True))


def test_fewer_slots_than_workers_go_round_among_them() -> None:
    turns = [whole([0.4] * 5, turn) for turn in range(5)]
    assert [sum(turn) for turn in turns] == [2] * 5
    assert [sum(each) for each in zip(*turns, strict=True)] == [2] * 5


def test_a_worker_that_is_alone_has_everything_at_once() -> None:
    lease = RateShares().lease(ask("a"), NOW)
    assert amounts(lease) == (10, 1000, 30)
    assert (lease.ttl, lease.workers, lease.most_tokens) == (30, 1, 60_000)


def test_a_worker_that_has_just_begun_asks_soon_again_and_later_six_times_a_minute() -> None:
    shares, now = RateShares(), NOW
    lease: RateLease | int = 0
    renewals = []
    for _ in range(1100):
        lease = shares.lease(ask("a", lease), now)
        renewals.append(lease.renew_in)
        now += lease.renew_in
    assert renewals[:5] == [1, 2, 4, 8, 10]
    assert renewals[-1] == 10


def test_what_a_worker_loses_is_given_to_another_once_it_says_that_it_obeys() -> None:
    shares = RateShares()
    first = shares.lease(ask("a"), NOW)
    assert amounts(shares.lease(ask("b"), NOW + 1)) == (0, 0, 0)
    cut = shares.lease(ask("a", first), NOW + 2)
    assert amounts(cut) == (5, 500, 15)
    assert cut.renew_in < 1  # it confirms at once
    waiting = shares.lease(ask("b", 1), NOW + 2)
    assert amounts(waiting) == (0, 0, 0)  # `a` may not have heard yet
    assert waiting.renew_in == 2
    shares.lease(ask("a", cut), NOW + 2.3)
    assert amounts(shares.lease(ask("b", 2), NOW + 4)) == (5, 500, 15)


def test_an_answer_that_was_lost_counts_until_the_old_lease_is_over() -> None:
    shares = RateShares()
    first = shares.lease(ask("a"), NOW)
    shares.lease(ask("b"), NOW)
    shares.lease(ask("a", first), NOW + 10)  # the answer, half of everything, never arrives
    assert amounts(shares.lease(ask("b", 1), NOW + 12)) == (0, 0, 0)
    shares.lease(ask("a", first), NOW + 29)
    assert amounts(shares.lease(ask("b", 2), NOW + 29.5))[:2] == (0, 0)
    assert amounts(shares.lease(ask("b", 3), NOW + 30.5))[:2] == (5, 500)


def test_the_share_of_a_worker_that_is_gone_comes_back_with_the_end_of_its_lease() -> None:
    shares = RateShares()
    first = shares.lease(ask("a"), NOW)
    shares.lease(ask("b"), NOW)
    first = shares.lease(ask("a", first), NOW + 1)
    first = shares.lease(ask("a", first), NOW + 2)
    second = shares.lease(ask("b", 1), NOW + 3)
    assert amounts(second) == (5, 500, 15)
    second = shares.lease(ask("b", second), NOW + 20)  # `a` should have asked by now
    assert amounts(second) == (5, 500, 15)
    second = shares.lease(ask("b", second), NOW + 29)
    assert second.renew_in == pytest.approx(3.3)  # just after the other lease ends
    assert amounts(shares.lease(ask("b", second), NOW + 32.3)) == (10, 1000, 30)


def test_while_nobody_could_ask_the_slots_of_a_lease_that_is_over_are_kept_for_calls_in_flight() -> None:
    shares = RateShares()
    first = shares.lease(ask("a"), NOW)
    shares.lease(ask("b"), NOW)
    first = shares.lease(ask("a", first), NOW + 1)
    first = shares.lease(ask("a", first), NOW + 2)
    second = shares.lease(ask("b", 1), NOW + 3)
    assert amounts(second)[2] == 15
    # Temporal is away. Both leases end, and calls go on.
    second = shares.lease(ask("b", second), NOW + 40)
    assert amounts(second) == (10, 1000, 15)
    assert amounts(shares.lease(ask("a", first, in_flight=15), NOW + 45)) == (0, 0, 15)


def test_slots_come_back_once_a_worker_is_known_to_be_gone_because_others_could_ask_and_it_did_not() -> None:
    shares = RateShares()
    shares.lease(ask("a"), NOW)
    found = {}
    # Its heir comes when its last heartbeat is long enough ago, and asks as often as it may.
    for second in range(21, 45, 2):
        lease = shares.lease(ask("b", found[second - 2] if second > 21 else 0), NOW + second)
        found[second] = lease
    got = {second: lease.amounts.slots for second, lease in found.items()}
    assert got == {second: 0 if second < 33 else 30 for second in found}


def test_a_ledger_that_goes_on_in_another_run_knows_who_is_gone() -> None:
    shares = RateShares()
    shares.lease(ask("a"), NOW)
    last: RateLease | int = 0
    for second in range(5, 46, 5):
        last = shares.lease(ask("b", last), NOW + second)
        shares = RateShares(RatesCarried.model_validate_json(shares.carried(NOW + second).model_dump_json()))
    assert amounts(last)[2] == 30


def test_a_clean_stop_gives_everything_back_at_once() -> None:
    shares = RateShares()
    shares.lease(ask("a"), NOW)
    shares.release("a")
    assert amounts(shares.lease(ask("b"), NOW)) == (10, 1000, 30)
    shares.release("nobody")


def test_calls_in_flight_hold_their_slots_also_under_a_smaller_lease() -> None:
    shares = RateShares()
    first = shares.lease(ask("a"), NOW)
    shares.lease(ask("b"), NOW)
    cut = shares.lease(ask("a", first, in_flight=28), NOW + 1)
    shares.lease(ask("a", cut, in_flight=28), NOW + 2)
    second = shares.lease(ask("b", 1), NOW + 3)
    assert amounts(second) == (5, 500, 2)
    shares.lease(ask("a", 3, in_flight=12), NOW + 4)
    assert amounts(shares.lease(ask("b", second), NOW + 5))[2] == 15


def test_after_a_refusal_less_is_given_out_and_it_grows_back_slowly() -> None:
    shares = RateShares()
    lease = shares.lease(ask("a"), NOW)
    lease = shares.lease(ask("a", lease, rejections=40), NOW + 10)
    assert amounts(lease) == pytest.approx((9, 900, 27))
    lease = shares.lease(ask("a", lease, rejections=40), NOW + 15)
    assert amounts(lease)[1] == pytest.approx(905)  # once in ten seconds
    assert lease.most_tokens == 60_000  # a large row is not refused for that
    lease = shares.lease(ask("a", lease, rejections=1), NOW + 20)
    assert amounts(lease)[1] == pytest.approx(910 * 0.9)
    assert amounts(shares.lease(ask("a", lease), NOW + 320)) == (10, 1000, 30)
    for second in range(400, 2000, 10):
        lease = shares.lease(ask("a", lease, rejections=1), NOW + second)
    tokens = amounts(lease)[1]
    assert tokens is not None and tokens >= 1000 * LEAST


def test_limits_in_the_providers_answers_lower_ours_and_the_newest_answer_holds() -> None:
    shares = RateShares()
    lease = shares.lease(ask("a", seen=RateLimits(tokens_per_minute=30_000)), NOW)
    assert (lease.amounts.tokens, lease.most_tokens, lease.amounts.requests) == (500, 30_000, 10)
    lease = shares.lease(ask("a", lease), NOW + 10)
    assert lease.amounts.tokens == 500
    lease = shares.lease(ask("a", lease, seen=RateLimits(tokens_per_minute=90_000)), NOW + 20)
    assert lease.amounts.tokens == 1000  # ours is lower again
    unlimited = ask("a", lease, limits=RateLimits(slots=5), seen=RateLimits(requests_per_minute=60))
    lease = shares.lease(unlimited, NOW + 30)
    assert (lease.amounts.requests, lease.amounts.slots) == (1, 5)


def test_where_a_limit_becomes_lower_all_go_down_side_by_side() -> None:
    shares = RateShares()
    leases = {name: shares.lease(ask(name), NOW) for name in "ab"}
    for second in range(1, 8):
        leases = {name: shares.lease(ask(name, lease), NOW + second) for name, lease in leases.items()}
    assert {lease.amounts.tokens for lease in leases.values()} == {500}
    lower = RateLimits(tokens_per_minute=30_000, slots=30)
    first = shares.lease(ask("a", leases["a"], limits=lower), NOW + 10)
    second = shares.lease(ask("b", leases["b"]), NOW + 10)
    assert (first.amounts.tokens, second.amounts.tokens) == (250, 250)  # the lowest of the configurations holds


def test_without_limits_only_slots_are_given_out() -> None:
    lease = RateShares().lease(ask("a", limits=RateLimits(slots=256)), NOW)
    assert amounts(lease) == (None, None, 256)


def test_a_higher_priority_has_the_larger_part() -> None:
    shares = RateShares()
    leases = {"a": shares.lease(ask("a", weight=4), NOW), "b": shares.lease(ask("b"), NOW)}
    for second in range(1, 8):
        leases["a"] = shares.lease(ask("a", leases["a"], weight=4), NOW + second)
        leases["b"] = shares.lease(ask("b", leases["b"]), NOW + second)
    assert [leases[name].amounts.tokens for name in "ab"] == pytest.approx([800, 200])


def test_a_ledger_whose_predecessor_was_ended_from_outside_gives_nothing_out_until_all_leases_are_over() -> None:
    shares = RateShares(RatesCarried(quiet_until=NOW + 60))
    lease = shares.lease(ask("a", 17), NOW)
    assert (amounts(lease), lease.seq) == ((0, 0, 0), 18)
    assert amounts(shares.lease(ask("a", lease), NOW + 60)) == (10, 1000, 30)


def test_many_workers_ask_more_rarely_and_their_leases_last_longer() -> None:
    shares = RateShares()
    for number in range(80):
        lease = shares.lease(ask(f"w{number}"), NOW)
    assert (lease.ttl, lease.workers) == (60, 80)


def test_more_workers_than_a_ledger_serves_get_nothing_and_push_nobody_out() -> None:
    shares = RateShares()
    for number in range(MAX_WORKERS):
        shares.lease(ask(f"w{number}"), NOW)
    assert amounts(shares.lease(ask("late"), NOW)) == (0, 0, 0)
    assert len(shares.views(NOW)) == MAX_WORKERS
    assert amounts(shares.lease(ask("late", 1), NOW + 300)) == (10, 1000, 30)  # the others are gone


def test_what_is_passed_on_fits_into_one_payload_and_means_the_same() -> None:
    shares = RateShares()
    for round_ in range(2):  # whose answers are lost, so that several leases may be in use
        for number in range(MAX_WORKERS):
            fields: dict[str, Any] = {
                "label": "x" * 200,
                "weight": 0.0625,
                "in_flight": 123_456,
                "rejections": 3,
                "wants": Shares(requests=1 / 3, tokens=1e5 / 3, slots=7.5),
                "using": Shares(requests=1 / 3, tokens=1e5 / 3, slots=7.5),
                "limits": RateLimits(requests_per_minute=1e9 / 7, tokens_per_minute=1e9 / 3, slots=99_999),
            }
            shares.lease(ask(f"{number:016x}", **fields), NOW + round_ * 7 + number / 100)
    carried = shares.carried(NOW + 45).model_dump(mode="json", exclude_defaults=True)
    assert len(to_json(carried)) < 64 * 1024
    same = RateShares(RatesCarried.model_validate(carried))
    for number in (3, 77):
        again = ask(f"{number:016x}", 1)
        assert same.lease(again, NOW + 46).amounts == shares.lease(again, NOW + 46).amounts
    assert same.limits(NOW + 46) == shares.limits(NOW + 46)


@pytest.mark.parametrize("seed", range(3))
def test_what_all_may_be_using_together_never_exceeds_the_limit(seed: int) -> None:
    """Workers that come, go, die and lose answers; the sum is over what each of them really goes by."""
    chance, shares, now = random.Random(seed), RateShares(), NOW
    real: dict[str, tuple[RateLease, float]] = {}  # by worker: its lease, and when that ends by the worker's own count
    for step in range(1500):
        now += chance.expovariate(4)
        name = f"w{chance.randrange(6)}-{step // 300 if chance.random() < 0.7 else 0}"
        lease = real[name][0] if name in real else 0
        event = chance.random()
        if event < 0.03:
            shares.release(name)
            real.pop(name, None)
            continue
        sent_at = now - chance.uniform(0, 0.5)
        answer = shares.lease(
            ask(
                name,
                lease,
                wants=Shares(tokens=chance.choice([None, chance.uniform(0, 1000)])),
                weight=chance.choice([1, 4]),
                rejections=0,
            ),
            now,
        )
        if event < 0.3:
            continue  # the answer is lost
        real[name] = (answer, sent_at + answer.ttl)
        alive = [amounts(lease) for lease, until in real.values() if until > now]
        for which, limit in enumerate((10, 1000, 30)):
            assert sum(one[which] or 0 for one in alive) <= limit + 1e-6
