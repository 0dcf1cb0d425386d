"""`durabatch run` and `submit`: from a file of requests to results, on an embedded Temporal and on a configured one."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest

from durabatch.workers.embedded import temporal_server
from support.workspace import COMMON, KEY, Workspace, finish, first_object, running_in, statuses


def test_a_run_without_anything_gives_its_result_and_a_second_one_buys_nothing(tmp_path: Path) -> None:
    here = Workspace(tmp_path)
    rows = here.rows("Say hi.")
    # No configuration, no Temporal, no provider: the stand-in answers.
    first = here.run("run", rows, "--provider", "sandbox", "--model", "gpt-4o-mini", "--json", "-o", "copy.jsonl")
    assert first.code == 0, first.err
    assert "Web UI is at http://127.0.0.1:" in first.err
    assert "costs nothing" in first.err
    assert first.facts["status"] == "completed"
    assert statuses((tmp_path / "copy.jsonl").read_text()) == [("r0", "succeeded")]
    again = here.run("run", rows, "--provider", "sandbox", "--model", "gpt-4o-mini", "--json")
    assert again.code == 0
    assert "has ended already; nothing is submitted again" in again.err
    assert {**again.facts, "output": first.facts["output"]} == first.facts
    assert not temporal_server(tmp_path / ".durabatch").alive()
    # Batches that are there can be looked at, though nothing runs here any more.
    shown = here.call("results", first.facts["batch_id"], "--format", "text")
    assert shown.out.startswith("r0\tYou said: Say hi.")


@pytest.mark.slow
def test_a_local_model_needs_three_lines_and_no_key(workspace: Workspace) -> None:
    config = workspace.folder / "durabatch.toml"
    url = workspace.admin.url
    config.write_text(f'[providers.local]\nkind = "openai"\nmode = "direct"\nbase_url = "{url}/v1"\n')
    rows = workspace.rows("Say hi.", "And bye.")
    options = ("--provider", "local", "--model", "llama3.2")
    ended = workspace.run("run", rows, *options, "--output", "results.jsonl", KEY="")
    assert ended.code == 0, ended.err
    assert "unknown: 2 rows of a model without a known price (llama3.2)" in ended.out
    assert "no worker answers" not in ended.err  # it brings its own
    assert statuses((workspace.folder / "results.jsonl").read_text()) == [("r0", "succeeded"), ("r1", "succeeded")]
    assert workspace.bought() == []
    again = workspace.run("run", rows, *options, "--json")
    assert again.facts["direct"] == {"rows": 2, "cost_usd": None}
    assert asyncio.run(workspace.admin.live())["calls"] == 2
    refused = workspace.run("run", rows, *options, "--mode", "dirct")
    assert (refused.code, refused.out) == (1, "")
    assert "mode" in refused.err
    config.write_text(f"{config.read_text()}tokens_per_minute = 1\n")
    refused = workspace.run("run", workspace.rows("Too much.", name="large.jsonl"), *options)
    assert (refused.code, refused.out) == (1, "")
    assert "hint: raise tokens_per_minute of the provider" in refused.err


def test_a_killed_run_goes_on_where_it_was_when_it_is_given_again(workspace: Workspace) -> None:
    workspace.provider(batch_seconds=3600)
    rows = workspace.rows("one", "two", "three")
    killed = workspace.start("run", rows, *COMMON)
    workspace.until_bought(0)
    killed.kill()
    killed.communicate()
    workspace.provider(batch_seconds=0)
    again = workspace.run("run", rows, *COMMON, "--json")
    assert again.code == 0, again.err
    assert "goes on" in again.err
    assert again.facts["counts"]["succeeded"] == 3
    assert len(workspace.bought()) == 1
    # The provider is asked nothing any more, and its key is not needed for what is there.
    asyncio.run(workspace.admin.revoke(KEY))
    assert workspace.run("run", rows, *COMMON, KEY="").code == 0
    other = workspace.run("run", workspace.rows("four", name="other.jsonl"), *COMMON, KEY="")
    assert (other.code, other.out) == (1, "")
    assert "The provider 'stub' has no key: the environment variable KEY is not set or empty." in other.err
    assert "Each worker needs the key" in other.err
    assert len(workspace.bought()) == 1


@pytest.mark.slow  # tests/clients/test_embedded.py proves it of the server, and the test above of the batch
def test_what_a_killed_run_left_running_ends_by_itself_and_the_run_goes_on_when_it_is_given_again(
    workspace: Workspace,
) -> None:
    config = workspace.folder / "durabatch.toml"
    config.write_text(config.read_text().replace("[worker]", '[worker]\nembedded_idle = "1s"'))
    workspace.provider(batch_seconds=3600)
    rows = workspace.rows("one", "two")
    killed = workspace.start("run", rows, *COMMON)
    workspace.until_bought(0)
    killed.kill()
    killed.communicate()
    while temporal_server(workspace.folder / ".durabatch").alive():
        time.sleep(0.1)
    workspace.provider(batch_seconds=0)
    again = workspace.run("run", rows, *COMMON, "--json")
    assert (again.code, again.facts["counts"]["succeeded"]) == (0, 2), again.err
    assert len(workspace.bought()) == 1


@pytest.mark.slow
def test_a_run_that_is_killed_when_it_has_answered_is_given_again_and_in_the_end_nothing_is_left_running(
    workspace: Workspace,
) -> None:
    config = workspace.folder / "durabatch.toml"
    config.write_text(config.read_text().replace("[worker]", '[worker]\nembedded_idle = "1s"'))
    rows = workspace.rows("one")
    killed = workspace.start("run", rows, *COMMON, "--json")
    answer = first_object(killed)
    killed.kill()
    killed.communicate()
    again = workspace.run("run", rows, *COMMON, "--json")
    assert again.code == 0, again.err
    assert "has ended already; nothing is submitted again" in again.err
    assert again.facts == answer
    assert len(workspace.bought()) == 1
    while running_in(workspace.folder / ".durabatch"):  # a reaper needs a moment to see that it is not needed
        time.sleep(0.1)


@pytest.mark.slow
def test_the_same_run_twice_at_the_same_time_is_one_batch_on_one_server(workspace: Workspace) -> None:
    rows = workspace.rows("one", "two")
    both = [workspace.start("run", rows, *COMMON, "--json") for _ in range(2)]
    first, second = (finish(process) for process in both)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first.facts == second.facts
    assert len(workspace.bought()) == 1
    assert not temporal_server(workspace.folder / ".durabatch").alive()


def test_what_is_refused_at_once_starts_nothing(tmp_path: Path) -> None:
    here = Workspace(tmp_path)
    rows = here.rows("one")
    for words in (
        ("run", "missing.jsonl", "--provider", "sandbox"),
        ("run", rows, "--provider", "sandbox", "--max-attempts", "0"),
        ("run", rows, "--provider", "openai"),
        ("run", rows, "--provider", "unknown"),
    ):
        refused = here.call(*words)
        assert (refused.code, refused.out) == (1, ""), words
        assert not (tmp_path / ".durabatch").exists(), words


def test_ctrl_c_leaves_the_batch_and_says_how_to_go_on(workspace: Workspace) -> None:
    workspace.provider(batch_seconds=3600)
    process = workspace.start("run", workspace.rows("one"), *COMMON, "--id", "left-alone")
    workspace.until_bought(0)
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert (ended.code, ended.out) == (130, "")
    assert (
        "Left the batch left-alone; it is kept, with every row that is answered: give the same command again to go on"
        in ended.err
    )
    assert "`durabatch cancel left-alone` ends it" in ended.err
    assert not temporal_server(workspace.folder / ".durabatch").alive()


@pytest.mark.slow
def test_loopback_is_never_reached_by_a_proxy(workspace: Workspace) -> None:
    nowhere = {name: "http://127.0.0.1:9" for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")}
    ended = workspace.run("run", workspace.rows("a"), *COMMON, **nowhere, NO_PROXY="", no_proxy="")
    assert ended.code == 0, ended.err


def test_a_run_prints_its_result(served: Workspace) -> None:
    rows = served.rows("one", "two [[sandbox:invalid_request]]", "three", name="mixed.jsonl")
    ended = served.run("run", rows, *COMMON, "--id", "mixed", "--label", "team=a", "--param", "temperature=0.5")
    assert ended.code == 3, ended.err
    for words in ("mixed", "completed", "3: 2 succeeded, 1 failed", "Tokens", "Cost", "without the batch discount"):
        assert words in ended.out
    assert "durabatch results mixed --errors" in ended.out
    assert str(served.folder / "store" / "mixed" / "results.jsonl") in ended.out
    # Nobody looks at stderr, so it reports changes only, a line each.
    lines = ended.err.splitlines()
    assert len(lines) == len(set(lines))
    shown = served.call("results", "mixed")
    assert statuses(shown.out) == [("r0", "succeeded"), ("r1", "failed"), ("r2", "succeeded")]
    assert statuses(served.call("results", "mixed", "--errors").out) == [("r1", "failed")]
    copied = served.call("results", "mixed", "--output", "copied.jsonl")
    assert (copied.code, (served.folder / "copied.jsonl").read_text()) == (0, shown.out)
    facts = served.call("status", "mixed", "--json").facts
    assert facts["result"]["metadata"] == {"team": "a"}
    assert "2 succeeded, 1 failed" in served.call("status", "mixed").out
    assert served.call("watch", "mixed").code == 3


@pytest.mark.slow
def test_requests_may_come_from_stdin(served: Workspace) -> None:
    line = json.dumps({"custom_id": "x", "input": "from a pipe"})
    ended = served.run("run", "-", *COMMON, "--json", input=line)
    assert (ended.code, ended.facts["counts"]["succeeded"]) == (0, 1), ended.err
    empty = served.run("run", "-", *COMMON)
    assert (empty.code, empty.err) == (1, "error: The input from stdin is empty: it holds no requests.\n")
    blank = served.run("run", "-", *COMMON, input="\n \n")
    assert (blank.code, "error: The input from stdin is empty" in blank.err) == (1, True), blank.err


def test_bad_rows_are_reported_with_their_lines_and_nothing_is_submitted(served: Workspace) -> None:
    before = served.bought()
    good = '{"custom_id":"a","input":"x"}'
    lines = [good, "no json", '{"input":"x"}', good, *['{"custom_id":"a"}'] * 30]
    (served.folder / "bad.jsonl").write_text("\n".join(lines))
    ended = served.call("run", "bad.jsonl", *COMMON)
    assert ended.code == 1
    assert ended.out == ""
    reported = ended.err.splitlines()
    first = reported.index("error: 33 rows of 34 cannot be sent, and nothing was submitted.")
    assert reported[first + 1].startswith("  line 2: is not JSON")
    assert reported[first + 2] == "  line 3, custom_id: is missing"
    assert reported[first + 3] == "  line 4, custom_id: is the same as on line 1"
    assert reported[first + 21] == "  … and 13 more"
    assert reported[first + 22].startswith("hint: correct these lines; --skip-invalid")
    assert served.bought() == before
    skipped = served.call("run", "bad.jsonl", *COMMON, "--skip-invalid", "--json")
    assert skipped.code == 3
    assert skipped.facts["counts"] == {"total": 34, "succeeded": 1, "failed": 33, "canceled": 0, "expired": 0}


BAD_ROWS = {
    "an endpoint that the row contradicts": (
        '{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"input":"x","model":"m"}}',
        "line 1, url",
    ),
    "a stream": ('{"custom_id":"a","body":{"messages":[],"stream":true}}', "line 1, body.stream"),
    "a row that is no object": ("7", "line 1: is not a JSON object"),
    "nothing but blank lines": ("\n \n", "is empty"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_every_kind_of_bad_row_is_reported(served: Workspace, what: str) -> None:
    before = served.bought()
    text, words = BAD_ROWS[what]
    (served.folder / "row.jsonl").write_text(text + "\n")
    ended = served.call("run", "row.jsonl", *COMMON)
    assert (ended.code, words in ended.err) == (1, True), ended.err
    assert served.bought() == before


def test_what_every_row_lacks_the_command_lacks(served: Workspace) -> None:
    (served.folder / "row.jsonl").write_text(BAD_ROWS["an endpoint that the row contradicts"][0] + "\n")
    other = served.call("run", "row.jsonl", *COMMON)
    assert "hint: give the rows' endpoint by --endpoint; a batch asks one endpoint." in other.err
    unnamed = served.call("run", served.rows("a", name="unnamed.jsonl"), "--provider", "stub")
    assert (unnamed.code, unnamed.out) == (1, "")
    assert "error: 1 row of 1 cannot be sent" in unnamed.err
    assert "hint: give the model of all rows that name none by --model." in unnamed.err


@pytest.mark.slow
def test_priority_and_fairness_key_can_be_given(served: Workspace) -> None:
    rows = served.rows("Whose turn is it?", name="turn.jsonl")
    for subcommand in ("run", "submit"):
        given = (*COMMON, "--id", f"turn-{subcommand}", "--priority", "1", "--fairness-key", "tenant-a")
        ended = served.call(subcommand, rows, *given)
        assert ended.code == 0, ended.err
    assert served.call("watch", "turn-submit").code == 0
