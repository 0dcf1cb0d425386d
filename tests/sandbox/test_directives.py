"""Directives in a row's text, in batches of both protocols."""

import pytest

from durabatch.sandbox.directives import read_directives


@pytest.fixture
def outcome(gpt, steps):
    """Run a batch of a row with a marker beside one without, and return both files' lines of the marked row."""

    async def run(marker: str):
        rows = [steps.chat_row("marked", f"Hi [[sandbox:{marker}]] you"), steps.chat_row("plain")]
        batch = await steps.end(gpt, (await steps.create(gpt, *rows)).id)
        assert batch.status == "completed"
        output = [line for line in await steps.read(gpt, batch.output_file_id) if line["custom_id"] != "plain"]
        return output, await steps.read(gpt, batch.error_file_id)

    return run


@pytest.mark.parametrize(
    ("marker", "status", "code"),
    [
        ("rate_limited", 429, "rate_limit_exceeded"),
        ("server_error", 500, None),
        ("invalid_request", 400, "invalid_value"),
        ("context_length", 400, "context_length_exceeded"),
        ("overloaded", 503, "overloaded"),
    ],
)
async def test_a_row_can_get_a_response_that_is_an_error(outcome, marker, status, code):
    output, (error,) = await outcome(marker)
    assert output == [] and error["error"] is None
    assert error["response"]["status_code"] == status
    assert error["response"]["body"]["error"]["code"] == code


@pytest.mark.parametrize(("marker", "code"), [("timeout", "request_timeout"), ("batch_expired", "batch_expired")])
async def test_a_row_can_get_no_response_at_all(outcome, marker, code):
    output, (error,) = await outcome(marker)
    assert output == [] and error["response"] is None
    assert error["error"]["code"] == code


async def test_a_row_can_be_missing_or_come_twice_or_with_a_stranger(outcome, sandbox):
    assert await outcome("missing") == ([], [])
    twice, _ = await outcome("duplicate")
    assert [line["custom_id"] for line in twice] == ["marked", "marked"] and twice[0] == twice[1]
    pair, _ = await outcome("unknown")
    assert len(pair) == 2 and pair[0]["custom_id"] == "marked" != pair[1]["custom_id"]
    assert [batch["rows_billed"] for batch in (await sandbox.books())["batches"]] == [2, 2, 2]


async def test_a_row_can_be_billed_under_a_name_of_its_own(gpt, steps, sandbox):
    rows = steps.chat_row("a", "[[sandbox:billed_as=nightly-0001.7]]"), steps.chat_row("b")
    batch = await steps.end(gpt, (await steps.create(gpt, *rows)).id)
    books = await sandbox.books()
    assert sorted(row.partition("/")[2] for row in books["rows"]) == ["b", "nightly-0001.7"]
    assert books["batches"][0]["first_row"] == {"custom_id": "a", "billed_as": "nightly-0001.7"}
    assert sorted(line["custom_id"] for line in await steps.read(gpt, batch.output_file_id)) == ["a", "b"]


async def test_a_line_can_be_unreadable(gpt, steps):
    batch = await steps.create(gpt, steps.chat_row("a", "[[sandbox:malformed]]"), steps.chat_row("b"))
    batch = await steps.end(gpt, batch.id)
    lines = (await gpt.files.content(batch.output_file_id)).text.splitlines()
    assert sorted(line.endswith("}") for line in lines) == [False, True]
    with pytest.raises(ValueError):
        await steps.read(gpt, batch.output_file_id)


async def test_a_text_can_be_empty_or_filtered(outcome):
    ((empty,), _) = await outcome("empty")
    ((filtered,), _) = await outcome("content_filtered")
    assert empty["response"]["body"]["choices"][0]["message"]["content"] == ""
    assert filtered["response"]["body"]["choices"][0]["finish_reason"] == "content_filter"


async def test_a_row_can_misbehave_only_the_first_few_times(gpt, steps):
    row = steps.chat_row("a", "Hi [[sandbox:rate_limited times=2]]")
    seen = []
    for _ in range(3):
        batch = await steps.end(gpt, (await steps.create(gpt, row)).id)
        seen.append(batch.request_counts.completed)
    assert seen == [0, 0, 1]


async def test_a_row_of_claude_is_the_same_one_under_another_id(claude):
    seen = []
    for attempt in range(3):
        text = "Hi [[sandbox:rate_limited times=2]]"
        params = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
        rows = [{"custom_id": f"row-{attempt}", "params": params}]
        batch = await claude.messages.batches.create(requests=rows)
        while batch.processing_status != "ended":
            batch = await claude.messages.batches.retrieve(batch.id)
        seen.append(batch.request_counts.succeeded)
    assert seen == [0, 0, 1]


async def test_output_tokens_can_be_ordered(outcome):
    ((line,), _) = await outcome("tokens=500")
    assert line["response"]["body"]["usage"]["completion_tokens"] == 500


async def test_claude_has_the_same_markers_in_its_own_words(claude):
    markers = {
        "rate_limited": "rate_limit_error",
        "server_error": "api_error",
        "timeout": "timeout_error",
        "invalid_request": "invalid_request_error",
        "context_length": "invalid_request_error",
        "overloaded": "overloaded_error",
    }
    ids = [*markers, "batch_expired", "content_filtered", "empty", "missing", "duplicate", "unknown"]
    requests = [
        {
            "custom_id": id,
            "params": {
                "model": "claude-haiku-4-5",
                "max_tokens": 100,
                "messages": [{"role": "user", "content": f"Hi [[sandbox:{id}]]"}],
            },
        }
        for id in ids
    ]
    batch = await claude.messages.batches.create(requests=requests)
    while batch.processing_status != "ended":
        batch = await claude.messages.batches.retrieve(batch.id)
    found = {}
    async for line in await claude.messages.batches.results(batch.id):
        found.setdefault(line.custom_id, []).append(line.result)
    for id, kind in markers.items():
        assert (found[id][0].type, found[id][0].error.error.type) == ("errored", kind)
    assert found["batch_expired"][0].type == "expired"
    assert found["content_filtered"][0].message.stop_reason == "refusal"
    assert found["empty"][0].message.content == []
    assert "missing" not in found and len(found["duplicate"]) == 2
    assert next(id for id in found if id not in ids).startswith("nobody_")
    counts = batch.request_counts
    assert (counts.succeeded, counts.errored, counts.expired, counts.processing) == (5, 6, 1, 0)


def test_what_is_no_marker_is_text():
    for text in ("[[sandbox:unheard_of]]", "[[sandbox:rate_limited", "[[sandbox:tokens]]", "sandbox:missing"):
        assert read_directives(text) == read_directives("plain")
