"""Workers of two versions: one task queue for both of them, and Temporal's own Worker Versioning."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel, BeforeValidator
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError
from temporalio.worker import WorkerDeploymentConfig

import durabatch
from durabatch.contract import BatchStatus, CancelRequest, steps
from durabatch.contract._base import StrictModel
from durabatch.contract.ledger import LEDGER_WORKFLOW, LedgerStart, LedgerView, ledger_id
from durabatch.contract.spec import BatchSpec, RetryPolicy
from durabatch.contract.status import BatchStatus as Status
from durabatch.contract.status import ErrorClass, Phase, ProviderStatus
from durabatch.contract.steps import CreateAnswer, PlanRequest, Search, SettleRequest
from durabatch.workflows import BatchWorkflow, attempt_state, shard_workflow, state
from durabatch.workflows.attempt_state import Fate, Stage
from durabatch.workflows.state import Carried
from support.house import House, connect, dev_server, open_house

#: What a later version has added: file, what is there now, and what is there then.
LATER = [
    ("contract/spec.py", "    provider: Annotated[", '    hue: str = "blue"\n    provider: Annotated['),
    ("contract/spec.py", "    first: Annotated[Duration", "    grain: float = 0.5\n    first: Annotated[Duration"),
    ("contract/spec.py", "    max_rows: Annotated[", "    max_words: int | None = None\n    max_rows: Annotated["),
    ("contract/spec.py", "    reason: Annotated[", '    ticket: str = "none"\n    reason: Annotated['),
    ("contract/status.py", '    OTHER = "other"', '    THROTTLED = "throttled"\n    OTHER = "other"'),
    ("contract/status.py", "    ErrorClass.MISSING,\n)", "    ErrorClass.MISSING,\n    ErrorClass.THROTTLED,\n)"),
    ("contract/steps.py", "    generation: int  #: Counts", '    hint: str = "x"\n    generation: int  #: Counts'),
    (
        "contract/steps.py",
        "    root: str  #: URI of the batch's folder, w",
        "    words: int = 3\n    root: str  #: URI of the batch's folder, w",
    ),
    ("contract/steps.py", "    raw_status: str\n", '    raw_status: str\n    queue: str = "q"\n'),
    ("contract/steps.py", "    absent: ErrorClass =", "    seen: int = 0\n    absent: ErrorClass ="),
    ("workflows/state.py", "    started_at: datetime\n", "    started_at: datetime\n    hops: int = 0\n"),
    ("workflows/state.py", "    ended: int = 0  #:", "    turns: int = 0\n    ended: int = 0  #:"),
    ("workflows/attempt_state.py", "    number: int = 1\n", "    number: int = 1\n    hops: int = 0\n"),
    ("workflows/shard_workflow.py", "    shard: int  #: The f", "    hops: int = 0\n    shard: int  #: The f"),
]


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a later version of the package, which knows fields and words that this one does not."""
    folder = tmp_path_factory.mktemp("later")
    root = Path(durabatch.__file__).parent
    leave_out = shutil.ignore_patterns(".*", "tests", "docs", "benchmarks", "deploy", "examples", "build", "*.pyc")
    shutil.copytree(root, folder / "durabatch", ignore=leave_out)
    for name, now, then in LATER:
        file = folder / "durabatch" / name
        text = file.read_text()
        assert text.count(now) >= 1, f"{name} has no {now!r} any more"
        file.write_text(text.replace(now, then, 1))
    return folder


@pytest.fixture(scope="module")
def restless() -> Iterator[str]:
    """A server on which every batch continues as new all the time, so that its workflow changes the worker, too."""
    with dev_server(**{"limit.historyCount.suggestContinueAsNew": 1, "history.continueAsNewMinInterval": "10ms"}) as it:
        yield it


@pytest.fixture
async def moving(restless: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(await connect(restless), tmp_path, {"listing_lag": "1s", "timeout": "5s"}) as house:
        config = tmp_path / "durabatch.toml"
        config.write_text(config.read_text().replace("[worker]", f'[worker]\ntask_queue = "{house.task_queue}"'))
        yield house


def environment(house: House, address: str, package: Path | None) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL", "PYTHON"))}
    found |= {"DURABATCH_CONFIG": str(house.store.parent / "durabatch.toml"), "KEY": "sk-test"}
    return {**found, "TEMPORAL_ADDRESS": address, **({"PYTHONPATH": str(package)} if package else {})}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "durabatch", *arguments]


@contextmanager
def worker(house: House, address: str, package: Path | None) -> Iterator[int]:
    """Run a worker of this version, or of another one, in a process of its own; yield its process id."""
    log = (house.store.parent / f"worker-{package.name if package else 'now'}.log").open("wb")
    process = subprocess.Popen(
        command("worker"),
        env=environment(house, address, package),
        cwd=house.store.parent,
        stderr=log,
    )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()
        log.close()


async def submit(house: House, address: str, package: Path | None, id: str, *options: str) -> None:
    """Start a batch with the client of a version."""
    rows = house.store.parent / f"{id}.jsonl"
    rows.write_text("".join(json.dumps({"custom_id": f"r{n}", "input": f"Row {n}."}) + "\n" for n in range(4)))
    process = await asyncio.create_subprocess_exec(
        *command("submit", str(rows), "--provider", "sandbox", "--model", "gpt-4o-mini", "--id", id),
        *("--poll-first", "0.2s", *options),
        env=environment(house, address, package),
        cwd=house.store.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()


async def hands(client: Client, workflow_id: str) -> dict[str, set[int]]:
    """The processes that took a batch's steps and its workflow tasks, in all of its runs."""
    found: dict[str, set[int]] = {"steps": set(), "tasks": set()}
    async for run in client.list_workflows(f"WorkflowId = '{workflow_id}' OR WorkflowId STARTS_WITH '{workflow_id}/'"):
        handle = client.get_workflow_handle(run.id, run_id=run.run_id)
        async for event in handle.fetch_history_events():
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                found["steps"].add(int(event.activity_task_started_event_attributes.identity.partition("@")[0]))
            elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                found["tasks"].add(int(event.workflow_task_completed_event_attributes.identity.partition("@")[0]))
    return found


@pytest.mark.slow
async def test_batches_run_to_their_end_in_a_fleet_of_two_versions(moving: House, restless: str, later: Path) -> None:
    await moving.admin.settings(finish_after_polls=2)
    with ExitStack() as processes:
        both = {processes.enter_context(worker(moving, restless, package)) for package in (None, later)}
        ids: list[str] = []
        seen: dict[str, set[int]] = {"steps": set(), "tasks": set()}
        # Which worker gets a task is Temporal's choice; batches are started until each has had some of both kinds.
        while not ids or any(pids != both for pids in seen.values()):
            ways: list[tuple[Path | None, tuple[str, ...]]]
            ways = [(None, ()), (later, ()), (later, ("--max-rows-per-shard", "2"))]
            started = [f"mixed-{len(ids) + number}" for number in range(len(ways))]
            await asyncio.gather(
                *(submit(moving, restless, way[0], id, *way[1]) for id, way in zip(started, ways, strict=True))
            )
            for id in started:
                result = await moving.client.get_workflow_handle_for(BatchWorkflow.run, id).result()
                assert (result.status, result.counts.succeeded) == (BatchStatus.COMPLETED, 4)
                assert [row["custom_id"] for row in moving.results(id)] == ["r0", "r1", "r2", "r3"]
                for kind, pids in (await hands(moving.client, id)).items():
                    seen[kind] |= pids
            ids += started
        logs = [log.read_text() for log in moving.store.parent.glob("worker-*.log")]
        assert len(logs) == 2 and not any("ValidationError" in log for log in logs)
        markers = [batch["marker"] for batch in await moving.batches()]
    assert len(markers) == len(set(markers)) == len(ids) + len(ids) // 3


def test_what_another_version_adds_is_left_out_between_workflow_and_steps() -> None:
    spec = BatchSpec(provider="p", input="i", retry={"max_attempts": 3}, metadata={"hue": "kept"}).settings()
    spec["hue"] = "blue"
    spec["poll"]["grain"] = 1
    spec["retry"]["classes"] = ["throttled", "timeout"]
    spec["on_invalid_row"] = "fix_row"
    spec["params"] = {"classes": ["throttled"], "grain": {"hue": 1}}
    request = PlanRequest.model_validate_json(
        json.dumps({"batch_id": "b", "spec": spec, "now": "2026-01-01T00:00:00Z", "execution": "r"})
    )
    read = request.spec
    assert (read.retry, read.on_invalid_row.value) == (RetryPolicy(max_attempts=3, classes=("timeout",)), "fail_batch")
    assert (read.metadata, read.params) == ({"hue": "kept"}, spec["params"])
    assert read.poll == BatchSpec(provider="p", input="i").poll
    with pytest.raises(ValueError, match="hue"):
        BatchSpec.model_validate(spec)
    settle = SettleRequest.model_validate(
        {
            "attempt": {"scoped_id": "b", "provider": "p", "root": "r", "shard": 0, "number": 1, "store": "s"},
            "attempts": [{"number": 1, "provider_batch_id": "x", "absent": "throttled"}],
            "retry": {"classes": ["throttled"], "patience": 3},
        }
    )
    assert (settle.attempts[0].absent, settle.retry.classes) == (ErrorClass.OTHER, ())
    carried = Carried.model_validate(
        {
            "started_at": "2026-01-01T00:00:00Z",
            "steering": {"deadline_at": "2026-01-01T00:00:00Z", "cancel": {"ticket": 1, "reason": "x"}},
        }
    )
    assert carried.steering.cancel == CancelRequest(reason="x")


def strict(hint: Any) -> bool:
    """Whether a type holds a record that refuses the fields of another version."""
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        return strict(inner) and not any(isinstance(extra, BeforeValidator) for extra in extras)
    return (isinstance(hint, type) and issubclass(hint, StrictModel)) or any(map(strict, get_args(hint)))


def test_no_model_between_workflow_and_steps_reads_a_record_strictly() -> None:
    found = [model for module in (steps, attempt_state, state, shard_workflow) for model in vars(module).values()]
    models = [model for model in found if isinstance(model, type) and issubclass(model, BaseModel)]
    passed_on = [model for model in models if not issubclass(model, StrictModel)]
    assert len(passed_on) > 30
    for model in passed_on:
        for name, hint in get_type_hints(model, include_extras=True).items():
            assert not strict(hint), f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [
        (ProviderStatus, ProviderStatus.IN_PROGRESS),  # asked again
        (CreateAnswer, CreateAnswer.LOST),  # looked for
        (Search, Search.PROVISIONAL),  # verified
        (ErrorClass, ErrorClass.OTHER),  # not tried again
        (Status, Status.FAILED),
        (Phase, Phase.POLLING),
        (Stage, Stage.UPLOADING),  # looked for
        (Fate, Fate.RAN),  # counted
    ],
)
def test_a_word_of_another_version_is_read_as_the_one_that_does_no_harm(vocabulary: Any, expected: Any) -> None:
    assert vocabulary("a word of 2031") is expected
    with pytest.raises(ValueError):
        vocabulary(17)


# --- Worker Versioning ---


def versioned(build: str) -> dict[str, Any]:
    """A worker's options as somebody gives them who deploys by versions."""
    version = WorkerDeploymentVersion(deployment_name="house", build_id=build)
    return {"deployment_config": WorkerDeploymentConfig(version=version, use_worker_versioning=True)}


async def make_current(house: House, build: str) -> None:
    """Send new and auto-upgrading workflows to a version, once the server has heard of it."""
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=house.client.namespace, deployment_name="house", build_id=build, ignore_missing_task_queues=True
    )
    while True:
        try:
            await house.client.workflow_service.set_worker_deployment_current_version(request)
        except RPCError:
            await asyncio.sleep(0.1)
        else:
            return


@pytest.mark.slow
async def test_a_batch_moves_on_to_the_next_version_of_its_workers(house: House) -> None:
    await house.admin.settings(finish_after_polls=10_000)
    async with house.worker(**versioned("1")):
        await make_current(house, "1")
        one = await house.start(2)
        several = await house.start(4, limits={"max_rows": 2})
        for handle in (one, several):
            await house.until(handle, lambda progress: progress.phase is Phase.POLLING)
    # The first version's workers are gone, with batches under way.
    async with house.worker(**versioned("2")):
        await make_current(house, "2")
        await house.admin.settings(finish_after_polls=1)
        for handle in (one, several):
            assert (await handle.result()).status is BatchStatus.COMPLETED
    assert len(await house.batches()) == 3


async def test_a_ledger_does_not_stay_with_a_version_that_has_no_workers(house: House) -> None:
    id = ledger_id("account", "model")
    async with house.worker(**versioned("1")):
        await make_current(house, "1")
        ledger = await house.client.start_workflow(
            LEDGER_WORKFLOW, LedgerStart(account="account", limit=7), id=id, task_queue=house.task_queue
        )
        assert (await ledger.query("ledger", result_type=LedgerView)).limit == 7
    async with house.worker(**versioned("2")):
        await make_current(house, "2")
        reservation = {"holder": "b/0/1", "workflow_id": "b", "tokens": 1, "since": "2026-01-01T00:00:00Z"}
        await ledger.signal("reserve", args=[reservation, 9])
        while (await ledger.query("ledger", result_type=LedgerView)).limit != 9:
            await asyncio.sleep(0.05)
        description = await ledger.describe()
    assert description.raw_description.workflow_execution_info.versioning_info.deployment_version.build_id == "2"
