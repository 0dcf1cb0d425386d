"""The served limits of live calls, by account and model: a rate of requests and of tokens, and calls in flight."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from .settings import Settings

#: What can be limited, in the order in which it is checked.
_KINDS = REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS = "requests", "tokens", "input_tokens", "output_tokens"


class Rates:
    """The rates that are set; made once for each change of the settings."""

    def __init__(self, settings: Settings) -> None:
        self.period = settings.rate_period_seconds
        self.reserved = settings.rate_counts == "reserved"
        self.window = settings.rate_window
        given = {
            REQUESTS: settings.rate_requests,
            TOKENS: settings.rate_tokens,
            INPUT_TOKENS: settings.rate_input_tokens,
            OUTPUT_TOKENS: settings.rate_output_tokens,
        }
        self.limits = {kind: limit for kind, limit in given.items() if limit is not None}


class Standing(NamedTuple):
    """How much of one limit is left."""

    limit: int  # a period
    remaining: int
    reset: float  # seconds until nothing counts any more, if nothing is added


class Shortage(NamedTuple):
    """Why a call is refused: a rate, or the calls in flight (`wait` and `used` are then nothing)."""

    kind: str | None  # one of the constants above; None: too many in flight
    limit: int
    used: int = 0
    asked: int = 0
    wait: float | None = None  # seconds until it fits; None: unknown, or it never will


class Counter(Protocol):
    """What counts against a limit, and how it is forgotten."""

    def level(self, now: float, limit: int, period: float) -> float:
        """What counts now."""

    def add(self, now: float, amount: int) -> None:
        """Count something."""

    def wait(self, now: float, excess: float, limit: int, period: float) -> float:
        """Seconds until so much of what counts now is forgotten."""

    def reset(self, now: float, limit: int, period: float) -> float:
        """Seconds until nothing counts any more; after `level` of the same moment."""


class Bucket:
    """Forgets continuously, a whole limit in a period: what was never used of it can be used at once."""

    def __init__(self) -> None:
        self._level = 0.0
        self._at = 0.0

    def level(self, now: float, limit: int, period: float) -> float:
        """What counts now."""
        self._level = max(0.0, self._level - (now - self._at) * limit / period)
        self._at = now
        return self._level

    def add(self, now: float, amount: int) -> None:
        """Count something; after `level` of the same moment."""
        self._level += amount

    def wait(self, now: float, excess: float, limit: int, period: float) -> float:
        """Seconds until so much of what counts now is forgotten."""
        return excess * period / limit

    def reset(self, now: float, limit: int, period: float) -> float:
        """Seconds until nothing counts any more; after `level` of the same moment."""
        return self._level * period / limit


class Window:
    """Forgets each amount when a period is over: no sliding period ever holds more than the limit."""

    def __init__(self) -> None:
        self._amounts: deque[tuple[float, int]] = deque()
        self._total = 0

    def level(self, now: float, limit: int, period: float) -> float:
        """What counts now."""
        amounts = self._amounts
        while amounts and amounts[0][0] <= now - period:
            self._total -= amounts.popleft()[1]
        return self._total

    def add(self, now: float, amount: int) -> None:
        """Count something."""
        if amount:
            self._amounts.append((now, amount))
            self._total += amount

    def wait(self, now: float, excess: float, limit: int, period: float) -> float:
        """Seconds until so much of what counts now is forgotten."""
        for at, amount in self._amounts:
            excess -= amount
            if excess <= 0:
                return at + period - now
        return 0.0

    def reset(self, now: float, limit: int, period: float) -> float:
        """Seconds until nothing counts any more; after `level` of the same moment."""
        return self._amounts[-1][0] + period - now if self._amounts else 0.0


_WINDOWS: dict[str, Callable[[], Counter]] = {"bucket": Bucket, "sliding": Window}


class Meter:
    """What counts against the limits of one account and model."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.most_in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._window = ""
        self._counters: dict[str, Counter] = {}

    # -- rates ----------------------------------------------------------------------------------------------

    def take(self, rates: Rates, now: float, input_tokens: int, cap: int) -> Shortage | None:
        """Count a call that arrives, or say which rate does not let it pass.

        Args:
            rates: The limits; they may be other ones each time.
            now: Monotonic seconds, never earlier than the last time.
            input_tokens: Its estimated input tokens.
            cap: The most output tokens that it asks for.
        """
        if not rates.limits:
            return None
        if rates.window != self._window:
            self._window = rates.window
            self._counters = {kind: _WINDOWS[rates.window]() for kind in _KINDS}
        costs = {
            REQUESTS: 1,
            TOKENS: input_tokens + cap if rates.reserved else 0,
            INPUT_TOKENS: input_tokens,
            OUTPUT_TOKENS: cap if rates.reserved else 0,
        }
        shortage = None
        for kind, limit in rates.limits.items():
            shortage = self._shortage(kind, limit, costs[kind], now, rates.period)
            if shortage is not None:
                break
        if shortage is None:
            for kind in rates.limits:
                self._counters[kind].add(now, costs[kind])
        elif shortage.kind != REQUESTS and REQUESTS in rates.limits:
            # Refused calls count as requests, as long as there are any left: OpenAI's guide to rate limits.
            self._counters[REQUESTS].add(now, 1)
        return shortage

    def _shortage(self, kind: str, limit: int, cost: int, now: float, period: float) -> Shortage | None:
        counter = self._counters[kind]
        level = counter.level(now, limit, period)
        # Of tokens that are counted on the answer, one has to be left.
        excess = level + max(cost, 1) - limit
        if excess <= 0:
            return None
        wait = None if cost > limit or not limit else counter.wait(now, excess, limit, period)
        return Shortage(kind, limit, round(level), cost, wait)

    def used(self, rates: Rates, input_tokens: int, output_tokens: int) -> None:
        """Count the tokens of an answer, where tokens are counted on the answer."""
        if rates.reserved or not self._counters:
            return
        now = time.monotonic()
        amounts = {TOKENS: input_tokens + output_tokens, OUTPUT_TOKENS: output_tokens}
        for kind, amount in amounts.items():
            if kind in rates.limits:
                self._counters[kind].level(now, rates.limits[kind], rates.period)
                self._counters[kind].add(now, amount)

    def standings(self, rates: Rates) -> dict[str, Standing]:
        """How much is left of each limit that is set."""
        now, period = time.monotonic(), rates.period
        found = {}
        for kind, limit in rates.limits.items():
            counter = self._counters.get(kind) or Bucket()
            level = counter.level(now, limit, period)
            reset = counter.reset(now, limit, period) if limit else period
            found[kind] = Standing(limit, max(0, int(limit - level)), reset)
        return found

    # -- calls in flight ------------------------------------------------------------------------------------

    def has_room(self, most: int | None) -> bool:
        """Whether a call may be in flight at once."""
        return most is None or self.in_flight < most

    async def enter(self, most: int | None) -> None:
        """Take a place in flight, as soon as there is one; `leave` gives it back."""
        if self.has_room(most):
            self._one_more()
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave(most)  # it was given a place and hung up in the same moment
            raise

    def leave(self, most: int | None) -> None:
        """Give a place back to the one who waits longest."""
        self.in_flight -= 1
        self.admit(most)

    def admit(self, most: int | None) -> None:
        """Let those in who wait, as far as there are places."""
        while self._waiting and self.has_room(most):
            place = self._waiting.popleft()
            if not place.done():
                self._one_more()
                place.set_result(None)

    def _one_more(self) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
