"""Scale: the same batch in direct mode on one, two and three workers.

    python benchmarks/scale.py --rows 20000

Each worker is `durabatch worker` with the default settings, and works with the others on one batch through a real
Temporal server. What limits a worker here is its model server, not its processor: the server answers after 200 ms, and
works at 50 calls at a time for each worker, as if each had a machine with a model beside it. The account's calls in
flight (`max_concurrent_requests`) are 50 times the workers. So what is missing from a line is lost by Durabatch: shards
or shares of the account's calls that are spread unevenly, and what no worker can do for another (the plan, the last
shards, joining the results). Processor time limits nobody, which the report shows; what one core can do is what
`direct.py` measures.

Time is the client's, from its call to the batch's result; the workers poll before it. Each batch's results are checked,
and the server's books: each row was sent once.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from histories import histories, step_seconds
from lab import Lab, live_books, live_server, open_lab
from report import MIB, arguments, publish, say
from rows import make_rows, wrong_rows

from durabatch import BatchClient

GOAL = 0.9


async def run(
    lab: Lab, file: Path, rows: int, workers: int, in_flight: int, seconds: float, **spec: Any
) -> dict[str, Any]:
    """Bring a file of the store, with these fields of its spec, through so many fresh workers; return what it took."""
    name = f"scale-{workers}-{uuid.uuid4().hex[:8]}"
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(live_server(lab.folder, seconds=seconds, most_at_a_time=in_flight))
        running = []
        for number in range(workers):
            provider = (
                f'[providers.live]\nkind = "openai"\nbase_url = "{url}/v1"\napi_key_env = "KEY"\nmode = "direct"\n'
                f'max_concurrent_requests = {in_flight * workers}\nheaders = {{ x-worker = "{number + 1}" }}\n'
            )
            running.append(await lab.worker(provider, name, KEY="sk-bench"))
            stack.callback(running[-1].stop)
        os.sync()  # what was written before must not be paid for here
        client = BatchClient(lab.client, str(lab.store), task_queue=name)
        used, temporal = [worker.cpu for worker in running], lab.server.cpu
        began = time.perf_counter()
        result = await client.result(await client.create(file.as_uri(), provider="live", id=name, **spec))
        took = time.perf_counter() - began
        cpu = sum(worker.cpu for worker in running) - sum(used)
        facts = {
            "workers": workers,
            "seconds": round(took, 2),
            "rows_per_second": round(rows / took, 1),
            "share_of_what_the_server_allows": round(rows * seconds / (in_flight * workers) / took, 3),
            "workers_cores": round(cpu / took, 2),
            "temporal_cores": round((lab.server.cpu - temporal) / took, 2),
            "peak_mib": round(max(worker.peak for worker in running) / MIB, 1),
        }
        books = await live_books(url)
    wrong = wrong_rows(lab.store / name / "results.jsonl", rows, quoted=False)
    if wrong or result.repeated or not books["calls"] == books["distinct"] == rows:
        raise SystemExit("\n".join((*wrong, f"The server's books: {books}. The result: {result!r}")))
    facts |= {"calls_by_worker": books["calls_by_worker"], "most_in_flight": books["most_open"]}
    steps = step_seconds(await histories(lab.client, name))
    return {**facts, "shards": steps["collect"]["times"], "steps": steps}


async def measure(rows: int, most: int, in_flight: int, seconds: float, shard_rows: int | None) -> dict[str, Any]:
    found = []
    spec = {"limits": {"max_rows": shard_rows}} if shard_rows else {}
    async with open_lab() as lab:
        file = lab.store / "in" / "rows.jsonl"
        make_rows(file, rows, 600)
        for workers in range(1, most + 1):
            facts = await run(lab, file, rows, workers, in_flight, seconds, **spec)
            found.append(facts)
            say(f"{workers} workers: {facts['seconds']} s, calls {facts['calls_by_worker']}")
    alone = found[0]["seconds"]
    of_linear = {str(facts["workers"]): round(alone / facts["workers"] / facts["seconds"], 3) for facts in found}
    return {
        "rows": rows,
        "latency_seconds": seconds,
        "in_flight_per_worker": in_flight,
        "of_linear": of_linear,
        "goal": {"of_linear_at_least": GOAL, "met": min(of_linear.values()) >= GOAL},
        "runs": found,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=3, help="up to so many")
    parser.add_argument("--in-flight", type=int, default=50, help="calls that the server works at for one worker")
    parser.add_argument("--seconds", type=float, default=0.2, help="what it takes for each")
    parser.add_argument("--shard-rows", type=int, default=500, help="rows of each shard; 0: 2,000, as by default")
    given = parser.parse_args()
    facts = asyncio.run(measure(given.rows, given.workers, given.in_flight, given.seconds, given.shard_rows))
    publish("scale", facts, given.out)


if __name__ == "__main__":
    main()
