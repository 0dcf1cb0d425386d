"""Each kind of fault, as a client meets it, and what it leaves behind."""

import asyncio
import contextlib

import openai
import pytest

from durabatch.sandbox import SandboxError

ROUTES = {
    "files.create": lambda gpt, id: gpt.files.create(file=("a.jsonl", b"{}"), purpose="batch"),
    "files.list": lambda gpt, id: gpt.files.list(),
    "files.retrieve": lambda gpt, id: gpt.files.retrieve(id),
    "files.content": lambda gpt, id: gpt.files.content(id),
    "files.delete": lambda gpt, id: gpt.files.delete(id),
    "batches.create": lambda gpt, id: gpt.batches.create(
        input_file_id=id, endpoint="/v1/chat/completions", completion_window="24h"
    ),
    "batches.list": lambda gpt, id: gpt.batches.list(),
    "chat": lambda gpt, id: gpt.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}]),
    "responses": lambda gpt, id: gpt.responses.create(model="m", input="x"),
    "embeddings": lambda gpt, id: gpt.embeddings.create(model="m", input="x"),
    "completions": lambda gpt, id: gpt.completions.create(model="m", prompt="x"),
    "moderations": lambda gpt, id: gpt.moderations.create(input="x"),
    "models": lambda gpt, id: gpt.models.list(),
}


@pytest.fixture
async def file_id(gpt, steps):
    file = await gpt.files.create(file=("rows.jsonl", steps.jsonl(steps.chat_row("a"))), purpose="batch")
    return file.id


@pytest.mark.parametrize("op", ROUTES)
async def test_every_route_can_be_told_to_answer_with_a_status(gpt, sandbox, file_id, op):
    await sandbox.fault(op, "status", status=503, times=1, retry_after=7, code="busy", message="Come back.")
    with pytest.raises(openai.InternalServerError) as caught:
        await ROUTES[op](gpt, file_id)
    assert (caught.value.status_code, caught.value.code) == (503, "busy")
    assert caught.value.body["message"] == "Come back."
    assert caught.value.response.headers["retry-after"] == "7"
    assert await ROUTES[op](gpt, file_id)
    assert (await sandbox.books())["requests"][op] >= 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 502])
async def test_any_status_can_be_asked_for(gpt, sandbox, refusal, status):
    await sandbox.fault("*", "status", status=status, times=1)
    assert (await refusal(gpt.files.list())).status_code == status


@pytest.mark.parametrize(
    ("kind", "options", "effect", "error"),
    [
        ("reset", {}, 0, openai.APIConnectionError),
        ("status", {"status": 500}, 0, openai.InternalServerError),
        ("lost_answer", {}, 1, openai.APIConnectionError),
        ("lost_answer_status", {"status": 502}, 1, openai.InternalServerError),
    ],
)
async def test_a_create_has_taken_effect_or_not(gpt, sandbox, steps, file_id, kind, options, effect, error):
    await sandbox.fault("batches.create", kind, times=1, **options)
    with pytest.raises(error):
        await ROUTES["batches.create"](gpt, file_id)
    assert len((await gpt.batches.list()).data) == effect
    for batch in (await gpt.batches.list()).data:
        assert (await steps.end(gpt, batch.id)).status == "completed"


@pytest.mark.parametrize(("kind", "effect"), [("reset", 0), ("lost_answer", 1)])
async def test_an_upload_has_taken_effect_or_not(gpt, sandbox, kind, effect):
    await sandbox.fault("files.create", kind, times=1)
    with pytest.raises(openai.APIConnectionError):
        await gpt.files.create(file=("big.txt", b"x" * 3_000_000), purpose="user_data")
    assert [file.bytes async for file in gpt.files.list()] == [3_000_000] * effect


async def test_a_slow_answer_comes_after_the_effect(gpt, sandbox, file_id):
    await sandbox.fault("batches.create", "slow", delay_seconds=5, times=1)
    with pytest.raises(openai.APITimeoutError):
        await ROUTES["batches.create"](gpt.with_options(timeout=0.5), file_id)
    assert len((await gpt.batches.list()).data) == 1


async def test_a_held_answer_comes_when_the_fault_is_cleared(gpt, sandbox, file_id):
    await sandbox.fault("batches.create", "hold", times=1)
    held = asyncio.create_task(ROUTES["batches.create"](gpt, file_id))
    while not (await gpt.batches.list()).data:
        pass
    (fault,) = await sandbox.faults()
    assert (fault["waiting"], held.done()) == (1, False)
    await sandbox.clear()
    assert (await held).id == (await gpt.batches.list()).data[0].id


async def test_a_request_held_before_its_effect_takes_it_later_even_if_nobody_waits(gpt, sandbox, file_id):
    fault = await sandbox.fault("batches.create", "hold_before", times=1)
    with pytest.raises(openai.APITimeoutError):
        await ROUTES["batches.create"](gpt.with_options(timeout=0.5), file_id)
    assert (await gpt.batches.list()).data == []
    await sandbox.clear(fault["id"])
    while not (await gpt.batches.list()).data:
        pass


async def test_a_hold_may_end_by_itself(gpt, sandbox):
    await sandbox.fault("files.list", "hold_before", seconds=0.1)
    assert (await gpt.files.list()).data == []


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9])
async def test_a_download_cut_short_can_be_resumed(gpt, sandbox, fraction):
    content = bytes(range(256)) * 4_000
    file = await gpt.files.create(file=("rows.bin", content), purpose="user_data")
    await sandbox.fault("files.content", "truncate", fraction=fraction, times=1)
    got = b""
    with pytest.raises(Exception, match=r"peer closed|incomplete|disconnected"):
        async with gpt.files.with_streaming_response.content(file.id) as response:
            async for chunk in response.iter_bytes():
                got += chunk
    assert got == content[: int(len(content) * fraction)]
    rest = await gpt.files.content(file.id, extra_headers={"Range": f"bytes={len(got)}-"})
    assert got + rest.content == content


async def test_an_outage_lasts_for_as_many_requests_or_seconds_as_it_says(gpt, sandbox):
    await sandbox.fault("*", "outage", times=2)
    for _ in range(2):
        with pytest.raises(openai.APIConnectionError):
            await gpt.models.list()
    await gpt.models.list()
    await sandbox.fault("*", "outage", seconds=0.4)
    failed = 0
    while True:
        with contextlib.suppress(openai.APIConnectionError):
            await gpt.models.list()
            break
        failed += 1
    assert failed and await sandbox.faults() == []


async def test_a_fault_can_let_some_requests_pass_first_and_stays_until_it_is_cleared(gpt, sandbox):
    await sandbox.fault("files.list", "status", status=500, skip=1)
    await gpt.files.list()
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await gpt.files.list()
    await sandbox.clear()
    await gpt.files.list()


async def test_a_fault_hits_exactly_as_many_of_many_requests_as_it_says(gpt, sandbox):
    await sandbox.fault("files.list", "status", status=500, times=3)
    answers = await asyncio.gather(*(gpt.files.list() for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, Exception) for answer in answers) == 3


@pytest.mark.parametrize(
    ("outcome", "in_error_file", "errors"),
    [("expired", {"batch_expired"}, 0), ("cancelled", {"batch_cancelled"}, 0), ("failed", set(), 1)],
)
async def test_the_next_batch_can_end_badly_with_part_of_its_rows(gpt, steps, sandbox, outcome, in_error_file, errors):
    await sandbox.fault("batches.create", "batch_outcome", outcome=outcome, fraction=0.3, times=1)
    rows = [steps.chat_row(f"r{i}") for i in range(10)]
    batch = await steps.end(gpt, (await steps.create(gpt, *rows)).id)
    assert (batch.status, batch.request_counts.total, batch.request_counts.completed) == (outcome, 10, 3)
    assert len(await steps.read(gpt, batch.output_file_id)) == 3
    left = await steps.read(gpt, batch.error_file_id)
    assert {line["error"]["code"] for line in left} == in_error_file
    assert len(left) == (7 if in_error_file else 0)
    assert len(batch.errors.data if batch.errors else []) == errors
    assert getattr(batch, f"{outcome}_at") and batch.usage.output_tokens > 0
    books = await sandbox.books()
    assert books["batches"][0]["rows_billed"] == 3 and list(books["rows"].values()) == [1, 1, 1]
    assert (await steps.end(gpt, (await steps.create(gpt, *rows)).id)).status == "completed"


@pytest.mark.parametrize(
    ("op", "kind", "options"),
    [
        ("files.create", "explode", {}),
        ("files.crate", "reset", {}),
        ("files.create", "status", {}),
        ("files.create", "status", {"status": 200}),
        ("files.create", "reset", {"colour": "red"}),
        ("files.create", "reset", {"times": -1}),
        ("batches.create", "batch_outcome", {}),
        ("files.create", "batch_outcome", {"outcome": "expired"}),
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused_in_a_sentence(sandbox, op, kind, options):
    with pytest.raises(SandboxError):
        await sandbox.fault(op, kind, **options)
    assert await sandbox.faults() == []


async def raw(gpt, path):
    return await gpt.get(path, cast_to=object)


async def test_an_answer_can_be_told_to_say_something_else_field_by_field(gpt, sandbox, file_id):
    put = {"/created_at": "soon", "/expires_at": {"a": [1]}, "/nowhere/at/all": 1}
    await sandbox.fault("files.retrieve", "override", put=put, drop=["/bytes", "/nowhere", "/x/y"], times=1)
    odd = await raw(gpt, f"/files/{file_id}")
    right = await raw(gpt, f"/files/{file_id}")
    assert (odd["created_at"], odd["expires_at"]) == ("soon", {"a": [1]}) and "bytes" not in odd
    assert odd == {name: odd.get(name, value) for name, value in right.items() if name != "bytes"}


async def test_a_listing_can_be_told_to_show_something_else(gpt, sandbox, file_id):
    put = {"/data/0/filename": None, "/data/-": "junk", "/data/9": 1, "/has_more": True}
    await sandbox.fault("files.list", "override", put=put, drop=["/data/0/id"])
    page = await raw(gpt, "/files")
    assert page["has_more"] is True and page["data"][1:] == ["junk"]
    assert page["data"][0]["filename"] is None and "id" not in page["data"][0]


@pytest.mark.parametrize("value", [None, "", 3, [], {}, "x" * 100_000])
async def test_a_whole_answer_can_be_replaced_after_the_request_took_its_effect(gpt, sandbox, file_id, value):
    await sandbox.fault("batches.create", "override", put={"": value}, times=1)
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert await gpt.post("/batches", body=body, cast_to=object) == value
    assert len((await gpt.batches.list()).data) == 1


async def test_a_page_of_a_proxy_can_stand_in_for_an_answer(gpt, sandbox, file_id):
    await sandbox.fault("models", "override", body="<html>hello</html>", media="text/html", times=1)
    answer = await gpt.models.with_raw_response.list()
    assert (answer.http_response.text, answer.headers["content-type"]) == (
        "<html>hello</html>",
        "text/html; charset=utf-8",
    )
    assert (await gpt.models.list()).data


async def test_an_override_that_changes_nothing_is_refused(sandbox):
    with pytest.raises(SandboxError, match="needs what to put"):
        await sandbox.fault("models", "override")
