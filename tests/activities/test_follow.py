"""Poll, cancel and fetch: what the provider says, and everything it finished."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from durabatch.activities.providers.openai.batch_object import snapshot
from durabatch.contract import ProviderStatus


async def begin(desk: Any, **settings: Any) -> Any:
    """Have a batch of 60 rows created, as `desk.batch`."""
    await desk.sandbox.settings(**settings)
    await desk.plan(*(desk.chat(f"r-{n}", "Tell me a long story. " * 20) for n in range(60)))
    desk.batch = (await desk.create(await desk.upload())).batch
    return desk


@pytest.fixture
async def created(desk: Any) -> Any:
    """A batch that ends at once."""
    return await begin(desk)


def ids(desk: Any, name: str = "output") -> set[str]:
    return {row["custom_id"] for row in desk.rows(f"attempt-{desk.number}/{name}.jsonl")}


EVERY = {f"r-{n}" for n in range(60)}


# --- poll ---


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("validating", ProviderStatus.SUBMITTED),
        ("in_progress", ProviderStatus.IN_PROGRESS),
        ("finalizing", ProviderStatus.FINALIZING),
        ("completed", ProviderStatus.COMPLETED),
        ("failed", ProviderStatus.FAILED),
        ("expired", ProviderStatus.EXPIRED),
        ("cancelling", ProviderStatus.CANCELING),
        ("cancelled", ProviderStatus.CANCELED),
        # A word that nobody knows yet must not end a batch that is paid for.
        ("resting", ProviderStatus.IN_PROGRESS),
        ("", ProviderStatus.IN_PROGRESS),
        (None, ProviderStatus.IN_PROGRESS),
    ],
)
def test_the_providers_words_are_put_into_ours_and_kept(word: str | None, status: ProviderStatus) -> None:
    found = snapshot({"id": "batch_1", "status": word})
    assert (found.status, found.raw_status) == (status, word or "")


async def test_polling_shows_how_far_the_provider_is(desk: Any) -> None:
    created = await begin(desk, finish_after_polls=1)
    under_way = await created.poll(created.batch.id)
    assert not under_way.status.ended
    ended = await created.poll(created.batch.id)
    assert (ended.status, ended.raw_status) == (ProviderStatus.COMPLETED, "completed")
    assert (ended.total, ended.completed, ended.failed) == (60, 60, 0)
    assert ended.output and ended.errors is None


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (500, "provider_unavailable", True),
        (503, "provider_unavailable", True),
        (429, "rate_limited", True),
        (401, "authentication_failed", False),
        (404, "provider_not_found", False),
        (400, "provider_refused", False),
    ],
)
async def test_a_poll_that_fails_says_why_and_whether_it_is_worth_another_try(
    created: Any, sandbox: Any, status: int, code: str, retryable: bool
) -> None:
    await sandbox.fault("batches.retrieve", "status", status=status, times=1)
    error = await created.refused(created.poll(created.batch.id))
    assert (error.type, error.non_retryable) == (code, not retryable)
    assert (await created.poll(created.batch.id)).id == created.batch.id


async def test_a_connection_that_breaks_is_an_outage(created: Any, sandbox: Any) -> None:
    await sandbox.fault("batches.retrieve", "lost_answer", times=1)
    error = await created.refused(created.poll(created.batch.id))
    assert (error.type, error.non_retryable) == ("provider_unavailable", False)


# --- cancel ---


async def test_a_cancel_reaches_the_provider(desk: Any, sandbox: Any) -> None:
    created = await begin(desk, batch_seconds=3600, cancel_polls=1, cancel_fraction=0.5)
    asked = await created.cancel(created.batch.id)
    assert asked.status is ProviderStatus.CANCELING
    ended = await created.ended(asked)
    assert ended.status is ProviderStatus.CANCELED
    assert (await sandbox.books())["batches"][0]["cancel_requested"]


async def test_a_cancel_of_a_batch_that_has_ended_shows_its_end(created: Any) -> None:
    ended = await created.ended(created.batch)
    assert await created.cancel(created.batch.id) == ended


async def test_a_cancel_whose_answer_was_lost_may_be_sent_again(desk: Any, sandbox: Any) -> None:
    created = await begin(desk, batch_seconds=3600, cancel_polls=5)
    await sandbox.fault("batches.cancel", "lost_answer", times=1)
    assert (await created.refused(created.cancel(created.batch.id))).type == "provider_unavailable"
    assert (await created.cancel(created.batch.id)).status is ProviderStatus.CANCELING


async def test_a_cancel_of_a_batch_that_is_unknown_says_so(created: Any) -> None:
    assert (await created.refused(created.cancel("batch_unknown"))).type == "provider_not_found"


# --- fetch ---


async def test_results_are_stored_just_as_the_provider_sent_them(created: Any) -> None:
    ended = await created.ended(created.batch)
    fetched = await created.fetch(ended)
    data = created.path("attempt-1/output.jsonl").read_bytes()
    assert (fetched.rows, fetched.bytes) == (60, len(data))
    assert data == await created.uploaded_bytes(ended.output)
    assert ids(created) == EVERY
    assert not created.path("attempt-1/error.jsonl").exists()


@pytest.mark.parametrize("outcome", ["expired", "cancelled"])
async def test_both_files_are_fetched_whatever_the_batch_ended_as(desk: Any, sandbox: Any, outcome: str) -> None:
    await sandbox.fault("batches.create", "batch_outcome", outcome=outcome, fraction=0.5)
    await desk.plan(*(desk.chat(f"r-{n}") for n in range(60)))
    ended = await desk.ended((await desk.create(await desk.upload())).batch)
    fetched = await desk.fetch(ended)
    assert ended.raw_status == outcome
    assert fetched.rows == 60
    assert len(ids(desk)) == 30
    assert ids(desk) | ids(desk, "error") == EVERY


@pytest.mark.parametrize("times", [1, 3])
async def test_a_download_that_breaks_off_is_resumed(created: Any, sandbox: Any, times: int) -> None:
    ended = await created.ended(created.batch)
    await sandbox.fault("files.content", "truncate", fraction=0.4, times=times)
    fetched = await created.fetch(ended)
    assert (await sandbox.books())["requests"]["files.content"] == times + 1
    data = created.path("attempt-1/output.jsonl").read_bytes()
    assert fetched.rows == 60
    assert data == await created.uploaded_bytes(ended.output)


async def test_a_download_that_never_begins_is_an_outage_and_leaves_nothing(created: Any, sandbox: Any) -> None:
    ended = await created.ended(created.batch)
    fault = await sandbox.fault("files.content", "truncate", fraction=0)
    error = await created.refused(created.fetch(ended))
    assert (error.type, error.non_retryable) == ("provider_unavailable", False)
    assert not created.path("attempt-1/output.jsonl").exists()
    await sandbox.clear(fault["id"])
    assert (await created.fetch(ended)).rows == 60


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_a_file_that_cannot_be_had_now_is_no_empty_file(created: Any, sandbox: Any, status: int) -> None:
    ended = await created.ended(created.batch)
    await sandbox.fault("files.content", "status", status=status, times=1)
    await created.refused(created.fetch(ended))
    assert not created.path("attempt-1/output.jsonl").exists()
    assert (await created.fetch(ended)).rows == 60


async def test_it_is_reported_how_little_came(desk: Any) -> None:
    await desk.plan(desk.chat("a"), desk.chat("b", "Vanish. [[sandbox:missing]]"), desk.chat("c"))
    ended = await desk.ended((await desk.create(await desk.upload())).batch)
    assert (await desk.fetch(ended)).rows == 2


@pytest.mark.parametrize("gone", ["output", "error"])
async def test_of_two_files_the_one_that_is_there_is_stored(desk: Any, sandbox: Any, gone: str) -> None:
    await desk.plan(desk.chat("a"), desk.chat("b", "[[sandbox:invalid_request]]"))
    ended = await desk.ended((await desk.create(await desk.upload())).batch)
    await desk.fetch(ended)  # what an earlier run left
    for attempt in ("strict", "lenient"):
        skip = 0 if gone == "output" else 1
        await sandbox.fault("files.content", "status", status=404, message="No such file.", skip=skip, times=1)
        if attempt == "strict":
            error = await desk.refused(desk.fetch(ended))
            assert (error.type, error.non_retryable) == ("provider_not_found", True)
            assert desk.path(f"attempt-1/{gone}.jsonl").exists()
        else:
            fetched = await desk.fetch(ended, lenient=True)
    assert (fetched.rows, fetched.gone) == (1, ("Provider gpt answered 404: No such file.",))
    assert not desk.path(f"attempt-1/{gone}.jsonl").exists()
    assert desk.path(f"attempt-1/{'error' if gone == 'output' else 'output'}.jsonl").exists()


async def test_a_row_more_than_the_provider_counts_is_none_too_few(desk: Any) -> None:
    await desk.plan(desk.chat("a", "Hi. [[sandbox:duplicate]]"), desk.chat("b", "Hi. [[sandbox:unknown]]"))
    assert (await desk.fetch(await desk.ended((await desk.create(await desk.upload())).batch))).rows == 4


async def test_what_an_earlier_fetch_left_is_removed(created: Any) -> None:
    ended = await created.ended(created.batch)
    folder = created.path("attempt-1")
    folder.mkdir(exist_ok=True)
    for name in ("output.jsonl", "error.jsonl"):
        (folder / name).write_bytes(b'{"custom_id":"of another run"}\n')
    await created.fetch(ended)
    assert ids(created) == EVERY
    assert not (folder / "error.jsonl").exists()


async def test_a_late_fetch_that_dies_takes_nothing_away(created: Any, sandbox: Any) -> None:
    # A worker that was taken for dead goes on with its fetch when another one has brought everything home.
    ended = await created.ended(created.batch)
    await created.fetch(ended)
    await sandbox.fault("files.content", "reset", times=1)
    assert (await created.refused(created.fetch(ended))).type == "provider_unavailable"
    assert ids(created) == EVERY


async def test_a_fetch_may_be_repeated(created: Any) -> None:
    ended = await created.ended(created.batch)
    assert await created.fetch(ended) == await created.fetch(ended)


async def test_attempts_do_not_share_a_folder(created: Any) -> None:
    ended = await created.ended(created.batch)
    await created.fetch(ended)
    created.number = 2
    await created.fetch(ended)
    assert created.path("attempt-1/output.jsonl").exists()
    assert created.path("attempt-2/output.jsonl").exists()


# --- servers that are less exact than they should be ---


class Odd:
    """A server on loopback that knows one file and sends it as it likes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.described: Any = {"id": "file-1", "bytes": len(data)}  #: None: it describes no file.
        self.ranges: list[str | None] = []
        self.takes_ranges = True
        self.most = len(data)  #: Bytes of one answer at most; a longer one breaks off there …
        self.honest = False  #: … unless it says in advance that it ends there.
        self.chunked = False
        self.answers: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.content

    async def describe(self, request: web.Request) -> web.Response:
        return web.json_response(self.described) if self.described else web.Response(status=404)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        return await self.answers(request)

    async def content(self, request: web.Request) -> web.StreamResponse:
        given = request.headers.get("Range")
        self.ranges.append(given)
        start = int(given.removeprefix("bytes=").removesuffix("-")) if given and self.takes_ranges else 0
        if start and start >= len(self.data):
            return web.Response(status=416)
        response = web.StreamResponse(status=206 if start else 200)
        part = self.data[start : start + self.most]
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(self.data)}"
        if self.chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(part) if self.honest else len(self.data) - start
        await response.prepare(request)
        await response.write(part)
        if start + len(part) < len(self.data) and not self.honest:
            assert request.transport is not None
            request.transport.close()
        return response


@pytest.fixture
async def odd(created: Any) -> Any:
    """Puts such a server in the sandbox's place, for `created.fetch`."""
    server = Odd(b"".join(b'{"custom_id":"r-%d"}\n' % n for n in range(60)))
    app = web.Application()
    app.router.add_get("/v1/files/{id}", server.describe)
    app.router.add_get("/v1/files/{id}/content", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    account = created.summary.provider.account
    await created.reopen(base_url=f"http://127.0.0.1:{port}/v1", also_accounts=(account,))
    created.batch = created.batch.model_copy(update={"output": "file-1", "completed": 60})
    yield server
    await created.resources.close()
    await runner.cleanup()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_download_that_breaks_off_goes_on_at_its_byte(created: Any, odd: Any, chunked: bool) -> None:
    odd.most, odd.chunked = 500, chunked
    fetched = await created.fetch(created.batch)
    assert (fetched.rows, fetched.bytes) == (60, len(odd.data))
    assert created.path("attempt-1/output.jsonl").read_bytes() == odd.data
    assert odd.ranges[:3] == [None, "bytes=500-", "bytes=1000-"]


@pytest.mark.parametrize(
    "described",
    [
        None,
        *({"id": "file-1", "bytes": size} for size in (100_000, 10**30, 1, 0, -1, None, "1190", "many", [1])),
        {},
        ["odd"],
    ],
)
async def test_a_download_is_whole_by_its_own_length_whatever_is_said_of_the_files_size(
    created: Any, odd: Any, described: Any
) -> None:
    odd.described = described
    fetched = await created.fetch(created.batch)
    assert (fetched.rows, fetched.bytes, odd.ranges) == (60, len(odd.data), [None])


async def test_a_part_says_by_its_range_how_much_is_left(created: Any, odd: Any) -> None:
    odd.most = 500

    async def then_honest(request: web.Request) -> web.StreamResponse:
        odd.honest = bool(odd.ranges)
        return await Odd.content(odd, request)

    odd.answers = then_honest
    assert (await created.fetch(created.batch)).rows == 60
    assert created.path("attempt-1/output.jsonl").read_bytes() == odd.data


async def test_a_server_that_takes_no_ranges_is_read_from_the_beginning(created: Any, odd: Any) -> None:
    odd.takes_ranges = False
    odd.most = 500
    error = await created.refused(created.fetch(created.batch))  # there is no way to get more of it
    assert error.type == "provider_unavailable"
    assert odd.ranges == [None, "bytes=500-"]
    odd.most = len(odd.data)
    assert (await created.fetch(created.batch)).rows == 60
    assert created.path("attempt-1/output.jsonl").read_bytes() == odd.data


async def test_a_file_that_has_become_shorter_is_not_joined_to_what_it_was(created: Any, odd: Any) -> None:
    odd.takes_ranges = False
    odd.most = 500

    async def then_shorter(request: web.Request) -> web.StreamResponse:
        if odd.ranges:
            odd.data = odd.data[:400]
        return await Odd.content(odd, request)

    odd.answers = then_shorter
    assert (await created.refused(created.fetch(created.batch))).type == "provider_unavailable"
    assert not created.path("attempt-1/output.jsonl").exists()


async def test_a_last_line_without_a_break_is_a_row(created: Any, odd: Any) -> None:
    odd.data = odd.data[:-1]
    assert (await created.fetch(created.batch)).rows == 60


async def test_an_empty_file_has_no_rows(created: Any, odd: Any) -> None:
    odd.data = b""
    created.batch = created.batch.model_copy(update={"completed": 0})
    assert (await created.fetch(created.batch)).rows == 0
    assert created.path("attempt-1/output.jsonl").read_bytes() == b""


async def test_no_failure_quotes_a_result(created: Any, odd: Any) -> None:
    async def failed(request: web.Request) -> web.Response:
        return web.json_response({"custom_id": "a", "text": "Sesame"}, status=500)

    odd.answers = failed
    error = await created.refused(created.fetch(created.batch))
    assert "Sesame" not in repr(error) + str(error.details)
