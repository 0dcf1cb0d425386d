"""When there is a doubt whether an endpoint is there, and how often that is checked."""

from __future__ import annotations

from durabatch.activities.direct.breaker import Breaker, may_have_cost


def doubted(wait: float | None = None) -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        breaker.failed("refused", 10.0, wait)
    return breaker


def test_three_failures_with_nothing_answered_in_between_are_a_doubt() -> None:
    breaker = Breaker()
    for _ in range(9):
        breaker.failed("refused", 10.0)
        breaker.failed("refused", 10.0)
        breaker.answered()
    assert breaker.opened_at is None
    breaker = doubted()
    assert (breaker.opened_at, breaker.reason, breaker.away) == (10.0, "refused", False)
    assert (breaker.doubted.is_set(), breaker.closed.is_set()) == (True, False)


def test_checks_that_fail_come_ever_later() -> None:
    breaker, now, waits = doubted(), 10.0, []
    for _ in range(6):
        waits.append(breaker.delay(now))
        now += waits[-1]
        breaker.failed_check("away", now)
    assert waits == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]
    assert (breaker.opened_at, breaker.away, breaker.reason) == (10.0, True, "away")


def test_the_provider_s_own_wait_is_kept_to() -> None:
    breaker = doubted(wait=30.0)
    assert breaker.delay(20.0) == 20.0
    breaker.failed_check("away", 40.0, wait=60.0)
    assert breaker.delay(50.0) == 50.0


def test_an_answer_closes_it() -> None:
    breaker = doubted()
    breaker.failed_check("away", 10.0)
    breaker.answered()
    assert (breaker.opened_at, breaker.away) == (None, False)
    assert (breaker.doubted.is_set(), breaker.closed.is_set()) == (False, True)


def test_of_many_rows_that_fail_more_are_sent_for_each_check_that_is_answered() -> None:
    breaker, needed = Breaker(), []
    for _ in range(9):
        failures = 0
        while breaker.opened_at is None:
            breaker.failed("refused", 10.0)
            failures += 1
        needed.append(failures)
        breaker.answered(check=True)
    assert needed == [3, 6, 12, 24, 48, 96, 192, 192, 192]
    breaker.answered()
    assert [breaker.failed("refused", 10.0) or breaker.opened_at for _ in range(3)] == [None, None, 10.0]


def test_where_checks_say_nothing_there_is_no_doubt() -> None:
    breaker = doubted()
    breaker.trust()
    for _ in range(500):
        breaker.failed("refused", 10.0)
    assert breaker.opened_at is None


def test_a_server_whose_time_was_over_may_have_worked_on_the_row() -> None:
    assert [status for status in (408, 500, 502, 503, 504, 522, 524, 529) if may_have_cost(status)] == [408, 504, 524]
