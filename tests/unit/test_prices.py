"""What rows cost, against the price list itself."""

from __future__ import annotations

import random
from decimal import Decimal

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import TieredPrices

from durabatch.activities.prices import PICO, Prices, dollars, picodollars
from durabatch.activities.providers.outcome import CacheWrites, RowTokens

OPENAI = Prices("openai", 0.5)


def tokens(into: int = 0, cached: int = 0, out: int = 0) -> RowTokens:
    return RowTokens(input_tokens=into, cached_input_tokens=cached, output_tokens=out)


def list_price(provider: str, model: str, into: int, cached: int, out: int) -> int:
    usage = genai_prices.Usage(input_tokens=into, cache_read_tokens=cached, output_tokens=out)
    return int(genai_prices.calc_price(usage, model_ref=model, provider_id=provider).total_price * PICO)


def tiers(provider: str, model: str) -> list[int]:
    """Where a model's price tiers begin, in input tokens."""
    found = genai_prices.calc_price(genai_prices.Usage(), model_ref=model, provider_id=provider).model_price
    prices = [price for price in vars(found).values() if isinstance(price, TieredPrices)]
    return [tier.start for price in prices for tier in price.tiers]


def known(provider: str) -> list[str]:
    """The models of a provider that have a price."""
    (found,) = (one for one in get_snapshot().providers if one.id == provider)
    names = []
    for model in found.models:
        try:
            genai_prices.calc_price(genai_prices.Usage(), model_ref=model.id, provider_id=provider)
        except LookupError:
            continue
        names.append(model.id)
    return names


def test_a_row_costs_its_tokens() -> None:
    # 0.15 and 0.60 USD for a million, 0.075 for those from the cache
    assert OPENAI.list_cost("gpt-4o-mini", tokens(1_000_000 // 10, 0, 0)) == picodollars("0.015")
    assert OPENAI.list_cost("gpt-4o-mini", tokens(0, 0, 1_000_000)) == picodollars("0.6")
    assert OPENAI.list_cost("gpt-4o-mini", tokens(100, 40, 7)) == picodollars("0.0000162")


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_every_model_costs_what_the_price_list_says_also_where_its_tiers_begin(provider: str) -> None:
    prices, tiered = Prices(provider, 0.5), 0
    for model in known(provider):
        edges = {edge for start in tiers(provider, model) for edge in (start - 1, start, start + 1)}
        tiered += bool(edges)
        for into in {0, 1, 999, 31_999, 99_999, 127_999, 128_001, 1_000_000} | edges:
            for cached in {0, into // 3, into}:
                for out in (0, 7, 70_000):
                    expected = list_price(provider, model, into, cached, out)
                    assert prices.list_cost(model, tokens(into, cached, out)) == expected, (model, into, cached, out)
    assert tiered  # the test has seen tiers


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_what_is_written_to_the_cache_costs_what_the_price_list_says(provider: str) -> None:
    prices, dearer = Prices(provider, 0.5), 0
    for model in known(provider):
        edges = {edge for start in tiers(provider, model) for edge in (start - 1, start, start + 1)}
        for into in {1, 999, 31_999} | edges:
            written = into // 2
            for hour in {0, written // 3, written}:
                for cached in {0, into - written}:
                    usage = genai_prices.Usage(
                        input_tokens=into,
                        cache_read_tokens=cached,
                        cache_write_tokens=written,
                        cache_write_1h_tokens=hour,
                        output_tokens=7,
                    )
                    found = genai_prices.calc_price(usage, model_ref=model, provider_id=provider)
                    writes = CacheWrites(tokens=written, hour_tokens=hour)
                    cost = prices.list_cost(model, tokens(into, cached, 7), writes)
                    assert cost == int(found.total_price * PICO), (model, into, cached, written, hour)
                    dearer += cost > (prices.list_cost(model, tokens(into, cached, 7)) or 0)
    assert dearer or provider == "openai"  # the test has seen such prices


def test_cache_writes_cost_a_quarter_more_and_twice_as_much_for_an_hour() -> None:
    def price(writes: CacheWrites | None) -> int | None:
        return Prices("anthropic", 0.5).list_cost("claude-haiku-4-5", tokens(1000), writes)

    assert price(None) == price(CacheWrites()) == picodollars("0.001")
    assert price(CacheWrites(tokens=1000)) == picodollars("0.00125")
    assert price(CacheWrites(tokens=1000, hour_tokens=1000)) == picodollars("0.002")


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    ("cached", "writes"),
    [
        (0, CacheWrites(tokens=101)),
        (60, CacheWrites(tokens=41)),
        (0, CacheWrites(tokens=-1)),
        (0, CacheWrites(tokens=10, hour_tokens=11)),
        (0, CacheWrites(tokens=10, hour_tokens=-1)),
        (0, CacheWrites(hour_tokens=1)),
    ],
)
def test_cache_writes_that_make_no_sense_have_an_unknown_price(cached: int, writes: CacheWrites, size: int) -> None:
    scaled = CacheWrites(tokens=writes.tokens * size, hour_tokens=writes.hour_tokens * size)
    assert Prices("anthropic", 0.5).list_cost("claude-haiku-4-5", tokens(100 * size, cached * size), scaled) is None


@pytest.mark.parametrize("model", [None, "", "no-such-model", "gpt-4o-mini\n"])
def test_an_unknown_model_has_an_unknown_price(model: str | None) -> None:
    assert OPENAI.list_cost(model, tokens(10)) is None


def test_an_unknown_price_list_makes_every_price_unknown() -> None:
    assert Prices("no-such-provider", 0.5).list_cost("gpt-4o-mini", tokens(10)) is None


def test_unknown_tokens_have_an_unknown_price() -> None:
    assert OPENAI.list_cost("gpt-4o-mini", None) is None


@pytest.mark.parametrize("size", [1, 1000])  # below the price tiers and above
@pytest.mark.parametrize(
    "nonsense", [tokens(100, 101, 0), tokens(-1, 0, 0), tokens(100, -1, 0), tokens(100, 0, -1), tokens(-5, -5, 0)]
)
def test_tokens_that_make_no_sense_have_an_unknown_price(nonsense: RowTokens, size: int) -> None:
    scaled = tokens(nonsense.input_tokens * size, nonsense.cached_input_tokens * size, nonsense.output_tokens * size)
    assert OPENAI.list_cost("gpt-4o-mini", scaled) is None


@pytest.mark.parametrize(
    ("discount", "paid"), [(0.5, 500), (0.0, 1000), (1.0, 0), (0.25, 750), (0.1, 900), (0.3, 700), (0.999, 1)]
)
def test_a_batch_pays_the_list_price_less_its_discount(discount: float, paid: int) -> None:
    # 0.1 and its like have no exact binary form: as decimals they are exact.
    assert Prices("openai", discount).paid(1000) == paid
    assert Prices("openai", discount).paid(10**30) == paid * 10**27


def test_half_a_picodollar_is_given_away() -> None:
    assert OPENAI.paid(3) == 1


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (0, "0"),
        (1, "0.000000000001"),
        (13_500_000, "0.0000135"),
        (PICO // 10, "0.1"),
        (PICO, "1"),
        (100 * PICO, "100"),
        (1_234_567 * PICO + 890_000_000_000, "1234567.89"),
        (10**40 + 1, "10000000000000000000000000000.000000000001"),
    ],
)
def test_money_is_written_plainly_and_exactly(pico: int, text: str) -> None:
    assert dollars(pico) == text
    assert Decimal(text) * PICO == pico or pico > 10**28  # more digits than decimals have by default


def test_a_million_amounts_add_up_to_the_picodollar() -> None:
    chance = random.Random(3)
    amounts = [chance.randrange(10**9) for _ in range(10_000)]
    assert sum(picodollars(dollars(amount)) for amount in amounts) == sum(amounts)
    assert picodollars(dollars(sum(amounts) * 100)) == sum(amounts) * 100
