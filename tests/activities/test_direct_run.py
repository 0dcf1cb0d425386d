"""The rows of an attempt, run directly: RUN_ROWS and COLLECT over real HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from durabatch.activities.direct.memory import MOST, Share
from durabatch.activities.direct.run import RunRows
from durabatch.activities.providers import Outcome
from durabatch.activities.providers.openai.results import outcome
from durabatch.contract import ErrorClass, Mode, RowStatus, Strays
from durabatch.contract.steps import AttemptRecord, Collected, Ran, RunRequest
from support.live_endpoint import LiveEndpoint, Say, error, good, live_endpoint

from .conftest import Desk, chat


async def begin(desk: Desk, endpoint: LiveEndpoint, texts: Sequence[str], **options: Any) -> None:
    """Plan rows with these texts, to be run at this endpoint."""
    await desk.reopen(base_url=endpoint.url, **options)
    await desk.plan(*(chat(text, text) for text in texts))


def outcomes(desk: Desk) -> dict[str, Outcome]:
    """What the attempt's output says of each row."""
    lines = desk.path(f"attempt-{desk.number}/output.jsonl").read_bytes().splitlines()
    return {found.custom_id: found for found in map(outcome, lines)}


def names(desk: Desk) -> list[str]:
    """What is in the attempt's folder."""
    folder = desk.path(f"attempt-{desk.number}")
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


async def test_a_shard_runs_from_its_rows_to_its_results(desk: Desk) -> None:
    await desk.plan(*(chat(f"row {number}") for number in range(300)))
    assert await desk.run_rows() == Ran(rows=300, kept=300)
    assert await desk.collect() == Collected(lines=300, succeeded=300)
    desk.sent.append(AttemptRecord(number=1, provider_batch_id=None, lines=300, mode=Mode.DIRECT))
    assert (await desk.settle()).counts.succeeded == 300
    assert [row["custom_id"] for row in desk.rows()] == [f"row {number}" for number in range(300)]
    assert (await desk.sandbox.books())["live"]["billed"]["chat"] == 300


async def test_collect_leaves_what_a_provider_s_batch_would_and_answers_the_same_again(desk: Desk) -> None:
    async with live_endpoint() as endpoint:
        await begin(desk, endpoint, ["a", "b"])
        await desk.run_rows()
        assert [name for name in names(desk) if name.startswith("kept/")] != []
        first = await desk.collect()
        assert names(desk) == ["intent", "output.jsonl", "ran.json"]
        output = desk.path("attempt-1/output.jsonl").read_bytes()
        assert await desk.collect() == first == Collected(lines=2, succeeded=2)
        assert desk.path("attempt-1/output.jsonl").read_bytes() == output
        assert json.loads(output.splitlines()[0])["response"]["request_id"] == "req-a"
        # Run again, as after a reset: everything has its answer.
        assert await desk.run_rows() == Ran(rows=2, kept=2)
        assert endpoint.calls == {"a": 1, "b": 1}


async def test_each_row_is_tried_again_by_what_went_wrong_with_it(desk: Desk) -> None:
    told = {
        "good": [Say()],
        "bad": [error(400, "No such role.")],
        "long": [error(400, "Too long.", "context_length_exceeded")],
        "no model": [error(404, "The model `x` does not exist.", "model_not_found")],
        "late": [Say(500, b"{}"), Say()],
        "rejected": [Say(429, b"{}", {"retry-after-ms": "30"}), Say(429, b"{}", {"retry-after-ms": "30"}), Say()],
        "broken": [Say(broken=True), Say()],
        "poison": [Say(500, b"{}")],
        "hangs": [Say(hang=30)],
    }
    async with live_endpoint(lambda text, times: told[text][min(times, len(told[text])) - 1]) as endpoint:
        await begin(desk, endpoint, list(told), timeout=timedelta(seconds=0.5))
        assert await desk.run_rows() == Ran(rows=9, kept=9)
        assert await desk.collect() == Collected(lines=9, succeeded=4)
    found = {name: one.failure and one.failure.type for name, one in outcomes(desk).items()}
    assert found == {
        "good": None,
        "bad": ErrorClass.INVALID_REQUEST,
        "long": ErrorClass.CONTEXT_LENGTH,
        "no model": ErrorClass.NOT_FOUND,
        "late": None,
        "rejected": None,
        "broken": None,
        "poison": ErrorClass.SERVER_ERROR,
        "hangs": ErrorClass.TIMEOUT,
    }
    once = {"good": 1, "bad": 1, "long": 1, "no model": 1}
    # A check call has half a second, too; on a busy machine that may be too little, and then no row has lost a try.
    assert 3 <= endpoint.calls.pop("poison") <= 8
    assert 3 <= endpoint.calls.pop("hangs") <= 8
    assert endpoint.calls == {**once, "late": 2, "rejected": 3, "broken": 2}
    # The same row says the same id each time.
    ids = {head["x-client-request-id"] for head in endpoint.headers}
    assert sum(not one.startswith("check-") for one in ids) == 9
    assert all("idempotency-key" not in head for head in endpoint.headers)


ODD = {
    "text": (Say(200, b"Bad Gateway"), RowStatus.FAILED),
    "cut": (Say(200, good("x")[:40]), RowStatus.FAILED),
    "empty": (Say(200, b""), RowStatus.FAILED),
    "latin": (Say(200, good("x").replace(b"said", b"s\xe4id")), RowStatus.SUCCEEDED),
    "pretty": (Say(200, json.dumps(json.loads(good("x")), indent=2).encode()), RowStatus.SUCCEEDED),
    "zipped": (Say(200, gzip.compress(good("x")), {"content-encoding": "gzip"}), RowStatus.SUCCEEDED),
    "error inside": (Say(200, b'{"error": {"message": "no", "code": "server_error"}}'), RowStatus.FAILED),
    "list": (Say(200, b"[]"), RowStatus.SUCCEEDED),
    "page": (Say(400, b"<html><title>Bad request</title></html>"), RowStatus.FAILED),
    "long number": (Say(200, good("x").replace(b"5}", b"5" * 5000 + b"}")), RowStatus.SUCCEEDED),
}


async def test_no_body_costs_its_row_or_another_one(desk: Desk) -> None:
    async with live_endpoint(lambda text, times: ODD[text][0]) as endpoint:
        await begin(desk, endpoint, list(ODD))
        assert await desk.run_rows() == Ran(rows=len(ODD), kept=len(ODD))
        assert (await desk.collect()).lines == len(ODD)
        assert max(endpoint.calls.values()) == 1
    desk.sent.append(AttemptRecord(number=1, lines=len(ODD), mode=Mode.DIRECT))
    settled = await desk.settle(unfinished=RowStatus.FAILED)
    assert settled.strays == Strays()
    assert {row["custom_id"]: row["status"] for row in desk.rows()} == {
        name: status.value for name, (_, status) in ODD.items()
    }


@pytest.mark.parametrize(
    ("say", "code"),
    [
        (error(401, "Bad key.", "invalid_api_key"), "authentication_failed"),
        (error(402, "Pay."), "quota_exhausted"),
        (error(403, "Not for you."), "authentication_failed"),
        (error(429, "Pay.", "insufficient_quota"), "quota_exhausted"),
        (Say(404, b"404 page not found"), "provider_not_found"),
        (Say(301, b"", {"location": "https://elsewhere.example/v1"}), "provider_refused"),
    ],
)
async def test_what_concerns_every_row_ends_the_step(desk: Desk, say: Say, code: str) -> None:
    async with live_endpoint(lambda text, times: say) as endpoint:
        await begin(desk, endpoint, [f"row {number}" for number in range(50)], max_concurrent_requests=4)
        refused = await desk.refused(desk.run_rows())
        assert refused.type == code
        # Most often it is the configuration that leads past the API, and one command finds that out.
        assert ("`durabatch doctor` looks" in refused.message) is (code == "provider_not_found")
        assert endpoint.calls.total() <= 8
        # Mended, every row is sent, and none counts as sent again: all of them were refused for certain.
        endpoint.script = lambda text, times: Say()
        assert await desk.run_rows() == Ran(rows=50, kept=50)
        assert await desk.collect() == Collected(lines=50, succeeded=50)


async def test_a_row_that_alone_is_refused_like_a_key_is_that_row_s_failure(desk: Desk) -> None:
    rows = [f"row {number}" for number in range(40)]
    async with live_endpoint(lambda text, times: error(403, "Flagged.") if text == "row 20" else Say()) as endpoint:
        await begin(desk, endpoint, rows, max_concurrent_requests=4)
        assert await desk.run_rows() == Ran(rows=40, kept=40)
        assert await desk.collect() == Collected(lines=40, succeeded=39)
        assert max(endpoint.calls.values()) == 1


async def test_a_row_that_can_never_have_its_tokens_is_refused_by_name_and_not_sent(desk: Desk) -> None:
    async with live_endpoint() as endpoint:
        await desk.reopen(base_url=endpoint.url, tokens_per_minute=100_000)
        await desk.plan(chat("small", "small"), chat("large", "large", max_tokens=200_000))
        assert await desk.run_rows() == Ran(rows=2, kept=2)
        assert await desk.collect() == Collected(lines=2, succeeded=1)
        assert endpoint.calls == {"small": 1}
    failure = outcomes(desk)["large"].failure
    assert failure is not None
    assert (failure.type, failure.code) == (ErrorClass.INVALID_REQUEST, "exceeds_rate_limit")
    assert "100,000 a minute; it was not sent" in failure.message


@pytest.mark.parametrize("tokens_per_minute", [None, 100_000])
async def test_numbers_of_tokens_that_nobody_can_calculate_with_cost_no_other_row(
    desk: Desk, tokens_per_minute: int | None
) -> None:
    used = good("x").replace(b'"total_tokens": 5', b'"total_tokens": %d' % 10**400)
    async with live_endpoint(lambda text, times: Say(200, used)) as endpoint:
        await desk.reopen(base_url=endpoint.url, tokens_per_minute=tokens_per_minute, counts="used")
        rows = (chat("less", max_tokens=-(10**400)), chat("plain"), chat("more", max_tokens=10**4000, n=10**4000))
        await desk.plan(*rows)
        assert await desk.run_rows() == Ran(rows=3, kept=3)
        assert (await desk.collect()).lines == 3


async def test_a_cancel_keeps_what_was_answered_and_leaves_no_call_open(desk: Desk) -> None:
    rows = [f"row {number}" for number in range(300)]
    slow = set(rows[100:])
    async with live_endpoint(lambda text, times: Say(hang=300 if text in slow else 0.0)) as endpoint:
        await begin(desk, endpoint, rows, max_concurrent_requests=150)
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, heartbeat_timeout=timedelta(minutes=1))
        request = RunRequest(attempt=desk.attempt, account=desk.summary.provider.account, spec=desk.spec)
        step = asyncio.create_task(environment.run(RunRows(desk.resources).run_rows, request))
        while endpoint.open < 150:
            await asyncio.sleep(0.05)
        environment.cancel()
        async with asyncio.timeout(30):
            with pytest.raises(asyncio.CancelledError):
                await step
            await endpoint.idle.wait()
        assert await desk.collect() == Collected(lines=100, succeeded=100)
        assert (endpoint.open, endpoint.most_open, endpoint.calls.total()) == (0, 150, 250)
        # After a reset the rest is sent; the calls that were dropped may have been billed, so they count.
        endpoint.script = lambda text, times: Say()
        assert await desk.run_rows() == Ran(rows=300, kept=300)
        assert await desk.collect() == Collected(lines=300, succeeded=300, repeated=150)
        assert sum(times - 1 for times in endpoint.calls.values()) == 150


async def test_what_late_workers_keep_is_taken_once_and_never_counted_twice(desk: Desk) -> None:
    """A worker that stood still writes after its heir has begun, and after the attempt was collected."""
    async with live_endpoint() as endpoint:
        await begin(desk, endpoint, ["a", "b", "c"])
        await desk.run_rows()
        [kept] = [name for name in names(desk) if name.startswith("kept/")]
        folder = desk.path("attempt-1")
        late = (folder / kept).read_bytes()
        (folder / "kept/9-0123abcd-00000.jsonl").write_bytes(late)
        assert await desk.collect() == Collected(lines=3, succeeded=3)
        (folder / "kept/9-0123abcd-00001.jsonl").write_bytes(late)
        assert await desk.collect() == Collected(lines=3, succeeded=3)
        assert names(desk) == ["intent", "output.jsonl", "ran.json"]
        assert len(outcomes(desk)) == 3


async def test_answers_to_other_rows_are_not_taken(desk: Desk) -> None:
    async with live_endpoint() as endpoint:
        await begin(desk, endpoint, ["a"])
        await desk.run_rows()
        [kept] = [name for name in names(desk) if name.startswith("kept/")]
        head, line = (desk.path("attempt-1") / kept).read_bytes().splitlines()
        index = json.loads(head)
        (desk.path("attempt-1") / kept).write_bytes(json.dumps({**index, "rows": "0" * 16}).encode() + b"\n" + line)
        assert await desk.run_rows() == Ran(rows=1, kept=1)
        assert endpoint.calls == {"a": 2}


@pytest.mark.slow  # it waits between checks; tests/unit/test_poison_simulation.py has such outages in virtual time
async def test_a_row_loses_no_try_to_an_endpoint_that_is_away(desk: Desk) -> None:
    async with live_endpoint(lambda text, times: Say() if times > 3 else Say(503, b"{}")) as endpoint:
        endpoint.check = lambda times: Say() if times > 3 else Say(503, b"{}")
        await begin(desk, endpoint, ["a"])
        assert await desk.run_rows() == Ran(rows=1, kept=1)
        assert await desk.collect() == Collected(lines=1, succeeded=1)
        assert endpoint.calls == {"a": 4}
        assert endpoint.checks == 4


@pytest.mark.slow  # it is patient for 20 s
async def test_a_run_ends_and_says_why_when_nobody_listens(desk: Desk) -> None:
    async with live_endpoint() as endpoint:
        await begin(desk, endpoint, ["a", "b"])
    ran = await desk.run_rows()
    assert (ran.rows, ran.kept) == (2, 0)
    assert ran.reason == (
        "Provider gpt cannot be reached: connection refused, so nothing listens there; is it running, and is its "
        "base_url right?"
    )
    assert await desk.collect() == Collected(lines=0)


async def test_where_configured_a_call_says_its_id_as_an_idempotency_key(desk: Desk) -> None:
    async with live_endpoint() as endpoint:
        await begin(desk, endpoint, ["a"], idempotency_key=True, headers={"X-Team": "search"})
        await desk.run_rows()
        [head] = endpoint.headers
    assert head["idempotency-key"] == head["x-client-request-id"] != ""
    assert (head["authorization"], head["x-team"]) == ("Bearer sk-test", "search")
    assert head["content-type"] == "application/json"


async def test_answers_wait_for_a_store_that_is_away(desk: Desk) -> None:
    async with live_endpoint() as endpoint:
        await begin(desk, endpoint, ["a", "b", "c"])
        folder = desk.path("attempt-1")
        folder.mkdir()
        (folder / "kept").touch()  # where a folder is to be
        step = asyncio.create_task(desk.run_rows())
        while endpoint.calls.total() < 3 or endpoint.open:
            await asyncio.sleep(0.02)
        done, _ = await asyncio.wait([step], timeout=3)
        assert not done
        (folder / "kept").unlink()
        assert await step == Ran(rows=3, kept=3)
        assert await desk.collect() == Collected(lines=3, succeeded=3)
        assert endpoint.calls == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("say", [Say(504, b"<html><title>504 Gateway Time-out</title></html>"), Say(524)])
async def test_rows_that_are_too_slow_are_not_sent_and_paid_for_without_end(desk: Desk, say: Say) -> None:
    rows = [f"row {number}" for number in range(8)]
    async with live_endpoint(lambda text, times: say) as endpoint:
        await begin(desk, endpoint, rows)
        assert await desk.run_rows() == Ran(rows=8, kept=8)
        assert await desk.collect() == Collected(lines=8, succeeded=0)
        assert endpoint.calls == dict.fromkeys(rows, 3)
        assert endpoint.checks <= 8


@pytest.mark.slow
async def test_no_row_fails_because_a_server_that_takes_few_calls_at_a_time_lets_the_others_wait(desk: Desk) -> None:
    await desk.reopen(timeout=timedelta(seconds=2))
    await desk.sandbox.settings(max_in_flight=1, in_flight_waits=True, live_seconds=0.2)
    await desk.plan(*(chat(f"row {number}") for number in range(40)))
    assert await desk.run_rows() == Ran(rows=40, kept=40)
    assert await desk.collect() == Collected(lines=40, succeeded=40)


@pytest.mark.parametrize("at", [0, 39])
async def test_a_row_that_alone_is_refused_like_a_key_does_not_stop_those_beside_it(desk: Desk, at: int) -> None:
    """A firewall answers 403 to a prompt that it does not like: the first one, or the last."""
    rows = [f"row {number}" for number in range(40)]
    async with live_endpoint(lambda text, times: error(403, "Blocked.") if text == rows[at] else Say()) as endpoint:
        await begin(desk, endpoint, rows, max_concurrent_requests=1)
        assert await desk.run_rows() == Ran(rows=40, kept=40)
        assert await desk.collect() == Collected(lines=40, succeeded=39)
        assert max(endpoint.calls.values()) == 1


async def test_a_row_that_was_refused_when_its_worker_was_lost_does_not_hold_the_batch_up(desk: Desk) -> None:
    async with live_endpoint(lambda text, times: error(403, "Blocked.") if text == "c" else Say()) as endpoint:
        await begin(desk, endpoint, ["a", "b", "c"])
        await desk.run_rows()
        for path in (desk.path("attempt-1") / "kept").iterdir():  # as if its answer had not been kept
            head, *lines = path.read_bytes().splitlines()
            index = json.loads(head)
            left = [place for place, line in enumerate(index["lines"]) if line[0] != 2]
            index["lines"] = [index["lines"][place] for place in left]
            path.write_bytes(b"\n".join([json.dumps(index).encode(), *(lines[place] for place in left), b""]))
        assert await desk.run_rows() == Ran(rows=3, kept=3)
        assert await desk.collect() == Collected(lines=3, succeeded=2, repeated=1)


async def test_a_picture_is_not_taken_for_more_tokens_than_a_minute_has(desk: Desk) -> None:
    picture = f"data:image/png;base64,{'iVBORw0KGgo' * 60_000}"
    async with live_endpoint(lambda text, times: Say(200, good("x"), {"x-request-id": "r"})) as endpoint:
        await desk.reopen(base_url=endpoint.url, tokens_per_minute=100_000)
        await desk.plan(chat("a", picture))
        assert await desk.run_rows() == Ran(rows=1, kept=1)
        assert await desk.collect() == Collected(lines=1, succeeded=1)


async def test_a_row_that_the_server_finds_too_large_for_its_rate_is_told_so_once(desk: Desk) -> None:
    said = "Request too large for gpt-4o-mini on tokens per min (TPM): Limit 30000, Requested 47045."
    async with live_endpoint(
        lambda text, times: error(429, said, "rate_limit_exceeded") if text == "large" else Say()
    ) as endpoint:
        await begin(desk, endpoint, ["large", "small"])
        assert await desk.run_rows() == Ran(rows=2, kept=2)
        assert await desk.collect() == Collected(lines=2, succeeded=1)
        assert endpoint.calls == {"large": 1, "small": 1}


async def test_a_request_id_that_is_no_text_costs_nothing(desk: Desk) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.startswith(b"content-length"))
        await reader.readexactly(length)
        body = good("x")
        writer.write(b"HTTP/1.0 200 OK\r\nX-Request-Id: \xff\xfe\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        await desk.reopen(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        await desk.plan(chat("a", "a"), chat("b", "b"))
        async with asyncio.timeout(60):
            assert await desk.run_rows() == Ran(rows=2, kept=2)
        assert await desk.collect() == Collected(lines=2, succeeded=2)


async def test_an_answer_that_would_take_all_memory_is_its_row_s_failure_and_no_other_s(desk: Desk) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.startswith(b"content-length"))
        long = b"endless" in await reader.readexactly(length)
        body = good("x")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (10**12 if long else len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        await desk.reopen(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        await desk.plan(chat("a", "endless"), chat("b", "b"))
        assert await desk.run_rows() == Ran(rows=2, kept=2)
        assert await desk.collect() == Collected(lines=2, succeeded=1)
    failure = outcomes(desk)["a"].failure
    assert failure is not None
    assert (failure.type, failure.code) == (ErrorClass.OTHER, "answer_too_long")


@pytest.mark.slow  # it is patient for 20 s
async def test_a_route_that_is_away_costs_no_row_while_the_rest_of_the_api_answers(desk: Desk) -> None:
    away = True
    rows = [f"row {number}" for number in range(10)]
    async with live_endpoint(lambda text, times: Say(503, b"{}") if away else Say()) as endpoint:
        endpoint.models = 200
        endpoint.check = lambda times: Say(503, b"{}") if away else Say()
        await begin(desk, endpoint, rows)
        ran = await desk.run_rows()
        assert (ran.rows, ran.kept, ran.reason is None) == (10, 0, False)
        sent = endpoint.calls.total()
        ran = await desk.run_rows()  # it begins with a check, and no row is sent
        assert endpoint.calls.total() == sent <= 10
        away = False
        assert await desk.run_rows() == Ran(rows=10, kept=10)
        assert await desk.collect() == Collected(lines=10, succeeded=10)


@pytest.mark.slow  # rows are tried for a minute where no other row is answered
async def test_rows_that_alone_are_left_and_always_fail_have_their_answer_after_a_minute(desk: Desk) -> None:
    """Only a check call tells them from rows at an endpoint that is away."""
    rows = [f"row {number}" for number in range(40)]
    poison = rows[10:]
    async with live_endpoint(lambda text, times: Say(503, b"{}") if text in poison else Say()) as endpoint:
        await begin(desk, endpoint, rows)
        assert await desk.run_rows() == Ran(rows=40, kept=40)
        assert await desk.collect() == Collected(lines=40, succeeded=10)
        assert endpoint.checks <= 20
        assert max(endpoint.calls[text] for text in poison) <= 8
    assert {found.failure and found.failure.type for name, found in outcomes(desk).items() if name in poison} == {
        ErrorClass.SERVER_ERROR
    }


async def test_a_row_whose_workers_are_lost_each_time_is_not_sent_for_ever(desk: Desk) -> None:
    async with live_endpoint() as endpoint:
        await begin(desk, endpoint, ["a", "b"])
        await desk.run_rows()
        folder = desk.path("attempt-1")
        [sent] = folder.glob("sent/*.rows")
        for kept in (folder / "kept").iterdir():
            kept.unlink()
        data = json.loads(sent.read_bytes())
        for number in range(2, 25):  # with the first one 24 runs, each of them lost with the second row in flight
            (folder / f"sent/{number}-0123abcd.rows").write_bytes(json.dumps({**data, "ranges": [[1, 2]]}).encode())
            (folder / f"sent/{number}-0123abcd.mark").write_bytes(b"1")
        assert await desk.run_rows() == Ran(rows=2, kept=2)
        assert endpoint.calls == {"a": 2, "b": 1}
        await desk.collect()
    failure = outcomes(desk)["b"].failure
    assert failure is not None
    assert (failure.type, failure.code) == (ErrorClass.OTHER, "never_answered")


async def test_a_row_that_breaks_the_connections_of_others_is_sent_last_and_alone_and_given_up(desk: Desk) -> None:
    """A server that a row crashes: every call that is open breaks, and for a while every call that comes."""
    rows = [f"row {number}" for number in range(60)]
    rows[3] = "poison"
    down_until, crashes, alone = 0.0, 0, list[int]()

    def script(text: str, times: int) -> Say:
        nonlocal down_until, crashes
        if text == "poison":
            down_until, crashes = time.monotonic() + 0.3, crashes + 1
            alone.append(endpoint.open)
        return Say(broken=True, hang=0.01) if time.monotonic() < down_until else Say(hang=0.02)

    async with live_endpoint(script) as endpoint:
        endpoint.check = lambda times: script("check", times)
        await begin(desk, endpoint, rows, max_concurrent_requests=20)
        assert await desk.run_rows() == Ran(rows=60, kept=60)
        assert await desk.collect() == Collected(lines=60, succeeded=59)
    assert crashes <= 8
    assert alone[-1] == 1
    failure = outcomes(desk)["poison"].failure
    assert failure is not None
    assert "onnection" in failure.message


@pytest.mark.slow  # it waits for longer than a row's time
async def test_a_long_answer_that_waits_for_room_is_not_late(desk: Desk) -> None:
    """The server has answered: sent again, the row would be paid for twice."""
    message = {"role": "assistant", "content": "x" * (1 << 20)}
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    timeout = 5.0
    async with live_endpoint(lambda text, times: Say(200, body)) as endpoint:
        await begin(desk, endpoint, ["a"], timeout=timedelta(seconds=timeout))
        memory = desk.resources.memory
        everything, beyond = Share(memory), Share(memory)
        assert everything.take(MOST) is None
        assert beyond.take(1) is None
        running = asyncio.create_task(desk.run_rows())
        until = time.monotonic() + 2 * timeout
        while time.monotonic() < until:
            assert not running.done()
            await asyncio.sleep(0.1)
        beyond.free()
        everything.free()
        assert await running == Ran(rows=1, kept=1)
        assert endpoint.calls == {"a": 1}
        assert memory.held == 0
