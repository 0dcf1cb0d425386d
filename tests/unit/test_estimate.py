"""The estimate of tokens: what its documentation says of it holds."""

from __future__ import annotations

import base64
import json

import pytest

from durabatch.activities.estimate import ENVELOPE_BYTES, estimate_tokens


def body(text: str, *, escaped: bool = True) -> int:
    """Bytes of a usual row with this text."""
    messages = [{"role": "user", "content": text}]
    row = {"custom_id": "r-1", "url": "/v1/chat/completions", "body": {"model": "gpt-4o-mini", "messages": messages}}
    return len(json.dumps(row, ensure_ascii=escaped).encode())


@pytest.mark.parametrize(
    ("text", "escaped", "characters_a_token", "low", "high"),
    [
        ("The plan looks at every row before anything costs. " * 200, True, (4, 4), 1.0, 1.2),
        ("for row in rows:\n    total += price(row.tokens, row.model)\n" * 200, True, (2.5, 3.5), 0.7, 1.1),
        ("批处理在任何费用产生之前检查每一行" * 200, False, (0.75, 1.5), 0.64, 1.3),
        ("批处理在任何费用产生之前检查每一行" * 200, True, (0.75, 1.5), 1.28, 2.6),
        (base64.b64encode(bytes(range(256)) * 40).decode(), True, (1.3, 2.5), 0.36, 0.75),
    ],
    ids=["prose", "code", "Chinese", "Chinese escaped", "base64"],
)
def test_the_estimate_is_as_far_off_as_it_says(
    text: str, escaped: bool, characters_a_token: tuple[float, float], low: float, high: float
) -> None:
    estimate = estimate_tokens(body(text, escaped=escaped))
    most, least = (len(text) / characters for characters in characters_a_token)
    assert low <= estimate / most and estimate / least <= high


def test_text_never_has_more_than_three_and_a_half_times_the_tokens() -> None:
    for size in (1, 10, 1000, 10**6):
        assert 3.5 * estimate_tokens(body("x" * size)) >= size


def test_a_row_has_one_token_at_least() -> None:
    assert [estimate_tokens(size) for size in (0, ENVELOPE_BYTES, ENVELOPE_BYTES + 7)] == [1, 1, 2]
