"""Programs of others, unmodified, that are given the gateway by its base URL alone. `make clients` installs them.

They need environments of their own: some want other versions of the clients than those that Durabatch is tested with.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.workspace import Workspace, open_workspace

from .test_gateway import gateway

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests" / "external"
KEY = "key-of-the-client"
#: Seconds. Most of it is their start, on a busy machine.
PATIENCE = 240

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * PATIENCE)]


@dataclass(frozen=True)
class Door:
    """A gateway with the provider `stub` behind it, and one key."""

    here: Workspace
    base_url: str


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_workspace(tmp_path_factory.mktemp("clients")) as here:
        url = tomllib.loads((here.folder / "durabatch.toml").read_text())["providers"]["stub"]["base_url"]
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        with (here.folder / "durabatch.toml").open("a") as config:
            config.write(
                f'[[gateway.keys]]\ntenant = "search"\nsha256 = "{digest}"\n'
                '[[gateway.routes]]\nmodel = "gpt-4o-mini"\nprovider = "stub"\n'
                '[[gateway.routes]]\nmodel = "claude-*"\nprovider = "claude"\n'
                '[providers.claude]\nkind = "anthropic"\napi_key_env = "KEY"\n'
                f'base_url = "{url.removesuffix("/v1")}"\nlisting_lag = "1s"\n'
            )
        here.provider(batch_seconds=0)
        with gateway(here) as (base_url, _):
            yield Door(here, base_url)


def installed(path: Path) -> Path:
    """Return where something is that `make clients` installs.

    Without it nothing was tried, and that must not look like a pass: it is skipped by name.
    """
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)} is not there, so this client was not tried: make clients")
    return path


@pytest.mark.parametrize(
    ("program", "script", "rows"),
    [
        (sys.prefix, "with_openai.py", 3),
        (".clients/clients", "with_litellm.py", 3),
        (".clients/clients", "with_openai_batch.py", 3),
        (".clients/clients", "with_inspect.py", 6),
        (".clients/clients-curator", "with_curator.py", 5),
        ("tests/external/node_modules/openai", "with_openai.mjs", 3),
        ("tests/external/node_modules/@anthropic-ai/sdk", "with_anthropic.mjs", 3),
    ],
)
def test_a_program_of_others_gets_its_rows_answered(
    door: Door, tmp_path: Path, program: str, script: str, rows: int
) -> None:
    place = ROOT / program
    # An environment is whole when `make clients` says so.
    installed(place / ".setup" if program.startswith(".clients") else place)
    command = shutil.which("node") if script.endswith(".mjs") else place / "bin" / "python"
    assert command, "node is not on PATH"
    bought = len(door.here.bought())
    done = subprocess.run(
        [command, SCRIPTS / script, tmp_path],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "ANTHROPIC_"))},
            "OPENAI_BASE_URL": door.base_url,
            "OPENAI_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": door.base_url.removesuffix("/v1"),
            "ANTHROPIC_API_KEY": KEY,
            "HOME": str(tmp_path),
            # What some of them would fetch, or report, at each start.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "TELEMETRY_ENABLED": "false",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"rows": rows}
    assert len(door.here.bought()) > bought
