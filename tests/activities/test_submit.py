"""Upload, find, create, tidy: each acts once, and its answer says what exists at the provider."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from typing import Any

import httpx2
import openai
import pytest

from durabatch.activities.content import file_generation, file_name, with_data
from durabatch.activities.records import read_index, read_shard
from durabatch.contract import OnInvalidRow, ProviderStatus
from durabatch.contract.steps import Attempt, CreateAnswer

ATTEMPT = Attempt(scoped_id="b-1", provider="gpt", root="file:///b-1", shard=0, number=1, store="s")


async def requests(sandbox: Any) -> dict[str, int]:
    found: dict[str, int] = (await sandbox.books())["requests"]
    return found


async def batches(sandbox: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await sandbox.books())["batches"]
    return found


@pytest.fixture
async def planned(desk: Any) -> Any:
    """A batch of three rows."""
    await desk.plan(*(desk.chat(f"r-{n}") for n in range(3)))
    return desk


# --- upload ---


async def test_rows_go_up_under_a_name_that_is_the_attempts_own(planned: Any) -> None:
    uploaded = await planned.upload()
    assert uploaded.rows == 3
    assert await planned.files() == [f"durabatch~{planned.attempt.scoped_id}~0~1~{planned.record()['digest']}~g1.jsonl"]
    assert await planned.uploaded_bytes(uploaded.file_id) == (planned.folder / "input.jsonl").read_bytes().rstrip()


async def test_an_upload_that_is_there_already_is_not_sent_again(planned: Any, sandbox: Any) -> None:
    first = await planned.upload()
    assert (await planned.upload()).file_id == first.file_id
    assert (await requests(sandbox))["files.create"] == 1


async def test_an_upload_whose_answer_was_lost_is_found_again(planned: Any, sandbox: Any) -> None:
    await sandbox.fault("files.create", "lost_answer", times=1)
    assert (await planned.refused(planned.upload())).type == "provider_unavailable"
    uploaded = await planned.upload()
    assert (await requests(sandbox))["files.create"] == 1
    assert [file["id"] for file in (await sandbox.books())["files"]] == [uploaded.file_id]


async def test_files_that_came_twice_are_brought_down_to_one(planned: Any, sandbox: Any) -> None:
    await sandbox.settings(list_lag_lists=2)  # so that the second upload does not see the first one's file
    await planned.upload()
    await planned.upload()
    await planned.upload()
    assert len((await sandbox.books())["files"]) > 1
    await sandbox.settings(list_lag_lists=0)
    for _ in range(3):
        await planned.find()
        kept = await planned.upload()
    assert len(await planned.files()) == 1
    data = await planned.uploaded_bytes(kept.file_id)
    assert len(data.splitlines()) == 3


async def test_a_new_generation_takes_the_files_of_earlier_ones_away(planned: Any) -> None:
    first = await planned.upload(generation=1)
    third = await planned.upload(generation=3)
    assert third.file_id != first.file_id
    assert await planned.files() == [f"durabatch~{planned.attempt.scoped_id}~0~1~{planned.record()['digest']}~g3.jsonl"]


async def test_an_upload_that_comes_late_leaves_later_generations_alone(planned: Any) -> None:
    # A worker that was paused for minutes: a batch may run on the file of the one that took over.
    third = await planned.upload(generation=3)
    late = await planned.upload(generation=1)
    assert late.file_id != third.file_id
    assert len(await planned.files()) == 2
    assert (await planned.upload(generation=3)).file_id == third.file_id


async def test_files_of_other_rows_under_the_same_marker_are_taken_away(desk: Any) -> None:
    await desk.plan(desk.chat("a"))
    await desk.upload(generation=5)
    await desk.plan(desk.chat("b", "Something else."))
    await desk.upload()
    assert await desk.files() == [f"durabatch~{desk.attempt.scoped_id}~0~1~{desk.record()['digest']}~g1.jsonl"]


@pytest.mark.parametrize(
    ("name", "generation"),
    [
        (file_name(ATTEMPT, "abc", 1), 1),
        (file_name(ATTEMPT, "abc", 12), 12),
        (file_name(ATTEMPT, "other", 12), 0),
        ("durabatch~b-1~0~1~abc~g.jsonl", 0),
        ("durabatch~b-1~0~1~abc", 0),
        ("durabatch~b-1~0~1~", 0),
        ("durabatch~b-1~0~1~abc~gx", 0),
    ],
)
def test_a_files_name_tells_its_generation(name: str, generation: int) -> None:
    assert file_generation(name, "abc") == generation


async def test_a_shard_of_refused_rows_sends_nothing(desk: Any, sandbox: Any) -> None:
    await desk.plan(b"{", b"[", desk.chat("c"), limits={"max_rows": 2}, on_invalid_row=OnInvalidRow.FAIL_ROW)
    uploaded = await desk.upload()
    assert (uploaded.file_id, uploaded.rows) == (None, 0)
    assert await requests(sandbox) == {}


async def test_only_the_rows_of_a_later_attempt_go_up(desk: Any) -> None:
    rows: list[Any] = [desk.chat(f"r-{n}", "x" * n * 100) for n in range(20)]
    rows[7] = b"{"
    await desk.plan(*rows, limits={"max_rows": 10}, on_invalid_row=OnInvalidRow.FAIL_ROW)
    desk.number = 2
    for desk.shard, picked in enumerate(([0, 2, 9], [1, 8])):
        desk.path("attempt-2").mkdir()
        desk.path("attempt-2/rows.json").write_text(json.dumps(picked))
        uploaded = await desk.upload()
        assert uploaded.rows == len(picked)
        expected = [rows[desk.shard * 10 + number] for number in picked]
        assert await desk.uploaded_bytes(uploaded.file_id) == desk.jsonl(*expected)
    assert len(await desk.files()) == 2


@pytest.mark.parametrize("verbatim", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda old: b"", id="emptied"),
        pytest.param(lambda old: old[:-20], id="shorter"),
        pytest.param(lambda old: old.replace(b"Say hi", b"Say ha"), id="other text"),
        pytest.param(lambda old: old.replace(b'"r-1"', b'"r-7"'), id="other id"),
        pytest.param(lambda old: b"x" * len(old), id="no rows at all"),
        pytest.param(lambda old: b"".join(reversed(old.splitlines(keepends=True))), id="other order"),
    ],
)
async def test_an_input_that_changed_since_its_plan_is_never_bought(
    desk: Any, sandbox: Any, verbatim: bool, change: Any
) -> None:
    rows = [desk.chat(f"r-{n}") for n in range(3)]
    await desk.plan(*rows, params={} if verbatim else {"seed": 1})
    assert desk.record()["verbatim"] is verbatim
    file = desk.folder / "input.jsonl"
    file.write_bytes(change(file.read_bytes()))

    error = await desk.refused(desk.upload())

    assert (error.type, error.non_retryable) == ("accounting_error", True)
    assert "The input has changed since it was planned; submit it again under another id" in error.message
    assert await desk.files() == []


async def test_rows_picked_from_an_input_that_changed_are_never_bought(desk: Any) -> None:
    await desk.plan(*(desk.chat(f"r-{n}") for n in range(3)))
    desk.number = 2
    desk.path("attempt-2").mkdir()
    desk.path("attempt-2/rows.json").write_text("[1]")
    file = desk.folder / "input.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"r-1"', b'"r-7"'))
    assert (await desk.refused(desk.upload())).type == "accounting_error"
    assert await desk.files() == []


async def test_a_missing_input_is_not_mistaken_for_an_empty_one(planned: Any) -> None:
    (planned.folder / "input.jsonl").unlink()
    assert (await planned.refused(planned.upload())).type == "object_not_found"
    assert await planned.files() == []


async def test_rows_are_cut_out_of_the_input_wherever_its_pieces_end(desk: Any) -> None:
    rows = [
        desk.chat(f"r-{n}", "x" * (n * 7919 % 9000)) for n in range(600)
    ]  # two megabytes, so that pieces end within
    await desk.plan(*rows, limits={"max_rows": 300})
    for desk.shard in (0, 1):
        record = await read_shard(desk.store, desk.attempt)
        index = list(read_index(desk.store, f"b-1/shards/{desk.shard:05d}/rows.jsonl"))
        for chosen in (range(300), range(0, 300, 7), (0,), (299,), (150, 151)):
            found = with_data(desk.store, record, ((n, index[n]) for n in chosen))
            assert [(n, json.loads(data)) for n, _, data in found] == [(n, rows[desk.shard * 300 + n]) for n in chosen]


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_provider_that_is_busy_is_asked_to_take_the_upload_later(
    planned: Any, sandbox: Any, status: int
) -> None:
    await sandbox.fault("files.create", "status", status=status, retry_after=7, times=1)
    error = await planned.refused(planned.upload())
    assert not error.non_retryable
    assert error.next_retry_delay == timedelta(seconds=7)
    assert (await planned.upload()).rows == 3


async def test_a_wait_that_is_long_is_the_workflows(planned: Any, sandbox: Any) -> None:
    await sandbox.fault("files.create", "status", status=429, retry_after=3600, times=1)
    error = await planned.refused(planned.upload())
    assert error.non_retryable
    assert error.details == ({"retry_after": 3600.0},)


# --- find ---


async def test_a_batch_is_found_by_its_marker_and_its_rows(planned: Any, sandbox: Any) -> None:
    assert (await planned.find()).batch is None
    created = await planned.create(await planned.upload())
    found = await planned.find()
    assert found.batch is not None and created.batch is not None
    assert (found.batch.id, found.provisional) == (created.batch.id, False)


async def test_a_batch_of_the_same_marker_and_other_rows_is_not_ours(desk: Any) -> None:
    await desk.plan(desk.chat("a"))
    await desk.create(await desk.upload())
    await desk.plan(desk.chat("b", "Something else."), params={"seed": 1})
    assert (await desk.find()).batch is None


async def test_an_attempt_of_picked_rows_is_not_taken_for_one_of_others(planned: Any) -> None:
    planned.number = 2
    planned.path("attempt-2").mkdir()
    planned.path("attempt-2/rows.json").write_text("[1]")
    await planned.create(await planned.upload())
    assert (await planned.find()).batch is not None
    planned.path("attempt-2/rows.json").write_text("[2]")
    assert (await planned.find()).batch is None


@pytest.mark.parametrize(("shard", "number", "batch_id"), [(1, 1, "b-1"), (0, 2, "b-1"), (0, 1, "b-10"), (0, 1, "b")])
async def test_another_attempt_shard_or_batch_is_not_ours(desk: Any, shard: int, number: int, batch_id: str) -> None:
    await desk.plan(desk.chat("a"), desk.chat("a2"), limits={"max_rows": 1})
    await desk.create(await desk.upload())
    desk.batch_id, desk.shard = batch_id, shard
    await desk.plan()
    desk.number = number
    if number == 2:
        desk.path("attempt-2").mkdir()
        desk.path("attempt-2/rows.json").write_text("[0]")
    assert (await desk.find()).batch is None


async def test_a_listing_that_is_late_shows_the_batch_in_the_end(planned: Any, sandbox: Any) -> None:
    await sandbox.settings(list_lag_lists=2)
    await planned.upload()
    created = await planned.create(await planned.upload())
    seen = [(await planned.find()).batch for _ in range(3)]
    assert seen[0] is None
    assert seen[-1] is not None and seen[-1].id == created.batch.id


@pytest.mark.parametrize("noted", [True, False])
async def test_where_a_create_may_have_been_sent_the_whole_listing_is_read(
    planned: Any, sandbox: Any, noted: bool
) -> None:
    await planned.reopen(listing_lag=timedelta(0))
    await sandbox.settings(list_lag_lists=2)
    created = await planned.create(await planned.upload())
    await sandbox.settings(list_lag_lists=0)
    if not noted:
        planned.path("attempt-1/intent").unlink()
    await asyncio.sleep(1.1)  # a second later, as a listing tells time
    mine, planned.number = planned.number, 9
    planned.path("attempt-9").mkdir()
    planned.path("attempt-9/rows.json").write_text("[0]")
    await planned.create(await planned.upload())
    planned.path("attempt-9/intent").unlink()
    assert (await planned.find()).batch is not None  # which has read the listing, and not seen ours
    planned.number = mine
    # Later than `listing_lag` says: only where nothing is known to be sent is it not looked for so far back.
    seen = [(await planned.find(sent=not noted)).batch for _ in range(2)]
    assert seen[-1] is not None and seen[-1].id == created.batch.id


# --- create ---


@pytest.mark.parametrize(
    ("fault", "answer", "code", "exists"),
    [
        ({"kind": "status", "status": 400}, CreateAnswer.REFUSED, "provider_refused", False),
        ({"kind": "status", "status": 401}, CreateAnswer.REFUSED, "authentication_failed", False),
        ({"kind": "status", "status": 402}, CreateAnswer.REFUSED, "quota_exhausted", False),
        ({"kind": "status", "status": 403}, CreateAnswer.REFUSED, "authentication_failed", False),
        ({"kind": "status", "status": 404}, CreateAnswer.REFUSED, "provider_not_found", False),
        ({"kind": "status", "status": 413}, CreateAnswer.REFUSED, "provider_refused", False),
        ({"kind": "status", "status": 422}, CreateAnswer.REFUSED, "provider_refused", False),
        ({"kind": "status", "status": 429}, CreateAnswer.DEFERRED, "rate_limited", False),
        (
            {"kind": "status", "status": 429, "code": "token_limit_exceeded"},
            CreateAnswer.DEFERRED,
            "queue_full",
            False,
        ),
        (
            {"kind": "status", "status": 400, "message": "Enqueued token limit reached for gpt-4o-mini"},
            CreateAnswer.DEFERRED,
            "queue_full",
            False,
        ),
        *(
            ({"kind": "status", "status": 400, **words}, CreateAnswer.REFUSED, "quota_exhausted", False)
            for words in (
                {"code": "billing_hard_limit_reached"},
                {"message": "Your credit balance is too low to access the Anthropic API."},
            )
        ),
        # Servers that read a file before they take a batch of it.
        *(
            (
                {"kind": "status", "status": status, "message": words},
                CreateAnswer.DEFERRED,
                "provider_unavailable",
                False,
            )
            for status in (400, 409, 422)
            for words in (
                "The input file file-1 is still being processed, please try again later.",
                "File is not ready",
                "input file file-1 has not been processed yet",
                "The file's status is 'pending'; it must be 'processed'.",
            )
        ),
        *(
            ({"kind": "status", "status": 400, "message": words}, CreateAnswer.REFUSED, "provider_not_found", False)
            for words in ("No such File object: file-1", "The file file-1 does not exist.", "Input file not found")
        ),
        *(
            ({"kind": "status", "status": 400, "message": words}, CreateAnswer.REFUSED, "provider_refused", False)
            for words in ("The file is malformed and cannot be processed.", "Model not found", "Not ready to pay?")
        ),
        # After these nobody knows, and whoever says otherwise pays twice.
        ({"kind": "status", "status": 500}, CreateAnswer.LOST, "answer_lost", False),
        ({"kind": "status", "status": 503}, CreateAnswer.LOST, "answer_lost", False),
        ({"kind": "reset"}, CreateAnswer.LOST, "answer_lost", False),
        ({"kind": "lost_answer"}, CreateAnswer.LOST, "answer_lost", True),
        ({"kind": "lost_answer_status", "status": 502}, CreateAnswer.LOST, "answer_lost", True),
    ],
)
async def test_a_create_is_sent_once_and_says_what_came_of_it(
    planned: Any, sandbox: Any, fault: dict[str, Any], answer: CreateAnswer, code: str, exists: bool
) -> None:
    uploaded = await planned.upload()
    await sandbox.fault("batches.create", times=1, **fault)

    created = await planned.create(uploaded)

    assert (created.answer, created.code, created.batch) == (answer, code, None)
    assert created.reason
    assert (await requests(sandbox))["batches.create"] == 1
    assert len(await batches(sandbox)) == exists
    found = await planned.find()
    assert (found.batch is not None) == exists


async def test_a_create_that_succeeds_returns_the_batch(planned: Any, sandbox: Any) -> None:
    created = await planned.create(await planned.upload())
    assert created.answer is CreateAnswer.CREATED
    assert created.batch is not None
    (batch,) = await batches(sandbox)
    assert (batch["id"], batch["marker"]) == (created.batch.id, planned.attempt.marker)
    assert batch["metadata"]["durabatch_rows"] == planned.record()["digest"]


async def test_a_batch_that_buys_something_does_not_look_ended(planned: Any) -> None:
    """A workflow that is reset to a point behind its plan goes on beside the result of the run before."""
    (planned.folder / "b-1/result.json").write_text("{}")
    await planned.create(await planned.upload())
    assert not (planned.folder / "b-1/result.json").exists()
    await planned.plan(planned.chat("x", "Something else now."))  # terminated, and started again
    assert planned.summary.rows == 3
    assert (await planned.find()).batch is not None


@pytest.mark.parametrize("status", [429, 500])
async def test_how_long_the_provider_wants_to_be_left_alone_is_told(planned: Any, sandbox: Any, status: int) -> None:
    uploaded = await planned.upload()
    await sandbox.fault("batches.create", "status", status=status, retry_after=90, times=1)
    assert (await planned.create(uploaded)).retry_after == timedelta(seconds=90)
    assert (await planned.create(uploaded)).answer is CreateAnswer.CREATED


async def test_a_provider_that_is_not_there_got_nothing(planned: Any, sandbox: Any) -> None:
    uploaded = await planned.upload()
    account = planned.summary.provider.account
    # The same account, at a port where nobody listens.
    await planned.reopen(base_url="http://127.0.0.1:9/v1", also_accounts=(account,))
    created = await planned.create(uploaded)
    assert (created.answer, created.code) == (CreateAnswer.DEFERRED, "provider_unavailable")
    assert await batches(sandbox) == []


async def test_a_file_that_was_fenced_off_cannot_be_bought(planned: Any, sandbox: Any) -> None:
    fenced = await planned.upload(generation=1)
    await planned.upload(generation=2)
    created = await planned.create(fenced)
    if created.answer is CreateAnswer.CREATED:
        assert (await planned.ended(created.batch)).status is ProviderStatus.FAILED
    assert (await sandbox.books())["rows"] == {}


async def test_another_account_is_never_used(planned: Any, sandbox: Any) -> None:
    uploaded = await planned.upload()
    before = await requests(sandbox)
    await planned.reopen(base_url=f"{sandbox.url}/v1/", account="somebody else's")
    for call in (planned.upload(), planned.find(), planned.create(uploaded), planned.tidy(), planned.poll("batch_1")):
        assert (await planned.refused(call)).type == "account_mismatch"
    assert await requests(sandbox) == before


async def test_a_worker_that_stood_still_creates_nothing(planned: Any, sandbox: Any) -> None:
    """Another worker may have its step by now, so it must not buy the batch a second time."""
    uploaded = await planned.upload()
    result = planned.folder / "b-1/result.json"
    result.write_text("the other worker has brought the batch to its end")

    async def stand_still() -> None:
        await asyncio.sleep(0)  # until the step has begun and waits for the store
        time.sleep(0.3)  # noqa: ASYNC251 - the event loop stands still, as under SIGSTOP

    stall = asyncio.create_task(stand_still())
    created = await planned.create(uploaded, noted=0, heartbeat_timeout=timedelta(seconds=0.5))
    await stall
    assert (created.answer, created.code) == (CreateAnswer.DEFERRED, "provider_unavailable")
    assert created.reason == "The worker stood still before it could submit; nothing was sent."
    assert await batches(sandbox) == []
    assert result.exists()


@pytest.fixture
async def claude(desk: Any) -> Any:
    """A batch for a provider that cannot be searched exactly."""
    body = {"max_tokens": 5, "messages": [{"role": "user", "content": "Hi."}]}
    rows = ({"custom_id": f"r-{n}", "params": {"model": "claude-haiku-4-5", **body}} for n in range(3))
    await desk.plan(*rows, provider="claude")
    return desk


async def test_a_refused_create_does_not_hide_an_earlier_one_that_took_effect(claude: Any, sandbox: Any) -> None:
    uploaded = await claude.upload()
    await sandbox.fault("batches.create", "lost_answer", times=1)
    assert (await claude.create(uploaded)).answer is CreateAnswer.LOST
    await sandbox.fault("batches.create", "status", status=429, times=1)
    assert (await claude.create(uploaded)).answer is CreateAnswer.DEFERRED
    found = (await claude.find()).batch
    (batch,) = await batches(sandbox)
    assert found is not None and found.id == batch["id"]


async def test_a_store_that_fails_after_the_create_does_not_hide_the_batch(claude: Any, sandbox: Any) -> None:
    uploaded = await claude.upload()
    (claude.folder / "~claims").write_text("A file stands where a folder should be.")
    created = await claude.create(uploaded)
    (batch,) = await batches(sandbox)
    assert created.answer is CreateAnswer.CREATED
    assert created.batch is not None and created.batch.id == batch["id"]


async def test_no_answer_holds_a_row_or_a_key(planned: Any, sandbox: Any) -> None:
    uploaded = await planned.upload()
    await sandbox.fault("batches.create", "status", status=400, message="Bad key sk-test for this", times=1)
    created = await planned.create(uploaded)
    assert created.reason is not None
    assert "sk-test" not in created.reason
    assert "Say hi." not in created.model_dump_json()


# --- tidy ---


async def test_tidying_up_removes_every_file_of_the_attempt_and_no_other(desk: Any) -> None:
    for batch_id in ("b-1", "b-1.2", "b-10", "b-"):
        desk.batch_id = batch_id.rstrip("-")
        await desk.plan(desk.chat("a"), desk.chat("b"), limits={"max_rows": 1})
        for desk.shard in (0, 1):
            await desk.upload()
    desk.batch_id, desk.shard = "b-1", 0
    await desk.plan()
    desk.number = 1
    await desk.upload(generation=4)
    name, digest = desk.attempt.scoped_id, desk.record()["digest"]
    stranger = httpx2.AsyncClient(trust_env=False)
    async with openai.AsyncOpenAI(base_url=f"{desk.sandbox.url}/v1", api_key="sk-test", http_client=stranger) as gpt:
        for file in (f"durabatch~{name}~0~1~{digest}~g9.jsonl", f"durabatch~{name}~0~11~x~g1.jsonl", "mine.jsonl"):
            await gpt.files.create(file=(file, b"{}\n"), purpose="batch")
    before = set(await desk.files())

    await desk.tidy()
    await desk.tidy()  # twice is fine

    gone = before - set(await desk.files())
    assert gone == {f"durabatch~{name}~0~1~{digest}~g{generation}.jsonl" for generation in (4, 9)}


async def test_a_file_that_the_listing_does_not_show_yet_is_removed_too(planned: Any, sandbox: Any) -> None:
    await sandbox.settings(list_lag_lists=2)
    uploaded = await planned.upload()
    await planned.tidy(uploaded.file_id)
    await sandbox.settings(list_lag_lists=0)
    assert all(file["deleted"] for file in (await sandbox.books())["files"])


async def test_tidying_up_where_nothing_is_does_nothing(planned: Any, sandbox: Any) -> None:
    await planned.tidy()
    assert "files.delete" not in await requests(sandbox)
