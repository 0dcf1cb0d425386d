"""Folders in which the `durabatch` command is run as its users run it."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from durabatch.workers.embedded import temporal_server
from support.workspace import Workspace, finish, first_object, open_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A folder in which nothing runs, with a provider of its own."""
    with open_workspace(tmp_path) as here:
        yield here


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A folder in which `durabatch dev` runs: one Temporal and one worker for the whole session."""
    with open_workspace(tmp_path_factory.mktemp("dev")) as here:
        server = here.start("dev", "--json")
        try:
            shown = first_object(server)
            assert shown["ui_url"].startswith("http://127.0.0.1:")
            there = dataclasses.replace(here, environ={"TEMPORAL_ADDRESS": shown["address"]})
            assert "no worker polls" not in there.call("doctor").out  # when it says where it is, it serves
            yield there
        finally:
            server.send_signal(signal.SIGINT)
            ended = finish(server)
        assert ended.code == 0, ended.err
        assert not temporal_server(here.folder / ".durabatch").alive()


@pytest.fixture
def served(dev: Workspace) -> Iterator[Workspace]:
    """The shared folder whose Temporal and worker run, with its provider as fast as it can be."""
    dev.provider(batch_seconds=0)
    yield dev
    dev.provider(batch_seconds=0)
