"""What a gateway does by itself goes on, whatever happens to it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from durabatch.activities.store import Store
from durabatch.activities.store._folder import Folder
from durabatch.contract import StoreError
from durabatch.contract.gateway import FileRecord
from durabatch.contract.gateway_layout import Listed, due_path, make_id, meta_path
from durabatch.contract.gateway_limits import FOR_EVER
from durabatch.gateway.upkeep import Upkeep

from .conftest import Door


class Fails(Folder):
    """A folder that cannot be listed at first, for reasons that nobody has thought of."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.errors: list[Exception] = [RuntimeError("broken"), StoreError("The disk is away."), ValueError("odd")]

    def page(self, folder: str, after: str | None, limit: int, backwards: bool) -> list[str]:
        if self.errors:
            raise self.errors.pop(0)
        return super().page(folder, after, limit, backwards)


async def test_a_look_that_fails_is_logged_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = Fails(str(tmp_path))
    store, now = Store("file:///x", backend), datetime.now(UTC)
    id = make_id(Listed.FILES, now, "0" * 13)
    over = FileRecord(id=id, bytes=1, created_at=0, filename="x", purpose="batch", expires_at=1)
    await store.write(meta_path("default", id), over.model_dump_json().encode())
    await store.write(due_path((now - timedelta(days=1)).date(), "default", id), b"")
    upkeep = Upkeep(store, FOR_EVER, pause=0.01, after_failure=0.001)
    async with upkeep.running():
        while upkeep.failures < 3:
            assert upkeep.succeeded_at is None
            await asyncio.sleep(0)
        while upkeep.succeeded_at is None:
            await asyncio.sleep(0.01)
    assert upkeep.failures == 0 and time.time() - upkeep.succeeded_at < 240
    assert await store.entry(meta_path("default", id)) is None
    assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 3
    assert "The disk is away." in caplog.text and "RuntimeError: broken" in caplog.text


async def test_the_metrics_show_whether_it_works(door: Door) -> None:
    async def shown() -> list[str]:
        lines = (await door.http.get("/metrics")).text.splitlines()
        return [line for line in lines if line.startswith("durabatch_gateway_upkeep")]

    door.context.upkeep.failures = 7
    assert await shown() == [
        "durabatch_gateway_upkeep_failures 7",
        "durabatch_gateway_upkeep_last_success_timestamp_seconds 0",
    ]
    async with door.context.upkeep.running():
        while door.context.upkeep.failures:
            await asyncio.sleep(0.01)
    failures, succeeded = await shown()
    assert failures.endswith(" 0") and float(succeeded.split()[1]) > 1_700_000_000
