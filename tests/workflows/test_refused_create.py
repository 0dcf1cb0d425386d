"""A create that is refused: for good, or until somebody lifts the refusal, or until the provider has read its file."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from temporalio.client import WorkflowHandle

from durabatch.contract import BatchResult, BatchStatus
from support.house import KEY, House

pytestmark = pytest.mark.slow

#: Two rows that succeed at once, and one that a second attempt is bought for.
ROWS = ["One.", "Two.", "[[sandbox:server_error times=1]]"]


async def until_waiting(house: House, handle: WorkflowHandle[Any, Any], words: str) -> None:
    progress = await house.until(handle, lambda p: p.waiting_for and words in p.waiting_for)
    assert progress.next_poll_at is not None
    assert words in (progress.last_error or "")


async def nudged_until(house: House, handle: WorkflowHandle[Any, Any], creates: int) -> None:
    """Have the batch try again at once, until so many creates were sent."""
    while (await house.admin.books(summary=True))["requests"].get("batches.create", 0) < creates:
        await house.until(handle, lambda p: p.next_poll_at)
        await handle.signal("poll_now")


async def uploads(house: House, batch_id: str) -> list[str]:
    """Return the generations of the files that the second attempt uploaded, those deleted included."""
    names = [file["filename"] for file in (await house.admin.books())["files"] if file["purpose"] == "batch"]
    return sorted(name.rpartition("~")[2] for name in names if "~0~2~" in name and batch_id in name)


def whole(result: BatchResult) -> None:
    assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 3)
    assert [batch.marker.partition("/")[2] for batch in result.provider_batches] == ["0/1", "0/2"]


@pytest.mark.parametrize(("status", "words"), [(401, "refuses the key"), (403, "403"), (404, "404")])
@pytest.mark.parametrize("provider", ["sandbox", "claude"])
async def test_once_something_is_bought_a_create_that_an_operator_can_unblock_waits_for_it(
    house: House, provider: str, status: int, words: str
) -> None:
    fault = await house.admin.fault("batches.create", "status", status=status, skip=1)
    async with house.worker():
        handle = await house.start(ROWS, provider=provider, model="claude-sonnet-4-5")
        await until_waiting(house, handle, words)
        await nudged_until(house, handle, 4)
        await house.admin.clear(fault["id"])
        await handle.signal("poll_now")
        whole(await handle.result())
    assert len(await house.batches()) == 2


async def test_a_create_that_waits_for_an_operator_can_be_cancelled_and_keeps_what_was_bought(house: House) -> None:
    await house.admin.fault("batches.create", "status", status=401, skip=1)
    async with house.worker():
        handle = await house.start(ROWS)
        await until_waiting(house, handle, "refuses the key")
        await handle.signal("cancel")
        result = await handle.result()
    assert (result.counts.total, result.counts.succeeded) == (3, 2)
    assert [row["status"] for row in house.results(handle.id)] == ["succeeded", "succeeded", "failed"]  # as it was told


async def test_a_create_that_waits_for_an_operator_ends_at_the_deadline(house: House) -> None:
    await house.admin.fault("batches.create", "status", status=401, skip=1)
    async with house.worker():
        handle = await house.start(ROWS, deadline="8s")
        await until_waiting(house, handle, "refuses the key")
        result = await handle.result()
    assert (result.counts.total, result.counts.succeeded) == (3, 2)
    assert [row["status"] for row in house.results(handle.id)] == ["succeeded", "succeeded", "failed"]  # as it was told


async def test_once_something_is_bought_a_create_that_is_wrong_is_still_refused_for_good(house: House) -> None:
    await house.admin.fault("batches.create", "status", status=400, message="No such endpoint.", skip=1)
    async with house.worker():
        result = await (await house.start(ROWS)).result()
    assert (result.status, result.counts.succeeded, result.counts.failed) == (BatchStatus.COMPLETED, 2, 1)
    assert (await house.admin.books(summary=True))["requests"]["batches.create"] == 2


@pytest.mark.parametrize("status", [400, 404])
async def test_a_file_that_is_gone_when_its_batch_is_created_is_uploaded_again(house: House, status: int) -> None:
    message = "No such File object: file-1"
    await house.admin.fault("batches.create", "status", status=status, message=message, skip=1, times=1)
    async with house.worker():
        handle = await house.start(ROWS)
        await until_waiting(house, handle, message)
        async with httpx2.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {KEY}"}) as somebody:
            for file in (await house.admin.books())["files"]:
                if not file["deleted"] and "~0~2~" in file["filename"]:
                    await somebody.delete(f"{house.sandbox.url}/v1/files/{file['id']}")
        await handle.signal("poll_now")
        whole(await handle.result())
    assert await uploads(house, handle.id) == ["g1.jsonl", "g1.jsonl"]


async def test_a_file_that_is_listed_and_not_found_is_replaced_once_and_no_more(house: House) -> None:
    fault = await house.admin.fault("batches.create", "status", status=404, message="No such file.", skip=1)
    async with house.worker():
        handle = await house.start(ROWS)
        await nudged_until(house, handle, 6)
        assert await uploads(house, handle.id) == ["g1.jsonl", "g2.jsonl"]
        await house.admin.clear(fault["id"])
        await handle.signal("poll_now")
        whole(await handle.result())
    assert await uploads(house, handle.id) == ["g1.jsonl", "g2.jsonl"]
    assert all(file["deleted"] for file in (await house.admin.books())["files"] if file["purpose"] == "batch")


async def test_a_file_that_the_provider_has_not_read_yet_is_waited_for(house: House) -> None:
    message = "The input file is still being processed."
    await house.admin.fault("batches.create", "status", status=400, message=message, times=2)
    async with house.worker():
        handle = await house.start(3)
        await until_waiting(house, handle, message)
        await nudged_until(house, handle, 3)
        result = await handle.result()
    assert (result.counts.succeeded, len(await house.batches())) == (3, 1)
    ledger = await house.admin.books()
    assert len([file for file in ledger["files"] if file["purpose"] == "batch"]) == 1


async def test_a_file_that_the_provider_never_reads_is_waited_for_until_the_deadline(house: House) -> None:
    message = "File file-1 is not ready: its status is pending."
    await house.admin.fault("batches.create", "status", status=400, message=message)
    async with house.worker():
        handle = await house.start(3, deadline="4s")
        await until_waiting(house, handle, message)
        result = await handle.result()
    assert (result.status, result.counts.expired) == (BatchStatus.EXPIRED, 3)
    assert await house.batches() == []
