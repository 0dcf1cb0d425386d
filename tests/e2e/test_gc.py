"""`durabatch gc`: what it shows, what it removes, and whom it could not ask."""

from __future__ import annotations

import re

from support.workspace import COMMON, Workspace, statuses


def test_gc_shows_first_and_removes_when_it_is_asked_to(served: Workspace) -> None:
    id = "to-be-cleared"
    assert served.call("run", served.rows("x", name="cleared.jsonl"), *COMMON, "--id", id).code == 0
    folder = served.folder / "store" / id
    before = sorted(folder.rglob("*"))
    young = served.call("gc")
    assert (young.code, young.out.count("their batch has ended lately")) == (0, 1), young.err
    assert "There is nothing to remove." in young.out
    shown = served.call("gc", "--older-than", "0s", "--json").facts
    assert (shown["deleted"], shown["removed"], shown["failures"]) == (False, None, {})
    (group,) = [group for group in shown["removable"] if id in group["batches"]]
    assert group["place"] == "store" and group["count"] > 5 and group["bytes"] > 0
    assert "Would be removed (with --delete):" in served.call("gc", "--older-than", "0s").out
    assert sorted(folder.rglob("*")) == before
    ended = served.run("gc", "--older-than", "0s", "--delete", "--provider", "stub")
    assert (ended.code, "Removed " in ended.out) == (0, True), ended.err
    assert ended.out.startswith("Removed:\n") and "To be removed" not in ended.out
    # Of the shard only the note stays that something was bought: it keeps the batch from being bought again.
    left = ["errors.jsonl", "intent", "plan.json", "result.json", "results.jsonl"]
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == left
    assert statuses(served.call("results", id).out) == [("r0", "succeeded")]
    # The same batch again is still there.
    assert "has ended already" in served.call("run", "cleared.jsonl", *COMMON, "--id", id).err
    again = served.call("gc", "--older-than", "0s", "--delete", "--results")
    assert (again.code, folder.exists()) == (0, False)


def test_gc_names_the_providers_that_it_does_not_ask_for_want_of_a_key(served: Workspace) -> None:
    ended = served.call("gc")
    reason = "The provider 'anthropic' has no key: the environment variable ANTHROPIC_API_KEY is not set or empty."
    assert (ended.code, f"Not asked: {reason}\n" in ended.out) == (0, True), ended.err
    assert "'stub'" not in ended.out
    shown = served.call("gc", "--json").facts
    assert (sorted(shown["not_asked"]), shown["failures"]) == (["anthropic", "openai"], {})
    assert shown["not_asked"]["anthropic"] == reason
    # Who names one provider knows that no other is asked; and one that has no key is an error then.
    assert served.call("gc", "--json", "--provider", "stub").facts["not_asked"] == {}
    keyless = served.call("gc", "--provider", "anthropic")
    assert (keyless.code, keyless.out, f"error: {reason}\n" in keyless.err) == (1, "", True)


def test_gc_finds_nothing_at_a_server_without_batches_whose_rows_are_sent_one_by_one(served: Workspace) -> None:
    given = (served.folder / "durabatch.toml").read_text()
    found = re.search(r'base_url = "(http[^"]*)/v1"', given)
    assert found is not None
    plain = f'{given}[providers.plain]\nkind = "openai"\nbase_url = "{found[1]}/without-batches/v1"\n'
    (served.folder / "plain.toml").write_text(plain)
    ended = served.call("--config", "plain.toml", "gc")
    assert (ended.code, "error: Provider plain answered 404" in ended.err) == (1, True)
    (served.folder / "plain.toml").write_text(f'{plain}mode = "direct"\n')
    ended = served.call("--config", "plain.toml", "gc")
    assert (ended.code, "plain" in ended.err) == (0, False), ended.err


def test_gc_says_which_provider_could_not_be_asked(served: Workspace) -> None:
    away = (served.folder / "durabatch.toml").read_text()
    (served.folder / "away.toml").write_text(
        f'{away}[providers.dead]\nkind = "openai"\nbase_url = "http://127.0.0.1:1"\n'
    )
    ended = served.call("--config", "away.toml", "gc")
    assert ended.code == 1
    assert "error: Provider dead cannot be reached" in ended.err
    assert "error: There is no provider 'x'" in served.call("gc", "--provider", "x").err
