"""`durabatch providers`: what is configured, with or without a Temporal that knows the ledgers."""

from __future__ import annotations

from pathlib import Path

from support.workspace import Workspace


def test_providers_are_shown_with_their_ledgers(served: Workspace) -> None:
    there = served.call("providers", "--json").facts
    assert there["note"] is None
    assert {one["name"]: one["key"] for one in there["providers"]}["stub"] == "set"
    assert "stub" in served.call("providers").out
    one = served.call("providers", "stub")
    assert one.out.startswith("Provider  stub (openai, http://127.0.0.1:")


def test_providers_are_shown_without_a_temporal_too(tmp_path: Path) -> None:
    here = Workspace(tmp_path)
    ended = here.call("providers")
    assert (ended.code, "https://api.openai.com/v1" in ended.out) == (0, True)
    assert "The ledgers are not known. No Temporal is configured" in ended.err
    missing = here.call("providers", "openai", "--json").facts
    assert [(one["name"], one["key"], one["ledgers"]) for one in missing["providers"]] == [("openai", "missing", [])]
    assert here.call("providers", "opena").err.startswith("error: There is no provider 'opena'")
    away = here.call("providers", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert (away.code, "cannot be reached" in away.err) == (0, True)
    assert not (tmp_path / ".durabatch").exists()
