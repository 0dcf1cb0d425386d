"""The history: what a shard that takes the provider a day costs at Temporal.

    python benchmarks/history.py

The second measure is of a provider that sends webhooks, and of which none arrives: the polls that are left then are the
most that there can be.

A day passes in seconds, on Temporal's time-skipping server, with the default rhythm of polls. Actions are counted as
Temporal Cloud bills them: starts, timers, activities, signals, children.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from histories import histories, size
from lab import MODEL, scratch, silent
from report import arguments, publish
from rows import make_rows
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from durabatch.contract import BATCH_WORKFLOW, BatchResult, BatchSpec
from durabatch.sandbox import Sandbox
from durabatch.workers import Settings, open_worker

#: With the default rhythm, so many polls are about a day.
POLLS = 151
#: The same with the rhythm of a provider that sends webhooks.
POLLS_BESIDE_WEBHOOKS = 19
_MOST_ACTIONS, _MOST_BESIDE_WEBHOOKS = 350, 60


async def measure(rows: int, polls: int, *, webhooks: bool = False) -> dict[str, Any]:
    server = str(Path(sys.executable).with_name("temporal-test-server"))
    with scratch() as folder:
        environment = await WorkflowEnvironment.start_time_skipping(
            test_server_existing_path=server, data_converter=pydantic_data_converter, runtime=silent()
        )
        async with environment, Sandbox(folder / "sandbox", finish_after_polls=polls) as sandbox:
            config = folder / "durabatch.toml"
            config.write_text(
                f'[store]\nurl = "store"\n[providers.sandbox]\nkind = "openai"\nbase_url = "{sandbox.url}/v1"\n'
                + 'webhook_secret_env = "SECRET"\n' * webhooks
            )
            settings = Settings.load(config, {})
            source = folder / "store" / "in.jsonl"
            make_rows(source, rows, 1_000)
            began = time.perf_counter()
            async with open_worker(environment.client, settings):
                spec = BatchSpec(provider="sandbox", model=MODEL, input=source.as_uri())
                result = await environment.client.execute_workflow(
                    BATCH_WORKFLOW, spec, id="day", task_queue=settings.worker.task_queue, result_type=BatchResult
                )
            found = size(await histories(environment.client, "day"))
    most = _MOST_BESIDE_WEBHOOKS if webhooks else _MOST_ACTIONS
    assert result.started_at is not None
    assert result.ended_at is not None
    hours = (result.ended_at - result.started_at).total_seconds() / 3600
    return {
        "rows": rows,
        "polls": polls,
        "hours": round(hours, 2),
        "seconds": round(time.perf_counter() - began, 2),
        "status": result.status,
        "goal": {
            "events_at_most": 2_000,
            "billable_actions_at_most": most,
            "payload_bytes_at_most": 65_536,
            "met": found["events"] <= 2_000
            and found["billable_actions"] <= most
            and found["largest_payload_bytes"] <= 65_536,
        },
        "history": found,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--polls", type=int, default=POLLS)
    parser.add_argument("--polls-beside-webhooks", type=int, default=POLLS_BESIDE_WEBHOOKS)
    given = parser.parse_args()
    found = asyncio.run(measure(given.rows, given.polls))
    found["with_webhooks"] = asyncio.run(measure(given.rows, given.polls_beside_webhooks, webhooks=True))
    publish("history", found, given.out)


if __name__ == "__main__":
    main()
