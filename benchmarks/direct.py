"""Direct mode: a file's rows, sent one by one, beside what anybody would write: an aiohttp loop, an AsyncOpenAI gather.

    python benchmarks/direct.py --rows 20000 --times 3

All of them meet a server that costs next to nothing, in turn, within one run. Whoever sends has a core to itself; the
server and Temporal are on the other one. Durabatch is measured twice: as a batch (`batch`), from the client's call to
its result, through `durabatch worker` and a real Temporal server; and by its steps alone (`step`), in one process. Then
the steps with thousands of calls in flight and half a second of latency, for the event loop's stalls; and a batch with
long answers, for the worker's memory. Every batch's results are checked, and the server's books: each row was sent
once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from histories import histories, step_seconds
from lab import FIRST_CORE, LAST_CORE, Lab, clean_environment, live_books, live_server, open_lab
from report import MIB, arguments, publish, say, spread
from rows import make_rows, wrong_rows

from durabatch import BatchClient

CLIENT = Path(__file__).with_name("live_client.py")
#: AsyncOpenAI is so slow that a part of the rows shows it.
_PART = 10
#: Calls in flight where there is no latency.
_IN_FLIGHT = 256


async def client(how: str, file: Path, url: str, in_flight: int) -> dict[str, Any]:
    """Send a file's rows from the first core; return what it took, and what the server's books say."""
    pin = f"import os, sys; os.sched_setaffinity(0, {{{FIRST_CORE}}})"
    pin += "; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", pin, str(CLIENT), how, str(file), url, "--in-flight", str(in_flight)),
        stdout=asyncio.subprocess.PIPE,
        env=clean_environment(),
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"The client {how} failed: it ended with {process.returncode}.")
    facts: dict[str, Any] = json.loads(out)
    return {**facts, "books": await live_books(url)}


async def batch(lab: Lab, file: Path, rows: int, url: str) -> dict[str, Any]:
    """Bring a file of the store through a fresh worker on the first core, as a batch; return what it took."""
    name = f"direct-{uuid.uuid4().hex[:8]}"
    provider = f'[providers.live]\nkind = "openai"\nbase_url = "{url}/v1"\napi_key_env = "KEY"\n'
    provider += f'mode = "direct"\nmax_concurrent_requests = {_IN_FLIGHT}\n'
    worker = await lab.worker(provider, name, FIRST_CORE, KEY="sk-bench")
    try:
        os.sync()  # what was written before must not be paid for here
        user = BatchClient(lab.client, str(lab.store), task_queue=name)
        used = worker.cpu, lab.server.cpu
        began = time.perf_counter()
        # The largest shards there are: one worker spreads nothing, and each shard costs it 0.1 s.
        id = await user.create(file.as_uri(), provider="live", id=name, limits={"max_rows": 2000})
        result = await user.result(id)
        seconds = time.perf_counter() - began
        all_of_it = {"seconds": round(seconds, 3), "cpu": round(worker.cpu - used[0], 3)}
        facts = {"all": all_of_it, "temporal_cpu": lab.server.cpu - used[1], "peak_mib": round(worker.peak / MIB, 1)}
    finally:
        worker.stop()
    books = await live_books(url)
    wrong = wrong_rows(lab.store / name / "results.jsonl", rows, quoted=False)
    if wrong or result.repeated or not books["calls"] == books["distinct"] == rows:
        raise SystemExit("\n".join((*wrong, f"The server's books: {books}. The result: {result!r}")))
    return {**facts, "steps": step_seconds(await histories(lab.client, name))}


async def beside(lab: Lab, rows: int, row_bytes: int, times: int) -> dict[str, Any]:
    """Run all four at zero latency."""
    file, part = lab.store / "in" / "rows.jsonl", lab.store / "in" / "part.jsonl"
    make_rows(file, rows, row_bytes)
    make_rows(part, rows // _PART, row_bytes)
    found: dict[str, list[dict[str, Any]]] = {"bare": [], "batch": [], "step": [], "openai": []}
    for number in range(times):
        for how in list(found) if number % 2 else reversed(found):
            async with live_server(lab.folder, LAST_CORE) as url:
                if how == "batch":
                    facts = await batch(lab, file, rows, url)
                else:
                    facts = await client(how, part if how == "openai" else file, url, _IN_FLIGHT)
            found[how].append(facts)
            say(f"{number + 1}/{times} {how}: {facts['all']['seconds']} s, {facts['all']['cpu']} s of processor")
    count = {how: rows // _PART if how == "openai" else rows for how in found}
    each = {how: [facts["all"]["cpu"] / count[how] * 1e6 for facts in runs] for how, runs in found.items()}
    wall = {how: [facts["all"]["seconds"] / count[how] * 1e6 for facts in runs] for how, runs in found.items()}

    def rates(values: dict[str, list[float]], to: str) -> dict[str, Any]:
        """How fast ours are, as a share of another's rate."""
        return {
            how: spread([theirs / ours for theirs, ours in zip(values[to], values[how], strict=True)])
            for how in ("batch", "step")
        }

    of_bare, of_openai = rates(wall, "bare"), rates(wall, "openai")
    peak = {how: max(facts["peak_mib"] for facts in found[how]) for how in ("batch", "step", "bare")}
    met = of_bare["batch"]["median"] >= 0.8 and of_openai["batch"]["median"] >= 10 and peak["batch"] * MIB <= 200e6
    return {
        "rows": rows,
        "rate_of_bare": of_bare,
        "rate_of_bare_by_processor": rates(each, "bare"),
        "rate_of_openai": of_openai,
        "goal": {"rate_of_bare_at_least": 0.8, "rate_of_openai_at_least": 10, "peak_mb_at_most": 200, "met": met},
        "peak_mib": peak,
        "microseconds_per_row": {how: spread(values, 1) for how, values in wall.items()},
        "processor_microseconds_per_row": {how: spread(values, 1) for how, values in each.items()},
        "batch_temporal_cpu_seconds": spread([facts["temporal_cpu"] for facts in found["batch"]]),
        "batch_step_busy_seconds": {
            name: spread([facts["steps"][name]["busy_seconds"] for facts in found["batch"]])
            for name in found["batch"][0]["steps"]
        },
        "step_cpu_seconds": {
            name: spread([facts[name]["cpu"] for facts in found["step"]])
            for name in ("plan", "run", "collect", "settle", "apply")
        },
    }


async def many(lab: Lab, rows: int, row_bytes: int, in_flight: int) -> dict[str, Any]:
    """Run the steps with thousands of calls in flight."""
    file = lab.store / "in" / "many.jsonl"
    make_rows(file, rows, row_bytes)
    seconds = 0.5
    found = {}
    for how in ("bare", "step"):
        async with live_server(lab.folder, LAST_CORE, seconds=seconds) as url:
            found[how] = await client(how, file, url, in_flight)
        say(f"{in_flight} in flight, {how}: {found[how]}")
    run, best = found["step"]["run"], rows / in_flight * seconds
    return {
        "in_flight": in_flight,
        "latency_seconds": seconds,
        "seconds_that_latency_allows": best,
        "share_of_what_latency_allows": round(best / run["seconds"], 3),
        # At zero latency as well, one core does no more.
        "seconds_that_one_core_allows": run["cpu"],
        "most_open_at_the_server": found["step"]["books"]["most_open"],
        "durabatch": {**run, "peak_mib": found["step"]["peak_mib"]},
        "bare": {**found["bare"]["all"], "peak_mib": found["bare"]["peak_mib"]},
        "goal": {"stall_at_most": 0.1, "met": run["busy"] <= 0.1 and run["seconds"] <= best / 0.9},
    }


async def long_answers(lab: Lab, rows: int) -> dict[str, Any]:
    """Run a batch with answers of 100 kB."""
    file = lab.store / "in" / "long.jsonl"
    make_rows(file, rows, 600)
    async with live_server(lab.folder, LAST_CORE, answer_bytes=100_000) as url:
        facts = await batch(lab, file, rows, url)
    say(f"long answers: {facts}")
    return {
        "rows": rows,
        "answer_bytes": 100_000,
        "peak_mib": facts["peak_mib"],
        "goal": {"peak_mb_at_most": 250, "met": facts["peak_mib"] * MIB <= 250e6},
        **facts["all"],
        "steps": facts["steps"],
    }


async def measure(rows: int, row_bytes: int, times: int, in_flight: int, long_rows: int) -> dict[str, Any]:
    async with open_lab(core=LAST_CORE) as lab:
        facts = {"zero_latency": await beside(lab, rows, row_bytes, times)}
        facts["many_in_flight"] = await many(lab, rows, row_bytes, in_flight)
        if long_rows:
            facts["long_answers"] = await long_answers(lab, long_rows)
    return facts


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--row-bytes", type=int, default=600)
    parser.add_argument("--times", type=int, default=3, help="how often each one runs")
    parser.add_argument("--in-flight", type=int, default=5_000)
    parser.add_argument(
        "--long-rows", type=int, default=20_000, help="rows with answers of 100 kB, up to 10 GB of disk; 0: none"
    )
    given = parser.parse_args()
    facts = asyncio.run(measure(given.rows, given.row_bytes, given.times, given.in_flight, given.long_rows))
    publish("direct", facts, given.out)


if __name__ == "__main__":
    main()
