"""`durabatch --help`: every subcommand with an example, and no waiting for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.workspace import Workspace

SUBCOMMANDS = (
    *("run", "submit", "try", "status", "watch", "results", "list", "cancel", "gc"),
    *("worker", "dev", "sandbox", "providers", "doctor"),
)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_shows_an_example(tmp_path: Path, name: str) -> None:
    ended = Workspace(tmp_path).call(name, "--help")
    assert ended.code == 0
    assert f"durabatch {name}" in " ".join(ended.out.partition("Example:")[2].split())


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    ended = Workspace(tmp_path).run("--help", PYTHONPROFILEIMPORTTIME="1")
    assert ended.code == 0
    assert all(f"  {name} " in ended.out for name in SUBCOMMANDS)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.err.splitlines()}
    assert "typer" in imported
    assert not imported & {"temporalio", "pydantic", "httpx2", "aiohttp", "obstore", "msgspec", "rich"}
