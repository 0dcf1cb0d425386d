"""Whether direct mode may finish what a provider batch has left over of a shard, within the spec's max_cost_usd."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from .prices import PICO, Prices, dollars


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A shard's part of what its batch may cost: as much of it as the shard has of the batch's input.

    So shards that know nothing of one another keep to it together.
    """

    limit: str  #: The spec's max_cost_usd.
    prices: Prices
    batch: Mapping[str, int]  #: Estimated input tokens of the batch, by model.
    shard: Mapping[str, int]  #: Those of the shard.

    def refuses(self, rows: int, tokens: int, paid: int) -> str | None:
        """Return why rows are too dear to be run directly, in a sentence; None if they are not.

        Args:
            rows: how many they are.
            tokens: their estimated input.
            paid: what the shard has cost so far, in picodollars.
        """
        batch, shard = self.prices.input_cost(self.batch), self.prices.input_cost(self.shard)
        if not batch or shard is None:
            return None if batch == 0 else "The price of a model is not known, so max_cost_usd cannot be kept."
        cost = int(shard * Fraction(tokens, max(1, sum(self.shard.values()))))
        share = int(Fraction(self.limit) * PICO * Fraction(shard, batch))
        if paid + cost <= share:
            return None
        return (
            f"{rows:,} rows were left over and not finished directly: their input alone is estimated at "
            f"{dollars(cost)} USD at the list price, and their shard, which has cost {dollars(paid)} USD, may cost "
            f"{dollars(share)} USD of max_cost_usd = {self.limit}."
        )
