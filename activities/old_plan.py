"""Whether the plan that an earlier run left is kept. Pure: a table.

A new plan would have other shards: they would be looked for at the provider, not found, and bought again. So a plan
that may have bought something is kept, whatever the input, the provider's limits and the prices are now. A plan that
bought nothing is kept while it still describes the rows and how they are to be cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from .plan_inputs import PlanInputs
from .records import PlanRecord


class Match(IntEnum):
    """How much of what a plan depends on is still as it was; each one includes those before it."""

    NOTHING = 0  #: Something else is asked for.
    REQUEST = 1  #: The same is asked for; whether of the same files is not the same, or not known.
    FILES = 2  #: The same is asked for, of the same files.
    ALL = 3  #: And the provider takes as much at a time.


class Verdict(Enum):
    """What becomes of the plan that is there."""

    BOUGHT = "bought"  #: It is kept: something may have been bought by it.
    KEPT = "kept"  #: It is kept, and checked as a new one would be: nothing of it was bought.
    REPLACED = "replaced"  #: It is replaced: the input is read, and cut again.


@dataclass(frozen=True, kw_only=True)
class OldPlan:
    """What is known of the plan that an earlier run left."""

    whole: bool  #: Its shards are there: they are not being replaced, and it was not refused.
    same_start: bool  #: This run is a reset of the start that used it last, and means that one's rows.
    accounted: bool  #: Its folder holds a result that accounts for every row.
    noted: bool  #: Its folder holds notes of creates (see `notes`).

    @property
    def may_have_bought(self) -> bool:
        """Whether something may have been bought by it that is not accounted for.

        Once all is accounted for, another start of the id means the input as it is now; a reset still means what was
        bought, however the input has changed.
        """
        return self.whole and self.noted and (self.same_start or not self.accounted)


def match(plan: PlanRecord, now: PlanInputs) -> Match:
    """Return how much of what a plan depends on is as it was."""
    if plan.spec_digest == now.digest:
        return Match.ALL
    if plan.input == now.input:
        return Match.FILES
    return Match.REQUEST if plan.asked == now.asked else Match.NOTHING


def judge(old: OldPlan, match: Match) -> Verdict:
    """Decide whether an old plan is kept."""
    if old.may_have_bought and match >= Match.REQUEST:
        return Verdict.BOUGHT
    # Cut by other limits than today's, shards that were bought once are still found by their markers.
    if match is Match.ALL or (match is Match.FILES and old.whole and old.noted):
        return Verdict.KEPT
    return Verdict.REPLACED
