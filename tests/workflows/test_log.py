"""A worker's log alone shows the whole life of a batch, and nothing that is secret."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from durabatch.activities.log import Action
from durabatch.contract import BatchStatus
from durabatch.workers.logs import JsonFormatter
from support.house import KEY, House

PROMPTS = ["a prompt nobody may read", "[[sandbox:server_error times=1]] another one"]


@contextlib.contextmanager
def log_of_this_process() -> Iterator[io.StringIO]:
    """Write all that a worker logs, whoever logs it, as `[worker] log_format = "json"` does."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    try:
        yield stream
    finally:
        logging.getLogger().removeHandler(handler)


async def test_a_batchs_life_can_be_followed_in_the_workers_log_alone(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with log_of_this_process() as stream:
        async with house.worker():
            handle = await house.start(PROMPTS)
            result = await handle.result()
    assert result.status is BatchStatus.COMPLETED
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    ours = [line for line in lines if line["logger"] == "durabatch" and line.get("batch_id") == handle.id]

    attempt = ("uploaded", "created", "ended", "fetched", "settled")
    expected = [
        ("planned", None),
        *((action, 1) for action in attempt),
        *((action, 2) for action in attempt),
        ("applied", None),
        ("finished", None),
    ]
    # A step that a busy machine repeats is recorded twice, so only the first time of each counts.
    assert list(dict.fromkeys((line["action"], line.get("attempt")) for line in ours)) == expected
    assert {line["level"] for line in ours} == {"INFO"}
    assert all(line["shard"] == 0 for line in ours if "attempt" in line)
    assert {line["action"] for line in ours} <= set(Action)

    found: dict[str, dict[str, Any]] = {f"{line['action']} {line.get('attempt')}": line for line in ours}
    assert found["planned None"]["rows"] == 2
    assert found["uploaded 1"]["bytes"] > 0
    bought = [batch.id for batch in result.provider_batches]
    assert [found[f"created {number}"]["provider_batch_id"] for number in (1, 2)] == bought
    assert found["settled 1"]["retry_rows"] == 1
    assert (found["finished None"]["status"], found["finished None"]["succeeded"]) == ("completed", 2)

    answers = [row["text"] for row in house.results(handle.id)]
    secrets = [KEY, *answers, "nobody may read", "another one", "[[sandbox"]
    assert all(answers) and [secret for secret in secrets if secret in stream.getvalue()] == []
