"""What rows may cost at most: their input as it is estimated, and all the output that each of them allows."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import msgspec

from ..activities.estimate import NO_OUTPUT, estimate_input
from ..activities.output_limits import output_limit
from ..activities.prices import Prices, dollars
from ..activities.providers.kinds import KINDS
from ..activities.providers.outcome import RowTokens
from ..activities.providers.raw_json import first_byte, short_value
from ..activities.records import PlanRecord
from ..contract import Mode

_NULL, _NONE = msgspec.Raw(b"null"), msgspec.Raw(b"{}")


class _Row(msgspec.Struct):
    body: msgspec.Raw = _NULL
    params: msgspec.Raw = _NULL


class _Model(msgspec.Struct):
    model: msgspec.Raw = _NULL


_row = msgspec.json.Decoder(_Row).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_model = msgspec.json.Decoder(_Model).decode
_encode = msgspec.json.Encoder().encode


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
        own = next((one for one in (found.body, found.params) if first_byte(one) == b"{"), _NONE)
        params = self._spec.get("params")
        body = msgspec.Raw(_encode({**params, **_fields(own)})) if params else own
        model = short_value(_model(body).model) or self._spec.get("model")
        output = 0 if self._spec.get("endpoint") in NO_OUTPUT else output_limit(body)
        if not isinstance(model, str) or output is None:
            return None
        return prices.list_cost(model, RowTokens(input_tokens=estimate_input(line), output_tokens=output))
