"""When an endpoint counts as dead, and who looks whether it lives again."""

from __future__ import annotations

from durabatch.activities.direct.breaker import Breaker, is_clear, may_have_cost


def test_three_failures_that_no_row_can_cause_open_it() -> None:
    breaker = Breaker()
    assert [breaker.failed(1, "refused", 10.0, clear=True) for _ in range(3)] == [False, False, True]
    assert breaker.opened_at == 10.0


def test_one_row_that_fails_and_fails_does_not_open_it() -> None:
    breaker = Breaker()
    assert not any(breaker.failed(1, "500", 10.0, clear=False) for _ in range(50))
    assert not any(breaker.failed(row, "500", 10.0, clear=False) for row in (2, 3, 4))
    assert breaker.failed(5, "500", 10.0, clear=False)


def test_a_success_in_between_counts_anew() -> None:
    breaker = Breaker()
    for row in range(20):
        assert not breaker.failed(row, "500", 10.0, clear=False)
        if row % 4 == 3:
            breaker.succeeded()
    assert breaker.opened_at is None


def opened() -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        breaker.failed(1, "refused", 10.0, clear=True)
    return breaker


def test_one_probe_at_a_time_is_let_through_and_ever_later() -> None:
    breaker, now, waits = opened(), 10.0, []
    for _ in range(6):
        waits.append(breaker.delay(now))
        now += waits[-1]
        assert breaker.delay(now) == 0.0  # this is the probe
        assert breaker.delay(now) > 0.0  # and nobody else
        breaker.failed(1, "refused", now, clear=True)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert breaker.opened_at == 10.0


def test_where_something_shows_a_sign_of_life_probes_come_no_later_than_each_second() -> None:
    breaker, now, waits = opened(), 10.0, []
    for _ in range(4):
        waits.append(breaker.delay(now))
        now += waits[-1]
        assert breaker.delay(now) == 0.0
        breaker.failed(1, "503", now, clear=True, lives=True)
    assert waits == [0.5, 1.0, 1.0, 1.0]


def test_calls_that_were_under_way_when_it_opened_change_nothing() -> None:
    breaker = opened()
    for row in range(100):
        breaker.failed(row, "refused", 10.1, clear=True)
    assert breaker.delay(10.5) == 0.0


def test_the_provider_s_own_wait_is_kept_to() -> None:
    breaker = Breaker()
    for _ in range(3):
        breaker.failed(1, "overloaded", 10.0, clear=True, wait=30.0)
    assert breaker.delay(20.0) == 20.0


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = opened()
    assert breaker.delay(11.0) == 0.0
    breaker.succeeded()
    assert (breaker.opened_at, breaker.delay(11.0), breaker.delay(11.0)) == (None, 0.0, 0.0)


def test_gateways_and_overload_speak_of_the_endpoint_and_other_faults_of_the_row() -> None:
    statuses = (408, 500, 502, 503, 504, 522, 524, 529)
    assert [status for status in statuses if is_clear(status)] == [502, 503, 522, 529]
    assert [status for status in statuses if may_have_cost(status)] == [408, 504, 524]


def test_a_probe_that_says_nothing_is_followed_by_another_one() -> None:
    breaker = opened()
    assert breaker.delay(11.0) == 0.0
    breaker.undecided(12.0)
    assert breaker.opened_at is not None
    assert breaker.delay(12.0) == 1.0
