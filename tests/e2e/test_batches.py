"""`status`, `watch`, `list`, `cancel` and `results`: batches that are there already."""

from __future__ import annotations

import dataclasses

from support.workspace import COMMON, Workspace, finish


def test_submit_watch_list_and_cancel(served: Workspace) -> None:
    served.provider(batch_seconds=3600)
    before = len(served.bought())
    # As in another terminal of the folder in which `durabatch dev` runs: nothing is configured.
    there = dataclasses.replace(served, environ={})
    id = there.run("submit", served.rows("a", "b", name="slow.jsonl"), *COMMON, "--poll-first", "0.2s").out.strip()
    assert id.startswith("slow-")
    served.until_bought(before)
    early = there.call("results", id)
    assert (early.code, early.out) == (1, "")
    assert f"error: The batch '{id}' has not ended yet" in early.err
    assert "hint: " in early.err
    listed = served.call("list", "--json", "--status", "running").facts["batches"]
    assert [(batch["batch_id"], batch["provider"]) for batch in listed] == [(id, "stub")]
    assert id in served.call("list").out
    watching = served.start("watch", id, "--json")
    asked = served.call("cancel", id, "--reason", "wrong prompt", "--by", "me", "--json")
    assert asked.facts == {"batch_id": id, "cancel_requested": True}
    watched = finish(watching)
    assert watched.code == 4
    result = watched.facts
    assert (result["status"], result["cancel_reason"], result["canceled_by"]) == ("canceled", "wrong prompt", "me")
    assert served.call("cancel", id).out == f"Batch {id} has ended already.\n"


def test_output_that_nobody_reads_any_more_ends_the_command_quietly(served: Workspace) -> None:
    id = "piped"
    served.call("run", served.rows("x", name="piped.jsonl"), *COMMON, "--id", id)
    with served.start("results", id) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert "Traceback" not in err and "Exception" not in err
