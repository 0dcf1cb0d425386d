"""What every adapter has to do, kind by kind, against the sandbox over real HTTP.

A new kind gets an entry in KINDS of this module, and passes; what only one provider does is tested beside it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from durabatch.activities.direct.calls import Calls
from durabatch.activities.prices import Prices
from durabatch.activities.providers import (
    Content,
    Creation,
    Outcome,
    Provider,
    ProviderSettings,
    ResultFile,
    RowTokens,
    Wanted,
    kinds,
    open_provider,
)
from durabatch.activities.providers.base import CHECK_TOKENS, LimitNews, LiveCalls, sealed
from durabatch.activities.rows import RowRefused, parse
from durabatch.contract import (
    AnswerLost,
    AuthenticationFailed,
    BatchSpec,
    ErrorClass,
    ProviderError,
    ProviderNotFound,
    ProviderStatus,
    ProviderUnavailable,
    QueueFull,
    QuotaExhausted,
    RateLimited,
    RowStatus,
)
from durabatch.contract.steps import Search, Snapshot
from durabatch.sandbox import Sandbox

KEY = "sk-test-0123456789abcdef"
SINCE = datetime.now(UTC) - timedelta(minutes=1)
MARKER, DIGEST = "b-1/0/1", "0123456789abcdef"
SEAL = sealed(MARKER, DIGEST)


@dataclass(frozen=True)
class Kind:
    """One kind of provider, as the sandbox plays it."""

    path: str  #: Of its API, below the sandbox's URL.
    model: str
    download: str  #: The sandbox's name for the download of results.
    endpoint: str = "/v1/chat/completions"


KINDS = {
    "openai": Kind(path="/v1", model="gpt-4o-mini", download="files.content"),
    "anthropic": Kind(path="", model="claude-haiku-4-5", download="batches.results"),
}


class Account:
    """One account at the sandbox, called by an adapter as the steps call it."""

    def __init__(self, sandbox: Sandbox, kind: str, provider: Provider, settings: ProviderSettings) -> None:
        self.settings = settings
        self.sandbox = sandbox
        self.name = kind
        self.kind = KINDS[kind]
        self.provider = provider
        self.spec = BatchSpec(provider="p", input="in", endpoint=self.kind.endpoint, model=self.kind.model)

    @property
    def live(self) -> LiveCalls:
        assert self.provider.live is not None
        return self.provider.live

    def prepare(self, text: str, number: int = 0, **spec: Any) -> bytes:
        row = parse(json.dumps({"custom_id": f"row {number}", "input": text}).encode())
        return self.provider.rows.prepare(row, self.spec.model_copy(update=spec))

    def ids(self, rows: int, seal: str = SEAL) -> list[str]:
        return [self.provider.rows.sent_id(f"row {number}", seal, number) for number in range(rows)]

    async def creation(self, *texts: str, marker: str = MARKER, digest: str = DIGEST) -> Creation:
        rows, body = self.provider.rows, b""
        for number, sent_as in enumerate(self.ids(len(texts), sealed(marker, digest))):
            body += rows.join(rows.with_id(self.prepare(texts[number], number), sent_as), not number)
        body += rows.join(None, not texts)

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 100):  # not where the rows end
                yield body[start : start + 100]

        content = Content(name=f"durabatch~b-1~0~1~{digest}~g1.jsonl", size=len(body), chunks=chunks())
        creation = Creation(
            marker=marker,
            digest=digest,
            endpoint=self.kind.endpoint,
            completion_window="24h",
            model=self.kind.model,
        )
        if self.provider.files is None:
            return replace(creation, content=content)
        return replace(creation, file_id=await self.provider.files.upload(content))

    async def submit(self, *texts: str, **names: str) -> Snapshot:
        return await self.provider.batches.create(await self.creation(*texts, **names))

    async def ended(self, batch: Snapshot) -> Snapshot:
        while not batch.status.ended:
            batch = await self.provider.batches.retrieve(batch.id)
        return batch

    async def read(self, file: ResultFile, start: int = 0) -> bytes:
        return b"".join([chunk async for chunk in self.provider.batches.download(file, start)])

    async def lines(self, batch: Snapshot) -> list[bytes]:
        files = await self.provider.batches.result_files(batch)
        return [line for file in files for line in (await self.read(file)).splitlines()]

    async def outcomes(self, batch: Snapshot) -> dict[str, Outcome]:
        found = [self.provider.rows.outcome(line) for line in await self.lines(batch)]
        assert len({one.custom_id for one in found}) == len(found)
        return {one.custom_id: one for one in found}

    async def find(self, **fields: Any) -> str | None:
        wanted = Wanted(**{"marker": MARKER, "digest": DIGEST, "rows": 1, "since": SINCE, **fields})
        batch = await self.provider.batches.find(wanted)
        return batch.id if batch else None


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path / "state") as running:
        yield running


@asynccontextmanager
async def opened(sandbox: Sandbox, kind: str, key: str = KEY, **options: Any) -> AsyncIterator[Account]:
    settings = ProviderSettings(
        name="p", kind=kind, base_url=sandbox.url + KINDS[kind].path, api_key=SecretStr(key), **options
    )
    provider = open_provider(settings)
    try:
        yield Account(sandbox, kind, provider, settings)
    finally:
        await provider.close()


@pytest.fixture(params=sorted(kinds.KINDS))
async def account(request: pytest.FixtureRequest, sandbox: Sandbox) -> AsyncIterator[Account]:
    async with opened(sandbox, request.param) as found:
        yield found


# --- what it is ---


def test_every_kind_is_tested_here() -> None:
    assert KINDS.keys() == kinds.KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_needs_no_more_than_a_key(kind: str) -> None:
    settings = ProviderSettings(name="p", kind=kind)
    assert settings.url.startswith("https://") and settings.key_variable.endswith("_API_KEY")
    assert Prices(settings.prices, 0.5).list_cost(KINDS[kind].model, RowTokens(input_tokens=1000)) is not None


@pytest.mark.parametrize("kind", KINDS)
async def test_the_configuration_may_lower_limits_and_not_raise_them(sandbox: Sandbox, kind: str) -> None:
    async with opened(sandbox, kind, max_rows=7, max_bytes=5000) as low, opened(sandbox, kind) as own:
        assert low.provider.capabilities.max_rows == 7
        assert 4900 < low.provider.capabilities.max_bytes <= 5000
        async with opened(sandbox, kind, max_rows=10**9, max_bytes=10**12) as high:
            assert high.provider.capabilities == own.provider.capabilities


async def test_what_it_has_fits_together(account: Account) -> None:
    provider = account.provider
    assert provider.batches is provider.batch_api
    assert account.kind.endpoint in provider.capabilities.endpoints
    assert (provider.markers is not None) == (provider.capabilities.search is Search.MARKER)


# --- rows ---


async def test_a_row_is_prepared_on_one_line_and_the_same_way_each_time(account: Account) -> None:
    rows, prepared = account.provider.rows, account.prepare("Größe?\nWhy?")
    assert b"\n" not in prepared and prepared == account.prepare("Größe?\nWhy?")
    assert rows.model_of(prepared) == account.kind.model and rows.inputs_of(prepared) == 1
    assert account.kind.model.encode() in rows.with_id(prepared, account.ids(1)[0])


async def test_a_row_that_cannot_be_sent_is_refused_with_its_field(account: Account) -> None:
    with pytest.raises(RowRefused) as caught:
        account.prepare("Hi.", model=None)
    assert caught.value.custom_id == "row 0" and "model" in str(caught.value.field)
    with pytest.raises(RowRefused) as caught:
        account.prepare("Hi.", params={"stream": True})
    assert "stream" in str(caught.value.field)


async def test_ids_are_the_users_own_or_tell_rows_and_batches_apart(account: Account) -> None:
    ids = account.ids(3)
    assert len(set(ids)) == 3 and ids == account.ids(3)
    if account.provider.rows.keeps_ids:
        assert ids == ["row 0", "row 1", "row 2"]
    else:
        assert not set(ids) & set(account.ids(3, sealed("b-2/0/1", DIGEST)))


@pytest.mark.parametrize("line", [b"", b"null", b"[]", b"{}", b'{"custom_id": "a"}', b"{" * 100_000])
async def test_a_line_that_is_no_result_is_a_value_error(account: Account, line: bytes) -> None:
    with pytest.raises(ValueError):
        account.provider.rows.outcome(line)


# --- from create to results ---


async def test_a_batch_brings_one_outcome_for_each_row(account: Account) -> None:
    texts = ["Hi.", "[[sandbox:server_error]]", "Größe?\nWhy?", "[[sandbox:content_filtered]]"]
    created = await account.submit(*texts)
    assert created.created_at is not None and created.created_at > SINCE and created.known
    batch = await account.ended(created)
    assert (batch.id, batch.status, batch.queue_full) == (created.id, ProviderStatus.COMPLETED, False)
    outcomes = await account.outcomes(batch)
    ids = account.ids(4)
    assert outcomes.keys() == set(ids) and batch.completed + batch.failed == batch.total == 4
    first, failed, third, filtered = (outcomes[custom_id] for custom_id in ids)
    assert first.status is third.status is RowStatus.SUCCEEDED
    assert first.text and "Hi." in first.text and third.text and "Größe?" in third.text
    # OpenAI's answers name the snapshot of the model.
    assert first.model and first.model.startswith(account.kind.model)
    assert first.tokens and first.tokens.input_tokens > 0
    assert failed.status is filtered.status is RowStatus.FAILED
    assert failed.failure and failed.failure.type is ErrorClass.SERVER_ERROR and failed.failure.message
    assert filtered.failure and filtered.failure.type is ErrorClass.CONTENT_FILTERED
    assert set((await account.sandbox.books())["rows"].values()) == {1}


async def test_results_tell_whose_they_are(account: Account) -> None:
    batch = await account.ended(await account.submit("a", "b"))
    rows = account.provider.rows
    for line in await account.lines(batch):
        assert rows.owns(line, SEAL) is True
        # Where users' ids are kept nothing in a line says whose it is: the marker has already decided.
        assert rows.owns(line, sealed("b-2/0/1", DIGEST)) is rows.keeps_ids


async def test_a_download_that_breaks_off_goes_on_where_it_ended(account: Account) -> None:
    batch = await account.ended(await account.submit(*("text" * 500 for _ in range(100))))
    (file,) = await account.provider.batches.result_files(batch)
    whole = await account.read(file)
    await account.sandbox.fault(account.kind.download, "truncate", fraction=0.4, times=2)
    got = b""
    for _ in range(2):
        with pytest.raises(ProviderUnavailable):
            async for chunk in account.provider.batches.download(file, len(got)):
                got += chunk
    assert 0 < len(got) < len(whole)
    assert got + await account.read(file, len(got)) == whole
    assert await account.read(file, len(whole)) == b""


async def test_a_canceled_batch_keeps_what_was_finished(account: Account) -> None:
    await account.sandbox.settings(batch_seconds=3600, cancel_fraction=0.5, cancel_polls=1)
    batch = await account.provider.batches.cancel((await account.submit("a", "b", "c", "d")).id)
    assert batch.status is ProviderStatus.CANCELING
    batch = await account.ended(batch)
    assert batch.status is ProviderStatus.CANCELED
    failures = [one.failure and one.failure.type for one in (await account.outcomes(batch)).values()]
    assert Counter(failures) == {None: 2, ErrorClass.CANCELED: 2}
    assert await account.provider.batches.cancel(batch.id) == batch  # it has ended, and stays as it is


async def test_an_expired_batch_keeps_what_was_finished(account: Account) -> None:
    await account.sandbox.fault("batches.create", "batch_outcome", outcome="expired", fraction=0.5, times=1)
    batch = await account.ended(await account.submit("a", "b", "c", "d"))
    assert batch.status is ProviderStatus.EXPIRED
    failures = [one.failure and one.failure.type for one in (await account.outcomes(batch)).values()]
    assert Counter(failures) == {None: 2, ErrorClass.EXPIRED: 2}


# --- finding a batch again ---


async def test_a_batch_whose_answer_was_lost_is_found(account: Account) -> None:
    creation = await account.creation("Hi.")
    await account.sandbox.fault("batches.create", "lost_answer", times=1)
    with pytest.raises(AnswerLost):
        await account.provider.batches.create(creation)
    (entry,) = (await account.sandbox.books())["batches"]
    assert await account.find() == entry["id"]
    assert await account.find(since=datetime.now(UTC) + timedelta(hours=1)) is None


async def test_of_several_batches_the_one_with_our_seal_is_found(account: Account) -> None:
    others = [await account.submit("Hi.", marker="b-1/0/2"), await account.submit("Hi.", digest="f" * 16)]
    ours = await account.submit("Hi.")
    for batch in (*others, ours):
        await account.ended(batch)
    async with opened(account.sandbox, account.name) as another_worker:
        assert await another_worker.find() == ours.id
        assert await another_worker.find(marker="b-9/0/1") is None
    if account.provider.markers is not None:
        marked = await account.provider.markers.marked(SINCE)
        assert {(one.marker, one.digest) for one in marked} == {
            ("b-1/0/2", DIGEST),
            (MARKER, "f" * 16),
            (MARKER, DIGEST),
        }


# --- failures ---

Act = Callable[[Account, str], Awaitable[Any]]
#: What each call asks of the sandbox, and the call; it is given the id of a batch.
CALLS: dict[str, tuple[str | None, Act]] = {
    "find": ("batches.list", lambda account, _: account.find()),
    "retrieve": ("batches.retrieve", lambda account, batch: account.provider.batches.retrieve(batch)),
    "cancel": ("batches.cancel", lambda account, batch: account.provider.batches.cancel(batch)),
    "download": (None, lambda account, batch: account.read(ResultFile(reference=batch, name="output"))),
    "probe": ("models", lambda account, _: account.provider.probe()),
}

FAULTS: list[tuple[str, dict[str, Any], type[ProviderError], type[ProviderError]]] = [
    ("status", {"status": 401}, AuthenticationFailed, AuthenticationFailed),
    ("status", {"status": 402}, QuotaExhausted, QuotaExhausted),
    ("status", {"status": 403}, AuthenticationFailed, AuthenticationFailed),
    ("status", {"status": 429}, RateLimited, RateLimited),
    ("status", {"status": 429, "code": "token_limit_exceeded", "message": "Too many batches"}, QueueFull, QueueFull),
    ("status", {"status": 500}, ProviderUnavailable, AnswerLost),
    ("status", {"status": 529}, ProviderUnavailable, AnswerLost),
    ("reset", {}, ProviderUnavailable, AnswerLost),
    ("outage", {"seconds": 60}, ProviderUnavailable, AnswerLost),
    ("lost_answer", {}, ProviderUnavailable, AnswerLost),
    ("lost_answer_status", {"status": 504}, ProviderUnavailable, AnswerLost),
]


@pytest.mark.parametrize(("kind", "options", "error", "on_create"), FAULTS)
async def test_every_call_says_what_went_wrong(
    account: Account,
    kind: str,
    options: dict[str, Any],
    error: type[ProviderError],
    on_create: type[ProviderError],
) -> None:
    waits = options.get("status") in (429, 500, 529, 504)
    for name, (op, call) in CALLS.items():
        fault = await account.sandbox.fault(op or account.kind.download, kind, retry_after=7, **options)
        with pytest.raises(ProviderError) as caught:
            await call(account, "batch_x")
        assert type(caught.value) is error, name
        assert caught.value.retry_after == (timedelta(seconds=7) if waits else None), name
        assert KEY not in caught.value.message
        await account.sandbox.clear(fault["id"])
    creation = await account.creation("Hi.")
    await account.sandbox.fault("batches.create", kind, retry_after=7, **options)
    with pytest.raises(ProviderError) as caught:
        await account.provider.batches.create(creation)
    assert type(caught.value) is on_create
    assert caught.value.retry_after == (timedelta(seconds=7) if waits else None)


async def test_what_the_provider_does_not_know_is_not_found(account: Account) -> None:
    for name in ("retrieve", "cancel", "download"):
        with pytest.raises(ProviderNotFound):
            await CALLS[name][1](account, "batch_x")


async def test_a_create_that_finds_no_room_made_nothing(account: Account) -> None:
    creation = await account.creation("Hi.")
    await account.sandbox.settings(max_batches=0)
    with pytest.raises(QueueFull, match="Too many batches"):
        await account.provider.batches.create(creation)
    assert (await account.sandbox.books())["batches"] == []


async def test_a_revoked_key_is_refused_until_it_is_restored(account: Account) -> None:
    await account.sandbox.revoke(KEY)
    with pytest.raises(AuthenticationFailed) as caught:
        await account.provider.probe()
    assert KEY not in caught.value.message
    await account.sandbox.restore(KEY)
    clock = await account.provider.probe()
    assert clock is not None and abs(clock - datetime.now(UTC)) < timedelta(minutes=5)


async def test_accounts_do_not_see_each_other(account: Account) -> None:
    batch = await account.ended(await account.submit("Hi."))
    (file,) = await account.provider.batches.result_files(batch)
    async with opened(account.sandbox, account.name, key="sk-other") as other:
        assert await other.find() is None
        batches = other.provider.batches
        for call in (batches.retrieve(batch.id), batches.cancel(batch.id), other.read(file)):
            with pytest.raises(ProviderNotFound):
                await call


# --- its ordinary endpoints ---


async def called(account: Account, text: str, status: int = 200) -> Outcome:
    """Send a row by itself, and read the line that is made of the answer."""
    live = account.live
    calls = Calls(account.settings, live.headers)
    try:
        answer = await calls.post(live.url(account.kind.endpoint), {}, live.body(account.prepare(text)))
    finally:
        await calls.close()
    assert answer.status == status
    line = live.line("sent 0", answer.status, "req_1", answer.body)
    assert b"\n" not in line
    return account.provider.rows.outcome(line)


async def test_an_answer_to_a_row_is_the_line_that_a_batch_would_have_had(account: Account) -> None:
    [by_batch] = (await account.outcomes(await account.ended(await account.submit("Say hi.")))).values()
    alone = await called(account, "Say hi.")
    assert (alone.custom_id, alone.status, alone.failure) == ("sent 0", RowStatus.SUCCEEDED, None)
    assert (alone.text, alone.model, alone.tokens) == (by_batch.text, by_batch.model, by_batch.tokens)
    assert alone.response is not None and alone.response.request_id == "req_1"


async def test_a_refusal_of_a_row_has_the_class_that_it_has_in_a_batch(account: Account) -> None:
    text = "[[sandbox:invalid_request]]"
    [by_batch] = (await account.outcomes(await account.ended(await account.submit(text)))).values()
    alone = await called(account, text, 400)
    assert alone.status is RowStatus.FAILED
    assert alone.failure is not None and by_batch.failure is not None
    assert alone.failure.type is by_batch.failure.type is ErrorClass.INVALID_REQUEST


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ErrorClass.INVALID_REQUEST),
        (403, ErrorClass.AUTHENTICATION),
        (404, ErrorClass.NOT_FOUND),
        (429, ErrorClass.RATE_LIMITED),
        (500, ErrorClass.SERVER_ERROR),
        (504, ErrorClass.TIMEOUT),
    ],
)
@pytest.mark.parametrize(
    "body", [b"", b"<html>Sorry</html>", b"\xff\x00", b'{"detail": "no"}', b"[" * 50_000, b'{"a": ']
)
async def test_whatever_a_refusal_holds_its_status_tells_its_class(
    account: Account, body: bytes, status: int, kind: ErrorClass
) -> None:
    line = account.live.line("a", status, None, body)
    assert b"\n" not in line
    found = account.provider.rows.outcome(line)
    assert (found.custom_id, found.status) == ("a", RowStatus.FAILED)
    assert found.failure is not None and found.failure.type is kind


@pytest.mark.parametrize("body", [b"", b"OK", b'{"id": "x", "choi', b'"text"'])
async def test_a_success_that_cannot_be_read_is_a_failure_that_is_not_bought_again(
    account: Account, body: bytes
) -> None:
    found = account.provider.rows.outcome(account.live.line("a", 200, None, body))
    assert found.status is RowStatus.FAILED
    assert found.failure is not None and found.failure.type is ErrorClass.OTHER


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("timeout", ErrorClass.TIMEOUT),
        ("connection_error", ErrorClass.SERVER_ERROR),
        ("exceeds_rate_limit", ErrorClass.INVALID_REQUEST),
        ("never_answered", ErrorClass.OTHER),
    ],
)
async def test_a_row_that_nobody_answered_says_why(account: Account, code: str, kind: ErrorClass) -> None:
    found = account.provider.rows.outcome(account.live.failed_line("a", code, "It took too long."))
    assert (found.custom_id, found.status, found.response) == ("a", RowStatus.FAILED, None)
    assert found.failure is not None
    assert (found.failure.type, found.failure.code, found.failure.message) == (kind, code, "It took too long.")


async def test_what_a_row_may_use_and_has_used_is_read_from_it(account: Account) -> None:
    body = account.live.body(account.prepare("Say hi.", params={"max_tokens": 77}))
    assert account.live.output_cap(body) == 77
    assert account.live.output_cap(b'{"max_tokens": "x"}') is None
    usage = b'{"usage": {"prompt_tokens": 5, "completion_tokens": 2, "input_tokens": 5, "output_tokens": 2, %b}}'
    assert account.live.used_tokens(usage % (b'"total_tokens": 7' if account.name == "openai" else b'"x": 1')) == 7
    assert [account.live.used_tokens(odd) for odd in (b"", b"{}", b'{"usage": {}}', b"[" * 50_000)] == [None] * 4


async def test_a_check_call_asks_a_row_s_model_as_little_as_can_be_asked(account: Account) -> None:
    body = account.live.body(account.prepare("Tell me a long story.", params={"max_tokens": 77, "temperature": 0.1}))
    model = json.loads(body)["model"]
    asked = account.live.check("/v1/chat/completions", body)
    messages = [{"role": "user", "content": "Reply with OK."}]
    assert json.loads(asked) == {"model": model, "max_tokens": 77, "messages": messages}
    long = account.live.body(account.prepare("Tell me a long story.", params={"max_tokens": 100_000}))
    assert json.loads(account.live.check("/v1/chat/completions", long))["max_tokens"] == CHECK_TOKENS


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [
        ("/v1/responses", "input"),
        ("/v1/embeddings", "input"),
        ("/v1/completions", "prompt"),
        ("/v1/moderations", "input"),
    ],
)
def test_a_check_call_asks_what_its_endpoint_is_asked(endpoint: str, field: str) -> None:
    live = open_provider(ProviderSettings(name="p", kind="openai", base_url="https://x.example/v1")).live
    assert live is not None
    asked = json.loads(live.check(endpoint, b'{"input": "A long text.", "prompt": "A long text."}'))
    assert asked == {field: "Reply with OK."}


async def test_a_wait_that_is_asked_for_is_heard_where_it_is_meant(account: Account) -> None:
    live = account.live
    assert live.limit_news(429, {"retry-after": "7"}).retry_after == 7.0
    assert live.limit_news(503, {"retry-after-ms": "250"}).retry_after == 0.25
    assert live.limit_news(200, {"retry-after": "7"}).retry_after is None
    assert live.limit_news(200, {}) == LimitNews()


async def test_a_query_of_the_base_url_goes_with_every_row(sandbox: Sandbox) -> None:
    for kind, path in (
        ("openai", "/openai/deployments/gpt/chat/completions"),
        ("anthropic", "/openai/deployments/gpt/v1/messages"),
    ):
        settings = ProviderSettings(
            name="p",
            kind=kind,
            base_url="https://x.openai.azure.com/openai/deployments/gpt?api-version=2026-01-01",
            api_key=SecretStr(KEY),
        )
        provider = open_provider(settings)
        assert provider.live is not None
        url = provider.live.url("/v1/chat/completions")
        assert url == f"https://x.openai.azure.com{path}?api-version=2026-01-01"
        await provider.close()
