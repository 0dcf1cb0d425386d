"""`durabatch try` and `run --try`: some rows now, what all would cost, and a question before they are bought."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.workspace import COMMON, TIME_LIMIT, Workspace, finish


def rows(here: Workspace, name: str, count: int = 12) -> str:
    return here.rows(*(f"Say {number} for {name}." for number in range(count)), name=f"{name}.jsonl")


def calls(here: Workspace) -> int:
    found: int = asyncio.run(here.admin.live())["calls"]
    return found


def left_of_tries(here: Workspace) -> list[Path]:
    return list((here.folder / "store").glob("try-*"))


def test_try_shows_answers_and_costs_and_the_batch_is_run_afterwards_as_if_nothing_had_been(served: Workspace) -> None:
    file, before, bought = rows(served, "asked"), calls(served), len(served.bought())
    shown = served.call("try", file, *COMMON, "-n", "3")
    assert shown.code == 0, shown.err
    answers = shown.out.splitlines()[:3]
    assert [int(line.split()[0][1:]) // 4 for line in answers] == [0, 1, 2]
    assert all(f"Say {line.split()[0][1:]} for asked." in line for line in answers)
    facts = " ".join(shown.out.partition("\n\n")[2].split())
    assert "Tried 3 of 12 rows, from all parts of the input Rows 3: 3 succeeded" in facts
    assert "at the batch price" in facts and "row by row, at the list price" in facts
    told = served.call("try", file, *COMMON, "--rows", "2", "--first", "--json").facts
    assert [row["custom_id"] for row in told["rows"]] == ["r0", "r1"]
    assert (told["total"], told["tried"], told["first"], told["result"]["status"]) == (12, 2, True, "completed")
    assert float(told["batch_cost_usd"]["usd"]) == pytest.approx(float(told["direct_cost_usd"]["usd"]) / 2)
    assert (calls(served) - before, len(served.bought()) - bought, left_of_tries(served)) == (5, 0, [])
    run = served.call("run", file, *COMMON, "--json")
    assert (run.code, run.facts["counts"]["succeeded"], len(served.bought()) - bought) == (0, 12, 1)
    assert "is submitted" in run.err


def test_a_run_that_would_have_to_ask_is_refused_without_a_terminal_before_anything_is_sent(served: Workspace) -> None:
    file, before, bought = rows(served, "unasked"), calls(served), len(served.bought())
    refused = served.call("run", file, *COMMON, "--try", "2")
    assert refused.code == 2
    assert "there is no terminal to ask at; --yes goes on without asking" in " ".join(refused.err.split())
    for arguments in (("try", file, "-n", "0"), ("try", file, "-n", "1001"), ("run", file, "--try", "0", "--yes")):
        ended = served.call(*arguments, *COMMON)
        assert (ended.code, ended.out) == (1, "")
        assert "error: The number of rows to try must be between 1 and 1,000" in ended.err
    assert (calls(served), len(served.bought())) == (before, bought)
    # With --yes they are tried, and the batch is run; one that is there already has nothing left to be tried.
    run = served.call("run", file, *COMMON, "--try", "2", "--yes", "--json")
    assert (run.code, run.facts["counts"]["succeeded"]) == (0, 12), run.err
    assert "Tried" in run.err and "of 12 rows" in run.err
    again = served.call("run", file, *COMMON, "--try", "2", "--yes", "--json")
    assert (again.facts["batch_id"], "Tried" in again.err) == (run.facts["batch_id"], False)
    assert (calls(served) - before, len(served.bought()) - bought) == (2, 1)


def test_a_batch_is_not_run_without_asking_where_no_row_that_was_tried_succeeded(served: Workspace) -> None:
    bought = len(served.bought())
    file = served.rows("[[sandbox:invalid_request]] a", "[[sandbox:invalid_request]] b", name="bad.jsonl")
    ended = served.call("run", file, *COMMON, "--try", "2", "--yes")
    assert (ended.code, ended.out, len(served.bought())) == (1, "", bought)
    assert "None of the rows that were tried succeeded, so the batch is not run." in ended.err


@pytest.mark.parametrize(("answer", "code"), [("n", 4), ("", 4), ("y", 0)])
@pytest.mark.slow
def test_run_asks_at_a_terminal_whether_to_buy_the_batch(served: Workspace, answer: str, code: int) -> None:
    file, bought = rows(served, f"terminal-{answer or 'none'}", 3), len(served.bought())
    ended = at_a_terminal(served, answer, "run", file, *COMMON, "--try", "1")
    assert ended == code
    assert len(served.bought()) - bought == (answer == "y")
    assert left_of_tries(served) == []


def at_a_terminal(here: Workspace, answer: str, *arguments: str) -> int:
    """Run a command at a terminal, answer its question, and return its exit code."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "durabatch", *arguments],
        cwd=here.folder,
        env=here.environment(TERM="dumb"),
        stdin=its,
        stdout=subprocess.DEVNULL,
        stderr=its,
    )
    os.close(its)
    shown = b""
    try:
        while b"[y/N]" not in shown:
            shown += os.read(ours, 1024)
        assert b"Run the batch of 3 rows?" in shown
        os.write(ours, f"{answer}\n".encode())
        return process.wait(TIME_LIMIT)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.slow  # as tests/clients/test_tries.py has it, through the command
def test_ctrl_c_ends_a_try_and_says_that_nothing_is_left(served: Workspace) -> None:
    before = calls(served)
    process = served.start("try", served.rows("[[sandbox:hang]] one", name="hangs.jsonl"), *COMMON)
    deadline = time.monotonic() + TIME_LIMIT
    while calls(served) == before:
        assert time.monotonic() < deadline, "nothing was tried"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert (ended.code, ended.out, left_of_tries(served)) == (130, "", [])
    assert "Ending the try: calls under way are dropped" in ended.err
    assert "The try is over, and nothing of it is left." in ended.err


@pytest.mark.slow  # tests/unit/test_gc_decisions.py holds which one goes, and when
def test_gc_clears_what_a_killed_try_has_left(served: Workspace) -> None:
    served.provider(live_seconds=2)
    try:
        killed = served.start("try", rows(served, "killed"), *COMMON, "-n", "2")
        deadline = time.monotonic() + TIME_LIMIT
        while not any((folder / "plan.json").exists() for folder in left_of_tries(served)):
            assert time.monotonic() < deadline, "nothing was tried"
            time.sleep(0.02)
        killed.kill()
        killed.communicate()
    finally:
        served.provider(live_seconds=0)
    (folder,) = left_of_tries(served)
    watched = served.call("watch", folder.name, "--json")
    assert watched.facts["counts"]["succeeded"] == 2
    assert {file.name for file in folder.glob("*json*")} >= {"~try.json", "result.json", "results.jsonl"}
    ended = served.call("gc", "--older-than", "0s", "--delete", "--json")
    assert ended.code == 0, ended.err
    assert folder.name in json.dumps([one for one in ended.facts["removable"] if "tries" in one["what"]])
    assert left_of_tries(served) == []
