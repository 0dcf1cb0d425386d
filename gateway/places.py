"""How much of a kind a process does at a time: uploads, downloads, long reads. No tenant can hold all of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .errors import ApiError

#: Requests of a tenant that may wait for each place: they hold a connection, and no more than its buffers.
_WAITING = 8


class Places:
    """Places for requests; who waits for one longer than `patience` seconds is sent away with 429.

    Of what the others leave free a tenant holds three quarters at most, so that another one's request finds a place
    beside any number of theirs.

    Args:
        what: the requests, for the error: "uploads".
        most: how many may be under way at a time.
        shared: whether there is more than one tenant; a single one may hold all places.
        patience: seconds.
    """

    def __init__(self, what: str, most: int, *, shared: bool, patience: float = 5.0) -> None:
        self._what = what
        self._most = most
        self._shared = shared
        self._patience = patience
        self._held = Counter[str]()
        self._present = Counter[str]()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    @property
    def active(self) -> int:
        """Requests under way or waiting."""
        return self._present.total()

    @asynccontextmanager
    async def one(self, tenant: str) -> AsyncIterator[None]:
        """Hold a place.

        Raises:
            ApiError: 429 where there is none.
        """
        if self._present[tenant] >= self._most * (1 + _WAITING):
            raise self._busy()
        self._present[tenant] += 1
        try:
            await self._enter(tenant)
            try:
                yield
            finally:
                self._leave(tenant)
        finally:
            self._present[tenant] -= 1

    def _free(self, tenant: str) -> bool:
        held, own = self._held.total(), self._held[tenant]
        left = self._most - (held - own)
        return held < self._most and own < (max(1, left * 3 // 4) if self._shared else left)

    async def _enter(self, tenant: str) -> None:
        if self._free(tenant):  # then nobody waits that might take it
            self._held[tenant] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((tenant, turn))
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came at the last moment
                self._leave(tenant)
            else:
                self._waiting.remove((tenant, turn))
            if isinstance(error, TimeoutError):
                raise self._busy() from None
            raise

    def _leave(self, tenant: str) -> None:
        self._held[tenant] -= 1
        for one in self._waiting.copy():
            waiting, turn = one
            if not turn.done() and self._free(waiting):
                self._waiting.remove(one)
                self._held[waiting] += 1
                turn.set_result(None)

    def _busy(self) -> ApiError:
        return ApiError(
            429,
            f"Too many {self._what} at a time: try again in a few seconds.",
            type="rate_limit_error",
            code="rate_limit_exceeded",
            headers={"Retry-After": "2"},
        )
