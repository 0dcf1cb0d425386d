"""What providers call the state of a batch."""

from __future__ import annotations

import pytest

from durabatch.activities.providers.anthropic import batch_object as anthropic
from durabatch.activities.providers.openai import batch_object as openai_batch
from durabatch.activities.providers.status import MAX_WORD, status_of
from durabatch.contract import ProviderStatus

S = ProviderStatus


@pytest.mark.parametrize(
    ("word", "status"),
    [
        # OpenAI's, as any server may spell them.
        ("completed", S.COMPLETED),
        ("COMPLETED", S.COMPLETED),
        ("In Progress", S.IN_PROGRESS),
        ("in-progress", S.IN_PROGRESS),
        (" Cancelled\n", S.CANCELED),
        ("canceled", S.CANCELED),
        ("CANCELING", S.CANCELING),
        ("Validating", S.SUBMITTED),
        # Other servers'.
        ("JOB_STATE_SUCCEEDED", S.COMPLETED),
        ("BATCH_STATE_RUNNING", S.IN_PROGRESS),
        ("JOB_STATE_CANCELLED", S.CANCELED),
        ("SUCCESS", S.COMPLETED),
        ("done", S.COMPLETED),
        ("Ended", S.COMPLETED),
        ("PartiallyCompleted", S.COMPLETED),
        ("TIMEOUT_EXCEEDED", S.EXPIRED),
        ("CANCELLATION_REQUESTED", S.CANCELING),
        ("Stopped", S.CANCELED),
        ("InProgress", S.IN_PROGRESS),
        ("WRITING_RESULTS", S.FINALIZING),
        ("queued", S.SUBMITTED),
        ("error", S.FAILED),
    ],
)
def test_a_word_means_the_same_however_it_is_spelled(word: str, status: ProviderStatus) -> None:
    assert status_of(word) == (status, word, True)
    assert status_of(word, answered=True).status is status  # a word that is known is believed


@pytest.mark.parametrize("word", ["resting", "", None, 7, [], {"a": 1}, "not completed", "completed?"])
def test_a_word_that_nobody_knows_ends_a_batch_only_when_every_row_is_answered(word: object) -> None:
    assert status_of(word)[::2] == (S.IN_PROGRESS, False)
    assert status_of(word, answered=True)[::2] == (S.COMPLETED, False)


def test_a_long_word_is_cut() -> None:
    assert len(status_of("x" * 10_000).raw) == MAX_WORD


@pytest.mark.parametrize(
    ("completed", "failed", "output", "status"),
    [
        (2, 0, "file-1", S.COMPLETED),
        (1, 1, "file-1", S.COMPLETED),
        (1, 0, "file-1", S.IN_PROGRESS),
        (2, 0, None, S.IN_PROGRESS),
        (2, 0, "", S.IN_PROGRESS),
    ],
)
def test_at_openai_every_row_is_answered_when_all_are_counted_and_the_output_is_named(
    completed: int, failed: int, output: str | None, status: ProviderStatus
) -> None:
    counts = {"total": 2, "completed": completed, "failed": failed}
    item = {"id": "batch_1", "status": "resting", "request_counts": counts, "output_file_id": output}
    assert openai_batch.snapshot(item).status is status
    assert not openai_batch.snapshot({"id": "batch_1", "status": "resting", "output_file_id": "file-1"}).status.ended


@pytest.mark.parametrize(
    ("counts", "word", "status"),
    [
        ({"succeeded": 2}, "ENDED", S.COMPLETED),
        ({"succeeded": 1, "canceled": 1}, "completed", S.CANCELED),
        ({"succeeded": 1, "expired": 1}, "Ended", S.EXPIRED),
        ({"succeeded": 2}, "resting", S.COMPLETED),
        ({"processing": 1, "succeeded": 1}, "resting", S.IN_PROGRESS),
        ({}, "resting", S.IN_PROGRESS),
        ({"processing": 2}, "Canceling", S.CANCELING),
    ],
)
def test_at_anthropic_the_rows_say_what_ended_a_batch(
    counts: dict[str, int], word: str, status: ProviderStatus
) -> None:
    item = {"id": "b", "processing_status": word, "request_counts": counts, "results_url": "https://x"}
    assert anthropic.snapshot(item).status is status


@pytest.mark.parametrize(
    ("status", "code", "full"),
    [
        ("failed", "token_limit_exceeded", True),
        ("failed", "batch_limit_exceeded", True),
        ("failed", "invalid_json_line", False),
        ("completed", "token_limit_exceeded", False),
    ],
)
def test_only_a_batch_that_failed_for_want_of_room_met_a_full_queue(status: str, code: str, full: bool) -> None:
    found = openai_batch.snapshot({"id": "batch_1", "status": status, "errors": {"data": [{"code": code}]}})
    assert (found.queue_full, found.error_code) == (full, code)
