"""Starting something before it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from durabatch.cli.ahead import ahead


class Thing:
    """Something that takes until `ready` to start."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.seen: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        self.seen.append("begun")
        try:
            await self.ready.wait()
            self.seen.append("started")
            yield "what it gives"
        finally:
            self.seen.append("left")


async def test_it_is_begun_before_the_block_and_left_with_it() -> None:
    thing = Thing()
    async with ahead(thing.running()) as coming:
        assert thing.seen == ["begun"]
        thing.ready.set()
        assert await coming == "what it gives"
        assert thing.seen == ["begun", "started"]
    assert thing.seen == ["begun", "started", "left"]


async def test_what_has_started_and_was_never_awaited_is_left_too() -> None:
    thing = Thing()
    async with ahead(thing.running()) as coming:
        thing.ready.set()
        await asyncio.wait([coming])
    assert thing.seen == ["begun", "started", "left"]


async def test_a_start_that_is_under_way_when_the_block_ends_is_cancelled() -> None:
    thing = Thing()
    with pytest.raises(LookupError):
        async with ahead(thing.running()):
            raise LookupError
    assert thing.seen == ["begun", "left"]


async def test_a_start_that_fails_is_reported_where_it_is_awaited() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise OSError("the disk is on fire")
        yield

    async with ahead(broken()) as coming:
        with pytest.raises(OSError, match="on fire"):
            await coming
    async with ahead(broken()):
        pass
