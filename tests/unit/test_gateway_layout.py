"""Ids and paths of the gateway: made, taken apart, and in the order in which lists show them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from durabatch.contract.gateway_batch import GatewayBatch, inner_id, outer_id, workflow_id
from durabatch.contract.gateway_layout import (
    GATEWAY,
    Listed,
    due_path,
    find_batch,
    index_path,
    is_id,
    is_tenant,
    made_at_ms,
    make_id,
    parse_due_path,
    parse_index_path,
    parse_spent_path,
    spent_day,
    spent_path,
)
from durabatch.gateway.order import fingerprint

NOW = datetime(2026, 11, 26, 4, 5, 6, 789_000, tzinfo=UTC)


@pytest.mark.parametrize("listed", Listed)
def test_an_id_tells_when_it_was_made_and_fits_into_64_characters(listed: Listed) -> None:
    id = make_id(listed, NOW, "0123456789abcdef")
    assert is_id(listed, id)
    assert len(id) <= 33
    assert made_at_ms(id) == int(NOW.timestamp() * 1000)
    assert parse_index_path(index_path("search", id)) == id
    other = Listed.FILES if listed is Listed.BATCHES else Listed.BATCHES
    assert not is_id(other, id)


def test_the_newest_comes_first_in_the_order_of_names() -> None:
    moments = [NOW + timedelta(milliseconds=3**power) for power in range(26)]
    paths = [index_path("search", make_id(Listed.BATCHES, at, "0" * 13)) for at in moments]
    assert sorted(paths, reverse=True) == paths
    assert len({path.rpartition("/")[0] for path in paths}) > 10  # in many folders


@pytest.mark.parametrize(
    "text",
    [
        *("", "file-", "batch_0", "file-" + "g" * 24, "file-" + "0" * 23, "file-" + "0" * 25, "FILE-" + "0" * 24),
        *("file-" + "0" * 24 + "\n", "../file-" + "0" * 24, "file_" + "0" * 24, "file-" + "٠" * 24),
    ],
)
def test_nothing_else_is_an_id(text: str) -> None:
    assert not any(is_id(listed, text) for listed in Listed)
    with pytest.raises(ValueError, match="not an id"):
        made_at_ms(text)


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        *(("a", True), ("search-2_x", True), ("a" * 40, True), ("a" * 41, False), ("", False), ("A", False)),
        *(("~due", False), ("a/b", False), ("..", False), ("-a", False), ("a\n", False), ("ä", False)),
    ],
)
def test_a_tenant_is_a_plain_name(name: str, valid: bool) -> None:
    assert is_tenant(name) is valid


def test_what_is_due_is_taken_apart_again() -> None:
    id = make_id(Listed.FILES, NOW, "0" * 13)
    path = due_path(date(2026, 12, 24), "search", id)
    assert parse_due_path(path) == (date(2026, 12, 24), "search", id)
    for wrong in (index_path("search", id), path.replace("search", "~due"), path[:-1], f"{GATEWAY}/~due/x/search/{id}"):
        assert parse_due_path(wrong) is None


def test_a_batch_is_known_by_its_entry_and_by_the_batch_that_runs_its_rows() -> None:
    batch_id = make_id(Listed.BATCHES, datetime(2026, 1, 1, tzinfo=UTC), "0" * 13)
    file_id = make_id(Listed.FILES, datetime(2026, 1, 1, tzinfo=UTC), "0" * 13)
    assert find_batch(index_path("search", batch_id)) == ("search", batch_id)
    assert find_batch(index_path("search", file_id)) is None
    assert find_batch(f"~gateway/search/retries/{batch_id}/00001") is None
    assert outer_id(inner_id("search", batch_id)) == workflow_id("search", batch_id)
    for other in ("nightly", f"search.{file_id}", f"Search.{batch_id}", batch_id, f"a.search.{batch_id}"):
        assert outer_id(other) is None
    day = date(2026, 12, 24)
    assert parse_due_path(due_path(day, "search", batch_id)) == (day, "search", batch_id)


def test_the_newest_entry_of_a_days_cost_comes_first() -> None:
    day = date(2026, 12, 24)
    paths = [spent_path("search", day, number) for number in (1, 2, 10, 12_345)]
    assert sorted(paths, reverse=True) == paths
    assert [parse_spent_path(path) for path in paths] == [1, 2, 10, 12_345]
    assert spent_day(paths[0]) == day
    assert spent_day("~gateway/search/idem/x") is parse_spent_path("~gateway/search/idem/x") is None


def test_an_idempotency_key_of_an_older_version_names_its_batch_still() -> None:
    # What is written in the store beside a key. With another digest the same create would be refused.
    asked = GatewayBatch(
        tenant="search",
        id="batch_1",
        input_file_id="file-1",
        endpoint="/v1/embeddings",
        metadata={"a": "b"},
        output_expires_seconds=3600,
        provider="openai",
        created_at=7,
    )
    assert fingerprint(asked) == "89aecf7121b2790833f84d8524f683bb880c69fe77382557de40318c7d252f18"
    assert (
        fingerprint(asked.model_copy(update={"retry_of": "batch_0"}))
        == "4d2fdacb720d9c87daebb0e273dce577181ce379732fb5c9ea51e08a0ca3ead2"
    )
    # Another key of the tenant's, with other rights, and the same create a moment later.
    later = asked.model_copy(update={"id": "batch_2", "created_at": 8, "models": ("gpt-*",), "idempotency": "x"})
    assert fingerprint(later) == fingerprint(asked)
