"""OpenAI's words for served limits: headers on every answer, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from ..errors import Refusal
from ..limits import REQUESTS, TOKENS, Shortage, Standing

#: How refusals name a limit, and their type. Source: recorded 429s of OpenAI.
_NAMES = {REQUESTS: ("requests per min (RPM)", "requests")}
_TOKENS = ("tokens per min (TPM)", "tokens")


def headers(standings: Mapping[str, Standing]) -> dict[str, str]:
    """The `x-ratelimit-*` headers. Source: OpenAI's guide to rate limits, "Rate limits in headers"."""
    found = {}
    for kind in (REQUESTS, TOKENS):
        if (standing := standings.get(kind)) is not None:
            found[f"x-ratelimit-limit-{kind}"] = str(standing.limit)
            found[f"x-ratelimit-remaining-{kind}"] = str(standing.remaining)
            found[f"x-ratelimit-reset-{kind}"] = duration(standing.reset)
    return found


def refusal(model: str, shortage: Shortage) -> Refusal:
    """The 429 for a call that a limit does not let pass."""
    if shortage.kind is None:
        message = f"Too many concurrent requests for {model}: Limit {shortage.limit}. Please try again later."
        return Refusal(429, message, code="rate_limit_exceeded", type="requests")
    name, kind = _NAMES.get(shortage.kind, _TOKENS)
    if shortage.wait is None:
        message = (
            f"Request too large for {model} on {name}: Limit {shortage.limit}, Requested {shortage.asked}. "
            "The input or output tokens must be reduced in order to run successfully."
        )
        return Refusal(429, message, code="rate_limit_exceeded", type=kind)
    message = (
        f"Rate limit reached for {model} on {name}: Limit {shortage.limit}, Used {shortage.used}, "
        f"Requested {shortage.asked}. Please try again in {duration(shortage.wait)}."
    )
    # Both are rounded up: who waits for so long gets through.
    wait = {"retry-after": str(ceil(shortage.wait)), "retry-after-ms": str(ceil(shortage.wait * 1000))}
    return Refusal(429, message, code="rate_limit_exceeded", type=kind, headers=wait)


def duration(seconds: float) -> str:
    """A duration in OpenAI's way, which is Go's: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    milliseconds = ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    last = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{last}"
    return f"{minutes}m{last}" if minutes else last
