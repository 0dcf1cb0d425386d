"""A batch as one step of a workflow of yours, run by your own worker.

Start a Temporal and the sandbox, then this, each in a terminal of its own at the root of the repository:

    temporal server start-dev
    durabatch sandbox --port 9180
    DURABATCH_CONFIG=examples/durabatch.toml python examples/embed_child.py
"""

import asyncio
from datetime import timedelta
from uuid import uuid4

from temporalio import workflow
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker

# Temporal loads the modules of a workflow anew for every run, except those that are passed through. Without this, it
# would refuse the worker's part of Durabatch, which does I/O.
with workflow.unsafe.imports_passed_through():
    from durabatch import BATCH_WORKFLOW, BatchPlugin, BatchResult, BatchSpec, PollPolicy
    from durabatch.workers import Settings

QUEUE = "my-task-queue"


@workflow.defn
class Translate:
    """Translates a few words, as a step among others that you have."""

    @workflow.run
    async def run(self, words: list[str]) -> str:
        spec = BatchSpec(
            provider="sandbox",
            model="gpt-4o-mini",
            # Rows given inline are in Temporal's history. For more than a handful, give `input`: a file in the store.
            requests=tuple({"custom_id": word, "input": f"Translate into French: {word}"} for word in words),
            # The sandbox is quick. Leave this out where a batch takes hours: the defaults are made for that.
            poll=PollPolicy(first=timedelta(seconds=1)),
        )
        result: BatchResult = await workflow.execute_child_workflow(
            BATCH_WORKFLOW,
            spec,
            id=f"{workflow.info().workflow_id}-batch",
            result_type=BatchResult,
            # If this workflow ends first, the batch cancels at the provider and keeps what is finished. The default
            # would terminate it, and leave a provider batch behind that nobody watches.
            parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
        )
        counts = result.counts
        return f"{result.status}: {counts.succeeded} of {counts.total} rows succeeded; they are in {result.results}"


async def main() -> None:
    # The plugin brings Durabatch's workflows and activities to every worker of this client.
    plugin = BatchPlugin(Settings.load())
    client = await Client.connect(
        **{"target_host": "localhost:7233", **ClientConfig.load_client_connect_config()}, plugins=[plugin]
    )
    async with Worker(client, task_queue=QUEUE, workflows=[Translate]):
        words = ["house", "tree", "river"]
        print(await client.execute_workflow(Translate.run, words, id=f"translate-{uuid4().hex[:8]}", task_queue=QUEUE))


if __name__ == "__main__":
    asyncio.run(main())
