"""Plans of direct mode: smaller shards of one model each, the list price, and a mode that what was bought keeps."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from durabatch.activities.budget import Budget
from durabatch.activities.shard_limits import DIRECT_ROWS
from durabatch.contract import Mode
from durabatch.contract.layout import note_path

from .conftest import Desk, chat

DIRECT: dict[str, Any] = {"mode": "direct"}


async def test_a_shard_ends_after_its_rows_and_where_the_rows_go_on_with_another_model(desk: Desk) -> None:
    names = ["m"] * (DIRECT_ROWS + 1) + ["n", "n", "m"]
    summary = await desk.plan(*(chat(f"r{at}", model=name) for at, name in enumerate(names)), **DIRECT)
    assert (summary.provider.mode, summary.rows, summary.invalid_rows) == (Mode.DIRECT, len(names), 0)
    records = [json.loads((desk.folder / f"b-1/shards/{shard:05d}/shard.json").read_bytes()) for shard in range(4)]
    assert summary.shards == 4
    assert [(record["rows"], record["model"]) for record in records] == [
        (DIRECT_ROWS, "m"),
        (1, "m"),
        (2, "n"),
        (1, "m"),
    ]


async def test_a_plan_that_may_have_bought_something_keeps_its_mode_whatever_is_configured(desk: Desk) -> None:
    rows = [chat(f"r{at}") for at in range(3)]
    first = await desk.plan(*rows)
    assert first.provider.mode is Mode.BATCH
    await desk.reopen(mode="direct")
    assert (await desk.plan()).provider.mode is Mode.DIRECT  # nothing was bought
    await desk.reopen()
    await desk.plan()
    note = f"{desk.now.isoformat()} {first.provider.account} {hashlib.sha256(b'').hexdigest()[:16]}"
    await desk.store.write(note_path("b-1", 0, 1, 1), note.encode())
    await desk.reopen(mode="direct")
    kept = await desk.plan()
    assert (kept.bought, kept.provider.mode) == (True, Mode.BATCH)


async def test_max_cost_usd_is_kept_at_the_price_of_the_mode(desk: Desk) -> None:
    rows = [chat(f"r{at}", "word " * 700) for at in range(100)]  # 100,000 tokens at 0.15 USD a million: 0.015 USD
    batch = await desk.plan(*rows, max_cost_usd="0.01")
    assert not batch.direct_affordable
    with pytest.raises(ApplicationError, match=r"The input alone is estimated at 0\.01"):
        await desk.plan(max_cost_usd="0.01", **DIRECT)
    assert (await desk.plan(max_cost_usd="0.1", mode="batch")).direct_affordable


@pytest.mark.parametrize(
    ("tokens", "paid", "refused"), [(500_000, 0, False), (1_000_000, 0, True), (500_000, 10**11, True)]
)
async def test_a_shard_may_spend_its_part_of_max_cost_usd(desk: Desk, tokens: int, paid: int, refused: bool) -> None:
    prices = desk.resources.prices("gpt")
    # Half of a batch whose input costs 0.3 USD: 0.1 USD of 0.2 USD are its own. 500,000 tokens cost 0.075 USD.
    budget = Budget(limit="0.2", prices=prices, batch={"gpt-4o-mini": 2_000_000}, shard={"gpt-4o-mini": 1_000_000})
    why = budget.refuses(7, tokens, paid)
    assert bool(why) is refused
    if why:
        assert why.startswith("7 rows were left over and not finished directly")
