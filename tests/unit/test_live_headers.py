"""What the headers of answers say about rate limits, as OpenAI, Groq and Anthropic send them."""

from __future__ import annotations

import pytest

from durabatch.activities.providers import ProviderSettings, open_provider
from durabatch.activities.providers.base import LimitNews, LiveCalls
from durabatch.activities.providers.live_headers import per_minute


def live(kind: str) -> LiveCalls:
    found = open_provider(ProviderSettings(name="p", kind=kind)).live
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "found"),
    [
        ("5000", "4999", "12ms", 5000.0),
        ("150000", "149000", "400ms", 150_000.0),
        ("60", "59", "1", 60.0),  # Azure: seconds, without a unit
        ("14400", "14370", "2m59.56s", None),  # Groq: of a day
        ("10000", "9999", "8.64s", None),  # OpenAI's lower tiers: of a day
        ("200", "200", "0s", 200.0),
        ("200", None, None, 200.0),
        ("0", "0", "1s", None),
        ("much", "1", "1s", None),
        (None, "1", "1s", None),
    ],
)
def test_a_limit_counts_where_it_is_one_of_a_minute(
    limit: str | None, remaining: str | None, reset: str | None, found: float | None
) -> None:
    assert per_minute(limit, remaining, reset) == found


def test_openai_s_headers() -> None:
    headers = {
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-requests": "4999",
        "x-ratelimit-remaining-tokens": "149000",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-reset-tokens": "400ms",
    }
    assert live("openai").limit_news(200, headers) == LimitNews(requests_per_minute=5000, tokens_per_minute=150_000)


def test_anthropic_s_headers() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-tokens-limit": "30000",
        "anthropic-ratelimit-tokens-remaining": "29000",
        "retry-after": "3",
    }
    assert live("anthropic").limit_news(429, headers) == LimitNews(
        retry_after=3.0,
        requests_per_minute=50,
        tokens_per_minute=30_000,
    )
