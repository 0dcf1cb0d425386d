"""What rows may cost at most: their input as it is estimated, and all the output that each of them allows."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import msgspec

from ..activities.estimate import NO_OUTPUT, estimate_input
from ..activities.prices import Prices, dollars
from ..activities.providers.kinds import KINDS
from ..activities.providers.outcome import RowTokens
from ..activities.records import PlanRecord
from ..contract import Mode

#: The fields that limit a row's output, the first of which that it has counts.
_CAPS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


class _Row(msgspec.Struct):
    body: dict[str, Any] | None = None
    params: dict[str, Any] | None = None


_row = msgspec.json.Decoder(_Row).decode


class MostCost:
    """Adds up what rows may cost at most.

    Args:
        plan: of the batch that ran them before, at the same provider.
        spec: the fields of the spec that they are to be run by.
    """

    def __init__(self, plan: PlanRecord, spec: Mapping[str, Any]) -> None:
        self._spec = spec
        mode = spec.get("mode") or plan.mode
        share = Fraction(1) if mode == Mode.DIRECT or not plan.batch_share else Fraction(plan.batch_share)
        kind = KINDS.get(plan.kind)
        self._prices = Prices(kind.prices, float(1 - share)) if kind else None
        self._cost = 0  # picodollars

    def add(self, line: bytes) -> None:
        """Count a row of the input."""
        if self._prices is None:
            return
        cost = self._most(line, self._prices)
        if cost is None:
            self._prices = None
        else:
            self._cost += cost

    @property
    def usd(self) -> str | None:
        """The sum; None where a price is not known, or the output of a row has no limit."""
        return None if self._prices is None else dollars(self._prices.paid(self._cost))

    def _most(self, line: bytes, prices: Prices) -> int | None:
        found = _row(line)
        body = {**(self._spec.get("params") or {}), **(found.body or found.params or {})}
        model, output = body.get("model") or self._spec.get("model"), self._output(body)
        if not isinstance(model, str) or output is None:
            return None
        return prices.list_cost(model, RowTokens(input_tokens=estimate_input(line), output_tokens=output))

    def _output(self, body: Mapping[str, Any]) -> int | None:
        if self._spec.get("endpoint") in NO_OUTPUT:
            return 0
        cap = next((body[name] for name in _CAPS if isinstance(body.get(name), int)), None)
        answers = body.get("n") if isinstance(body.get("n"), int) else 1
        return None if cap is None else max(0, cap * max(1, answers or 1))
