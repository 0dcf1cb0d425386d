"""Saying how far a long clean-up is."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..concurrency import concurrently

T = TypeVar("T")
R = TypeVar("R")

#: Objects, batches and files that are asked for, or removed, at a time.
_PARALLEL = 8
#: Seconds between two messages.
_INTERVAL = 2.0


class Reporter:
    """Passes on a message now and then, so that a long clean-up shows that it is alive.

    Args:
        say: is given the messages.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last = time.monotonic()

    def now(self, text: str) -> None:
        """Pass on a message at once."""
        self._say(text)

    def maybe(self, text: str) -> None:
        """Pass on a message unless one has just been."""
        if time.monotonic() - self._last >= _INTERVAL:
            self._last = time.monotonic()
            self._say(text)

    async def each(self, items: Sequence[T], work: Callable[[T], Awaitable[R]], words: str = "") -> list[R]:
        """Do something with every item, some at a time, and return what came of it in the items' order.

        Args:
            words: the message, with a place for how many are done and one for how many there are.
        """
        done = list[R]()
        for start in range(0, len(items), _PARALLEL * 8):
            done += await concurrently(work, items[start : start + _PARALLEL * 8], _PARALLEL)
            if words:
                self.maybe(words.format(f"{len(done):,}", f"{len(items):,}"))
        return done
