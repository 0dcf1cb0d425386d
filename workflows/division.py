"""Dividing what there is of one thing among several who want some of it."""

from __future__ import annotations

import math
from collections.abc import Sequence


def water_fill(total: float, wants: Sequence[tuple[float, float]]) -> list[float]:
    """Divide a total among those who want some of it: by weight, and what one does not want goes on to the others.

    Of what nobody wants, half is given out in the same way, so that nobody has to ask before it may use a little more;
    the other half stays there for whoever comes next.

    Args:
        total: what there is; not infinite.
        wants: for each what it wants, perhaps infinite, and its weight.
    """
    shares = [0.0] * len(wants)
    left, weight = total, math.fsum(weight for _, weight in wants)
    for index in sorted(range(len(wants)), key=lambda index: wants[index][0] / wants[index][1]):
        want, mine = wants[index]
        shares[index] = min(want, left * mine / weight) if weight > 0 else 0.0
        left, weight = max(0.0, left - shares[index]), weight - mine
    weight = math.fsum(weight for _, weight in wants)
    return [share + left / 2 * mine / weight for share, (_, mine) in zip(shares, wants, strict=True)]


def whole(shares: Sequence[float], turn: int) -> list[int]:
    """Return shares as whole numbers with the same sum, rounded down; what is over goes round from turn to turn.

    Those whose share is less than one come first, and only among them does the turn matter: the others keep what they
    have.
    """
    found = [math.floor(share + 1e-9) for share in shares]
    over = math.floor(math.fsum(shares) + 1e-9) - sum(found)
    some = [index for index, share in enumerate(shares) if share > found[index] + 1e-9]
    none = [index for index in some if not found[index]]
    shift = turn * max(1, over) % len(none) if none else 0
    for index in [*none[shift:], *none[:shift], *(index for index in some if found[index])][:over]:
        found[index] += 1
    return found
