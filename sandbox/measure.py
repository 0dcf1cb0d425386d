"""What the sandbox saw of its live calls' rate: the most in any sliding period, and the mean."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from .calls import How, LiveCall


def measured(calls: Iterable[LiveCall], period: float) -> list[dict[str, Any]]:
    """The rates of the calls of each account and model.

    Args:
        calls: The calls to look at.
        period: Seconds of the sliding period; it holds what came after its beginning, up to and with its end.

    Returns:
        For each account and model: how many calls arrived and were taken (passed the limits), the seconds from the
        first to the last one taken, and `most` and `mean` a period of the requests and reserved tokens that were taken,
        of the requests that arrived, and of the used tokens by the time of the answer.
    """
    groups: defaultdict[tuple[str, str], list[LiveCall]] = defaultdict(list)
    for call in calls:
        if call.model:
            groups[call.account, call.model].append(call)
    return [
        {"account": account, "model": model, "period": period, **_group(group, period)}
        for (account, model), group in sorted(groups.items())
    ]


def _group(calls: list[LiveCall], period: float) -> dict[str, Any]:
    taken = sorted((call.taken, call.reserved) for call in calls if call.taken is not None)
    used = sorted(
        (call.ended, call.input_tokens + call.output_tokens)
        for call in calls
        if call.ended is not None and call.how is How.ANSWERED
    )
    seconds = taken[-1][0] - taken[0][0] if taken else 0.0
    return {
        "arrived": len(calls),
        "taken": len(taken),
        "seconds": seconds,
        "requests": _rate([(at, 1) for at, _ in taken], period, seconds),
        "reserved_tokens": _rate(taken, period, seconds),
        "used_tokens": _rate(used, period, seconds),
        "arrived_requests": _rate(sorted((call.arrived, 1) for call in calls), period, seconds),
    }


def _rate(amounts: list[tuple[float, int]], period: float, seconds: float) -> dict[str, float]:
    total = sum(amount for _, amount in amounts)
    # What came within less than a period says nothing of a mean over one.
    return {
        "total": total,
        "most": max(_sliding(amounts, period), default=0),
        "mean": total * period / max(seconds, period),
    }


def _sliding(amounts: list[tuple[float, int]], period: float) -> Iterator[int]:
    """The sum in the period that ends with each amount."""
    first = total = 0
    for at, amount in amounts:
        total += amount
        while amounts[first][0] <= at - period:
            total -= amounts[first][1]
            first += 1
        yield total
