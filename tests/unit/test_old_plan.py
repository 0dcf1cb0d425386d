"""Is the plan of an earlier run kept? A table of all that can be known of it."""

from __future__ import annotations

from itertools import product

import pytest

from durabatch.activities.old_plan import Match, OldPlan, Verdict, judge, match
from durabatch.activities.plan_inputs import PlanInputs
from durabatch.activities.records import PlanRecord

BOUGHT, KEPT, REPLACED = Verdict

#: whole, same start, accounted, noted: the verdict for each of the four matches, from nothing to all. "-": either.
TABLE = {
    "yes -   -   no ": (REPLACED, REPLACED, REPLACED, KEPT),  # nothing was ever bought by it
    "yes -   no  yes": (REPLACED, BOUGHT, BOUGHT, BOUGHT),  # a batch on its way, or one that gave up
    "yes yes yes yes": (REPLACED, BOUGHT, BOUGHT, BOUGHT),  # a reset of one that has ended
    "yes no  yes yes": (REPLACED, REPLACED, KEPT, KEPT),  # the id is started again after its end
    "no  -   -   -  ": (REPLACED, REPLACED, REPLACED, KEPT),  # its shards are being replaced
}


@pytest.mark.parametrize("facts", list(product((True, False), repeat=4)), ids=str)
def test_an_old_plan_stands_as_the_table_says(facts: tuple[bool, ...]) -> None:
    (verdicts,) = [found for row, found in TABLE.items() if fits(row, facts)]  # exactly one row fits
    whole, same_start, accounted, noted = facts
    old = OldPlan(whole=whole, same_start=same_start, accounted=accounted, noted=noted)
    assert tuple(judge(old, found) for found in Match) == verdicts


def fits(row: str, facts: tuple[bool, ...]) -> bool:
    return all(word == "-" or (word == "yes") is fact for word, fact in zip(row.split(), facts, strict=True))


@pytest.mark.parametrize(
    ("asked", "input", "digest", "expected"),
    [
        ("a", "i", "d", Match.ALL),
        ("a", "i", "other", Match.FILES),
        ("a", "other", "other", Match.REQUEST),
        ("other", "other", "other", Match.NOTHING),
    ],
)
def test_what_a_plan_depends_on_is_compared_step_by_step(asked: str, input: str, digest: str, expected: Match) -> None:
    plan = PlanRecord(
        scoped_id="b",
        spec_digest=digest,
        planned_at="2026-01-01T00:00:00+00:00",
        rows=1,
        invalid_rows=0,
        shards=1,
        tokens={},
        problems=[],
        asked=asked,
        input=input,
        execution="run-1",
        store="s",
    )
    assert match(plan, PlanInputs("a", "i", "d")) is expected
