"""What an HTTP status means as an error of the contract, and how long a provider asks to be left alone. Pure."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ...contract import (
    AnswerLost,
    AuthenticationFailed,
    ProviderError,
    ProviderNotFound,
    ProviderRefused,
    ProviderUnavailable,
    QueueFull,
    QuotaExhausted,
    RateLimited,
)
from . import redaction, refusals
from .settings import NO_KEY, ProviderSettings

#: Codes and words by which providers say that their queue, rather than the request rate, is full.
QUEUE_WORDS = (
    "token_limit_exceeded",
    "enqueued token limit",
    "too many batches",
    "batch_limit",
    "too many active",
)
#: Codes and words by which providers say, whatever the status, that an account has no credit: OpenAI's `code` and
#: Anthropic's message ("Your credit balance is too low to access the Anthropic API"). With 429 it may lift by itself.
CREDIT_WORDS = ("insufficient_quota", "billing_hard_limit_reached", "credit balance is too low")
#: A provider is asked again after a day, whatever it says (in seconds).
LONGEST_WAIT = 24 * 3600.0

_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?")
_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def secret_of(settings: ProviderSettings) -> str:
    """Return the key that no message may show; "" where there is none."""
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    return "" if key == NO_KEY else key


def status_error(
    settings: ProviderSettings,
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    *,
    moved: str = "",
    listing: bool = False,
    creates: bool = False,
) -> ProviderError:
    """Return what an answer that is no success means.

    Args:
        moved: where a redirect leads; said where the body says nothing.
        listing: whether the call asked for a listing that every such provider has.
        creates: whether the call may have created something although it says otherwise.
    """
    name = settings.name
    found = refusals.refusal(content)
    said = redaction.redacted(found.words or found.code or moved, secret_of(settings))
    message = f"Provider {name} answered {status}: {said}" if said else _silent(name, status)
    facts: dict[str, Any] = {"retry_after": retry_after(headers), "status": status}
    reasons = f"{found.code} {found.words}".lower()
    full = any(word in reasons for word in QUEUE_WORDS)
    if status in (401, 403):
        return AuthenticationFailed(_no_access(settings, status, said), status=status)
    if status == 404:
        if listing:
            hint = (
                "There is such a listing at the right base_url: see `durabatch doctor`. A server without batches needs "
                'mode = "direct".'
            )
            message = f"{message.rstrip('.')}. {hint}"
        return ProviderNotFound(message, status=status)
    if status == 429:
        return (QueueFull if full else RateLimited)(message, **facts)
    if status >= 500 or status == 408:
        # A server, or a proxy before it, that gave up waiting may have passed the request on.
        return (AnswerLost if creates else ProviderUnavailable)(message, **facts)
    if status == 425:
        return ProviderUnavailable(message, **facts)
    if full:
        return QueueFull(message, **facts)
    if status == 402 or any(word in reasons for word in CREDIT_WORDS):
        message = f"{message.rstrip('.')}. Add credit to the account, or raise its limit."
        return QuotaExhausted(message, status=status)
    return ProviderRefused(message, status=status)


def _no_access(settings: ProviderSettings, status: int, said: str) -> str:
    reason = f"({status}): {(said or 'it gave no reason').rstrip('.')}."
    if not secret_of(settings):
        what = "refuses calls without a key" if status == 401 else "does not allow this without a key"
        fix = "If it needs one, put it into an environment variable, and name that by"
        return f"Provider {settings.name} {what} {reason} {fix} providers.{settings.name}.api_key_env."
    what = "refuses the key" if status == 401 else "does not allow this with the key"
    fix = f"Check the environment variable {settings.key_variable}, and what the key may do."
    return f"Provider {settings.name} {what} {reason} {fix}"


def _silent(name: str, status: int) -> str:
    return f"Provider {name} gave no reason (HTTP {status})."


def retry_after(headers: Mapping[str, str], now: float | None = None) -> timedelta | None:
    """Return how long the provider asks to be left alone: Retry-After (seconds or a date), or its own headers."""
    seconds = _seconds_asked(headers, time.time() if now is None else now)
    return None if seconds is None else timedelta(seconds=min(max(seconds, 0.0), LONGEST_WAIT))


def _seconds_asked(headers: Mapping[str, str], now: float) -> float | None:
    if _NUMBER.fullmatch(milliseconds := headers.get("retry-after-ms", "").strip()):
        return float(milliseconds) / 1000
    value = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(value):
        return float(value)
    if value:
        try:
            return email.utils.parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    for what in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{what}") == "0":
            found = seconds_of(headers.get(f"x-ratelimit-reset-{what}", ""))
            if found is not None:
                return found
    return None


def seconds_of(duration: str) -> float | None:
    """Return a duration such as "1m2.5s" or "180ms" in seconds; None for anything else."""
    found = _GO_DURATION.findall(duration)
    return sum(float(number) * _SECONDS[unit] for number, unit in found) if found else None
