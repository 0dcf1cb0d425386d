"""The examples do what they say: each is run as a user runs it, on the real Temporal server and against the sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.service import RPCError
from temporalio.worker import Worker

from durabatch.contract import BATCH_WORKFLOW, BatchResult, BatchStatus
from durabatch.sandbox import Sandbox
from durabatch.workers import BatchPlugin, Settings, open_worker
from support.house import connect, dev_server

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Surroundings:
    """What an example runs against: a Temporal server, the sandbox, and a folder with the durabatch.toml for both."""

    client: Client
    sandbox: Sandbox
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What an example's process finds in its environment."""
        address = self.client.service_client.config.target_host
        return {"TEMPORAL_ADDRESS": address, "DURABATCH_CONFIG": str(self.folder / "durabatch.toml")}

    @property
    def settings(self) -> Settings:
        return Settings.load(self.folder / "durabatch.toml")


@pytest.fixture(scope="module")
def temporal() -> Iterator[str]:
    with dev_server() as address:
        yield address


@pytest.fixture
async def surroundings(temporal: str, tmp_path: Path) -> AsyncIterator[Surroundings]:
    client = await connect(temporal)
    async with Sandbox(state=tmp_path / "sandbox") as sandbox:
        lines = ["[providers.sandbox]", 'kind = "openai"', f'base_url = "{sandbox.url}/v1"', 'listing_lag = "1s"']
        (tmp_path / "durabatch.toml").write_text("\n".join(lines), encoding="utf-8")
        yield Surroundings(client, sandbox, tmp_path)


async def run(*command: str | Path, cwd: Path, **environment: str) -> tuple[int, str, str]:
    """Run a command and return its exit code, what it wrote, and what it complained about."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.slow
async def test_the_docstrings_of_the_standard_library_become_some_hundreds_of_requests(tmp_path: Path) -> None:
    for name in ("first.jsonl", "second.jsonl"):
        code, out, err = await run(sys.executable, EXAMPLES / "docstrings.py", name, cwd=tmp_path)
        assert (code, err) == (0, "")
    written = (tmp_path / "first.jsonl").read_bytes()
    assert written == (tmp_path / "second.jsonl").read_bytes()
    rows = [json.loads(line) for line in written.splitlines()]
    assert out == f"{len(rows)} requests are in second.jsonl\n"
    assert len({row["custom_id"] for row in rows}) == len(rows) > 300
    assert {"asyncio", "email.message", "statistics"} < {row["custom_id"] for row in rows}
    assert all(row["input"].startswith("Summarise this module in one sentence.\n\n") for row in rows)


@pytest.mark.slow  # test_run.py runs the same command twice; this is about the script around it
async def test_the_demo_ends_well_and_a_second_run_submits_nothing(tmp_path: Path) -> None:
    # `make demo` puts `durabatch`, `temporal` and `python` on the PATH; what else the shell is told does not count.
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DEMO_FOLDER": str(tmp_path / "demo"),
        "TEMPORAL_ADDRESS": "temporal.invalid:7233",
        "DURABATCH_CONFIG": "no-such-file.toml",
    }
    code, out, err = await run(EXAMPLES / "demo.sh", cwd=tmp_path, **environment)
    assert code == 0, out + err
    assert "its Web UI is at http://127.0.0.1:" in err
    assert "Status       completed" in out
    assert f"Results      {tmp_path / 'demo' / 'results.jsonl'}" in out
    assert "in order, all succeeded." in out
    results = (tmp_path / "demo" / "results.jsonl").read_bytes()

    code, out, err = await run(EXAMPLES / "demo.sh", cwd=tmp_path, **environment)
    assert code == 0, out + err
    assert "has ended already; nothing is submitted again." in err
    assert "This was not the first run" in out
    assert (tmp_path / "demo" / "results.jsonl").read_bytes() == results


@pytest.mark.parametrize(
    ("results", "complaint"),
    [
        ([("a", "succeeded"), ("b", "succeeded")], None),
        ([("a", "succeeded")], "there are 2 requests and 1 results"),
        ([("b", "succeeded"), ("a", "succeeded")], "result 1 is of b, and request 1 is a"),
        ([("a", "succeeded"), ("b", "failed")], "b is failed"),
    ],
)
async def test_the_demo_notices_results_that_are_wrong(
    tmp_path: Path, results: list[tuple[str, str]], complaint: str | None
) -> None:
    (tmp_path / "requests.jsonl").write_text('{"custom_id":"a","input":"x"}\n{"custom_id":"b","input":"y"}\n')
    lines = (json.dumps({"custom_id": custom_id, "status": status}) for custom_id, status in results)
    (tmp_path / "results.jsonl").write_text("\n".join(lines))
    check = EXAMPLES / "check_results.py"
    code, out, err = await run(sys.executable, check, "requests.jsonl", "results.jsonl", cwd=tmp_path)
    assert code == (0 if complaint is None else 1)
    assert (complaint or "2 results for 2 requests, in order, all succeeded.") in err + out


@pytest.mark.slow
async def test_six_lines_of_python_are_enough_and_the_same_lines_find_the_same_batch(
    surroundings: Surroundings,
) -> None:
    async with open_worker(surroundings.client, surroundings.settings):
        for _ in range(2):
            hurry = asyncio.create_task(poll_now(surroundings))
            code, out, err = await run(
                sys.executable, EXAMPLES / "six_lines.py", cwd=surroundings.folder, **surroundings.environment
            )
            hurry.cancel()
            assert code == 0, err
            rows = [line.split()[:2] for line in out.splitlines()]
            assert rows == [["capital", "succeeded"], ["colour", "succeeded"]]
    assert len((await surroundings.sandbox.books())["batches"]) == 1


async def poll_now(surroundings: Surroundings) -> None:
    """Spare the test the 15 seconds that a batch waits before its first poll."""
    marker = (await submitted(surroundings.sandbox))["marker"]
    batch = surroundings.client.get_workflow_handle(marker.split("/")[0])
    while True:
        with contextlib.suppress(RPCError):  # it has ended
            await batch.signal("poll_now")
        await asyncio.sleep(0.5)


@pytest.mark.slow
async def test_a_batch_is_a_step_of_another_workflow(surroundings: Surroundings) -> None:
    code, out, err = await run(
        sys.executable, EXAMPLES / "embed_child.py", cwd=surroundings.folder, **surroundings.environment
    )
    assert code == 0, err
    assert out.startswith("completed: 3 of 3 rows succeeded; they are in file://")


async def submitted(sandbox: Sandbox) -> dict[str, Any]:
    """Return the first batch at the provider, as soon as there is one."""
    async with asyncio.timeout(30):
        while not (batches := (await sandbox.books())["batches"]):
            await asyncio.sleep(0.1)
    return batches[0]


@pytest.fixture
def embed_child(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The example as a module that Temporal's sandbox finds too."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import embed_child

    yield embed_child
    sys.modules.pop("embed_child", None)


@pytest.mark.parametrize("way", ["cancel", "terminate"])
async def test_a_batch_ends_with_the_workflow_that_it_is_a_step_of(
    surroundings: Surroundings, embed_child: object, way: str
) -> None:
    await surroundings.sandbox.settings(batch_seconds=3600)
    config = surroundings.client.config()
    config["plugins"] = [BatchPlugin(surroundings.settings)]
    client = Client(**config)
    translate = embed_child.Translate  # type: ignore[attr-defined]
    async with Worker(client, task_queue="mine", workflows=[translate]):
        parent = await client.start_workflow(translate.run, ["house"], id="parent", task_queue="mine")
        await submitted(surroundings.sandbox)
        if way == "cancel":
            await parent.cancel()
            assert (await parent.result()).startswith("canceled: 0 of 1 rows succeeded")
        else:
            await parent.terminate("closing")
            with pytest.raises(WorkflowFailureError):
                await parent.result()
            assert (await parent.describe()).status is WorkflowExecutionStatus.TERMINATED
        child = client.get_workflow_handle("parent-batch", result_type=BatchResult)
        result = await child.result()
        assert (await child.describe()).workflow_type == BATCH_WORKFLOW
    assert result.status is BatchStatus.CANCELED
    assert [batch["status"] for batch in (await surroundings.sandbox.books())["batches"]] == ["cancelled"]
