"""The rows of an attempt: how many they are, what tells them from others, and where they lie."""

from __future__ import annotations

import asyncio
from typing import Any

from durabatch.activities.attempt_rows import AttemptRows
from durabatch.activities.estimate import estimate_tokens
from durabatch.contract import OnInvalidRow


async def read(desk: Any, number: int) -> AttemptRows:
    return await AttemptRows.read(desk.store, desk.attempt.model_copy(update={"number": number}))


async def test_the_first_attempt_takes_every_row_that_can_be_sent(desk: Any) -> None:
    await desk.plan(desk.chat("a"), b"{", desk.chat("c"), on_invalid_row=OnInvalidRow.FAIL_ROW)
    rows = await read(desk, 1)
    assert (rows.count, rows.picked, rows.digest, rows.verbatim) == (2, None, desk.record()["digest"], False)
    sent = await asyncio.to_thread(lambda: list(rows.read_sent(desk.store)))
    assert [(number, row.custom_id) for number, row in sent] == [(0, "a"), (2, "c")]
    assert rows.estimate_tokens(desk.store) == desk.record()["tokens"]


async def test_a_later_attempt_takes_the_rows_that_are_written_down_for_it(desk: Any) -> None:
    lines = [desk.chat(name, "x" * 500) for name in "abcd"]
    await desk.plan(*lines)
    desk.path("attempt-2").mkdir()
    desk.path("attempt-2/rows.json").write_text("[1,3]")
    first, second = await read(desk, 1), await read(desk, 2)
    assert (first.verbatim, second.verbatim) == (True, False)
    assert (first.count, second.count) == (4, 2)
    sent = await asyncio.to_thread(lambda: list(second.read_sent(desk.store)))
    assert [(number, row.custom_id) for number, row in sent] == [(1, "b"), (3, "d")]
    length = len(desk.jsonl(lines[1])) - 1
    assert abs(second.estimate_tokens(desk.store) - 2 * estimate_tokens(length)) <= 2


async def test_digest_and_seal_tell_an_attempt_and_its_rows_from_all_others(desk: Any) -> None:
    await desk.plan(desk.chat("a"), desk.chat("b"))
    record, attempt = (await read(desk, 1)).shard, desk.attempt
    second, third = (attempt.model_copy(update={"number": number}) for number in (2, 3))
    found = [
        AttemptRows(attempt=attempt, shard=record),
        AttemptRows(attempt=second, shard=record, picked=[0]),
        AttemptRows(attempt=second, shard=record, picked=[1]),
        AttemptRows(attempt=third, shard=record, picked=[1]),
    ]
    assert len({rows.digest for rows in found}) == 3
    assert len({rows.seal for rows in found}) == 4
    # Batches under way are known by it, so no later version may compute another one.
    fixed = AttemptRows(attempt=second, shard=type(record)(**{**_facts(record), "digest": "0" * 16}), picked=[0, 2])
    assert fixed.digest == "a27a766fa49db329"


def _facts(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}
