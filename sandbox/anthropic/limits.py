"""Anthropic's words for served limits: headers on every answer, and refusals."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from math import ceil

from ..errors import Refusal
from ..limits import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS, Shortage, Standing

_NAMES = {
    REQUESTS: "requests per minute",
    TOKENS: "tokens per minute",
    INPUT_TOKENS: "input tokens per minute",
    OUTPUT_TOKENS: "output tokens per minute",
}


def headers(standings: Mapping[str, Standing]) -> dict[str, str]:
    """The `anthropic-ratelimit-*` headers. Source: Anthropic's "Rate limits", "Response headers"."""
    shown = dict(standings)
    if TOKENS not in shown and INPUT_TOKENS in shown and OUTPUT_TOKENS in shown:
        # Without a limit of their own, tokens are the sum of input and output.
        into, out = shown[INPUT_TOKENS], shown[OUTPUT_TOKENS]
        shown[TOKENS] = Standing(into.limit + out.limit, into.remaining + out.remaining, max(into.reset, out.reset))
    now, found = time.time(), {}
    for kind, standing in shown.items():
        name = f"anthropic-ratelimit-{kind.replace('_', '-')}"
        found[f"{name}-limit"] = str(standing.limit)
        found[f"{name}-remaining"] = str(standing.remaining)
        found[f"{name}-reset"] = datetime.fromtimestamp(ceil(now + standing.reset), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return found


def refusal(model: str, shortage: Shortage) -> Refusal:
    """The 429 for a call that a limit does not let pass."""
    if shortage.kind is None:
        message = "Number of concurrent connections has exceeded your rate limit. Please try again later."
        return Refusal(429, message)
    message = (
        f"This request would exceed your organization's rate limit of {shortage.limit:,} {_NAMES[shortage.kind]} "
        f"(model: {model})."
    )
    if shortage.wait is None:
        return Refusal(429, message)
    # Whole seconds, rounded up: who waits for so long gets through.
    return Refusal(429, message, headers={"retry-after": str(ceil(shortage.wait))})
