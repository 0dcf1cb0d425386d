"""Settle: every row once (promise G2), whatever the provider sent, and nothing paid is thrown away (G3)."""

from __future__ import annotations

import json
import random
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest

from durabatch.activities.prices import Prices, dollars, picodollars
from durabatch.activities.providers.anthropic import rows as anthropic_rows
from durabatch.activities.providers.base import sealed
from durabatch.activities.providers.outcome import RowTokens
from durabatch.contract import ErrorClass, OnInvalidRow, ResultRow, RetryPolicy, RowStatus, Unpriced
from durabatch.contract.steps import AttemptRecord

NO_RETRY = RetryPolicy(max_attempts=1)
FAILED, CANCELED, EXPIRED = RowStatus.FAILED, RowStatus.CANCELED, RowStatus.EXPIRED


def ok(custom_id: str, text: str = "Hi.", into: int = 100, out: int = 10, **body: Any) -> dict[str, Any]:
    """A line of an output file."""
    answer = {
        "id": "chatcmpl-1",
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out},
        **body,
    }
    response = {"status_code": 200, "request_id": "req_1", "body": answer}
    return {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": None}


def bad(custom_id: str, status: int = 500, code: str | None = None) -> dict[str, Any]:
    """A line of an error file."""
    body = {"error": {"message": f"It went wrong for {custom_id}.", "code": code}}
    response = {"status_code": status, "request_id": "req_1", "body": body}
    return {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": None}


def left_over(custom_id: str, code: str) -> dict[str, Any]:
    """A line of an error file for a row that never ran."""
    return {"id": "x", "custom_id": custom_id, "response": None, "error": {"code": code, "message": "Never ran."}}


def price(into: int = 100, out: int = 10) -> int:
    cost = Prices("openai", 0.5).list_cost("gpt-4o-mini", RowTokens(input_tokens=into, output_tokens=out))
    assert cost
    return cost


def statuses(desk: Any) -> dict[str, str]:
    return {row["custom_id"]: row["status"] for row in desk.rows()}


def reasons(desk: Any) -> dict[str, tuple[str, str]]:
    return {row["custom_id"]: (row["status"], row["error"]["type"]) for row in desk.rows("errors.jsonl")}


@pytest.fixture
async def three(desk: Any) -> Any:
    """A shard of the rows a, b, c."""
    await desk.plan(*(desk.chat(name) for name in "abc"))
    return desk


# --- in order, and once ---


async def test_results_come_in_input_order_whatever_order_the_provider_used(desk: Any) -> None:
    names = [f"r-{n}" for n in range(200)]
    await desk.plan(*(desk.chat(name, f"Say {name}.") for name in names))
    await desk.through()
    sent = [row["custom_id"] for row in desk.rows("attempt-1/output.jsonl")]
    assert sent != names  # the sandbox shuffles, as the real provider does

    settled = await desk.settle()

    assert [row["custom_id"] for row in desk.rows()] == names
    assert all(name in row["text"] for name, row in zip(names, desk.rows(), strict=True))
    assert (settled.counts.total, settled.counts.succeeded) == (200, 200)
    assert desk.rows("errors.jsonl") == []
    assert not desk.path("unmatched.jsonl").exists()


async def test_a_result_is_what_the_contract_says(three: Any) -> None:
    three.answered(ok("a", "Ah."), ok("c"))
    three.answered(bad("b", 500, "server_error"), name="error")
    await three.settle(FAILED)

    rows = [ResultRow.model_validate_json(line) for line in three.path("results.jsonl").read_bytes().splitlines()]
    assert [row.custom_id for row in rows] == ["a", "b", "c"]
    first, second, _ = rows
    assert (first.status, first.text, first.model, first.attempts) == (RowStatus.SUCCEEDED, "Ah.", "gpt-4o-mini", 1)
    assert first.usage is not None and (first.usage.input_tokens, first.usage.output_tokens) == (100, 10)
    assert first.cost_usd == dollars(price() // 2)
    assert first.response is not None and first.response.body == ok("a", "Ah.")["response"]["body"]
    assert (first.error, first.provider_batch_id) == (None, "batch_1")
    assert second.error is not None
    assert (second.status, second.error.type, second.error.code) == (FAILED, ErrorClass.SERVER_ERROR, "server_error")
    assert second.error.message == "It went wrong for b."
    assert second.cost_usd == "0"
    assert [row.custom_id for row in rows if row.status is not RowStatus.SUCCEEDED] == ["b"]
    assert three.rows("errors.jsonl") == [json.loads(three.path("results.jsonl").read_bytes().splitlines()[1])]


MARKED = {
    "rate_limited": ("failed", "rate_limited"),
    "server_error": ("failed", "server_error"),
    "overloaded": ("failed", "server_error"),
    "timeout": ("failed", "timeout"),
    "invalid_request": ("failed", "invalid_request"),
    "context_length": ("failed", "context_length"),
    "content_filtered": ("failed", "content_filtered"),
    "batch_expired": ("expired", "expired"),
    "missing": ("failed", "missing"),
    "malformed": ("failed", "other"),
}


async def test_every_way_a_row_can_fail_has_its_class(desk: Any, sandbox: Any) -> None:
    kinds = [*MARKED, "duplicate", "unknown", "empty", "tokens=500"]
    await desk.plan(*(desk.chat(f"r-{kind}", f"Hi. [[sandbox:{kind}]]") for kind in kinds))
    await desk.through()

    settled = await desk.settle(retry=NO_RETRY, unfinished=FAILED)

    assert reasons(desk) == {f"r-{kind}": reason for kind, reason in MARKED.items()}
    assert statuses(desk) == {
        **{f"r-{kind}": status for kind, (status, _) in MARKED.items()},
        "r-duplicate": "succeeded",
        "r-unknown": "succeeded",
        "r-empty": "succeeded",
        "r-tokens=500": "succeeded",
    }
    counts = settled.counts
    assert (counts.total, counts.succeeded, counts.failed, counts.expired, counts.canceled) == (14, 4, 9, 1, 0)
    assert sum(settled.classes.values()) == 10
    assert (settled.strays.duplicate, settled.strays.unknown, settled.strays.unreadable) == (1, 1, 1)
    assert len(desk.path("unmatched.jsonl").read_bytes().splitlines()) == 3


async def test_tokens_and_cost_are_what_the_provider_billed(desk: Any, sandbox: Any) -> None:
    await desk.plan(*(desk.chat(f"r-{n}", "word " * n) for n in range(30)))
    batch = await desk.through()
    settled = await desk.settle()
    assert batch.usage is not None
    assert settled.usage.input_tokens == batch.usage.input_tokens
    assert settled.usage.output_tokens == batch.usage.output_tokens
    rows = desk.rows()
    assert settled.cost_usd is not None and settled.list_cost_usd is not None
    assert picodollars(settled.cost_usd) == sum(picodollars(row["cost_usd"]) for row in rows)
    assert Decimal(settled.list_cost_usd) == 2 * Decimal(settled.cost_usd)


async def test_rounding_never_makes_the_sum_differ_from_its_rows(three: Any) -> None:
    await three.reopen(batch_discount=0.3333)
    three.answered(ok("a", into=1), ok("b", into=3, out=7), ok("c", into=11))
    settled = await three.settle()
    assert settled.cost_usd is not None
    assert picodollars(settled.cost_usd) == sum(picodollars(row["cost_usd"]) for row in three.rows())


# --- lines that are no result, or somebody else's, or there twice ---


@pytest.mark.parametrize(
    ("answered", "again"),
    [
        (0, 2),  # it does not say
        (1, 2),  # what it answered has come, so the others never ran
        (2, 0),  # one of the two is paid for, and nobody knows which
        (3, 0),
    ],
)
async def test_rows_that_did_not_come_back_are_bought_again_only_if_the_provider_did_not_answer_them(
    three: Any, answered: int, again: int
) -> None:
    three.answered(ok("a"), answered=answered, message="It is paid for.")
    settled = await three.settle()
    assert settled.retry_rows == again
    if not again:
        assert statuses(three) == {"a": "succeeded", "b": "failed", "c": "failed"}
        assert reasons(three) == {"b": ("failed", "missing"), "c": ("failed", "missing")}
        assert {row["error"]["message"] for row in three.rows()[1:]} == {"It is paid for."}


async def test_an_answer_counts_as_come_whatever_it_says_and_a_failure_as_none(three: Any) -> None:
    # What a provider filtered it has answered, and billed; what it refused it has not.
    three.answered(ok("a", finish_reason="content_filter"), ok("a"), bad("b"), answered=1)
    assert (await three.settle()).retry_rows == 2
    three.sent.clear()
    three.answered(ok("a"), bad("b"), answered=2)
    assert (await three.settle()).retry_rows == 1  # b, whose failure is worth another try; c may be paid for


async def test_what_may_be_paid_for_stays_so_when_other_rows_go_on(three: Any) -> None:
    three.answered(ok("a"), bad("b"), answered=2)
    await three.settle()
    three.number = 2
    three.answered(ok("b"), answered=1)
    settled = await three.settle()
    assert (settled.retry_rows, statuses(three)) == (0, {"a": "succeeded", "b": "succeeded", "c": "failed"})


async def test_what_the_provider_never_returned_is_missing(three: Any) -> None:
    three.answered(ok("a"), message="The provider ended the batch and never returned this row.")
    settled = await three.settle(FAILED)
    assert reasons(three) == {"b": ("failed", "missing"), "c": ("failed", "missing")}
    assert three.rows()[1]["error"]["message"] == "The provider ended the batch and never returned this row."
    assert three.rows()[1]["attempts"] == 1
    assert settled.classes == {"missing": 2}


@pytest.mark.parametrize(
    "line",
    [b"{", b"null", b"[]", b"17", b'"a"', b"\x00", b"\xff\xfe", b"{}", b'{"custom_id": []}', b"[" * 100_000],
)
async def test_a_line_that_is_no_result_is_kept_aside_and_never_fatal(three: Any, line: bytes) -> None:
    three.answered(ok("b"), line, ok("c"))
    settled = await three.settle(FAILED)
    assert settled.strays.unreadable == 1
    assert three.path("unmatched.jsonl").read_bytes() == line + b"\n"
    assert statuses(three) == {"a": "failed", "b": "succeeded", "c": "succeeded"}
    assert reasons(three) == {"a": ("failed", "missing")}


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": {"content": [{"type": "text", "text": 17}]}}]},
        {"choices": "none"},
        {"choices": [None]},
        {"usage": "none"},
        {"usage": {"prompt_tokens": -5, "completion_tokens": 10}},
        {"usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 50}}},
        {"usage": {"prompt_tokens": 10**30}},
        {"model": 17},
        [],
        "a sentence",
        '{"pretty":\n  "printed"}',
        "two\nlines",
        17,
        None,
    ],
)
async def test_a_body_of_any_shape_leaves_one_line_a_row(three: Any, body: Any) -> None:
    """Whatever a provider writes, results.jsonl has one readable line for each row, and the accounts close."""
    line = ok("a")
    whole = line["response"]["body"]
    line["response"]["body"] = {**whole, **body} if isinstance(body, dict) else body
    three.answered(line, ok("b"), ok("c"))

    settled = await three.settle(FAILED)

    assert settled.counts.settled == settled.counts.total == 3
    assert [row["custom_id"] for row in three.rows()] == ["a", "b", "c"]
    for text in three.path("results.jsonl").read_text().splitlines():
        ResultRow.model_validate_json(text)


async def test_rows_of_strangers_are_kept_aside(three: Any) -> None:
    lines = [ok("nobody"), ok("A"), ok(""), bad("nobody")]
    three.answered(*lines, ok("a"), ok("b"), ok("c"))
    settled = await three.settle(FAILED)
    assert settled.strays.unknown == 4
    assert three.rows("unmatched.jsonl") == lines
    assert len(three.rows()) == 3


@pytest.mark.parametrize(
    ("lines", "text", "status"),
    [
        ([ok("a", "one"), ok("a", "two")], "one", "succeeded"),
        ([ok("a", "one"), bad("a")], "one", "succeeded"),
        ([bad("a"), ok("a", "two")], "two", "succeeded"),
        ([bad("a", 429), bad("a", 400)], None, "failed"),
    ],
)
async def test_a_success_is_not_taken_back_by_a_second_line(
    three: Any, lines: list[Any], text: str | None, status: str
) -> None:
    three.answered(*lines, ok("b"), ok("c"))
    settled = await three.settle(FAILED)
    first = three.rows()[0]
    assert (first["text"], first["status"]) == (text, status)
    assert settled.strays.duplicate == 1
    assert settled.counts.settled == 3


async def test_a_second_answer_is_billed_as_well(three: Any) -> None:
    three.answered(ok("a"), ok("a"), ok("b"), ok("c"))
    settled = await three.settle()
    assert settled.usage.input_tokens == 400
    assert settled.cost_usd == dollars(4 * price() // 2)
    assert [row["cost_usd"] for row in three.rows()] == [dollars(price() // 2)] * 3


async def test_a_failure_that_has_tokens_is_billed(three: Any) -> None:
    filtered = ok("a")
    filtered["response"]["body"]["choices"][0]["finish_reason"] = "content_filter"
    three.answered(filtered, ok("b"), ok("c"))
    settled = await three.settle(FAILED)
    assert reasons(three) == {"a": ("failed", "content_filtered")}
    assert settled.cost_usd == dollars(3 * price() // 2)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\n\n\n"])
async def test_the_last_line_counts_however_it_ends(three: Any, ending: bytes) -> None:
    three.answered()
    data = b"\r\n\n".join(json.dumps(ok(name)).encode() for name in "abc")
    three.path("attempt-1/output.jsonl").write_bytes(data + ending)
    assert (await three.settle()).counts.succeeded == 3


# --- costs that are unknown ---


NO_SENSE = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 50}}


@pytest.mark.parametrize(
    ("line", "without_usage", "models"),
    [
        (ok("a", model="no-such-model"), 0, {"no-such-model": 1}),
        (ok("a", usage=None), 1, {}),
        (ok("a", usage={"total_tokens": 15}), 1, {}),
        (ok("a", usage={"prompt_tokens": 10, "completion_tokens": "many"}), 1, {}),
        (ok("a", usage=NO_SENSE), 1, {}),
        (ok("a", usage={"prompt_tokens": 10**30}), 1, {}),
        (ok("a", usage=None, model="no-such-model"), 0, {"no-such-model": 1}),
    ],
)
async def test_what_is_not_known_of_the_cost_is_counted_and_the_rest_is_summed(
    three: Any, line: Any, without_usage: int, models: dict[str, int]
) -> None:
    three.answered(line, ok("b"), ok("c"))
    settled = await three.settle()
    assert [row["cost_usd"] for row in three.rows()] == [None, *[dollars(price() // 2)] * 2]
    assert (settled.cost_usd, settled.list_cost_usd) == (dollars(2 * price() // 2), dollars(2 * price()))
    assert settled.unpriced == Unpriced(without_usage=without_usage, without_price=sum(models.values()), models=models)
    assert settled.counts.succeeded == 3


async def test_where_no_cost_is_known_it_is_unknown_and_not_nothing(three: Any) -> None:
    three.answered(ok("a", usage=None), bad("b"), bad("c"))
    settled = await three.settle(FAILED)
    assert (settled.cost_usd, settled.list_cost_usd, settled.unpriced.total) == (None, None, 1)


async def test_an_answer_that_names_no_model_is_priced_as_the_one_that_was_asked_for(three: Any) -> None:
    three.answered(ok("a", model=None), ok("b"), ok("c"))
    settled = await three.settle()
    assert settled.cost_usd == dollars(3 * price() // 2)
    assert three.rows()[0]["model"] is None
    assert settled.unpriced.total == 0


async def test_what_costs_nothing_needs_no_usage(three: Any) -> None:
    moderation = {"model": "omni-moderation-latest", "results": [{"flagged": False}]}
    lines = [{"custom_id": name, "response": {"status_code": 200, "body": moderation}} for name in "abc"]
    three.answered(*lines)
    settled = await three.settle()
    assert (settled.counts.succeeded, settled.cost_usd, settled.unpriced.total) == (3, "0", 0)


async def test_of_many_models_without_a_price_only_the_first_are_named(desk: Any) -> None:
    await desk.plan(*(desk.chat(f"r-{number}") for number in range(50)))
    desk.answered(*(ok(f"r-{number}", model=f"{'m' * 200}-{number}") for number in range(25)))
    desk.answered(*(ok(f"r-{number}", model=f"m-{number}") for number in range(25, 50)), name="error")
    settled = await desk.settle()
    assert (settled.unpriced.without_price, len(settled.unpriced.models)) == (50, 20)
    assert settled.unpriced.models["m" * 100] == 25


async def test_rows_that_failed_without_tokens_cost_nothing(three: Any) -> None:
    three.answered(bad("a"), bad("b", 400), name="error")
    settled = await three.settle(FAILED)
    assert (settled.cost_usd, settled.list_cost_usd) == ("0", "0")


async def test_what_a_row_wrote_to_the_cache_is_billed_as_such_and_shown_as_input(desk: Any) -> None:
    await desk.plan({"custom_id": "a", "input": "Hi."}, provider="claude", model="claude-haiku-4-5")
    usage = {
        "input_tokens": 100,
        "cache_creation_input_tokens": 1000,
        "cache_creation": {"ephemeral_5m_input_tokens": 600, "ephemeral_1h_input_tokens": 400},
        "cache_read_input_tokens": 2000,
        "output_tokens": 10,
    }
    message = {"model": "claude-haiku-4-5", "content": [{"type": "text", "text": "Hi."}], "usage": usage}
    sent_as = anthropic_rows.sent_id(sealed(desk.attempt.marker, desk.record()["digest"]), 0)
    desk.answered({"custom_id": sent_as, "result": {"type": "succeeded", "message": message}})

    settled = await desk.settle()

    # 1 USD for a million tokens, 1.25 for those kept for 5 minutes, 2 for an hour, 0.1 from the cache, 5 for the answer
    listed = 100 * 1 + 600 * Decimal("1.25") + 400 * 2 + 2000 * Decimal("0.1") + 10 * 5
    assert settled.list_cost_usd is not None and settled.cost_usd is not None
    assert Decimal(settled.list_cost_usd) == listed / 1_000_000
    assert Decimal(settled.cost_usd) == listed / 2_000_000
    (row,) = desk.rows()
    assert row["usage"] == {
        "input_tokens": 3100,
        "cached_input_tokens": 2000,
        "output_tokens": 10,
        "reasoning_tokens": 0,
    }
    assert row["cost_usd"] == settled.cost_usd
    assert settled.usage.input_tokens == 3100


# --- what the provider left over ---


@pytest.mark.parametrize(
    ("outcome", "absent", "status"),
    [
        ("expired", ErrorClass.EXPIRED, "expired"),
        ("cancelled", ErrorClass.CANCELED, "canceled"),
        ("failed", ErrorClass.INVALID_REQUEST, "failed"),
    ],
)
async def test_what_a_batch_finished_before_its_end_is_kept(
    desk: Any, sandbox: Any, outcome: str, absent: ErrorClass, status: str
) -> None:
    await sandbox.fault("batches.create", "batch_outcome", outcome=outcome, fraction=0.5)
    await desk.plan(*(desk.chat(f"r-{n}") for n in range(20)))
    await desk.through(absent=absent)

    settled = await desk.settle(FAILED)

    assert settled.counts.succeeded == 10
    assert list(statuses(desk)) == [f"r-{n}" for n in range(20)]
    assert {row["status"] for row in desk.rows("errors.jsonl")} == {status}
    assert settled.counts.settled == 20
    assert sum((await sandbox.books())["rows"].values()) == settled.counts.succeeded


async def test_a_batch_that_ended_without_any_file_fails_every_row_with_its_reason(three: Any) -> None:
    three.sent = [
        AttemptRecord(
            number=1,
            provider_batch_id="batch_1",
            absent=ErrorClass.INVALID_REQUEST,
            message="The provider refused the batch: line 1: no such model",
        )
    ]
    settled = await three.settle()
    assert settled.retry_rows == 0
    assert settled.counts.failed == 3
    assert {row["error"]["message"] for row in three.rows()} == {
        "The provider refused the batch: line 1: no such model"
    }
    assert {row["error"]["type"] for row in three.rows()} == {"invalid_request"}


@pytest.mark.parametrize(
    ("unfinished", "line", "absent", "expected"),
    [
        # The provider says so of a row, or of its whole batch by saying nothing.
        (FAILED, left_over("a", "batch_expired"), ErrorClass.EXPIRED, ("expired", "expired")),
        (FAILED, left_over("a", "batch_cancelled"), ErrorClass.CANCELED, ("canceled", "canceled")),
        (FAILED, None, ErrorClass.EXPIRED, ("expired", "expired")),
        (FAILED, None, ErrorClass.CANCELED, ("canceled", "canceled")),
        (FAILED, None, ErrorClass.MISSING, ("failed", "missing")),
        # Somebody cancelled it.
        (CANCELED, left_over("a", "batch_cancelled"), ErrorClass.CANCELED, ("canceled", "canceled")),
        (CANCELED, None, ErrorClass.CANCELED, ("canceled", "canceled")),
        # It was the deadline that had the provider cancel it.
        (EXPIRED, left_over("a", "batch_cancelled"), ErrorClass.EXPIRED, ("expired", "expired")),
        (EXPIRED, None, ErrorClass.EXPIRED, ("expired", "expired")),
        # What failed before the cancel stays what it is.
        (CANCELED, bad("a", 400), ErrorClass.CANCELED, ("failed", "invalid_request")),
        (CANCELED, None, ErrorClass.MISSING, ("failed", "missing")),
    ],
)
async def test_an_unfinished_row_says_how_it_was_left(
    three: Any, unfinished: RowStatus, line: Any, absent: ErrorClass, expected: tuple[str, str]
) -> None:
    three.answered(*([line] if line else []), ok("b"), ok("c"), absent=absent)
    settled = await three.settle(unfinished, retry=NO_RETRY)
    assert reasons(three) == {"a": expected}
    assert settled.counts.settled == 3
    assert three.rows()[0]["error"]["message"]


@pytest.mark.parametrize("unfinished", [FAILED, CANCELED, EXPIRED])
async def test_rows_that_were_never_submitted_end_as_the_batch_did(three: Any, unfinished: RowStatus) -> None:
    three.sent = [AttemptRecord(number=1, sent=False)]
    settled = await three.settle(unfinished)
    assert set(statuses(three).values()) == {unfinished.value}
    assert {row["attempts"] for row in three.rows()} == {0}
    assert {row["provider_batch_id"] for row in three.rows()} == {None}
    assert all(row["error"]["message"] for row in three.rows())
    assert (settled.usage.input_tokens, settled.cost_usd) == (0, "0")


UNANSWERED = "The provider's batch ended without an answer to this row."
CANCELED_HERE = "The batch was cancelled before this row was finished."
EXPIRED_HERE = "The batch's deadline came before this row was finished."
#: What is said of a row whose attempt ended without a word, by the attempt's class: when the rest of the batch ran to
#: its end, was cancelled, and ran into its deadline.
SILENT = {kind: (UNANSWERED, UNANSWERED, UNANSWERED) for kind in ErrorClass} | {
    ErrorClass.RATE_LIMITED: ("The provider's queue had no room for the batch that this row was in.",) * 3,
    ErrorClass.INVALID_REQUEST: ("The provider refused the batch that this row was in.",) * 3,
    ErrorClass.CANCELED: (
        "The provider's batch was cancelled there before this row was finished.",
        CANCELED_HERE,
        EXPIRED_HERE,
    ),
    ErrorClass.EXPIRED: (
        "The provider's window closed before this row was finished.",
        CANCELED_HERE,
        EXPIRED_HERE,
    ),
}


@pytest.mark.parametrize("absent", list(ErrorClass))
async def test_a_row_is_told_what_happened_also_where_nobody_said_a_word(three: Any, absent: ErrorClass) -> None:
    three.answered(ok("a"), absent=absent, message="")
    for unfinished, words in zip((FAILED, CANCELED, EXPIRED), SILENT[absent], strict=True):
        await three.settle(unfinished)
        assert [row["error"]["message"] for row in three.rows("errors.jsonl")] == [words] * 2
    # What somebody did say is told instead, unless it was the batch that ended first.
    three.sent = [record.model_copy(update={"message": "Its own words."}) for record in three.sent]
    await three.settle(FAILED)
    assert {row["error"]["message"] for row in three.rows("errors.jsonl")} == {"Its own words."}


async def test_a_row_that_waited_for_room_when_the_batch_was_stopped_is_told_of_the_stop(three: Any) -> None:
    three.sent = [AttemptRecord(number=1, provider_batch_id="batch_1", absent=ErrorClass.RATE_LIMITED, counted=False)]
    for unfinished, words in ((CANCELED, CANCELED_HERE), (EXPIRED, EXPIRED_HERE)):
        await three.settle(unfinished)
        assert {row["error"]["message"] for row in three.rows()} == {words}


async def test_a_batch_that_could_not_run_says_why_in_every_row(three: Any) -> None:
    three.sent = [AttemptRecord(number=1, sent=False)]
    await three.settle(FAILED, message="Provider gpt answered 400: no such endpoint")
    assert {row["error"]["message"] for row in three.rows()} == {"Provider gpt answered 400: no such endpoint"}


async def test_rows_that_waited_for_room_when_the_batch_was_cancelled_are_cancelled(three: Any) -> None:
    # The provider gave their batch up because its queue was full: they had no chance to fail.
    three.sent = [
        AttemptRecord(number=1, provider_batch_id="batch_1", absent=ErrorClass.RATE_LIMITED, counted=False),
        AttemptRecord(number=2, sent=False),
    ]
    settled = await three.settle(CANCELED)
    assert settled.counts.canceled == 3
    assert set(reasons(three).values()) == {("canceled", "canceled")}
    assert {row["attempts"] for row in three.rows()} == {0}
    await three.settle(EXPIRED)
    assert set(reasons(three).values()) == {("expired", "expired")}
    await three.settle(FAILED)
    assert set(reasons(three).values()) == {("failed", "rate_limited")}


# --- rows worth another try ---


async def test_just_the_rows_worth_it_go_into_the_next_attempt(desk: Any) -> None:
    kinds = ["rate_limited", "invalid_request", "server_error", "missing", "context_length", "timeout", "malformed"]
    kinds += ["content_filtered", "batch_expired", "empty"]
    await desk.plan(*(desk.chat(f"r-{kind}", f"Hi. [[sandbox:{kind}]]") for kind in kinds))
    await desk.through()

    settled = await desk.settle()

    picked = json.loads(desk.path("attempt-2/rows.json").read_bytes())
    assert [kinds[number] for number in picked] == [
        "rate_limited",
        "server_error",
        "missing",
        "timeout",
        "batch_expired",
    ]
    assert settled.retry_rows == 5
    assert (settled.counts.total, settled.counts.settled) == (10, 0)
    assert not desk.path("results.jsonl").exists()
    assert not desk.path("settled.json").exists()


@pytest.mark.parametrize(
    ("classes", "expected"),
    [((), []), ((ErrorClass.RATE_LIMITED,), [0]), ((ErrorClass.MISSING, ErrorClass.INVALID_REQUEST), [1, 2])],
)
async def test_the_spec_says_which_classes_are_tried_again(
    three: Any, classes: tuple[ErrorClass, ...], expected: list[int]
) -> None:
    three.answered(bad("a", 429), bad("b", 400), name="error")
    settled = await three.settle(retry=RetryPolicy(classes=classes))
    assert settled.retry_rows == len(expected)
    if expected:
        assert json.loads(three.path("attempt-2/rows.json").read_bytes()) == expected
    else:
        assert settled.counts.failed == 3


@pytest.mark.parametrize("unfinished", [FAILED, CANCELED, EXPIRED])
async def test_no_row_is_tried_again_when_no_attempt_may_follow(three: Any, unfinished: RowStatus) -> None:
    three.answered(bad("a", 429), ok("b"), ok("c"))
    assert (await three.settle(unfinished)).retry_rows == 0
    assert not three.path("attempt-2").exists()


async def test_an_attempt_that_another_run_bought_keeps_its_rows_and_takes_no_success_back(three: Any) -> None:
    three.answered(bad("a", 429), bad("b", 429), ok("c"))
    assert (await three.settle()).retry_rows == 2
    three.number = 2
    await three.create(await three.upload())  # of a and b
    three.number = 1
    three.answered(bad("a", 429), ok("b"), ok("c"))  # more is known of the first attempt than there was
    settled = await three.settle()
    assert (settled.retry_rows, settled.only_if_bought) == (2, True)
    assert json.loads(three.path("attempt-2/rows.json").read_bytes()) == [0, 1]
    three.number = 2
    three.answered(ok("a"), bad("b", 500))
    settled = await three.settle()
    assert (settled.retry_rows, settled.counts.succeeded) == (0, 3)


@pytest.mark.parametrize("unfinished", [None, FAILED, CANCELED, EXPIRED])
async def test_an_attempt_of_the_same_rows_that_another_run_bought_is_taken_where_one_may_follow(
    three: Any, unfinished: RowStatus | None
) -> None:
    three.answered(bad("a", 429), ok("b"), ok("c"))
    await three.settle()
    three.number = 2
    await three.create(await three.upload())
    three.number = 1
    settled = await three.settle(unfinished)
    assert (settled.retry_rows, settled.only_if_bought) == (1, unfinished is not None)


async def test_the_last_word_on_each_row_wins_and_every_attempt_is_counted(desk: Any, sandbox: Any) -> None:
    texts = {
        "fine": "Hi.",
        "once": "Hi. [[sandbox:rate_limited times=1]]",
        "always": "Hi. [[sandbox:server_error]]",
        "lost": "Hi. [[sandbox:missing times=1]]",
        "wrong": "Hi. [[sandbox:invalid_request]]",
    }
    await desk.plan(*(desk.chat(name, text) for name, text in texts.items()))
    first = await desk.through()
    assert (await desk.settle()).retry_rows == 3
    desk.number = 2
    second = await desk.through()

    settled = await desk.settle(FAILED)

    rows = {row["custom_id"]: row for row in desk.rows()}
    assert list(rows) == list(texts)
    told = {name: (row["status"], row["attempts"], row["provider_batch_id"]) for name, row in rows.items()}
    assert told == {
        "fine": ("succeeded", 1, first.id),
        "once": ("succeeded", 2, second.id),
        "always": ("failed", 2, second.id),
        "lost": ("succeeded", 2, second.id),
        "wrong": ("failed", 1, first.id),
    }
    assert settled.classes == {"server_error": 1, "invalid_request": 1}
    # The row that got lost was billed, and nobody has its tokens; all others that were answered are counted.
    billed = (await sandbox.books())["rows"]
    assert sum(billed.values()) == 4
    assert settled.usage.output_tokens == sum(row["usage"]["output_tokens"] for row in rows.values() if row["usage"])


async def test_what_every_attempt_cost_is_counted(three: Any) -> None:
    filtered = ok("a")
    filtered["response"]["body"]["choices"][0]["finish_reason"] = "content_filter"
    three.answered(filtered, ok("b"), ok("c"))
    retry = RetryPolicy(classes=(ErrorClass.CONTENT_FILTERED,))
    first = await three.settle(retry=retry)
    assert (first.retry_rows, first.cost_usd) == (1, dollars(3 * price() // 2))
    three.number = 2
    three.answered(ok("a", "At last."))
    settled = await three.settle(FAILED, retry=retry)
    assert settled.cost_usd == dollars(4 * price() // 2)
    assert settled.usage.input_tokens == 400
    assert (settled.counts.succeeded, settled.classes) == (3, {})


async def test_a_row_that_the_second_attempt_left_unanswered_has_the_second_attempts_reason(three: Any) -> None:
    three.answered(bad("a", 429), ok("b"), ok("c"))
    await three.settle()
    three.number = 2
    three.answered(absent=ErrorClass.EXPIRED)
    settled = await three.settle()
    assert settled.retry_rows == 1
    assert settled.classes == {"expired": 1}
    settled = await three.settle(FAILED)
    (row,) = three.rows("errors.jsonl")
    assert (row["status"], row["attempts"], row["provider_batch_id"]) == ("expired", 2, "batch_2")


async def test_an_attempt_that_the_queue_had_no_room_for_uses_up_no_try(three: Any) -> None:
    three.answered(absent=ErrorClass.RATE_LIMITED, counted=False)
    assert (await three.settle()).retry_rows == 3
    three.number = 2
    three.answered(ok("a"), ok("b"), ok("c"))
    await three.settle()
    assert {row["attempts"] for row in three.rows()} == {1}


async def test_rows_that_an_attempt_did_not_take_are_none_of_its_results(three: Any) -> None:
    three.answered(bad("a", 429), ok("b", "first"), ok("c"))
    await three.settle()
    three.number = 2
    three.answered(ok("a"), ok("b", "second"))
    settled = await three.settle()
    assert settled.strays.unknown == 1
    assert three.rows()[1]["text"] == "first"


async def test_settling_again_gives_the_same(desk: Any) -> None:
    await desk.plan(*(desk.chat(f"r-{n}", "Hi. [[sandbox:duplicate]]" if n % 3 else "Hi.") for n in range(20)))
    await desk.through()
    first = await desk.settle()
    files = ("results.jsonl", "errors.jsonl", "unmatched.jsonl", "settled.json")
    before = [desk.path(name).read_bytes() for name in files]
    assert await desk.settle() == first
    assert [desk.path(name).read_bytes() for name in files] == before


# --- rows that were refused ---


async def test_refused_rows_are_results_too_and_never_tried_again(desk: Any) -> None:
    rows = [b"{", desk.chat("a"), {"custom_id": "b", "method": "GET", "body": {}}, desk.chat("c"), desk.chat("a")]
    await desk.plan(*rows, on_invalid_row=OnInvalidRow.FAIL_ROW)
    desk.answered(ok("a"), ok("c"), ok("b"), ok("line:1"))
    settled = await desk.settle(retry=RetryPolicy(classes=tuple(ErrorClass)))
    assert [(row["custom_id"], row["status"]) for row in desk.rows()] == [
        ("line:1", "failed"),
        ("a", "succeeded"),
        ("b", "failed"),
        ("c", "succeeded"),
        ("a", "failed"),
    ]
    errors = [row["error"] for row in desk.rows("errors.jsonl")]
    assert [(error["type"], error["code"]) for error in errors] == [
        ("invalid_row", None),
        ("invalid_row", "method"),
        ("invalid_row", "custom_id"),
    ]
    assert errors[1]["message"] == "line 3, method: must be POST"
    assert errors[2]["message"] == "line 5, custom_id: is the same as on line 2"
    assert {row["attempts"] for row in desk.rows("errors.jsonl")} == {0}
    # The provider was never sent these two, so its lines for them are strangers.
    assert settled.strays.unknown == 2
    assert settled.classes == {"invalid_row": 3}


async def test_a_shard_of_refused_rows_is_settled_without_the_provider(desk: Any) -> None:
    await desk.plan(b"{", b"[", desk.chat("c"), limits={"max_rows": 2}, on_invalid_row=OnInvalidRow.FAIL_ROW)
    desk.sent = [AttemptRecord(number=1, sent=False)]
    settled = await desk.settle()
    assert (settled.counts.failed, settled.retry_rows) == (2, 0)
    assert reasons(desk) == {"line:1": ("failed", "invalid_row"), "line:2": ("failed", "invalid_row")}


# --- the invariant ---


@pytest.mark.parametrize("change", [lambda lines: lines[:-1], lambda lines: [*lines, lines[-1]], lambda lines: []])
async def test_an_index_that_disagrees_with_its_plan_is_an_error_and_no_result(three: Any, change: Any) -> None:
    three.answered(ok("a"), ok("b"), ok("c"))
    index = three.path("rows.jsonl")
    index.write_bytes(b"".join(change(index.read_bytes().splitlines(keepends=True))))
    error = await three.refused(three.settle())
    assert (error.type, error.non_retryable) == ("accounting_error", True)
    assert "and its plan 3" in error.message
    assert not three.path("results.jsonl").exists()


async def test_random_answers_always_add_up(desk: Any) -> None:
    """Whatever comes, in whatever order and however often: every row once, in order, and the sums agree."""
    chance = random.Random(11)
    names = [f"r-{n}" for n in range(40)]
    await desk.plan(*(desk.chat(name) for name in names))
    for _ in range(15):
        desk.sent, desk.number = [], 1
        for desk.number in (1, 2, 3):
            lines: list[Any] = []
            for name in [*names, *chance.choices(names, k=8), "nobody"]:
                status = chance.choice([400, 429, 500])
                line = chance.choice([ok(name), bad(name, status), left_over(name, "batch_expired"), b"{", None])
                lines += [] if line is None else [line]
            chance.shuffle(lines)
            half = chance.randrange(len(lines))
            absent = chance.choice([ErrorClass.MISSING, ErrorClass.EXPIRED, ErrorClass.CANCELED])
            desk.answered(*lines[:half], absent=absent)
            desk.answered(*lines[half:], name="error")
            last = desk.number == 3
            settled = await desk.settle(chance.choice([FAILED, CANCELED, EXPIRED]) if last else None)
            if not settled.retry_rows:
                break
        rows = desk.rows()
        assert [row["custom_id"] for row in rows] == names
        for status in RowStatus:
            assert getattr(settled.counts, status.value) == sum(row["status"] == status.value for row in rows)
        assert desk.rows("errors.jsonl") == [row for row in rows if row["status"] != "succeeded"]
        assert sum(settled.classes.values()) == len(desk.rows("errors.jsonl"))
        assert all((row["error"] is None) == (row["status"] == "succeeded") for row in rows)


# --- memory ---


async def test_settling_many_rows_takes_little_memory(desk: Any) -> None:
    names = [f"request-{number:06}" for number in range(12_000)]
    (desk.folder / "input.jsonl").write_bytes(
        b"".join(b'{"custom_id":"%b","input":"Hi."}\n' % n.encode() for n in names)
    )
    await desk.plan(model="gpt-4o-mini")
    assert desk.record()["rows"] == 12_000
    random.Random(5).shuffle(names)
    desk.answered()
    with desk.path("attempt-1/output.jsonl").open("wb") as out:
        for name in names:
            out.write(json.dumps(ok(name, "x" * 300)).encode() + b"\n")
    Prices("openai", 0.5).list_cost("gpt-4o-mini", RowTokens())  # reads the price list, which is large
    tracemalloc.start()
    try:
        settled = await desk.settle()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert settled.counts.succeeded == 12_000
    # Buffers, and some 200 bytes a row for its id and its place: 100,000 rows take 25 MB. Their text is on disk.
    assert peak < 9 << 20


async def test_results_that_are_gone_from_the_store_are_not_taken_for_rows_that_the_provider_lost(desk: Any) -> None:
    await desk.plan(desk.chat("a"), desk.chat("b"))
    ended = await desk.ended((await desk.create(await desk.upload())).batch)
    fetched = await desk.fetch(ended)
    attempts = [AttemptRecord(number=1, provider_batch_id=ended.id, lines=fetched.rows)]
    assert (await desk.settle(RowStatus.FAILED, attempts=attempts)).counts.succeeded == 2
    desk.path("attempt-1/output.jsonl").unlink()
    error = await desk.refused(desk.settle(attempts=attempts))
    assert error.type == "store_error"
    assert "0 lines in the store, and 2 were fetched" in error.message
