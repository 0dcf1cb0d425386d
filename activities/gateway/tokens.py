"""How many tokens a batch's rows may take, model by model: what bounds its cost. Pure."""

from __future__ import annotations

import msgspec

from ..estimate import NO_OUTPUT, estimate_input
from ..output_limits import OutputLimits
from ..prices import Prices
from ..providers.outcome import RowTokens

#: Output tokens that a row is counted with which names no limit of its own. Models have no common one.
UNBOUNDED = 4096
#: Tokens that prices are asked for, few enough to be below every price tier.
_PROBE = 1000


class _Body(OutputLimits):
    model: str = ""


class _Line(msgspec.Struct):
    body: _Body | None = None
    params: _Body | None = None  # of Anthropic's


_line = msgspec.json.Decoder(_Line).decode


class Tokens:
    """Sums over the rows of one batch: the estimated input, and the output that each row allows.

    Args:
        endpoint: where the rows are sent.
    """

    def __init__(self, endpoint: str) -> None:
        self._silent = endpoint in NO_OUTPUT
        self.input: dict[str, int] = {}
        self.output: dict[str, int] = {}

    def add(self, line: bytes) -> None:
        """Count a row that can be sent."""
        try:
            found = _line(line)
            body = found.body or found.params or _Body()
        except msgspec.DecodeError:
            body = _Body()
        self.input[body.model] = self.input.get(body.model, 0) + estimate_input(line)
        if not self._silent:
            self.output[body.model] = self.output.get(body.model, 0) + (body.most(UNBOUNDED) or 0)

    def cost(self, prices: Prices) -> int | str:
        """Return the list price of all of them in picodollars; or the name of a model whose price is unknown."""
        total = 0
        for model, count in self.input.items():
            found = prices.input_cost({model: count})
            if found is None:
                return model
            total += found
        for model, count in self.output.items():
            each = prices.list_cost(model, RowTokens(output_tokens=_PROBE))
            if each is None:
                return model
            total += each * count // _PROBE
        return total
