"""What stops a batch once its input is read, and before anything of it costs."""

from __future__ import annotations

import json
from decimal import Decimal

from ..contract import BatchSpec, InvalidInput, InvalidSpec, OnInvalidRow
from .prices import PICO, Prices, dollars
from .records import PlanRecord


def check_params(spec: BatchSpec) -> None:
    try:
        json.dumps(spec.params, allow_nan=False)
    except ValueError:
        raise InvalidSpec("The params hold a number that JSON cannot express: NaN, or an infinite one.") from None


def check_plan(plan: PlanRecord, spec: BatchSpec, prices: Prices) -> None:
    """Stop the batch here if it should not cost anything."""
    if plan.rows == 0:
        raise InvalidInput("The input has no rows: give it at least one request.")
    if plan.invalid_rows and (spec.on_invalid_row is OnInvalidRow.FAIL_BATCH or plan.invalid_rows == plan.rows):
        what = "1 row" if plan.invalid_rows == 1 else f"{plan.invalid_rows:,} rows"
        hint = (
            'fix them, or let them fail alone with on_invalid_row = "fail_row"'
            if plan.invalid_rows < plan.rows
            else "no row is left to send"
        )
        shown = "; ".join(str(problem) for problem in plan.problems[:20])
        more = f"; and {plan.invalid_rows - 20:,} more" if plan.invalid_rows > 20 else ""
        raise InvalidInput(
            f"{what} of {plan.rows:,} cannot be sent, and nothing was submitted: {shown}{more}. To go on, {hint}.",
            [one.problem() for one in plan.problems],
            plan.invalid_rows,
        )
    if spec.max_cost_usd is not None:
        _check_cost(plan, spec.max_cost_usd, prices)


def direct_affordable(plan: PlanRecord, spec: BatchSpec, prices: Prices) -> bool:
    """Return whether the input of all rows is within max_cost_usd at the list price."""
    if spec.max_cost_usd is None:
        return True
    listed = prices.input_cost(plan.tokens)
    return listed is not None and listed <= spec.max_cost_usd * PICO


def _check_cost(plan: PlanRecord, limit: Decimal, prices: Prices) -> None:
    for model in plan.tokens:
        if prices.input_cost({model: 1}) is None:
            raise InvalidInput(
                f"The price of model {model[:100] or '(unnamed)'} is unknown, so max_cost_usd cannot be kept: leave it "
                "out, or name a model whose price is known."
            )
    total = prices.paid(prices.input_cost(plan.tokens) or 0, plan.mode)
    if total > limit * PICO:
        raise InvalidInput(
            f"The input alone is estimated at {dollars(total)} USD, more than max_cost_usd = {limit:f}; nothing was "
            "submitted."
        )
