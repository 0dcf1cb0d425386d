"""How far an attempt has come, and what a shard makes of its end: pure transitions."""

from __future__ import annotations

import pytest

from durabatch.contract import ProviderBatch, ProviderStatus, RowStatus
from durabatch.contract.steps import AttemptRecord, Snapshot, Uploaded
from durabatch.workflows.attempt_state import AttemptEnd, AttemptState, Fate, Stage
from durabatch.workflows.state import ShardState

BATCH = Snapshot(id="batch_1", status=ProviderStatus.IN_PROGRESS, raw_status="in_progress", total=3, completed=1)


def end(fate: Fate, number: int, **facts: object) -> AttemptEnd:
    sent = fate not in (Fate.UNSENT, Fate.EMPTY)
    record = AttemptRecord(number=number, sent=sent, counted=fate is not Fate.NO_ROOM)
    batch = ProviderBatch(marker=f"b/0/{number}", id=f"batch_{number}", status=ProviderStatus.COMPLETED, rows=1)
    return AttemptEnd.model_validate({"fate": fate, "record": record, "batch": batch if sent else None, **facts})


def test_an_attempt_goes_through_its_stages() -> None:
    state = AttemptState()
    assert (state.begun, state.sent, state.ended) == (False, False, False)
    state.begin_upload()
    assert (state.stage, state.begun) == (Stage.UPLOADING, True)
    state.end_upload(Uploaded(file_id="file-1", generation=1, rows=3, bytes=9))
    assert (state.stage, state.file_id, state.rows) == (Stage.UPLOADED, "file-1", 3)
    state.submit(BATCH)
    assert (state.stage, state.sent, state.adopted, state.ended) == (Stage.SUBMITTED, True, False, False)
    state.end_fetch()
    assert state.ended


def test_another_upload_may_count_as_another_file() -> None:
    state = AttemptState()
    state.begin_upload()
    state.begin_upload()
    assert state.generation == 1
    state.begin_upload(another=True)
    assert (state.generation, state.stage) == (2, Stage.UPLOADING)


@pytest.mark.parametrize("stage", [Stage.NEW, Stage.UPLOADING, Stage.UPLOADED])
def test_after_a_doubtful_create_there_may_be_a_file_until_the_doubt_is_cleared(stage: Stage) -> None:
    state = AttemptState(stage=stage)
    state.doubt_create()
    assert state.doubt and state.begun
    assert state.stage is (Stage.UPLOADED if stage is Stage.UPLOADED else Stage.UPLOADING)
    state.clear_doubt(4)
    assert (state.doubt, state.cleared) == (False, 4)


def test_a_batch_that_turns_out_to_be_a_strangers_leaves_nothing_behind() -> None:
    state = AttemptState(rows=3, stage=Stage.UPLOADED)
    state.adopt(BATCH, provisional=True)
    assert (state.adopted, state.provisional, state.rows) == (True, True, 3)
    state.stop(RowStatus.CANCELED, asked=False)
    state.lines, state.answered, state.unreturned = 3, 2, "Some."
    state.let_go()
    assert state.model_dump() == AttemptState(rows=3, stage=Stage.UPLOADING, strangers=("batch_1",)).model_dump()


def test_polls_begin_anew_only_when_the_provider_was_asked_to_end_the_batch() -> None:
    state = AttemptState(polls=7)
    state.stop(RowStatus.EXPIRED, asked=False)
    assert (state.stopped, state.polls) == (RowStatus.EXPIRED, 7)
    state.stop(RowStatus.CANCELED, asked=True)
    assert (state.stopped, state.polls) == (RowStatus.CANCELED, 0)


def test_an_attempt_that_is_refused_or_lost_has_ended() -> None:
    refused, lost = AttemptState(), AttemptState()
    refused.refuse("No.", blocked=True)
    lost.submit(BATCH)
    lost.vanish()
    assert refused.ended and lost.ended
    assert (lost.standing.provider_batch_id, lost.standing.completed) == ("batch_1", 1)


@pytest.mark.parametrize(
    ("fate", "tries", "waits", "vanished"),
    [(Fate.RAN, 2, 0, 0), (Fate.NO_ROOM, 1, 6, 0), (Fate.VANISHED, 1, 5, 1)],
)
def test_what_an_attempt_counts_as_depends_on_its_end(fate: Fate, tries: int, waits: int, vanished: int) -> None:
    shard = ShardState(waits=5)
    shard.close(end(fate, 1))
    shard.begin_attempt(2, only_if_bought=False)
    assert (shard.tries, shard.waits, shard.vanished) == (tries, waits, vanished)
    assert (shard.attempt.number, shard.attempt.rows, shard.end) == (2, 2, None)


def test_an_attempt_that_is_only_looked_for_is_a_try_once_it_is_found() -> None:
    shard = ShardState()
    shard.close(end(Fate.RAN, 1))
    shard.begin_attempt(2, only_if_bought=True)
    assert shard.tries == 1
    shard.close(end(Fate.RAN, 2))
    assert shard.tries == 2


def test_the_records_of_attempts_without_room_do_not_pile_up() -> None:
    shard = ShardState()
    for number in range(1, 4):
        shard.close(end(Fate.NO_ROOM, number))
        shard.begin_attempt(1, only_if_bought=False)
    assert [record.number for record in shard.records] == [3]
    shard.close(end(Fate.UNSENT, 4))
    assert [record.number for record in shard.records] == [3, 4]
    assert [batch.id for batch in shard.batches] == ["batch_1", "batch_2", "batch_3"]


def test_a_shard_knows_whether_anything_of_it_was_sent_without_asking_for_a_provider_batch() -> None:
    shard = ShardState()
    assert (shard.begun, shard.bought) == (False, False)
    shard.close(AttemptEnd(fate=Fate.UNSENT, record=AttemptRecord(number=1, sent=False), refused="No.", blocked=True))
    assert (shard.begun, shard.bought, shard.refused, shard.blocked) == (True, False, "No.", True)
    shard = ShardState()
    shard.close(AttemptEnd(fate=Fate.RAN, record=AttemptRecord(number=1)))  # as of a mode without provider batches
    assert (shard.bought, shard.batches) == (True, ())
