"""The connection of a client that has not been opened yet: awaited, or entered as a context manager."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar


class _Closable(Protocol):
    async def close(self) -> None: ...


T = TypeVar("T", bound=_Closable)


class Connecting(Generic[T]):
    """`await` it for a client that you close yourself, or enter it to have that done at the end of the block."""

    def __init__(self, opened: Callable[[], Awaitable[T]]) -> None:
        self._opened = opened
        self._client: T | None = None

    def __await__(self) -> Generator[Any, None, T]:
        return self._opened().__await__()

    async def __aenter__(self) -> T:
        self._client = await self._opened()
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()
