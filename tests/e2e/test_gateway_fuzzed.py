"""The gateway tried with whatever its OpenAPI document allows, and with what it does not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.workspace import TIME_LIMIT, Workspace

from .test_gateway import gateway

KEY = "key-of-nobody-else"
#: Requests of each kind for every route, and where they begin: the same in every run.
EXAMPLES, SEED = 5, 1

#: What no schema can say: a file that is no JSONL, a range that is outside of its file, a batch that is not as it would
#: have to be, and a message that its model does not take.
CONFIGURATION = """
# A Temporal that a busy machine keeps from answering in time is 503, and no fault of the gateway's.
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
[[operations]]
include-name = "POST /v1/files"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400"]
[[operations]]
include-name = "GET /v1/files/{file_id}/content"
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "416"]
[[operations]]
include-name = "POST /v1/batches/{batch_id}/retry"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "409"]
[[operations]]
include-path-regex = "^/v1/messages/"
# 401: an x-api-key that is made up counts before a bearer's that is right.
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "404", "409"]
"""


@pytest.mark.slow
def test_no_request_is_answered_with_a_server_error_nor_otherwise_than_described(workspace: Workspace) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    with (workspace.folder / "durabatch.toml").open("a") as config:
        config.write(f'[[gateway.keys]]\ntenant = "search"\nsha256 = "{digest}"\n')
    (workspace.folder / "schemathesis.toml").write_text(CONFIGURATION)
    with gateway(workspace, "--provider", "stub") as (base_url, _):
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("schemathesis"), "run", base_url.removesuffix("v1") + "openapi.json"),
                *("--header", f"Authorization: Bearer {KEY}", "--checks", "all", "--no-color"),
                *("--max-examples", str(EXAMPLES), "--seed", str(SEED), "--suppress-health-check", "all"),
            ],
            cwd=workspace.folder,
            env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(workspace.folder / "hypothesis")},
            capture_output=True,
            text=True,
            timeout=2 * TIME_LIMIT,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: " in done.stdout and " 0 generated" not in done.stdout
    logs = list((workspace.folder / ".durabatch").rglob("*.log"))
    assert logs
    for log in logs:
        assert "Traceback" not in log.read_text(errors="replace"), log
