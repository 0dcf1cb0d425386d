"""What a failure in direct mode is held against: the whole table."""

from __future__ import annotations

import pytest

from durabatch.activities.direct.judgement import Against, Fault, Sign, breaks, given_up, judge, next_try

NOBODY, BROKEN, PLAIN, SPENT = Fault.NOBODY, Fault.BROKEN, Fault.PLAIN, Fault.SPENT
ROW, UNTIL_OPEN, DOUBT, ENDPOINT = Against.ROW, Against.ROW_UNTIL_OPEN, Against.DOUBT, Against.ENDPOINT


@pytest.mark.parametrize(
    ("dead", "answered", "sign", "nobody", "broken", "plain", "spent"),
    [
        # While the endpoint lives, and another row was answered meanwhile, or none was.
        (False, True, None, ROW, ROW, ROW, ROW),
        (False, False, None, UNTIL_OPEN, UNTIL_OPEN, UNTIL_OPEN, ROW),
        # It counts as dead, and the row was sent before it did.
        (True, True, None, ENDPOINT, ENDPOINT, ENDPOINT, ROW),
        (True, False, None, ENDPOINT, ENDPOINT, ENDPOINT, ROW),
        # It was sent alone, to see whether the endpoint lives again, after the provider's cheapest call.
        (True, False, Sign.SILENT, ENDPOINT, ENDPOINT, ENDPOINT, ROW),
        (True, False, Sign.ANSWERED, DOUBT, ROW, DOUBT, ROW),
        (True, False, Sign.WELL, DOUBT, ROW, DOUBT, ROW),
    ],
)
def test_whose_fault_a_failure_is(
    dead: bool,
    answered: bool,
    sign: Sign | None,
    nobody: Against,
    broken: Against,
    plain: Against,
    spent: Against,
) -> None:
    found = [judge(fault, answered=answered, dead=dead, sign=sign) for fault in (NOBODY, BROKEN, PLAIN, SPENT)]
    assert found == [nobody, broken, plain, spent]


def test_a_row_is_tried_quickly_beside_others_and_for_a_minute_where_none_is_answered() -> None:
    quick = [next_try(failures, quick=True) for failures in range(1, 4)]
    alone = [next_try(failures, quick=False) for failures in range(1, 5)]
    assert (quick, alone) == ([0.5, 1.5, None], [0.5, 10.0, 45.0, None])


def test_a_row_is_given_up_after_eight_runs_that_found_the_endpoint_well_and_later_where_none_was_ever_answered() -> (
    None
):
    assert [given_up(runs * Sign.WELL, succeeded=True) for runs in (7, 8)] == [False, True]
    assert [given_up(runs * Sign.ANSWERED, succeeded=True) for runs in (23, 24)] == [False, True]
    assert [given_up(runs * Sign.WELL, succeeded=False) for runs in (8, 79, 80)] == [False, False, True]
    assert [breaks(doubts) for doubts in (0, 11, 12)] == [0, 0, 3]
