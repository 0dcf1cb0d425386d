"""`durabatch gateway` killed in the middle of a batch, together with the worker that is in it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable

import openai
import pytest

from support.gateway import jsonl, line
from support.workspace import TIME_LIMIT, Workspace, finish


def begin(here: Workspace) -> tuple[openai.OpenAI, subprocess.Popen[str]]:
    process = here.start("gateway", "--port", "0", "--json", "--provider", "stub")
    assert process.stdout is not None
    printed = "".join(iter(process.stdout.readline, "}\n"))
    assert printed, process.communicate()
    url = json.loads(printed + "}")["base_url"]
    return openai.OpenAI(base_url=url, api_key="any", max_retries=0, _strict_response_validation=True), process


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIME_LIMIT
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.mark.slow
def test_gateway_and_worker_that_are_killed_in_a_batch_buy_nothing_twice(workspace: Workspace) -> None:
    workspace.provider(finish_after_polls=100_000)
    first, process = begin(workspace)  # with the Temporal of its folder, and a worker
    file = first.files.create(file=jsonl([line(f"r{n}") for n in range(20)]), purpose="batch")
    made = first.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_headers={"Idempotency-Key": "nightly"},
    )
    workspace.until_bought(0)
    process.kill()
    assert finish(process).code == -signal.SIGKILL

    workspace.provider(finish_after_polls=0)
    second, process = begin(workspace)
    try:
        again = second.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_headers={"Idempotency-Key": "nightly"},
        )
        assert again.id == made.id
        until(lambda: second.batches.retrieve(made.id).status == "completed")
        ended = second.batches.retrieve(made.id)
        text = second.files.content(ended.output_file_id or "").text
        assert [json.loads(one)["custom_id"] for one in text.splitlines()] == [f"r{n}" for n in range(20)]
        assert [batch.id for batch in second.batches.list()] == [made.id]
    finally:
        process.send_signal(signal.SIGINT)
        assert finish(process).code == 0
    assert len(workspace.bought()) == 1
