"""`status`, `watch`, `list`, `cancel` and `results`: batches that are there already."""

from __future__ import annotations

import dataclasses
import json

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


def test_a_retry_is_followed_to_its_end_and_read_as_one_with_its_batch(served: Workspace) -> None:
    rows = served.rows("Say one.", "[[sandbox:server_error times=1]] two", "[[sandbox:invalid_request]] three")
    id = served.call("run", rows, *COMMON, "--id", "left-over", "--max-attempts", "1", "--json").facts["batch_id"]
    there = dataclasses.replace(served, environ={})  # as in another terminal of the folder of `durabatch dev`
    for command in (["retry", id], ["submit", rows]):
        refused = there.call(*command, "--provider", "stubb")
        assert (refused.code, refused.out) == (1, "")
        assert "error: There is no provider 'stubb' in " in refused.err
        unready = there.call(*command, "--provider", "sandbox")
        assert "error: The sandbox does not run in this folder: `durabatch dev --sandbox` starts it." in unready.err
    begun = served.call("retry", id, "--json")
    assert (begun.facts["batch_id"], begun.facts["retry_of"], begun.facts["rows"]) == (f"{id}.retry-1", id, 2)
    assert "of 2 rows is submitted; what it costs at most is not known" in begun.err
    followed = served.call("retry", id, "--watch", "--json")
    assert (followed.code, followed.facts["batch_id"]) in {(3, f"{id}.retry-1"), (1, f"{id}.retry-2")}
    found = [json.loads(line)["status"] for line in served.call("results", id, "--with-retries").out.splitlines()]
    assert found == ["succeeded", "succeeded", "failed"]
    again = served.call("retry", "no-such-batch")
    assert (again.code, again.out) == (1, "")


def test_output_that_nobody_reads_any_more_ends_the_command_quietly(served: Workspace) -> None:
    id = "piped"
    served.call("run", served.rows("x", name="piped.jsonl"), *COMMON, "--id", id)
    with served.start("results", id) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert "Traceback" not in err and "Exception" not in err
