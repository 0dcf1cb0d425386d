"""Results that are not quite JSON, or not quite their protocol's: what is paid is kept, and nothing is bought again."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durabatch.activities.prices import dollars, picodollars
from durabatch.activities.providers.anthropic import results as anthropic_results
from durabatch.activities.providers.anthropic import rows as anthropic_rows
from durabatch.activities.providers.base import sealed
from durabatch.activities.providers.openai import results as openai_results
from durabatch.clients import result_rows
from durabatch.contract import ErrorClass, ResultRow, RetryPolicy, RowStatus, Unpriced

FAILED = RowStatus.FAILED


def ok(custom_id: str, text: str = "Hi.", **body: Any) -> dict[str, Any]:
    """A line of OpenAI's output file."""
    answer = {
        "id": "chatcmpl-1",
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": {"content": [{"token": "a", "logprob": -0.25}]},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "total_tokens": 110,
            "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        **body,
    }
    response = {"status_code": 200, "request_id": "req_1", "body": answer}
    return {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": None}


def response(custom_id: str) -> dict[str, Any]:
    """The same for a batch of the Responses endpoint."""
    message = {"type": "message", "content": [{"type": "output_text", "text": "Hi."}]}
    body = {
        "model": "gpt-4o-mini",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": [{"type": "reasoning", "summary": []}, message],
        "usage": {"input_tokens": 9, "output_tokens": 8, "output_tokens_details": {"reasoning_tokens": 2}},
    }
    line = ok(custom_id)
    line["response"]["body"] = body
    return line


def bad(custom_id: str) -> dict[str, Any]:
    """A line of OpenAI's error file."""
    line = ok(custom_id)
    line["response"].update(status_code=400, body={"error": {"message": "No.", "type": "t", "code": "c"}})
    return line


def left_over(custom_id: str) -> dict[str, Any]:
    return {"custom_id": custom_id, "response": None, "error": {"code": "c", "message": "Never ran."}}


def claude(custom_id: str) -> dict[str, Any]:
    """A line of Anthropic's results."""
    message = {
        "type": "message",
        "model": "claude-haiku-4-5",
        "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Hi."}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 4,
            "cache_creation": {"ephemeral_1h_input_tokens": 1},
            "cache_read_input_tokens": 3,
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 1},
        },
    }
    return {"custom_id": custom_id, "result": {"type": "succeeded", "message": message}}


def errored(custom_id: str) -> dict[str, Any]:
    error = {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "No.", "details": {"error_code": "c"}},
    }
    return {"custom_id": custom_id, "result": {"type": "errored", "error": error}}


def strict(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines as the strictest reader does."""
    *lines, rest = path.read_bytes().decode("utf-8").split("\n")
    assert rest == ""
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


@pytest.fixture
async def three(desk: Any) -> Any:
    """A shard of the rows a, b, c."""
    await desk.plan(*(desk.chat(name) for name in "abc"))
    return desk


LINE = json.dumps(ok("a")).encode()
HI = b'"Hi."'


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"\xef\xbb\xbf" + LINE, "Hi."),
        (b"\x1e" + LINE, "Hi."),
        (LINE + b"\x00", "Hi."),
        (LINE + b",", "Hi."),
        (LINE.replace(HI, rb'"cut \ud83d"'), "cut \ufffd"),
        (LINE.replace(HI, rb'"\udc00 \ud83d\ude00"'), "\ufffd 😀"),
        (LINE.replace(HI, b'"raw \x01 tab \t end"'), "raw \x01 tab \t end"),
        (LINE.replace(HI, b'"raw \n\n line \r\n break"'), "raw \n\n line \r\n break"),
        (LINE.replace(HI, b'"caf\xe9"'), "caf\ufffd"),
        (LINE.replace(HI, rb'"C:\path"'), r"C:\path"),
        (LINE.replace(b"-0.25", b"-Infinity"), "Hi."),
        (LINE.replace(b"-0.25", b"NaN"), "Hi."),
        (LINE.replace(b"-0.25", b"1e999"), "Hi."),
        (LINE.replace(b"-0.25", b"7" * 5000), "Hi."),
        (LINE.replace(b"-0.25", b"[" * 500 + b"]" * 500), "Hi."),
        (LINE.replace(b"-0.25", b"[" * 100_000 + b"]" * 100_000), "Hi."),
        (LINE.replace(b'"chatcmpl-1"', b'"\xff"'), "Hi."),
        (LINE.replace(b'"req_1"', b"12345"), "Hi."),
        (LINE.replace(b"200", b'"200"'), "Hi."),
        (LINE.replace(b"200", b"200.0"), "Hi."),
        (LINE.replace(b'"error": null', b'"error": false'), "Hi."),
        (LINE.replace(b'"a", "resp', b'"a", "custom_id": "a", "resp'), "Hi."),
        (json.dumps(ok("a"), indent=2).encode(), "Hi."),
        (json.dumps(ok("a"), indent="\t").replace("\n", "\r\n").encode(), "Hi."),
    ],
)
async def test_a_paid_line_with_one_odd_byte_is_kept(three: Any, line: bytes, text: str) -> None:
    three.answered(ok("b"), line, ok("c"))
    settled = await three.settle()
    assert (settled.retry_rows, settled.counts.succeeded, settled.strays.unreadable) == (0, 3, 0)
    first, second, third = strict(three.path("results.jsonl"))
    assert (first["custom_id"], first["text"], first["model"]) == ("a", text, "gpt-4o-mini")
    assert first["usage"] == second["usage"] == third["usage"]
    assert first["cost_usd"] == second["cost_usd"]
    assert first["response"]["body"].keys() == ok("a")["response"]["body"].keys()
    uri = three.store.uri(f"{three.batch_id}/shards/00000/results.jsonl")
    assert [row.text async for row in result_rows.rows(three.store, uri)] == [text, "Hi.", "Hi."]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
async def test_a_file_in_another_encoding_is_read(three: Any, encoding: str, end: str) -> None:
    three.answered()
    lines = [json.dumps(ok(name, "漢字 Ċ😀"), ensure_ascii=False) for name in "abc"]
    data = ((end or "\n").join(lines) + end).encode(encoding)
    three.path("attempt-1/output.jsonl").write_bytes(data)
    fetched = data.count(b"\n") + (not data.endswith(b"\n"))  # as the fetch counts them
    three.sent = [record.model_copy(update={"lines": fetched}) for record in three.sent]
    settled = await three.settle()
    assert settled.counts.succeeded == 3
    assert {row["text"] for row in strict(three.path("results.jsonl"))} == {"漢字 Ċ😀"}


THREE = [ok(name, f'{name} }}{{ "') for name in "abc"]


@pytest.mark.parametrize(
    ("data", "aside"),
    [
        (b"".join(json.dumps(line).encode() for line in THREE), 0),
        (json.dumps(THREE).encode(), 0),
        (json.dumps(THREE, indent=2).encode(), 2),  # the brackets of the list
        (b"".join(json.dumps(line).encode() for line in THREE) + b'{"custom_id": "nobody", "resp', 1),
    ],
)
async def test_several_results_on_a_line_and_a_list_of_them_are_read(three: Any, data: bytes, aside: int) -> None:
    three.answered()
    three.path("attempt-1/output.jsonl").write_bytes(data)
    settled = await three.settle()
    assert (settled.counts.succeeded, settled.strays.unreadable) == (3, aside)
    assert [row["text"] for row in strict(three.path("results.jsonl"))] == [f'{name} }}{{ "' for name in "abc"]


async def test_what_is_right_goes_through_byte_for_byte(three: Any) -> None:
    body = '{ "b":1.50, "model": "gpt-4o-mini","é\\u00e9": ["\\/",1E5,{}], "choices":[{"message":{"content":"x"}}]}'
    line = '{"custom_id": "a", "response": {"status_code": 200, "body": ' + body + "}}"
    three.answered(line.encode(), ok("b"), ok("c"))
    await three.settle()
    assert f'"body":{body}}}'.encode() in three.path("results.jsonl").read_bytes()


# --- what cannot be read ---

CUT = LINE[: len(LINE) // 2]


@pytest.mark.parametrize(
    "line",
    [
        CUT,
        LINE[:-1],
        b'{"custom_id": "a"}',
        b'{"custom_id": "a", "response": null, "error": null}',
        b'{"custom_id": "a", "response": "none", "error": null}',
        b'{"custom_id": "a", "response": [',
        b'{"custom_id": "a"' + b"\x00" * 20,
        b'the end of a text"}}}, "custom_id": "a"}',
        b'{\'id\': 1, "custom_id": "a"}',
    ],
)
@pytest.mark.parametrize("last", [False, True])
async def test_a_row_that_came_and_cannot_be_read_is_never_bought_again(three: Any, line: bytes, last: bool) -> None:
    three.answered(*([ok("b"), ok("c"), line] if last else [line, ok("b"), ok("c")]))
    settled = await three.settle()
    assert settled.retry_rows == 0
    assert (settled.counts.succeeded, settled.counts.failed, settled.strays.unreadable) == (2, 1, 1)
    first, second, _ = strict(three.path("results.jsonl"))
    assert (first["status"], first["attempts"], first["provider_batch_id"]) == ("failed", 1, "batch_1")
    assert (first["error"]["type"], first["error"]["code"]) == ("other", "unreadable_result")
    assert "shards/00000/unmatched.jsonl" in first["error"]["message"]
    assert three.path("unmatched.jsonl").read_bytes() == line + b"\n"
    # It was paid, and nobody knows how much.
    assert settled.unpriced == Unpriced(without_usage=1)
    assert settled.cost_usd == dollars(2 * picodollars(second["cost_usd"]))


async def test_a_row_that_came_and_cannot_be_read_is_tried_again_where_the_spec_says_so(three: Any) -> None:
    three.answered(CUT, ok("b"), ok("c"))
    settled = await three.settle(retry=RetryPolicy(classes=(ErrorClass.OTHER,)))
    assert settled.retry_rows == 1
    three.number = 2
    three.answered(ok("a", "At last."))
    settled = await three.settle(FAILED)
    assert (settled.counts.succeeded, settled.unpriced.without_usage) == (3, 1)
    assert strict(three.path("results.jsonl"))[0]["text"] == "At last."


@pytest.mark.parametrize("lines", [[CUT, LINE], [LINE, CUT], [CUT, CUT, LINE]])
async def test_a_line_that_can_be_read_outweighs_one_that_cannot(three: Any, lines: list[bytes]) -> None:
    three.answered(*lines, ok("b"), ok("c"))
    settled = await three.settle()
    assert (settled.counts.succeeded, settled.unpriced.total) == (3, 0)
    assert settled.strays.unreadable == lines.count(CUT)


async def test_a_row_whose_line_was_cut_behind_another_one_is_not_bought_again(three: Any) -> None:
    three.answered(ok("c"), json.dumps(ok("b")).encode() + CUT)
    settled = await three.settle()
    assert (settled.retry_rows, settled.counts.succeeded, settled.strays.unreadable) == (0, 2, 1)
    assert strict(three.path("results.jsonl"))[0]["error"]["code"] == "unreadable_result"


async def test_two_halves_of_different_results_are_not_taken_for_one(three: Any) -> None:
    three.answered(b'{"id": "x", "custom_id": "a", "respo', json.dumps(ok("b")).encode()[2:], ok("c"))
    settled = await three.settle()
    assert (settled.retry_rows, settled.counts.succeeded, settled.strays.unreadable) == (0, 1, 2)
    assert [row["status"] for row in strict(three.path("results.jsonl"))] == ["failed", "failed", "succeeded"]


async def test_an_id_in_somebodys_text_is_none(three: Any) -> None:
    text = json.dumps('{"custom_id": "b", "custom_id": "c"}')
    three.answered(b'{"custom_id": "a", "response": {"body": {"choices": [{"text": ' + text.encode())
    settled = await three.settle(retry=RetryPolicy(classes=(ErrorClass.MISSING,)))
    assert json.loads(three.path("attempt-2/rows.json").read_bytes()) == [1, 2]
    assert settled.classes == {"other": 1, "missing": 2}


async def test_a_file_that_was_never_json_is_set_aside_without_end(three: Any) -> None:
    """Each line may be the beginning of something: what is held for the next one stays bounded."""
    lines = [b'{"custom_id": "nobody", "text": "' + b"x" * 50 for _ in range(2500)]
    three.answered(*lines, *([b"  {"] * 2500), b"}", ok("a"), ok("b"), ok("c"))
    settled = await three.settle()
    assert (settled.counts.succeeded, settled.strays.unreadable) == (3, 5001)
    assert len(three.path("unmatched.jsonl").read_bytes().splitlines()) == 5001


# --- every field, and any byte ---

ODD = {
    "nothing": "null",
    "empty": '""',
    "text": '"odd"',
    "zero": "0",
    "number": "7",
    "negative": "-1",
    "fraction": "37.25",
    "whole": "10.0",
    "digits": '"10"',
    "huge": "1" + "0" * 400,
    "endless": "7" * 5000,
    "infinite": "1e400",
    "not a number": "NaN",
    "true": "true",
    "list": "[]",
    "object": "{}",
    "full list": '[1, "a", null, {}]',
    "full object": '{"a": 1, "message": 7}',
    "deep": "[" * 300 + "]" * 300,
    "deeper": '{"a":' * 3000 + "1" + "}" * 3000,
    "half": '"\\ud83d"',
    "missing": "",
}


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a line a value is."""
    if here:
        yield here
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*here, key))


def odd(line: dict[str, Any], place: tuple[Any, ...], value: str) -> bytes:
    """The line with another value in one place."""
    changed = copy.deepcopy(line)
    holder: Any = changed
    for key in place[:-1]:
        holder = holder[key]
    if value:
        holder[place[-1]] = "\0"
    else:
        del holder[place[-1]]
    return json.dumps(changed).replace('"\\u0000"', value).encode()


def damaged(chance: random.Random, line: bytes) -> bytes:
    """The line with bytes flipped, inserted, left out, or cut off."""
    data = bytearray(line)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at = chance.randrange(len(data) or 1)
        match chance.randrange(4):
            case 0 if data:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at:at] = chance.choice(
                    [b"\n", b"\r\n", b'"', b"\\", b"{", b"}", b"\0", b"NaN", chance.randbytes(2)]
                )
            case 2:
                del data[at : at + chance.randint(1, 3)]
            case _:
                if chance.random() < 0.3:
                    del data[at + 1 :]
    return bytes(data)


@pytest.mark.parametrize("form", [ok, response, bad, left_over, claude, errored])
def test_an_adapter_raises_nothing_but_value_errors(form: Any) -> None:
    outcome = anthropic_results.outcome if form in (claude, errored) else openai_results.outcome
    chance = random.Random(5)
    lines = [odd(form("a"), *change) for change in itertools.product(places(form("a")), ODD.values())]
    lines += [damaged(chance, json.dumps(form("a")).encode()) for _ in range(2000)]
    for line in lines:
        with contextlib.suppress(ValueError):
            found = outcome(line)
            assert (found.failure is None) == (found.status is RowStatus.SUCCEEDED)


class Odd:
    """A shard that gets one odd line for each of its rows."""

    def __init__(self, desk: Any, anthropic: bool) -> None:
        self._desk = desk
        self._anthropic = anthropic

    async def plan(self, rows: int) -> list[str]:
        """Plan so many rows, and return the ids under which the provider knows them."""
        names = [f"r-{number}" for number in range(rows)]
        options: dict[str, Any] = {"provider": "claude", "model": "claude-haiku-4-5"} if self._anthropic else {}
        await self._desk.plan(
            *(self._desk.chat(name, model=None) for name in names), **{"model": "gpt-4o-mini", **options}
        )
        if not self._anthropic:
            return names
        seal = sealed(self._desk.attempt.marker, self._desk.record()["digest"])
        return [anthropic_rows.sent_id(seal, number) for number in range(rows)]

    async def settle(self, names: list[str], lines: list[bytes]) -> None:
        """Settle, and check what must be so whatever the lines are."""
        desk = self._desk
        desk.sent = []
        desk.answered(*lines)
        settled = await desk.settle(retry=RetryPolicy(classes=(ErrorClass.MISSING,)))
        picked = json.loads(desk.path("attempt-2/rows.json").read_bytes()) if settled.retry_rows else []
        assert len(picked) == settled.retry_rows
        for number in picked:
            assert b'"custom_id": "%b"' % names[number].encode() not in lines[number], lines[number]
        settled = await desk.settle(FAILED)
        rows = strict(desk.path("results.jsonl"))
        assert [row["custom_id"] for row in rows] == [f"r-{number}" for number in range(len(names))]
        assert settled.counts.total == settled.counts.settled == len(names)
        assert strict(desk.path("errors.jsonl")) == [row for row in rows if row["status"] != "succeeded"]
        for row in rows:
            assert (row["error"] is None) == (row["status"] == "succeeded")
            assert row["error"] is None or row["error"]["message"].strip() not in ("", "None")
            row["response"] = None  # pydantic takes fewer levels than Python
            ResultRow.model_validate(row)


@pytest.mark.parametrize("form", [ok, response, bad, left_over, claude, errored])
async def test_whatever_stands_in_a_field_no_row_is_lost_and_none_that_came_is_bought_again(
    desk: Any, form: Any
) -> None:
    shard = Odd(desk, form in (claude, errored))
    changes = list(itertools.product(places(form("x")), ODD.values()))
    names = await shard.plan(len(changes))
    await shard.settle(names, [odd(form(name), *change) for name, change in zip(names, changes, strict=True)])


FORMS = {False: [ok, response, bad, left_over], True: [claude, errored]}


@pytest.mark.parametrize("anthropic", [False, True])
async def test_whatever_byte_is_damaged_no_row_is_lost_and_none_that_came_is_bought_again(
    desk: Any, anthropic: bool
) -> None:
    await _damage(desk, anthropic, seeds=3)


@pytest.mark.slow
@pytest.mark.parametrize("anthropic", [False, True])
async def test_whatever_bytes_are_damaged_a_hundred_times_over_no_row_is_lost(desk: Any, anthropic: bool) -> None:
    await _damage(desk, anthropic, seeds=100)


async def _damage(desk: Any, anthropic: bool, seeds: int) -> None:
    shard = Odd(desk, anthropic)
    names = await shard.plan(300)
    for seed in range(seeds):
        chance = random.Random(seed)
        await shard.settle(
            names, [damaged(chance, json.dumps(chance.choice(FORMS[anthropic])(name)).encode()) for name in names]
        )
