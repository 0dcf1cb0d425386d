"""What rows cost, from the price list of `genai-prices` (offline, as of the installed version)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ..contract import Mode
from .providers.outcome import CacheWrites, RowTokens

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

#: Money is counted in whole picodollars, so that a million rows add up exactly.
PICO = 10**12
#: Tokens that prices are asked for, few enough to be below every price tier (the lowest one begins at 32,000).
_PROBE = 1000


class Prices:
    """Prices of one provider's models, at the list price and at the batch price.

    Args:
        provider: the provider's id in genai-prices.
        discount: share of the list price that a batch saves, 0 to 1.
    """

    def __init__(self, provider: str, discount: float) -> None:
        self._provider = provider
        self.share = 1 - Fraction(str(discount))  #: What a batch costs of the list price.

    def list_cost(
        self, model: str | None, tokens: RowTokens | None, cache_writes: CacheWrites | None = None
    ) -> int | None:
        """Return the list price in picodollars; None where the price is unknown, or the tokens make no sense.

        Without its tokens the price of a row is known only where the model costs nothing, as OpenAI's moderations do.
        """
        if model is None:
            return None
        if tokens is None:
            rates = _rates(self._provider, model)
            return None if rates is None or any(rates[1:]) else 0
        into, cached, out = tokens.input_tokens, tokens.cached_input_tokens, tokens.output_tokens
        written, hour = (cache_writes.tokens, cache_writes.hour_tokens) if cache_writes else (0, 0)
        if not (0 <= cached <= into - written and 0 <= hour <= written) or out < 0:
            return None
        rates = _rates(self._provider, model)
        if rates is None:
            return None
        if into >= rates.flat_below:
            return _price(
                self._provider,
                model,
                input_tokens=into,
                cache_read_tokens=cached,
                cache_write_tokens=written,
                cache_write_1h_tokens=hour,
                output_tokens=out,
            )
        cost = (into - cached - written) * rates.fresh + cached * rates.cached + out * rates.out
        return cost + (written - hour) * rates.written + hour * rates.hour if written else cost

    def input_cost(self, tokens: Mapping[str, int]) -> int | None:
        """Return the list price of so many input tokens by model, in picodollars; None where one is unknown.

        Token by token below the price tiers: the sum of many short prompts is not one long prompt.
        """
        total = 0
        for model, count in tokens.items():
            cost = self.list_cost(model or None, RowTokens(input_tokens=_PROBE))
            if cost is None:
                return None
            total += cost * count // _PROBE
        return total

    def knows(self, model: str) -> bool:
        """Return whether the price list has a model."""
        return _rates(self._provider, model) is not None

    def paid(self, list_cost: int, mode: Mode = Mode.BATCH) -> int:
        """Return what is paid for something of this list price, both in picodollars; in direct mode all of it."""
        if mode is Mode.DIRECT:
            return list_cost
        return list_cost * self.share.numerator // self.share.denominator


def load() -> None:
    """Load the price list, so that the first row that is priced need not wait for it; nothing happens before."""
    _calculation("openai", "gpt-4o-mini")


def dollars(pico: int) -> str:
    """Return picodollars as a plain decimal string of dollars: "0.0000135"."""
    whole, part = divmod(pico, PICO)
    return f"{whole}.{part:012}".rstrip("0") if part else str(whole)


def picodollars(text: str) -> int:
    """Return a decimal string of dollars as picodollars."""
    return int(Decimal(text) * PICO)


class _Rates(NamedTuple):
    """Picodollars a token, for requests with fewer input tokens than the first price tier has."""

    flat_below: float
    fresh: int
    cached: int
    written: int  #: To the provider's cache.
    hour: int  #: The same, to be kept for an hour.
    out: int


@lru_cache(maxsize=256)
def _rates(provider: str, model: str) -> _Rates | None:
    from genai_prices.types import TieredPrices

    found = _calculation(provider, model)
    if found is None:
        return None
    starts = [
        tier.start
        for price in vars(found.model_price).values()
        if isinstance(price, TieredPrices)
        for tier in price.tiers
    ]
    fresh = _price(provider, model, input_tokens=_PROBE)
    cached = _price(provider, model, input_tokens=_PROBE, cache_read_tokens=_PROBE)
    written = _price(provider, model, input_tokens=_PROBE, cache_write_tokens=_PROBE)
    hour = _price(provider, model, input_tokens=_PROBE, cache_write_tokens=_PROBE, cache_write_1h_tokens=_PROBE)
    out = _price(provider, model, output_tokens=_PROBE)
    if fresh is None or cached is None or written is None or hour is None or out is None:
        return None
    each = (rate // _PROBE for rate in (fresh, cached, written, hour, out))
    return _Rates(min(starts, default=float("inf")), *each)


def _price(provider: str, model: str, **tokens: int) -> int | None:
    found = _calculation(provider, model, **tokens)
    return None if found is None else int(found.total_price * PICO)


def _calculation(provider: str, model: str, **tokens: int) -> PriceCalculation | None:
    import genai_prices  # a tenth of a second, which the command's start need not wait for

    try:
        return genai_prices.calc_price(genai_prices.Usage(**tokens), model_ref=model, provider_id=provider)
    except LookupError:
        return None
