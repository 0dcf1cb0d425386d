"""What failures in direct mode cost their row."""

from __future__ import annotations

from durabatch.activities.direct.judgement import BROKE, breaks, given_up, next_try


def test_a_row_is_tried_quickly_beside_others_and_for_a_minute_where_none_is_answered() -> None:
    quick = [next_try(failures, quick=True) for failures in range(1, 4)]
    alone = [next_try(failures, quick=False) for failures in range(1, 5)]
    assert (quick, alone) == ([0.5, 1.5, None], [0.5, 10.0, 45.0, None])


def test_doubts_about_a_row_have_it_sent_alone_and_then_not_at_all() -> None:
    assert [breaks(doubts) for doubts in (0, 11, 12)] == [0, 0, 3]
    assert [given_up(broken * BROKE) for broken in (5, 6)] == [False, True]
    assert [given_up(lost) for lost in (23, 24)] == [False, True]
