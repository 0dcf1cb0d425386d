"""What the answers of a shard cost, as far as that is known."""

from __future__ import annotations

from collections import Counter

from ..contract import Mode, ModelShare, Unpriced, Usage
from .model_shares import Share, share_of
from .prices import Prices, dollars
from .providers import Outcome
from .providers.outcome import RowTokens

#: More tokens than any row has; what a provider counts above that is not a count.
_MAX_TOKENS = 10**9
#: Models without a known price that are named, and characters of a name.
_MAX_MODELS = 20
_MAX_NAME = 100


class Bill:
    """Adds up the tokens and the prices of answers.

    Args:
        prices: of the provider's models.
        model: the one that was asked for, where all rows asked for the same: what an answer without a model is of.
    """

    def __init__(self, prices: Prices, model: str) -> None:
        self._prices = prices
        self._model = model or None
        self._usage = [0, 0, 0, 0]
        self._listed = 0  # picodollars
        self._paid = 0
        self._direct = 0  # of that, in direct mode
        self._shares: dict[str, Share] = {}
        self._without_usage = 0
        self._without_price: Counter[str] = Counter()

    def add(self, outcome: Outcome, tokens: RowTokens | None, mode: Mode = Mode.BATCH) -> int | None:
        """Count one answer and return what it cost, in picodollars; None where that is not known.

        Args:
            tokens: its tokens, as far as they make sense.
            mode: how it was asked for: the batch discount is for batches.
        """
        if tokens is None and outcome.failure and not outcome.text:
            return 0  # an error without an answer is not billed
        model = outcome.model or self._model
        cost = self._prices.list_cost(model, tokens, outcome.cache_writes)
        share = share_of(self._shares, (model or "")[:_MAX_NAME])
        share.answers += 1
        if tokens is not None:
            counted = (tokens.input_tokens, tokens.cached_input_tokens, tokens.output_tokens, tokens.reasoning_tokens)
            for number, count in enumerate(counted):
                self._usage[number] += count
                share.usage[number] += count
        if cost is None:
            if model and self._prices.knows(model):
                self._without_usage += 1
            else:
                self._without_price[(model or "")[:_MAX_NAME]] += 1
            return None
        paid = self._prices.paid(cost, mode)
        share.add_cost(cost, paid)
        self._listed += cost
        self._paid += paid
        self._direct += paid if mode is Mode.DIRECT else 0
        return paid

    def add_unread(self, rows: int) -> None:
        """Count answers that nobody can read, but which the provider may have billed."""
        self._without_usage += rows

    @property
    def usage(self) -> Usage:
        into, cached, out, reasoning = self._usage
        return Usage(input_tokens=into, cached_input_tokens=cached, output_tokens=out, reasoning_tokens=reasoning)

    @property
    def models(self) -> dict[str, ModelShare]:
        """What each model answered."""
        return {name: share.model() for name, share in self._shares.items()}

    @property
    def paid(self) -> int:
        """What is known to have been paid, in picodollars."""
        return self._paid

    @property
    def unpriced(self) -> Unpriced:
        """The answers whose cost is not known."""
        return Unpriced(
            without_usage=self._without_usage,
            without_price=self._without_price.total(),
            models=dict(self._without_price.most_common(_MAX_MODELS)),
        )

    @property
    def cost_usd(self) -> str | None:
        """What is known to have been paid, at least; None where nothing is known."""
        return dollars(self._paid) if self._listed or not self.unpriced.total else None

    @property
    def direct_cost_usd(self) -> str:
        """Of that, what was paid in direct mode."""
        return dollars(self._direct)

    @property
    def list_cost_usd(self) -> str | None:
        """The same without the batch discount."""
        return dollars(self._listed) if self._listed or not self.unpriced.total else None


def sensible(tokens: RowTokens | None) -> RowTokens | None:
    """Return a row's tokens, None where a provider counts fewer than none, or more than there can be."""
    if tokens is None or not (0 <= tokens.input_tokens <= _MAX_TOKENS and 0 <= tokens.output_tokens <= _MAX_TOKENS):
        return None
    return tokens if tokens.cached_input_tokens >= 0 and tokens.reasoning_tokens >= 0 else None
