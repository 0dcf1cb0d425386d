"""What rows cost, from the price list of `genai-prices` (offline, as of the installed version)."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

import genai_prices

from .providers.base import RowTokens

#: Money is counted in whole picodollars, so that a million rows add up exactly.
PICO = 10**12
#: Below this many input tokens every model has one price per token; the first price tiers begin at 128,000.
_FLAT_BELOW = 128_000
_PROBE = 1000


class Prices:
    """Prices of one provider's models at the batch price.

    Args:
        provider: the provider's id in genai-prices.
        discount: share of the list price that a batch saves, 0 to 1.
    """

    def __init__(self, provider: str, discount: float) -> None:
        self._provider = provider
        self._paid = Decimal(1) - Decimal(str(discount))

    def list_cost(self, model: str | None, tokens: RowTokens | None) -> int | None:
        """Return the list price in picodollars, None where the model's price is unknown."""
        if model is None or tokens is None:
            return None
        if tokens.input_tokens >= _FLAT_BELOW:
            return _price(self._provider, model, tokens.input_tokens, tokens.cached_input_tokens, tokens.output_tokens)
        rates = _rates(self._provider, model)
        if rates is None:
            return None
        uncached = tokens.input_tokens - tokens.cached_input_tokens
        return uncached * rates[0] + tokens.cached_input_tokens * rates[1] + tokens.output_tokens * rates[2]

    def paid(self, list_cost: int) -> int:
        """Return what a batch pays for something of this list price, both in picodollars."""
        return int(list_cost * self._paid)


def dollars(pico: int) -> str:
    """Return picodollars as a plain decimal string of dollars: "0.0000135"."""
    text = f"{Decimal(pico) / PICO:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def picodollars(text: str) -> int:
    """Return a decimal string of dollars as picodollars."""
    return int(Decimal(text) * PICO)


@lru_cache(maxsize=256)
def _rates(provider: str, model: str) -> tuple[int, int, int] | None:
    """Return the price of one uncached input, cached input and output token in picodollars."""
    fresh = _price(provider, model, _PROBE, 0, 0)
    cached = _price(provider, model, _PROBE, _PROBE, 0)
    out = _price(provider, model, 0, 0, _PROBE)
    if fresh is None or cached is None or out is None:
        return None
    return fresh // _PROBE, cached // _PROBE, out // _PROBE


def _price(provider: str, model: str, into: int, cached: int, out: int) -> int | None:
    usage = genai_prices.Usage(input_tokens=into, cache_read_tokens=cached, output_tokens=out)
    try:
        return int(genai_prices.calc_price(usage, model_ref=model, provider_id=provider).total_price * PICO)
    except LookupError:
        return None
