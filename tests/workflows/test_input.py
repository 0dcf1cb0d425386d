"""What people type into the `temporal` command: it must never leave a batch stuck."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from durabatch.contract import BatchStatus
from support.house import House


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs a BatchSpec"),
        ([None], "needs a BatchSpec"),
        (["a string"], "input"),
        ([7], "input"),
        ([[1, 2]], "input"),
        ([{}], "provider"),
        ([{"provider": "sandbox"}], "either input"),
        ([{"provider": "sandbox", "input": "file:///x", "endpont": "/v1/responses"}], "endpont"),
        ([{"provider": "sandbox", "input": "file:///x", "deadline": "soon"}], "deadline"),
        ([{"provider": "sandbox", "input": "file:///etc/passwd"}], "outside"),
        ([{"provider": "nobody", "requests": [{"custom_id": "a", "input": "b"}]}], "nobody"),
        (
            [{"provider": "sandbox", "requests": [{"custom_id": "a", "input": "b"}], "endpoint": "/v1/videos"}],
            "/v1/videos",
        ),
        ([{"provider": "sandbox", "requests": [{"custom_id": "a", "input": "b"}]}], "model"),
    ],
)
async def test_a_wrong_start_fails_at_once_with_words(house: House, arguments: list[Any], words: str) -> None:
    async with house.worker():
        handle = await house.client.start_workflow(
            "BatchWorkflow", args=arguments, id=f"wrong-{uuid.uuid4().hex[:8]}", task_queue=house.task_queue
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    assert words in cause.message
    assert await house.batches() == []


async def test_a_batch_id_that_cannot_name_a_folder_fails_at_once(house: House) -> None:
    async with house.worker():
        with pytest.raises(WorkflowFailureError) as caught:
            handle = await house.start(1, id="ok")
            handle = await house.client.start_workflow(
                "BatchWorkflow",
                {"provider": "sandbox", "requests": [{"custom_id": "a", "input": "b"}], "model": "m"},
                id="../evil",
                task_queue=house.task_queue,
            )
            await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert "batch id" in caught.value.cause.message


@pytest.mark.parametrize("arguments", [[], [None], [{"reason": "x", "who": "y"}], ["just stop"], [7], [{"reason": 7}]])
async def test_a_cancel_is_a_cancel_however_its_argument_looks(house: House, arguments: list[Any]) -> None:
    await house.admin.settings(finish_after_polls=1000)
    async with house.worker():
        handle = await house.start(3)
        await house.until(handle, lambda p: p.provider_batch_id)
        await handle.signal("cancel", args=arguments)
        result = await handle.result()
    assert result.status is BatchStatus.CANCELED


async def test_signals_with_too_many_arguments_or_unknown_names_do_no_harm(house: House) -> None:
    await house.admin.settings(finish_after_polls=1000)
    async with house.worker():
        handle = await house.start(3)
        await house.until(handle, lambda p: p.provider_batch_id)
        await handle.signal("poll_now", args=["what", "now"])
        await handle.signal("nonsense", {"a": 1})
        await asyncio.sleep(0.3)
        assert (await house.progress(handle)).provider_batch_id
        await house.admin.settings(finish_after_polls=0)
        await handle.signal("poll_now", 1)
        result = await handle.result()
    assert result.status is BatchStatus.COMPLETED
