"""Which mode a batch is run in, and the limits of its shards in each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from durabatch.activities.modes import check_endpoint, check_on_expired, choose_mode
from durabatch.activities.plan_inputs import plan_inputs, request_digest
from durabatch.activities.providers import Provider, ProviderSettings, open_provider
from durabatch.activities.rows import RowRefused
from durabatch.activities.shard_limits import DIRECT_ROWS, MOST_DIRECT_ROWS, shard_limits
from durabatch.contract import BatchSpec, InvalidSpec, Mode

SETTINGS = ProviderSettings(name="gpt", kind="openai", base_url="http://127.0.0.1:1/v1")


def provider(**changed: Any) -> Provider:
    return replace(open_provider(SETTINGS), **changed)


def spec(**fields: Any) -> BatchSpec:
    return BatchSpec(provider="gpt", input="file:///in.jsonl", **fields)


@pytest.mark.parametrize(
    ("named", "configured", "mode"),
    [
        (None, None, Mode.BATCH),
        (None, Mode.DIRECT, Mode.DIRECT),
        (Mode.BATCH, Mode.DIRECT, Mode.BATCH),
        (Mode.DIRECT, Mode.BATCH, Mode.DIRECT),
    ],
)
async def test_the_spec_decides_before_the_configuration(
    named: Mode | None, configured: Mode | None, mode: Mode
) -> None:
    settings = SETTINGS.model_copy(update={"mode": configured})
    assert choose_mode(spec(mode=named), provider(), settings) is mode


async def test_a_provider_without_batches_is_called_directly() -> None:
    assert choose_mode(spec(), provider(batch_api=None), SETTINGS) is Mode.DIRECT


async def test_a_mode_that_a_provider_does_not_have_is_refused_in_a_sentence() -> None:
    with pytest.raises(
        InvalidSpec, match=r"^Provider gpt has no direct mode: its kind openai .*; its rows cannot be tried"
    ):
        choose_mode(spec(mode="direct"), provider(live=None), SETTINGS)
    with pytest.raises(InvalidSpec, match=r"^Provider gpt has no batch API"):
        choose_mode(spec(mode="batch"), provider(batch_api=None), SETTINGS)


async def test_on_expired_is_refused_where_the_endpoint_cannot_be_called_directly() -> None:
    directly = spec(retry={"on_expired": "direct"})
    check_on_expired(directly, provider(), Mode.BATCH)
    check_on_expired(spec(), provider(live=None), Mode.BATCH)
    for wanted, live in ((directly, None), (directly.model_copy(update={"endpoint": "/v1/audio"}), provider().live)):
        with pytest.raises(InvalidSpec, match=r"has no direct mode for /v1/.*: leave retry.on_expired out"):
            check_on_expired(wanted, provider(live=live), Mode.BATCH)


async def test_an_endpoint_is_checked_in_the_mode_that_the_batch_is_run_in() -> None:
    for mode, verb in ((Mode.BATCH, "batch"), (Mode.DIRECT, "call")):
        check_endpoint(spec(endpoint="/v1/embeddings"), provider(), mode)
        with pytest.raises(InvalidSpec, match=f"^Provider gpt cannot {verb} /v1/audio: choose one of /v1/chat"):
            check_endpoint(spec(endpoint="/v1/audio"), provider(), mode)


async def test_a_shard_of_direct_mode_is_smaller_and_the_spec_may_raise_it_little() -> None:
    def rows(mode: Mode, most: int | None) -> int:
        return shard_limits(mode, spec(limits={"max_rows": most}), provider(), SETTINGS).max_rows

    assert (rows(Mode.BATCH, None), rows(Mode.DIRECT, None)) == (50_000, DIRECT_ROWS)
    assert [rows(Mode.DIRECT, most) for most in (100, 1_500, 50_000)] == [100, 1_500, MOST_DIRECT_ROWS]


async def test_in_direct_mode_models_may_be_mixed() -> None:
    found = {mode: shard_limits(mode, spec(), provider(), SETTINGS).one_model for mode in Mode}
    assert found == {Mode.BATCH: True, Mode.DIRECT: False}


async def test_a_plan_of_one_mode_is_not_taken_for_one_of_the_other() -> None:
    asked = {request_digest(spec(mode=mode), "openai") for mode in (None, "batch", "direct")}
    assert len(asked) == 3
    digests = {plan_inputs("asked", (), shard_limits(mode, spec(), provider(), SETTINGS)).digest for mode in Mode}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("text", "most", "counts", "refused"),
    [
        ("word " * 20, 100, "reserved", False),
        ("word " * 20, 1000, "reserved", True),
        ("word " * 20, 1000, "used", False),
        ("word " * 2000, 1, "used", True),
        ("data:image/png;base64," + "A" * 10_000, 1, "used", False),
    ],
)
async def test_a_row_that_alone_exceeds_the_tokens_a_minute_is_refused_by_name(
    text: str, most: int, counts: str, refused: bool
) -> None:
    settings = SETTINGS.model_copy(update={"tokens_per_minute": 900, "counts": counts})
    limits = shard_limits(Mode.DIRECT, spec(), provider(), settings)
    row = b'{"custom_id":"a","body":{"max_tokens":%d,"messages":"%s"}}' % (most, text.encode())
    if not refused:
        limits.check_rate(provider(), row, "a")
        return
    with pytest.raises(RowRefused, match="more than the 900 a minute that provider gpt is configured for") as caught:
        limits.check_rate(provider(), row, "a")
    assert caught.value.custom_id == "a"
