"""What a whole input would cost, by what some of its rows have cost. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from ..activities.prices import dollars

#: How often the rows are drawn again: enough for the 5th and the 95th percentile.
_DRAWS = 1000
#: The same rows give the same range.
_SEED = 20260131
_TAIL = 0.05


class CostRange(NamedTuple):
    """An estimated cost in USD, as decimal strings."""

    usd: str  #: The mean of the rows that were tried, times the rows of the input.
    #: Of 100 such samples, 5 would give less than `low`, and 5 more than `high`. None where a single row of several
    #: says nothing of how much they differ.
    low: str | None
    high: str | None


def whole_cost(costs: Sequence[int], total: int, share: Fraction = Fraction(1)) -> CostRange | None:
    """Return what all rows would cost if they were like those that were tried; None if none was.

    The range is a bootstrap: as many rows as were tried are drawn from them, with repetition, and the 5th and the 95th
    percentile of the means of 1,000 such draws are its ends. As a draw from few rows varies less than the rows do, its
    distance from the mean is stretched by sqrt(n / (n - 1)); and as nothing is uncertain about rows that were tried, it
    is shrunk by sqrt(1 - n / N). Where all rows were tried, the ends are the mean.

    Args:
        costs: the list prices of the rows that were tried, in picodollars.
        total: rows of the whole input.
        share: what is paid of the list price.
    """
    tried = len(costs)
    if not tried:
        return None
    mean = sum(costs) / tried

    def dollars_of(a_row: float) -> str:
        return dollars(int(max(a_row, 0.0) * total * float(share)))

    if tried >= total:
        exact = dollars(sum(costs) * share.numerator // share.denominator)
        return CostRange(exact, exact, exact)
    if tried == 1:
        return CostRange(dollars_of(mean), None, None)
    stretch = math.sqrt(tried / (tried - 1) * (1 - tried / total))
    draw = random.Random(_SEED)
    away = sorted(sum(draw.choices(costs, k=tried)) / tried - mean for _ in range(_DRAWS))
    low, high = (mean + stretch * away[round(at * (_DRAWS - 1))] for at in (_TAIL, 1 - _TAIL))
    return CostRange(dollars_of(mean), dollars_of(low), dollars_of(high))
