"""When batches end, when they are listed, and how many there may be."""

import time

import openai
import pytest

from durabatch.sandbox import SandboxError
from durabatch.sandbox.batch import Batch, Status
from durabatch.sandbox.openai.batches import wire
from durabatch.sandbox.settings import Settings


async def test_a_batch_ends_when_its_seconds_are_over_and_not_before(gpt, steps, sandbox):
    await sandbox.settings(batch_seconds=3600)
    batch = await steps.create(gpt, steps.chat_row("a"))
    while batch.status == "validating":
        batch = await gpt.batches.retrieve(batch.id)
    assert batch.status == "in_progress" and batch.request_counts.total == 1
    await sandbox.settings(batch_seconds=0.05)
    assert (await steps.end(gpt, batch.id)).status == "completed"


async def test_a_batch_ends_without_anybody_asking(gpt, steps, sandbox):
    await sandbox.settings(batch_seconds=0.1)
    batch = await steps.create(gpt, steps.chat_row("a"))
    while (await sandbox.books(summary=True))["batches"][0]["status"] != "completed":
        pass
    assert (await gpt.batches.list()).data[0].output_file_id
    assert batch.output_file_id is None


async def test_the_first_polls_show_a_batch_under_way_and_the_next_its_end(gpt, steps, sandbox):
    await sandbox.settings(finish_after_polls=3)
    batch = await steps.create(gpt, steps.chat_row("a"))
    seen = [(await gpt.batches.retrieve(batch.id)).status for _ in range(4)]
    assert seen[3] == "completed" and "completed" not in seen[:3]


async def test_no_polls_at_all_means_that_the_first_retrieve_shows_the_end(gpt, steps, sandbox):
    await sandbox.settings(finish_after_polls=0)
    batch = await steps.create(gpt, *(steps.chat_row(f"r{i}") for i in range(500)))
    assert (await gpt.batches.retrieve(batch.id)).request_counts.completed == 500


def test_a_long_batch_is_shown_as_finalizing_towards_its_end():
    settings = Settings(batch_seconds=1_000)

    def shown(age: float) -> str:
        created_at = time.time() - age
        batch = Batch(
            id="batch_1",
            protocol="openai",
            account="a",
            created_at=created_at,
            endpoint="/v1/chat/completions",
            input_file_id="file-1",
            status=Status.IN_PROGRESS,
            rows=10,
        )
        return wire(batch, settings)["status"]

    assert [shown(age) for age in (0, 500, 950)] == ["in_progress", "in_progress", "finalizing"]


async def test_new_files_and_batches_can_be_late_in_listings(gpt, steps, sandbox):
    await sandbox.settings(list_lag_lists=2, batch_seconds=3600)
    batch = await steps.create(gpt, steps.chat_row("a"))
    seen = [(len((await gpt.batches.list()).data), len((await gpt.files.list()).data)) for _ in range(3)]
    assert seen == [(0, 0), (0, 0), (1, 1)]
    await sandbox.settings(list_lag_lists=0, list_lag_seconds=3600)
    late = await steps.create(gpt, steps.chat_row("a"))
    assert [listed.id async for listed in gpt.batches.list()] == [batch.id]
    assert (await gpt.batches.retrieve(late.id)).id == late.id


async def test_a_cancelled_batch_can_stay_cancelling_for_some_polls(gpt, steps, sandbox):
    await sandbox.settings(batch_seconds=3600, cancel_polls=2)
    batch = await steps.create(gpt, steps.chat_row("a"))
    await gpt.batches.cancel(batch.id)
    assert (await gpt.batches.cancel(batch.id)).status == "cancelling"
    seen = [(await gpt.batches.retrieve(batch.id)).status for _ in range(3)]
    assert seen == ["cancelling", "cancelling", "cancelled"]


async def test_a_cancel_keeps_as_many_rows_as_the_polls_have_seen_finished(gpt, steps, sandbox):
    await sandbox.settings(finish_after_polls=3)
    batch = await steps.create(gpt, *(steps.chat_row(f"r{i}") for i in range(8)))
    for _ in range(2):
        await gpt.batches.retrieve(batch.id)
    await gpt.batches.cancel(batch.id)
    assert (await steps.end(gpt, batch.id)).request_counts.completed == 4


async def test_more_tokens_than_may_be_enqueued_fail_a_batch_until_others_have_ended(gpt, steps, sandbox):
    await sandbox.settings(enqueued_token_limit=100, finish_after_polls=1)
    row = steps.chat_row("a", "x" * 240)  # 60 tokens
    first = await steps.create(gpt, row)
    second = await steps.end(gpt, (await steps.create(gpt, row)).id)
    (error,) = second.errors.data
    assert (second.status, error.code, error.line) == ("failed", "token_limit_exceeded", None)
    assert "Limit: 100 enqueued tokens" in error.message
    other_model = await steps.create(gpt, steps.chat_row("a", "x" * 240, model="gpt-4o"))
    assert (await steps.end(gpt, other_model.id)).status == "completed"
    assert (await steps.end(gpt, first.id)).status == "completed"
    assert (await steps.end(gpt, (await steps.create(gpt, row)).id)).status == "completed"


async def test_too_many_batches_are_refused(gpt, steps, sandbox):
    await sandbox.settings(max_batches=1, batch_seconds=3600)
    await steps.create(gpt, steps.chat_row("a"))
    with pytest.raises(openai.RateLimitError):
        await steps.create(gpt, steps.chat_row("a"))
    assert len((await sandbox.books())["batches"]) == 1


async def test_every_request_can_be_slow(gpt, sandbox):
    await sandbox.settings(latency_seconds=5)
    with pytest.raises(openai.APITimeoutError):
        await gpt.with_options(timeout=0.5).batches.list()


@pytest.mark.parametrize("changes", [{"speed": 1}, {"batch_seconds": -1}, {"cancel_fraction": 2}, {"max_batches": "x"}])
async def test_settings_that_make_no_sense_are_refused_in_a_sentence(sandbox, changes):
    before = await sandbox.settings()
    with pytest.raises(SandboxError, match=r"These settings cannot be used: .*\."):
        await sandbox.settings(**changes)
    assert await sandbox.settings() == before


async def test_other_requests_are_answered_while_a_large_batch_is_processed(gpt, steps, sandbox):
    file = await gpt.files.create(
        file=("rows.jsonl", steps.jsonl(*(steps.chat_row(f"r{i}") for i in range(20_000)))), purpose="batch"
    )
    batch = await gpt.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    answered = 0
    while (await gpt.batches.retrieve(batch.id)).status != "completed":
        answered += 1
    assert answered >= 3
