"""What may go of what batches leave behind: decided from facts, in tables."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from durabatch.activities.content import file_name, file_prefix
from durabatch.activities.store import Entry
from durabatch.clients.gc.at_providers import OpenBatch, Upload, open_batch, upload, uploader
from durabatch.clients.gc.decisions import (
    ABANDONED_REST,
    TRY_REST,
    Batch,
    Execution,
    Folder,
    FolderRecords,
    Reason,
    TemporalState,
    batches,
    claims,
    reason,
    record_folders,
    removable,
    stale,
)
from durabatch.contract.names import UPLOADS
from durabatch.contract.steps import Attempt

NOW = datetime(2026, 6, 30, tzinfo=UTC)
REST = timedelta(days=30)
OLD, YOUNG = NOW - timedelta(days=40), NOW - timedelta(days=1)
COPY = "input-0123456789abcdef.jsonl"


def entry(path: str, modified: datetime = OLD) -> Entry:
    return Entry(path, 10, modified)


def batch(*names: str, ended_at: datetime | None = OLD, modified: datetime = OLD, root: str = "b") -> Batch:
    entries = tuple(entry(f"{root}/{name}", modified) for name in names)
    return Batch(id="b", ended_at=ended_at, folders=(Folder(root=root, entries=entries),))


def names(entries: list[Entry]) -> list[str]:
    return [one.path.partition("/")[2] for one in entries]


SHARD = ("shards/00000/shard.json", "shards/00000/attempt-1/output.jsonl", "shards/00000/results.jsonl")
EXPANDED = "input/00001-0123456789abcdef.jsonl"
WHOLE = (COPY, EXPANDED, "input.json", *SHARD, "results.jsonl", "errors.jsonl", "plan.json", "result.json")


# --- whose it is ---


def test_a_folder_is_a_batchs_by_what_its_records_tell_and_nothing_else_is_touched() -> None:
    entries = [
        entry(path)
        for path in (
            "plain/plan.json",
            "plain/shards/00000/shard.json",
            "plain/notes.txt",
            "deep/out/plan.json",
            "deep/out/result.json",
            "backup/plain/plan.json",
            "backup/plain/shards/00000/shard.json",
            f"brought/{COPY}",
            f"elsewhere/{COPY}",
            "in/rows.jsonl",
            f"in/deep/{COPY}",
            "rows.jsonl",
            COPY,
            "theirs/plan.json",
            f"theirs/{COPY}",
            f"copied/{COPY}",
            "copied/plan.json",
            "~claims/acc/batch_1~0123456789abcdef",
        )
    ]
    assert record_folders(entries) == ["backup/plain", "copied", "deep/out", "plain", "theirs"]
    told: dict[str, FolderRecords | None] = {
        "theirs": None,
        "copied": FolderRecords("plain"),
        "plain": FolderRecords("plain"),
        "deep/out": FolderRecords("elsewhere", OLD, "deep/out/results.jsonl"),
        "backup/plain": FolderRecords("plain", OLD, "plain/results.jsonl"),
    }
    found = batches(entries, told)
    assert {one.id: sorted(e.path for f in one.folders for e in f.entries) for one in found} == {
        "brought": [f"brought/{COPY}"],
        "elsewhere": ["deep/out/plan.json", "deep/out/result.json", f"elsewhere/{COPY}"],
        "plain": ["plain/notes.txt", "plain/plan.json", "plain/shards/00000/shard.json"],
    }
    assert {one.id: one.ended_at for one in found} == {"brought": None, "elsewhere": OLD, "plain": None}
    assert [one.path for one in claims(entries)] == ["~claims/acc/batch_1~0123456789abcdef"]


# --- when it may go ---


@pytest.mark.parametrize(
    ("recorded", "touched", "state", "expected"),
    [
        (OLD, OLD, TemporalState(Execution.RUNNING), Reason.RUNS),
        (None, OLD, TemporalState(Execution.RUNNING), Reason.RUNS),
        (OLD, OLD, TemporalState(Execution.NEEDED), Reason.NEEDED),
        (OLD, OLD, TemporalState(Execution.ANOTHER), Reason.ANOTHERS),
        (OLD, OLD, TemporalState(Execution.UNKNOWN), Reason.OVER),
        (OLD, YOUNG, TemporalState(Execution.UNKNOWN), Reason.OVER),
        (YOUNG, YOUNG, TemporalState(Execution.UNKNOWN), Reason.LATELY),
        (OLD, OLD, TemporalState(Execution.ENDED, OLD), Reason.OVER),
        (OLD, OLD, TemporalState(Execution.ENDED, YOUNG), Reason.LATELY),  # it ran again
        (None, OLD, TemporalState(Execution.UNKNOWN), Reason.ABANDONED),
        (None, YOUNG, TemporalState(Execution.UNKNOWN), Reason.ABANDONED_LATELY),
        (None, OLD, TemporalState(Execution.ENDED, OLD), Reason.ABANDONED),
        (None, OLD, TemporalState(Execution.ENDED, YOUNG), Reason.ABANDONED_LATELY),
    ],
)
def test_what_becomes_of_a_batchs_leftovers(
    recorded: datetime | None, touched: datetime, state: TemporalState, expected: Reason
) -> None:
    found = batch("plan.json", ended_at=recorded, modified=touched)
    assert reason(found, state, NOW, REST) is expected


def test_a_folder_without_an_end_is_left_for_some_days_whatever_is_asked() -> None:
    def now(age: timedelta) -> Reason:
        found = batch(COPY, ended_at=None, modified=NOW - age)
        return reason(found, TemporalState(Execution.UNKNOWN), NOW, timedelta(0))

    assert now(ABANDONED_REST - timedelta(seconds=1)) is Reason.ABANDONED_LATELY
    assert now(ABANDONED_REST) is Reason.ABANDONED
    assert reason(batch(COPY, ended_at=NOW), TemporalState(Execution.UNKNOWN), NOW, timedelta(0)) is Reason.OVER


SAYS_TRY = "~try.json"


def test_what_a_killed_try_left_goes_a_day_after_it_and_sooner_where_its_end_is_known() -> None:
    def now(age: timedelta, state: TemporalState, rest: timedelta = REST, ended_at: datetime | None = None) -> Reason:
        found = replace(batch(SAYS_TRY, COPY, ended_at=ended_at, modified=NOW - age), tried=True, bought=True)
        return reason(found, state, NOW, rest)

    unknown, short = TemporalState(Execution.UNKNOWN), timedelta(seconds=1)
    assert now(TRY_REST * 2, TemporalState(Execution.RUNNING)) is Reason.RUNS
    for rest in (timedelta(0), REST):
        assert now(TRY_REST - short, unknown, rest) is Reason.TRIED_LATELY
        assert now(TRY_REST, unknown, rest) is Reason.TRIED
    ended = TemporalState(Execution.ENDED, NOW - short)
    assert now(TRY_REST, ended) is Reason.TRIED_LATELY
    assert now(short, ended, timedelta(0)) is Reason.TRIED
    assert now(short, unknown, timedelta(0), NOW - short) is Reason.TRIED
    assert now(TRY_REST, unknown, REST, NOW - TRY_REST) is Reason.TRIED


def test_of_a_try_everything_goes_and_what_says_so_goes_last() -> None:
    found = replace(batch(SAYS_TRY, *WHOLE), tried=True)
    gone = names(removable(found, Reason.TRIED, results=False))
    assert sorted(gone) == sorted([SAYS_TRY, *WHOLE])
    assert gone[-3:] == ["plan.json", "result.json", SAYS_TRY]
    assert removable(found, Reason.TRIED_LATELY, results=True) == []


def test_a_try_is_known_by_an_object_of_its_own_and_never_by_its_name() -> None:
    paths = (
        *(f"fresh/{SAYS_TRY}", f"fresh/{COPY}", f"planned/{SAYS_TRY}", "planned/plan.json"),
        *("try-mine/plan.json", f"copied/{SAYS_TRY}", "copied/plan.json", SAYS_TRY, f"deep/in/{SAYS_TRY}"),
    )
    told = {name: FolderRecords(name) for name in ("planned", "try-mine")}
    found = batches([entry(path) for path in sorted(paths)], {**told, "copied": FolderRecords("planned")})
    assert {one.id: one.tried for one in found} == {"fresh": True, "planned": True, "try-mine": False}
    assert [len(one.folders[0].entries) for one in found] == [2, 2, 1]


# --- what goes ---


def test_without_results_only_what_can_be_made_again_goes() -> None:
    assert names(removable(batch(*WHOLE), Reason.OVER, results=False)) == [COPY, EXPANDED, "input.json", *SHARD]


def test_the_notes_that_something_was_bought_stay_until_the_results_go() -> None:
    first, second, withdrawn = (f"shards/00000/attempt-1/{name}" for name in ("intent", "intent-3", "withdrawn-2"))
    found = batch(first, second, withdrawn, *SHARD, "results.jsonl", "plan.json", "result.json")
    assert names(removable(found, Reason.OVER, results=False)) == [withdrawn, *SHARD]
    assert {first, second} < set(names(removable(found, Reason.OVER, results=True)))


def test_with_results_everything_goes_and_the_records_last() -> None:
    assert names(removable(batch(*WHOLE), Reason.OVER, results=True)) == [
        *(COPY, EXPANDED, "input.json", *SHARD, "results.jsonl", "errors.jsonl", "plan.json", "result.json")
    ]


def test_results_in_parts_stay_where_they_are() -> None:
    parts = ("shards/00000/results.jsonl", "shards/00001/results.jsonl", "shards/00001/errors.jsonl")
    others = ("shards/00000/attempt-1/output.jsonl", "shards/00000/attempt-1/results.jsonl", "shards/00001/rows.jsonl")
    found = batch(*parts, *others, "results.manifest.json", "errors.manifest.json", "result.json")
    assert names(removable(found, Reason.OVER, results=False)) == list(others)
    assert set(names(removable(found, Reason.OVER, results=True))) == {
        *(*parts, *others, "results.manifest.json", "errors.manifest.json", "result.json")
    }


@pytest.mark.parametrize("kept", [Reason.RUNS, Reason.LATELY, Reason.ABANDONED_LATELY, Reason.ANOTHERS])
def test_nothing_goes_of_a_batch_whose_time_has_not_come(kept: Reason) -> None:
    assert removable(batch(*WHOLE), kept, results=True) == []


#: The last one says that a create was refused.
PLANNED = (
    *(COPY, EXPANDED, "input.json", "shards/00000/rows.jsonl", "shards/00000/shard.json"),
    "shards/00000/attempt-1/withdrawn-1",
)


def test_of_a_lost_batch_that_bought_nothing_everything_goes() -> None:
    found = batch(*PLANNED, "plan.json", ended_at=None)
    assert names(removable(found, Reason.ABANDONED, results=False)) == [*PLANNED, "plan.json"]


@pytest.mark.parametrize(
    "trace",
    [
        "shards/00000/attempt-1/intent",
        "shards/00000/attempt-1/intent-12",
        "shards/00012/attempt-3/rows.json",
        "shards/00000/attempt-1/output.jsonl",
        "shards/00000/attempt-1/error.jsonl",
        "shards/123456/results.jsonl",
        "shards/00000/settled.json",
        "results.jsonl",
        "results.manifest.json",
    ],
)
@pytest.mark.parametrize("root", ["b", "deep/out"])
def test_a_lost_batch_that_may_have_bought_something_keeps_all_that_it_needs_to_go_on(trace: str, root: str) -> None:
    claim = entry(f"~claims/acc/msgbatch_1~{hashlib.sha256(b'b/0/1').hexdigest()[:16]}")
    paths = {f"b/{COPY}", *(f"{root}/{name}" for name in (*PLANNED, "plan.json"))}

    def find(*more: str) -> Batch:
        (found,) = batches([entry(path) for path in sorted({*paths, *more})], {root: FolderRecords("b")})
        return found

    assert reason(find(), TemporalState(Execution.UNKNOWN), NOW, REST) is Reason.ABANDONED
    found = find(f"{root}/{trace}")
    assert reason(found, TemporalState(Execution.ENDED, OLD), NOW, REST) is Reason.UNFINISHED
    assert removable(found, Reason.UNFINISHED, results=False) == []
    assert f"b/{COPY}" in {one.path for one in removable(found, Reason.UNFINISHED, results=True)}
    if root == "b":
        gone = names(removable(found, Reason.UNFINISHED, results=True))
        assert set(gone) == {*PLANNED, trace, "plan.json"}
        assert gone[-1] == "plan.json"
    if trace.endswith("1/intent") and root == "b":
        assert stale([claim], [found], {"b": Reason.UNFINISHED}, NOW, REST, results=False) == []
        assert stale([claim], [found], {"b": Reason.UNFINISHED}, NOW, REST, results=True) == [claim]


def test_what_batches_bought_is_not_taken_for_each_others() -> None:
    entries = [
        entry(path)
        for path in (
            "bought/plan.json",
            "bought/shards/00000/attempt-1/intent",
            "nothing/plan.json",
            "nothing/mine/results.jsonl",
            f"brought/{COPY}",
        )
    ]
    found = batches(entries, {"bought": FolderRecords("bought"), "nothing": FolderRecords("nothing")})
    assert {one.id: one.bought for one in found} == {"bought": True, "nothing": False, "brought": False}


@pytest.mark.parametrize(
    "copy",
    [
        "input-0123456789abcdef.jsonl.gz",
        "input-0123456789abcdef.jsonl.zst",
        "input-0123456789abcdef/00000-mine.jsonl",
        "input-0123456789abcdef/100000-mine.jsonl.gz",
        "input/00001-0123456789abcdef.jsonl",
        "input/100000-0123456789abcdef.jsonl",
        "input.json",
    ],
)
def test_every_form_of_a_copied_input_goes(copy: str) -> None:
    assert names(removable(batch(copy, "results.jsonl", "plan.json"), Reason.OVER, results=False)) == [copy]


@pytest.mark.parametrize("everything", [False, True])
def test_what_durabatch_did_not_write_stays(everything: bool) -> None:
    mine = (
        "notes.txt",
        "input.jsonl",
        "shard/x",
        "input/rows.jsonl",
        "input/1.jsonl",
        "input-mine.jsonl",
        "input-0123456789abcdef/1-mine.jsonl",
        "deep/results.jsonl",
        "plan.json.bak",
    )
    assert removable(batch(*mine), Reason.OVER, results=everything) == []
    assert removable(batch(*mine), Reason.ABANDONED, results=everything) == []


@pytest.mark.parametrize(
    ("needed", "stays"),
    [
        ({f"b/{COPY}"}, True),
        ({"b/input-*"}, True),
        ({"b/*"}, True),
        ({"*"}, True),
        ({f"c/{COPY}", "b/other*", "b", "c/*"}, False),
    ],
)
def test_rows_that_another_batch_reads_stay(needed: set[str], stays: bool) -> None:
    assert (removable(batch(COPY), Reason.ABANDONED, results=True, needed=needed) == []) is stays


def test_what_goes_of_a_batch_of_many_shards_is_found_in_no_time() -> None:
    shards = [f"shards/{number:05d}/{name}" for number in range(2000) for name in ("shard.json", "rows.jsonl", "x")]
    found = batch(*shards, "results.manifest.json")
    needed = {f"other{number}/{name}" for number in range(1000) for name in ("input.jsonl", "input.jsonl/*")}
    began = time.process_time()
    assert len(removable(found, Reason.OVER, results=False, needed=needed)) == 6000
    assert time.process_time() - began < 1  # and many seconds where each object is compared with all others


# --- claims ---


def test_a_claim_goes_with_its_batch_or_when_nobody_knows_it_any_more() -> None:
    def claim(marker: str, modified: datetime = OLD) -> Entry:
        return entry(f"~claims/acc/msgbatch_1~{hashlib.sha256(marker.encode()).hexdigest()[:16]}", modified)

    found = batch("shards/00003/attempt-2/intent")
    ours, unknown, young = claim("b/3/2"), claim("x/0/1"), claim("x/0/2", YOUNG)
    everything = [ours, unknown, young]
    for kept in (Reason.RUNS, Reason.LATELY, Reason.ABANDONED_LATELY, Reason.UNFINISHED, Reason.ANOTHERS):
        assert stale(everything, [found], {"b": kept}, NOW, REST, results=False) == [unknown]
    for gone in (Reason.OVER, Reason.ABANDONED):
        assert stale(everything, [found], {"b": gone}, NOW, REST, results=False) == [ours, unknown]


# --- at the provider ---


def test_an_upload_tells_its_batch_by_its_name() -> None:
    attempt = Attempt(scoped_id="a.b:c@d+e=f-1", provider="p", root="file:///x", shard=12, number=3, store="s")
    name = file_name(attempt, "0123456789abcdef", 2)
    assert uploader(name) == attempt.scoped_id
    assert file_prefix(attempt).startswith(UPLOADS)
    for other in ("rows.jsonl", "durabatch~b", "durabatch~a/b~0~1~d~g1.jsonl", f"x{name}", f"{name}x"):
        assert uploader(other) is None


@pytest.mark.parametrize(
    ("state", "has_result", "at_work", "written", "expected"),
    [
        (None, False, False, OLD, Upload.ELSEWHERE),
        (TemporalState(Execution.RUNNING), True, False, OLD, Upload.NEEDED),
        (TemporalState(Execution.ANOTHER), True, False, OLD, Upload.NEEDED),
        (TemporalState(Execution.ENDED, YOUNG), True, True, OLD, Upload.AT_WORK),
        (TemporalState(Execution.ENDED, YOUNG), False, False, YOUNG, Upload.LEFT),
        (TemporalState(Execution.UNKNOWN), True, False, YOUNG, Upload.LEFT),
        (TemporalState(Execution.UNKNOWN), False, False, YOUNG, Upload.YOUNG),
        (TemporalState(Execution.UNKNOWN), False, False, None, Upload.YOUNG),
        (TemporalState(Execution.UNKNOWN), False, False, OLD, Upload.LEFT),
    ],
)
def test_what_becomes_of_an_upload(
    state: TemporalState | None, has_result: bool, at_work: bool, written: datetime | None, expected: Upload
) -> None:
    assert upload(state, has_result, at_work, written, NOW) is expected


@pytest.mark.parametrize(
    ("state", "same_rows", "expected"),
    [
        (None, False, OpenBatch.ELSEWHERE),
        (TemporalState(Execution.RUNNING), True, OpenBatch.FOLLOWED),
        (TemporalState(Execution.RUNNING), False, OpenBatch.FOLLOWED),
        (TemporalState(Execution.NEEDED), True, OpenBatch.FOLLOWED),
        (TemporalState(Execution.ENDED, OLD), True, OpenBatch.ORPHAN),
        (TemporalState(Execution.UNKNOWN), True, OpenBatch.ORPHAN),
        (TemporalState(Execution.ENDED, OLD), False, OpenBatch.ELSEWHERE),
        (TemporalState(Execution.ANOTHER), False, OpenBatch.ELSEWHERE),
    ],
)
def test_what_a_provider_batch_under_way_is(state: TemporalState | None, same_rows: bool, expected: OpenBatch) -> None:
    assert open_batch(state, same_rows) is expected
