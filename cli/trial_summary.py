"""What came of a try, for a person."""

from __future__ import annotations

from ..clients.tries import Trial
from ..clients.whole_cost import CostRange
from .summary import aligned, answer, bill, money, plain, rows_by_status


def trial_text(trial: Trial) -> str:
    """Return the answers of the rows that were tried, what they cost, and what the whole input would cost."""
    width = max((len(plain(row.custom_id)) for row in trial.rows), default=0)
    lines = [f"{plain(row.custom_id):<{width}}  {answer(row)}" for row in trial.rows]
    return "\n".join([*lines, "", aligned(_facts(trial))])


def _facts(trial: Trial) -> list[tuple[str, str]]:
    where = "the first ones" if trial.first else "from all parts of the input"
    which = f"{len(trial.rows):,} of {trial.total:,} rows, {where}" if len(trial.rows) < trial.total else "every row"
    # What is called direct in a result is all of a try.
    facts = [("Tried", which), ("Rows", rows_by_status(trial.result.counts))]
    facts += bill(trial.result.model_copy(update={"direct": None}))
    if trial.result.error:
        facts.append(("Why", trial.result.error))
    if trial.batch_cost is None and trial.direct_cost is None:
        facts.append(("All rows", f"cost not known: {_unknown(trial)}"))
        return facts
    known = [(trial.batch_cost, "at the batch price"), (trial.direct_cost, "row by row, at the list price")]
    costs = [f"{_range(cost, trial)} {price}" for cost, price in known if cost is not None]
    facts += [("All rows" if not number else "", cost) for number, cost in enumerate(costs)]
    return facts


def _range(cost: CostRange, trial: Trial) -> str:
    least = "at least " if trial.cost_is_lower_bound else "" if len(trial.rows) == trial.total else "about "
    between = f" ({money(cost.low)} to {money(cost.high)})" if cost.low and cost.high and cost.low != cost.high else ""
    return f"{least}{money(cost.usd)}{between}"


def _unknown(trial: Trial) -> str:
    if not trial.result.counts.succeeded:
        return "no row succeeded"
    return "the price of the model is not known"
