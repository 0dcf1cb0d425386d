"""`durabatch dev` and `worker`: processes that stay until they are stopped."""

from __future__ import annotations

import dataclasses
import json
import signal
import time

import pytest

from durabatch.workers.embedded import temporal_server
from support.workspace import COMMON, Workspace, finish


@pytest.mark.slow  # tests/clients/test_embedded.py stops such servers too
def test_what_a_killed_run_left_running_is_stopped_on_request(workspace: Workspace) -> None:
    nothing = workspace.call("dev", "--stop")
    assert (nothing.code, nothing.out) == (
        0,
        "No embedded Temporal runs in this folder, so there is nothing to stop.\n",
    )
    killed = workspace.start(
        "run", workspace.rows("one"), "--provider", "sandbox", "--model", "gpt-4o-mini", "--poll-first", "5m"
    )
    record = workspace.folder / ".durabatch/sandbox.json"
    while not (record.exists() and json.loads(record.read_text())["ready"]):
        assert killed.poll() is None
        time.sleep(0.05)
    in_use = workspace.call("dev", "--stop")
    assert in_use.code == 1
    assert "is in use by another command: end that one first" in in_use.err
    # Who looks sees the stand-in provider for as long as it runs here.
    checks = {check["name"]: check["level"] for check in workspace.call("doctor", "--json").facts["checks"]}
    assert checks["provider sandbox"] == "ok"
    cleared = workspace.call("gc", "--provider", "sandbox", "--json")
    assert (cleared.code, cleared.facts["failures"]) == (0, {}), cleared.err
    killed.kill()
    killed.communicate()
    assert workspace.call("dev", "--stop", "--json").facts == {"stopped": ["temporal", "sandbox"]}
    assert workspace.call("dev", "--stop", "--json").facts == {"stopped": []}
    assert "provider sandbox" not in workspace.call("doctor").out
    assert not temporal_server(workspace.folder / ".durabatch").alive()


def test_a_worker_serves_a_configured_temporal_until_it_is_stopped(served: Workspace) -> None:
    queue = "a-queue-of-its-own"
    config = served.folder / "own-queue.toml"
    config.write_text(
        (served.folder / "durabatch.toml").read_text().replace("[worker]", f'[worker]\ntask_queue = "{queue}"')
    )
    remote = dataclasses.replace(served, environ={**served.environ, "DURABATCH_CONFIG": config.name})
    submitted = remote.call("submit", remote.rows("x"), *COMMON, "--id", "remote", "--poll-first", "0.2s")
    assert submitted.out == "remote\n"
    assert f"No worker polls task queue '{queue}'" in submitted.err
    assert "no worker answers on task queue" in remote.call("status", "remote", "--json").facts["waiting_for"]
    worker = remote.start("worker")
    assert remote.call("watch", "remote").code == 0
    worker.send_signal(signal.SIGTERM)
    ended = finish(worker)
    assert ended.code == 0, ended.err
    assert '"key": "set"' in ended.err
    assert "Stopping." in ended.err
