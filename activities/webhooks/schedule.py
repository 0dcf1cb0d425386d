"""When an event is sent again, and when an endpoint is left alone for a while. Pure."""

from __future__ import annotations

from ...contract.webhooks import Delivery, DeliveryStatus, EndpointState
from .outcome import GONE, Outcome

#: How long an event is tried.
DAY_MS = 24 * 3600 * 1000
#: Seconds until the next attempt, after the first one, the second one, …; then always the last.
_PAUSES = (5, 30, 120, 600, 1800, 3600, 7200, 14400)
#: The share by which each pause is shortened or lengthened, so that events that failed together do not come together.
_JITTER = 0.2
#: So many failures in a row, and an endpoint is tried with one event at a time.
BREAKER = 10
#: Seconds until the first such attempt; each pause is twice the one before it.
_PROBE, _LONGEST_PROBE = 60, 3600


def after(delivery: Delivery, outcome: Outcome, now: int, draw: float) -> Delivery:
    """Return an event after an attempt.

    Args:
        now: milliseconds since 1970.
        draw: a random number from 0 to 1.
    """
    attempts = delivery.attempts + 1
    tried = {"attempts": attempts, "response_status": outcome.status, "error": outcome.error}
    if outcome.delivered:
        update = {**tried, "status": DeliveryStatus.DELIVERED, "delivered_at": now // 1000}
        return delivery.model_copy(update=update)
    pause = _PAUSES[min(attempts, len(_PAUSES)) - 1] * (1 + _JITTER * (2 * draw - 1))
    next_ms = now + int(pause * 1000)
    if next_ms - delivery.queued_ms > DAY_MS:
        return delivery.model_copy(update={**tried, "status": DeliveryStatus.FAILED})
    return delivery.model_copy(update={**tried, "next_ms": next_ms})


def too_old(delivery: Delivery, now: int) -> bool:
    """Return whether an event's day is over, so that it is given up without another attempt."""
    return now - delivery.queued_ms > DAY_MS


def given_up(delivery: Delivery) -> Delivery:
    """Return an event whose day was over before the endpoint could be tried with it again."""
    error = delivery.error or "The endpoint answered no other event for a day."
    return delivery.model_copy(update={"status": DeliveryStatus.FAILED, "error": error})


def judged(state: EndpointState, outcome: Outcome, now: int) -> EndpointState:
    """Return what is known of an endpoint after an attempt."""
    if outcome.delivered:
        return EndpointState()
    failures = state.failures + 1
    doubled = min(max(failures - BREAKER, 0), 20)
    pause = min(_PROBE * 2**doubled, _LONGEST_PROBE)
    return EndpointState(
        failures=failures,
        probe_ms=now + pause * 1000 if failures >= BREAKER else 0,
        disabled=state.disabled or outcome.status == GONE,
    )


def room(state: EndpointState, most: int) -> int:
    """Return how many events may be sent at a time: one where the endpoint keeps failing, and never past that point."""
    return min(most, BREAKER - state.failures) if state.failures < BREAKER else 1
