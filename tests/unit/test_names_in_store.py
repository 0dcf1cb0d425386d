"""Every object name is taken apart as it was made, and nobody else's name is taken for one."""

from __future__ import annotations

import pytest

from durabatch.contract.claim_names import claim_owner, claim_path, parse_claim
from durabatch.contract.layout import (
    ERROR,
    ERRORS,
    IDENTITY,
    OUTPUT,
    RESULTS,
    WRITTEN,
    answers_path,
    bought_in,
    brought_folder,
    brought_name,
    brought_path,
    copy_path,
    file_list_path,
    index_path,
    inline_path,
    is_manifest,
    is_record,
    is_written,
    kept_path,
    manifest_path,
    mark_path,
    measured_path,
    note_path,
    parse_brought,
    parse_name,
    part_name,
    picked_path,
    plan_path,
    ran_path,
    result_path,
    results_path,
    sent_path,
    settled_path,
    shard_path,
    try_path,
    unmatched_name,
    withdrawn_path,
)
from durabatch.contract.names import (
    UPLOADS,
    UploadName,
    batch_of,
    marker,
    parse_marker,
    parse_upload,
    shard_workflow_id,
    shards_name,
    shards_of,
    upload_prefix,
)
from durabatch.contract.object_name import Kind, Name, Run

ROOT = "deep/out"
DIGEST = "0123456789abcdef" * 4

#: Each kind of object: the path that is made, as it lies in the store, and what its name says.
MADE = [
    (plan_path(ROOT), f"{ROOT}/plan.json", Name(kind=Kind.PLAN)),
    (result_path(ROOT), f"{ROOT}/result.json", Name(kind=Kind.RESULT)),
    (results_path(ROOT, RESULTS), f"{ROOT}/results.jsonl", Name(kind=Kind.RESULTS, stem="results")),
    (results_path(ROOT, ERRORS), f"{ROOT}/errors.jsonl", Name(kind=Kind.RESULTS, stem="errors")),
    (
        manifest_path(ROOT, RESULTS),
        f"{ROOT}/results.manifest.json",
        Name(kind=Kind.RESULTS, stem="results", manifest=True),
    ),
    (
        manifest_path(ROOT, ERRORS),
        f"{ROOT}/errors.manifest.json",
        Name(kind=Kind.RESULTS, stem="errors", manifest=True),
    ),
    (try_path(ROOT), f"{ROOT}/~try.json", Name(kind=Kind.TRY)),
    (inline_path(ROOT), f"{ROOT}/input.jsonl", Name(kind=Kind.INLINE)),
    (file_list_path(ROOT), f"{ROOT}/input.json", Name(kind=Kind.FILE_LIST)),
    (
        copy_path(ROOT, 7, "9 1 in/a.jsonl.gz"),
        f"{ROOT}/input/00007-264c6a68521db6a5.jsonl",
        Name(kind=Kind.COPY, number=7),
    ),
    (
        f"{brought_folder(ROOT, DIGEST)}.jsonl.gz",
        f"{ROOT}/input-0123456789abcdef.jsonl.gz",
        Name(kind=Kind.BROUGHT),
    ),
    (
        measured_path(f"{brought_folder(ROOT, DIGEST)}.jsonl"),
        f"{ROOT}/input-0123456789abcdef.jsonl.measured.json",
        Name(kind=Kind.BROUGHT),
    ),
    (
        brought_path(ROOT, DIGEST, 12, 5, "a~b-c.jsonl"),
        f"{ROOT}/input-0123456789abcdef/00012-a~b-c.jsonl",
        Name(kind=Kind.BROUGHT, number=12, stem="a~b-c.jsonl"),
    ),
    (shard_path(ROOT, 3), f"{ROOT}/shards/00003/shard.json", Name(kind=Kind.SHARD, shard=3)),
    (index_path(ROOT, 123456), f"{ROOT}/shards/123456/rows.jsonl", Name(kind=Kind.INDEX, shard=123456)),
    (settled_path(ROOT, 3), f"{ROOT}/shards/00003/settled.json", Name(kind=Kind.SETTLED, shard=3)),
    (f"{ROOT}/{unmatched_name(3)}", f"{ROOT}/shards/00003/unmatched.jsonl", Name(kind=Kind.UNMATCHED, shard=3)),
    (
        f"{ROOT}/{part_name(3, RESULTS)}",
        f"{ROOT}/shards/00003/results.jsonl",
        Name(kind=Kind.SHARD_RESULTS, shard=3, stem="results"),
    ),
    (
        f"{ROOT}/{part_name(3, ERRORS)}",
        f"{ROOT}/shards/00003/errors.jsonl",
        Name(kind=Kind.SHARD_RESULTS, shard=3, stem="errors"),
    ),
    (picked_path(ROOT, 3, 2), f"{ROOT}/shards/00003/attempt-2/rows.json", Name(kind=Kind.PICKED, shard=3, attempt=2)),
    (
        answers_path(ROOT, 3, 2, OUTPUT),
        f"{ROOT}/shards/00003/attempt-2/output.jsonl",
        Name(kind=Kind.ANSWERS, shard=3, attempt=2, stem="output"),
    ),
    (
        answers_path(ROOT, 3, 2, ERROR),
        f"{ROOT}/shards/00003/attempt-2/error.jsonl",
        Name(kind=Kind.ANSWERS, shard=3, attempt=2, stem="error"),
    ),
    (
        note_path(ROOT, 3, 2, 1),
        f"{ROOT}/shards/00003/attempt-2/intent",
        Name(kind=Kind.NOTE, shard=3, attempt=2, number=1),
    ),
    (
        kept_path(ROOT, 3, 2, Run(4, "0f3a9c21"), 7),
        f"{ROOT}/shards/00003/attempt-2/kept/4-0f3a9c21-00007.jsonl",
        Name(kind=Kind.KEPT, shard=3, attempt=2, run=Run(4, "0f3a9c21"), number=7),
    ),
    (
        sent_path(ROOT, 3, 2, Run(4, "0f3a9c21")),
        f"{ROOT}/shards/00003/attempt-2/sent/4-0f3a9c21.rows",
        Name(kind=Kind.SENT, shard=3, attempt=2, run=Run(4, "0f3a9c21")),
    ),
    (
        mark_path(ROOT, 3, 2, Run(4, "0f3a9c21")),
        f"{ROOT}/shards/00003/attempt-2/sent/4-0f3a9c21.mark",
        Name(kind=Kind.MARK, shard=3, attempt=2, run=Run(4, "0f3a9c21")),
    ),
    (ran_path(ROOT, 3, 2), f"{ROOT}/shards/00003/attempt-2/ran.json", Name(kind=Kind.RAN, shard=3, attempt=2)),
    (
        note_path(ROOT, 3, 2, 12),
        f"{ROOT}/shards/00003/attempt-2/intent-12",
        Name(kind=Kind.NOTE, shard=3, attempt=2, number=12),
    ),
    (
        withdrawn_path(note_path(ROOT, 3, 2, 1)),
        f"{ROOT}/shards/00003/attempt-2/withdrawn-1",
        Name(kind=Kind.WITHDRAWN, shard=3, attempt=2, number=1),
    ),
    (
        withdrawn_path(note_path(ROOT, 3, 2, 12)),
        f"{ROOT}/shards/00003/attempt-2/withdrawn-12",
        Name(kind=Kind.WITHDRAWN, shard=3, attempt=2, number=12),
    ),
]


@pytest.mark.parametrize(("made", "path", "name"), MADE, ids=[path for _, path, _ in MADE])
def test_a_name_is_taken_apart_as_it_was_made(made: str, path: str, name: Name) -> None:
    assert made == path
    assert parse_name(made.removeprefix(f"{ROOT}/")) == name


def test_every_kind_is_made_somewhere_but_what_is_not_ours() -> None:
    assert {name.kind for _, _, name in MADE} == set(Kind) - {Kind.OTHER}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "notes.txt",
        "old/plan.json",
        "plan.json.bak",
        "results.csv",
        "results.jsonl.gz",
        "input/mine.jsonl",
        "input/00001-0123456789abcdef.jsonl/x",
        "input-0123.jsonl",
        "input-0123456789abcdef/7-a.jsonl",
        "input-0123456789abcdef/00007-a/b.jsonl",
        "shards",
        "my-shards/00000/shard.json",
    ],
)
def test_a_name_that_somebody_else_gave_is_none_of_ours(name: str) -> None:
    assert parse_name(name) is None


@pytest.mark.parametrize(
    ("name", "shard", "attempt"),
    [
        ("shards/notes.txt", None, None),
        ("shards/00003/", None, None),
        ("shards/00003/notes.txt", 3, None),
        ("shards/00003/attempt-2", 3, None),
        ("shards/00003/attempt-2/notes.txt", 3, 2),
        ("shards/00003/attempt-2/intent-x", 3, 2),
        ("shards/00003/attempt-2/output.jsonl/x", 3, 2),
    ],
)
def test_the_folder_of_shards_is_ours_alone(name: str, shard: int | None, attempt: int | None) -> None:
    assert parse_name(name) == Name(kind=Kind.OTHER, shard=shard, attempt=attempt)


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        *(
            (path, None if name.kind in (Kind.PLAN, Kind.RESULT, Kind.WITHDRAWN) else ROOT)
            for _, path, name in MADE
            if name.attempt is not None or name.kind in (Kind.RESULTS, Kind.SHARD_RESULTS, Kind.SETTLED)
        ),
        (plan_path("b"), None),
        (result_path("b"), None),
        (inline_path("b"), None),
        (shard_path("b", 0), None),
        (index_path("b", 0), None),
        ("b/shards/00000/attempt-1/anything/at/all", "b"),
        ("shards/00000/results.jsonl", "shards/00000"),  # as it may be a folder of that name
        ("a/shards/00000/attempt-1/shards/00000/results.jsonl", "a"),  # the outermost one
        ("results.jsonl", None),
    ],
)
def test_a_trace_of_a_purchase_names_its_batchs_folder(path: str, folder: str | None) -> None:
    assert bought_in(path) == folder


def test_a_claim_names_the_provider_batch_and_its_owner() -> None:
    path = claim_path("acc", "msgbatch~1", "b~1f0a93c2/0/1")
    assert path == f"~claims/acc/msgbatch~1~{claim_owner('b~1f0a93c2/0/1')}"
    assert parse_claim(path) == ("msgbatch~1", claim_owner("b~1f0a93c2/0/1"))
    assert claim_owner("b~1f0a93c2/0/1") != claim_owner("b~1f0a93c2/0/2")
    assert parse_claim(IDENTITY) is None
    assert parse_claim("b/plan.json") is None


def test_rows_that_a_client_brought_are_known_wherever_they_lie() -> None:
    path = brought_path("b", DIGEST, 0, 6, "a.jsonl")
    for folder in ("", "x/", "x/y\n/"):
        assert parse_brought(folder + path) == Name(kind=Kind.BROUGHT, stem="a.jsonl")
        assert parse_brought(f"{folder}{brought_folder('b', DIGEST)}.jsonl") == Name(kind=Kind.BROUGHT)
        assert parse_brought(f"{folder}b/rows.jsonl") is None


@pytest.mark.parametrize("name", ["a.jsonl", "2026/01/day 1.jsonl", "größe/(1)@x+y=z,.jsonl"])
def test_a_brought_files_own_name_comes_back(name: str) -> None:
    found = parse_brought(brought_path("b", DIGEST, 7, 5, brought_name(name)))
    assert found is not None and (found.number, found.own) == (7, name)


@pytest.mark.parametrize(
    ("name", "own"), [("a~b\n*?.jsonl", "a-b---.jsonl"), ("é" * 150 + ".jsonl", "é" * 97 + ".jsonl")]
)
def test_of_a_brought_files_name_what_no_store_takes_is_left_out(name: str, own: str) -> None:
    found = parse_brought(brought_path("b", DIGEST, 0, 5, brought_name(name)))
    assert found is not None and found.own == own


@pytest.mark.parametrize(("first", "last", "id"), [(7, 7, "b/shards/00007"), (10, 123_456, "b/shards/00010-123456")])
def test_the_workflow_of_shards_names_its_batch_and_its_shards(first: int, last: int, id: str) -> None:
    name = shards_name(first, last)
    assert shard_workflow_id("b", name) == id
    assert (batch_of(id), shards_of(id)) == ("b", name)
    assert shards_of("b") == ""


def test_records_and_manifests_are_told_by_their_paths() -> None:
    assert [path for _, path, _ in MADE if is_record(path)] == [plan_path(ROOT), result_path(ROOT)]
    assert {path for _, path, name in MADE if is_manifest(path)} == {path for _, path, name in MADE if name.manifest}
    assert not is_record("plan.json")  # it would be the whole store's


def test_a_batch_takes_nothing_that_it_writes_for_its_input() -> None:
    written = {path.removeprefix(f"{ROOT}/") for _, path, name in MADE if is_written(path.removeprefix(f"{ROOT}/"))}
    assert set(WRITTEN) < written
    assert all(parse_name(name) for name in written)
    assert not is_written("input.jsonl")
    assert not is_written("input-0123456789abcdef.jsonl")


# --- at providers ---


@pytest.mark.parametrize("batch", ["b", "a.b:c@d+e=f-1", "nightly~1f0a93c2"])
def test_a_file_at_a_provider_tells_whose_rows_it_holds(batch: str) -> None:
    upload = UploadName(batch=batch, shard=12, attempt=3, digest="abc", generation=2)
    assert str(upload) == f"durabatch~{batch}~12~3~abc~g2.jsonl"
    assert str(upload).startswith(upload_prefix(batch, 12, 3))
    assert upload_prefix(batch, 12, 3).startswith(UPLOADS)
    assert parse_upload(str(upload)) == upload
    for other in ("rows.jsonl", "durabatch~b", "durabatch~a/b~0~1~d~g1.jsonl", f"x{upload}", f"{upload}x"):
        assert parse_upload(other) is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (marker("nightly~1f0a93c2", 7, 2), ("nightly~1f0a93c2", 7, 2)),
        ("b", None),
        ("b/1", None),
        ("b/1/x", None),
        ("b/1/2/3", None),
        ("b//1", None),
    ],
)
def test_a_marker_is_taken_apart(text: str, parts: tuple[str, int, int] | None) -> None:
    assert parse_marker(text) == parts
