"""What each model answered, added up: of a shard from its answers, of a batch from its shards."""

from __future__ import annotations

from collections.abc import Mapping

from ..contract import ModelShare, Usage
from .prices import dollars, picodollars

#: Models that are counted one by one: what is written down of them goes through Temporal.
MAX_MODELS = 20
#: What all others are called.
OTHERS = "others"


class Share:
    """What one model answered, while it is added up."""

    __slots__ = ("_listed", "_paid", "_priced", "answers", "usage")

    def __init__(self) -> None:
        self.answers = 0
        self.usage = [0, 0, 0, 0]
        self._listed = 0
        self._paid = 0
        self._priced = False

    def add_cost(self, listed: int, paid: int) -> None:
        """Count what an answer cost, in picodollars."""
        self._listed += listed
        self._paid += paid
        self._priced = True

    def add(self, other: ModelShare) -> None:
        """Count what a shard says of the model."""
        self.answers += other.answers
        usage = other.usage
        counted = (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.reasoning_tokens)
        self.usage = [one + more for one, more in zip(self.usage, counted, strict=True)]
        if other.cost_usd is not None and other.list_cost_usd is not None:
            self.add_cost(picodollars(other.list_cost_usd), picodollars(other.cost_usd))

    def model(self) -> ModelShare:
        into, cached, out, reasoning = self.usage
        return ModelShare(
            answers=self.answers,
            usage=Usage(input_tokens=into, cached_input_tokens=cached, output_tokens=out, reasoning_tokens=reasoning),
            cost_usd=dollars(self._paid) if self._priced else None,
            list_cost_usd=dollars(self._listed) if self._priced else None,
        )


def share_of(shares: dict[str, Share], model: str) -> Share:
    """Return the share of a model, a new one where it has none; that of all others where there are too many."""
    if model not in shares and len(shares) >= MAX_MODELS:
        model = OTHERS
    return shares.setdefault(model, Share())


def add_models(total: Mapping[str, ModelShare], more: Mapping[str, ModelShare]) -> dict[str, ModelShare]:
    """Return what two parts of a batch say of its models together."""
    shares: dict[str, Share] = {}
    for part in (total, more):
        for model, found in part.items():
            share_of(shares, model).add(found)
    return {model: share.model() for model, share in shares.items()}
