"""Rows that did not succeed are run once more, as a new batch; what is finished is never bought again."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path

import pytest

from durabatch.activities.records import PlanRecord
from durabatch.clients.most_cost import MostCost
from durabatch.contract import BatchConflict, BatchNotFinished, InvalidSpec, NotRetryable, RowStatus

from .conftest import Desk, unique

#: One try a row, so that what fails is left over.
ONCE = {"max_attempts": 1}
ROWS = {
    "fine": "Say one.",
    "twice": "[[sandbox:server_error times=2]] two",
    "never": "[[sandbox:invalid_request]] three",
    "once": "[[sandbox:server_error times=1]] four",
    "last": "Say five.",
}


async def statuses(desk: Desk, id: str, *, retries: bool = False) -> list[tuple[str, str]]:
    return [(row.custom_id, row.status.value) async for row in desk.client.retrieve(id, retries=retries)]


async def test_each_retry_takes_what_the_one_before_it_left_over(desk: Desk) -> None:
    id = await desk.start(ROWS, id=unique("left"), retry=ONCE, metadata={"team": "search"})
    await desk.client.result(id)
    first = await desk.client.retry(id)
    assert (first.id, first.retry_of, first.rows, first.created) == (f"{id}.retry-1", id, 3, True)
    result = await desk.client.result(first.id)
    assert result.metadata == {"team": "search"}
    assert await statuses(desk, first.id) == [("twice", "failed"), ("never", "failed"), ("once", "succeeded")]
    # By the retry's own id it is the next retry of the same batch.
    second = await desk.client.retry(first.id, retry={"max_attempts": 1})
    assert (second.id, second.rows) == (f"{id}.retry-2", 2)
    await desk.client.result(second.id)
    assert await statuses(desk, id, retries=True) == [
        ("fine", "succeeded"),
        ("twice", "succeeded"),
        ("never", "failed"),
        ("once", "succeeded"),
        ("last", "succeeded"),
    ]
    assert len(await statuses(desk, id)) == 5
    assert await desk.bought() == 3


@pytest.mark.slow
async def test_two_at_once_and_one_that_joins_are_one_batch(desk: Desk) -> None:
    id = await desk.start(ROWS, id=unique("both"), retry=ONCE)
    await desk.client.result(id)
    await desk.sandbox.settings(batch_seconds=3600)
    started = await asyncio.gather(*(desk.client.retry(id) for _ in range(3)))
    assert {one.id for one in started} == {f"{id}.retry-1"}
    with pytest.raises(BatchConflict, match="different: model"):
        await desk.client.retry(id, model="gpt-4o")
    await desk.sandbox.settings(batch_seconds=0)
    await desk.client.result(started[0].id)
    assert await desk.bought() == 2


@pytest.mark.slow
async def test_a_batch_that_temporal_has_forgotten_is_retried_as_it_was_asked_for(desk: Desk) -> None:
    id = await desk.start(ROWS, id=unique("old"), retry=ONCE, params={"temperature": 0.5})
    await desk.client.result(id)
    await desk.forget(id)
    started = await desk.client.retry(id)
    await desk.client.result(started.id)
    plan = json.loads(await desk.client.store.read(f"{started.id}/plan.json"))
    assert plan["spec"]["params"] == {"temperature": 0.5}
    assert plan["spec"]["retry"]["max_attempts"] == 1
    assert (await desk.client.retry(id)).id == f"{id}.retry-2"


@pytest.mark.slow
async def test_a_retry_whose_batch_is_gone_is_retried_unless_there_is_a_later_one(desk: Desk) -> None:
    id = await desk.start(ROWS, id=unique("gone"), retry=ONCE)
    await desk.client.result(id)
    retries = []
    for _ in range(2):
        retries.append((await desk.client.retry(id)).id)
        await desk.client.result(retries[-1])
    await desk.forget(id)
    for entry in await desk.client.store.entries(id):
        await desk.client.store.delete(entry.path)
    with pytest.raises(NotRetryable, match=f"retry '{retries[1]}', which has what is left over"):
        await desk.client.retry(retries[0])
    assert (await desk.client.retry(retries[1])).rows == 1


async def test_what_cannot_be_retried_is_refused_with_its_reason(desk: Desk, tmp_path: Path) -> None:
    done = await desk.start(id=unique("done"))
    await desk.client.result(done)
    with pytest.raises(NotRetryable, match="every row has succeeded"):
        await desk.client.retry(done)
    with pytest.raises(InvalidSpec, match="no output of its own"):
        await desk.client.retry(done, output=f"{desk.client.store.url}/elsewhere")
    gateways = await desk.start({"a": "[[sandbox:invalid_request]]"}, id=f"search.batch_{secrets.token_hex(12)}")
    await desk.client.result(gateways)
    with pytest.raises(NotRetryable, match="came through the gateway: retry it there"):
        await desk.client.retry(gateways)
    refused = await desk.start([{"custom_id": "a", "input": "x"}, {"custom_id": "b", "input": 7}], id=unique("bad"))
    await desk.client.failure(refused)
    with pytest.raises(NotRetryable, match="ended before its rows were run"):
        await desk.client.retry(refused)
    alone = await desk.start(
        [{"custom_id": "a", "input": "x"}, {"custom_id": "b", "input": 7}], id=unique("bad"), on_invalid_row="fail_row"
    )
    await desk.client.result(alone)
    with pytest.raises(NotRetryable, match="the 1 row that did not succeed cannot be sent"):
        await desk.client.retry(alone)
    await desk.sandbox.settings(batch_seconds=3600)
    running = await desk.start({"a": "Say six."}, id=unique("runs"))
    with pytest.raises(BatchNotFinished):
        await desk.client.retry(running)
    await desk.client.cancel(running)
    assert (await desk.client.result(running)).counts.canceled == 1
    await desk.sandbox.settings(batch_seconds=0)
    assert (await desk.client.retry(running)).rows == 1


@pytest.mark.slow
async def test_rows_of_an_input_that_has_changed_or_is_gone_are_not_sent(desk: Desk) -> None:
    store, path = desk.client.store, f"mine/{unique('rows')}.jsonl"
    await store.write(path, b'{"custom_id": "a", "input": "[[sandbox:invalid_request]] one"}\n')
    id = await desk.start(store.uri(path), id=unique("changed"))
    await desk.client.result(id)
    await store.write(path, b'{"custom_id": "a", "input": "[[sandbox:invalid_request]] other"}\n')
    with pytest.raises(NotRetryable, match="has changed since it was run"):
        await desk.client.retry(id)
    await store.delete(path)
    with pytest.raises(NotRetryable, match="is gone"):
        await desk.client.retry(id)
    brought = await desk.start({"a": "[[sandbox:invalid_request]] x"}, id=unique("cleared"))
    await desk.client.result(brought)
    for entry in await store.entries(f"{brought}/shards"):
        await store.delete(entry.path)
    with pytest.raises(NotRetryable, match="was removed"):
        await desk.client.retry(brought)


@pytest.mark.slow
async def test_rows_of_several_shards_come_in_their_order(desk: Desk) -> None:
    rows = {f"r{n}": f"{'[[sandbox:server_error times=1]] ' if n % 3 else ''}{n}" for n in range(10)}
    rows |= {f"s{n}": f"Say {n}." for n in range(4)}
    id = await desk.start(rows, id=unique("shards"), retry=ONCE, limits={"max_rows": 4})
    await desk.client.result(id)
    started = await desk.client.retry(id)
    await desk.client.result(started.id)
    assert await statuses(desk, started.id) == [(f"r{n}", "succeeded") for n in range(10) if n % 3]
    assert [status for _, status in await statuses(desk, id, retries=True)] == [RowStatus.SUCCEEDED.value] * 14


def test_what_rows_cost_at_most_is_known_where_their_output_has_a_limit() -> None:
    facts = dict.fromkeys(("spec_digest", "planned_at", "asked", "input", "execution", "store"), "")
    plan = PlanRecord(
        scoped_id="a",
        rows=1,
        invalid_rows=0,
        shards=1,
        tokens={},
        problems=[],
        batch_share="1/2",
        kind="openai",
        **facts,
    )
    line = b'{"custom_id":"a","body":{"messages":[{"role":"user","content":"Say one."}],"max_tokens":1000}}\n'
    by_batch, without = (MostCost(plan, {"model": "gpt-4o-mini"}) for _ in range(2))
    directly = MostCost(plan, {"model": "gpt-4o-mini", "mode": "direct"})
    by_batch.add(line)
    directly.add(line)
    without.add(line.replace(b"max_tokens", b"other"))
    assert by_batch.usd and directly.usd and 2 * float(by_batch.usd) == pytest.approx(float(directly.usd))
    assert 0.0006 < float(directly.usd) < 0.00061  # a million output tokens cost 0.60
    assert without.usd is None
