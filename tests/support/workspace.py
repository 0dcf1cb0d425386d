"""A folder with a configuration in which the `durabatch` command is run, and what the command printed there."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from durabatch.cli.app import run_command
from durabatch.sandbox import SandboxAdmin

KEY = "sk-the-key-that-must-never-be-printed"
#: Options of most batches: the provider is a sandbox.
COMMON = ("--provider", "stub", "--model", "gpt-4o-mini")
#: Seconds that no command here may take; one that needs longer hangs.
TIME_LIMIT = 120


@dataclass(frozen=True)
class Finished:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    def __post_init__(self) -> None:
        """Whatever a command does, it prints no traceback and no key."""
        assert "Traceback" not in self.err, self.err
        assert KEY not in self.out + self.err

    @property
    def facts(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Workspace:
    """A folder in which commands are run."""

    folder: Path
    admin: SandboxAdmin = field(default_factory=lambda: SandboxAdmin(""))  #: The provider `stub`, where there is one.
    environ: dict[str, str] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment variables that a command gets here."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TEMPORAL_", "DURABATCH_", "OPENAI_", "ANTHROPIC_", "COV_"))
        }
        return {**kept, "TEMPORAL_CONFIG_FILE": str(self.folder / "no.toml"), "KEY": KEY, **self.environ, **more}

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Start a command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "durabatch", *arguments],
            cwd=self.folder,
            env=self.environment(**environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, input: str = "", **environ: str) -> Finished:
        """Run a command as a process of its own."""
        return finish(self.start(*arguments, **environ), input)

    def call(self, *arguments: str, **environ: str) -> Finished:
        """Run a command in this process, which spares the second that an interpreter needs to load everything.

        Only for commands that run no worker here: those set up this process's logging.
        """
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with (
            mock.patch.dict(os.environ, self.environment(**environ), clear=True),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run_command(arguments)
        return Finished(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]

    def rows(self, *prompts: str, name: str = "rows.jsonl") -> str:
        """Write a file of requests and return its name."""
        lines = [json.dumps({"custom_id": f"r{number}", "input": prompt}) for number, prompt in enumerate(prompts)]
        (self.folder / name).write_text("\n".join(lines) + "\n")
        return name

    def bought(self) -> list[str]:
        """Return the ids of every provider batch there ever was."""
        return [batch["id"] for batch in asyncio.run(self.admin.books())["batches"]]

    def provider(self, **settings: Any) -> None:
        """Change settings of the provider."""
        asyncio.run(self.admin.settings(**settings))

    def until_bought(self, more_than: int) -> None:
        """Wait until the provider has another batch."""
        deadline = time.monotonic() + TIME_LIMIT
        while len(self.bought()) <= more_than:
            assert time.monotonic() < deadline, "nothing was submitted"
            time.sleep(0.05)


def finish(process: subprocess.Popen[str], input: str = "") -> Finished:
    """Wait for the end of a command."""
    out, err = process.communicate(input, timeout=TIME_LIMIT)
    return Finished(process.returncode, out, err)


def first_object(process: subprocess.Popen[str]) -> Any:
    """Return the JSON object that a command prints while it goes on."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line == "}\n":
            return json.loads("".join(lines))
    raise AssertionError(f"It ended with {process.wait()}: {process.stderr.read() if process.stderr else ''}")


@contextlib.contextmanager
def open_workspace(folder: Path) -> Iterator[Workspace]:
    """Yield a workspace whose provider `stub` is a sandbox of its own."""
    command = [sys.executable, "-m", "durabatch.sandbox", "--state", str(folder / "provider")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sandbox:
        assert sandbox.stdout is not None
        try:
            url = json.loads(sandbox.stdout.readline())["url"]
            (folder / "durabatch.toml").write_text(
                '[store]\nurl = "store"\n[worker]\nheartbeat = "2s"\n'
                f'[providers.stub]\nkind = "openai"\nbase_url = "{url}/v1"\napi_key_env = "KEY"\nlisting_lag = "1s"\n'
            )
            yield Workspace(folder, SandboxAdmin(url))
        finally:
            sandbox.terminate()


def statuses(text: str) -> list[tuple[str, str]]:
    """Return the id and the status of each of these result rows."""
    rows = [json.loads(line) for line in text.splitlines()]
    return [(row["custom_id"], row["status"]) for row in rows]


def running_in(folder: Path) -> list[str]:
    """Return the command lines of the processes that name a folder."""
    listing = subprocess.run(["ps", "-ww", "-e", "-o", "args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if str(folder) in line]
