"""Direct mode: a file's rows, sent one by one, beside what anybody would write: an aiohttp loop, an AsyncOpenAI gather.

    python benchmarks/direct.py --rows 20000 --times 3

All of them meet a server that costs next to nothing, on another core than theirs, in turn, within one run. Durabatch
is measured by its steps, without Temporal: that is what one worker on one core does. Then the same with thousands of
calls in flight and half a second of latency, and with long answers, for the memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
from lab import clean_environment, scratch
from report import arguments, publish, say, spread
from rows import make_rows

HERE = Path(__file__).parent
#: AsyncOpenAI is so slow that a part of the rows shows it.
_PART = 10


@contextlib.asynccontextmanager
async def server(seconds: float, answer_bytes: int) -> AsyncIterator[str]:
    """Serve on the last core."""
    command = ["live_server.py", "--seconds", str(seconds), "--answer-bytes", str(answer_bytes)]
    process = await _start(command, max(os.sched_getaffinity(0)))
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["url"]
    finally:
        process.kill()
        await process.wait()


async def client(how: str, file: Path, url: str, in_flight: int) -> dict[str, Any]:
    """Send a file's rows from the first core; return what it took, and what the server's books say."""
    process = await _start(["live_client.py", how, str(file), url, "--in-flight", str(in_flight)], _first_core())
    out, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"The client {how} failed.")
    async with httpx2.AsyncClient(trust_env=False) as books:
        said = (await books.get(f"{url}/books")).json()
    facts: dict[str, Any] = json.loads(out)
    return {**facts, "books": said}


def _first_core() -> int:
    return min(os.sched_getaffinity(0))


async def _start(command: list[str], core: int) -> asyncio.subprocess.Process:
    pin = f"import os, sys; os.sched_setaffinity(0, {{{core}}})"
    pin += "; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", pin, str(HERE / command[0]), *command[1:]),
        stdout=asyncio.subprocess.PIPE,
        env=clean_environment(),
    )


async def beside(rows: int, row_bytes: int, times: int, folder: Path) -> dict[str, Any]:
    """Run all three at zero latency."""
    file, part = folder / "rows.jsonl", folder / "part.jsonl"
    make_rows(file, rows, row_bytes)
    make_rows(part, rows // _PART, row_bytes)
    found: dict[str, list[dict[str, Any]]] = {"bare": [], "step": [], "openai": []}
    for number in range(times):
        for how in ("bare", "step", "openai") if number % 2 else ("openai", "step", "bare"):
            async with server(0, 600) as url:
                facts = await client(how, part if how == "openai" else file, url, 256)
            found[how].append(facts)
            say(f"{number + 1}/{times} {how}: {facts['all']['seconds']} s, {facts['all']['cpu']} s of processor")
    count = {"bare": rows, "step": rows, "openai": rows // _PART}
    each = {how: [facts["all"]["cpu"] / count[how] * 1e6 for facts in runs] for how, runs in found.items()}
    wall = {how: [facts["all"]["seconds"] / count[how] * 1e6 for facts in runs] for how, runs in found.items()}
    of_bare = spread([bare / ours for bare, ours in zip(wall["bare"], wall["step"], strict=True)])
    of_openai = spread([theirs / ours for theirs, ours in zip(wall["openai"], wall["step"], strict=True)])
    peak = max(facts["peak_mib"] for facts in found["step"])
    return {
        "rows": rows,
        "rate_of_bare": of_bare,
        "rate_of_bare_by_processor": spread([b / o for b, o in zip(each["bare"], each["step"], strict=True)]),
        "rate_of_openai": of_openai,
        "goal": {
            "rate_of_bare_at_least": 0.8,
            "rate_of_openai_at_least": 10,
            "peak_mib_at_most": 200,
            "met": of_bare["median"] >= 0.8 and of_openai["median"] >= 10 and peak <= 200,
        },
        "peak_mib": peak,
        "microseconds_per_row": {how: spread(values, 1) for how, values in wall.items()},
        "processor_microseconds_per_row": {how: spread(values, 1) for how, values in each.items()},
        "step_cpu_seconds": {
            name: spread([facts[name]["cpu"] for facts in found["step"]])
            for name in ("plan", "run", "collect", "settle", "apply")
        },
    }


async def many(rows: int, row_bytes: int, in_flight: int, folder: Path) -> dict[str, Any]:
    """Run with thousands of calls in flight."""
    file = folder / "many.jsonl"
    make_rows(file, rows, row_bytes)
    seconds = 0.5
    found = {}
    for how in ("bare", "step"):
        async with server(seconds, 600) as url:
            found[how] = await client(how, file, url, in_flight)
        say(f"{in_flight} in flight, {how}: {found[how]}")
    run, best = found["step"]["run"], rows / in_flight * seconds
    return {
        "in_flight": in_flight,
        "latency_seconds": seconds,
        "seconds_that_latency_allows": best,
        "most_open_at_the_server": found["step"]["books"]["most_open"],
        "durabatch": {**run, "peak_mib": found["step"]["peak_mib"]},
        "bare": {**found["bare"]["all"], "peak_mib": found["bare"]["peak_mib"]},
        "goal": {"stall_at_most": 0.1, "met": run["busy"] <= 0.1 and run["seconds"] <= best / 0.9},
    }


async def long_answers(rows: int, folder: Path) -> dict[str, Any]:
    """Run rows with answers of 100 kB."""
    file = folder / "long.jsonl"
    make_rows(file, rows, 600)
    async with server(0, 100_000) as url:
        facts = await client("step", file, url, 256)
    say(f"long answers: {facts}")
    return {
        "rows": rows,
        "answer_bytes": 100_000,
        "peak_mib": facts["peak_mib"],
        "goal": {"peak_mib_at_most": 250, "met": facts["peak_mib"] <= 250},
        "run": facts["run"],
    }


async def measure(rows: int, row_bytes: int, times: int, in_flight: int, long_rows: int) -> dict[str, Any]:
    with scratch() as folder:
        facts = {"zero_latency": await beside(rows, row_bytes, times, folder)}
        facts["many_in_flight"] = await many(rows, row_bytes, in_flight, folder)
        if long_rows:
            facts["long_answers"] = await long_answers(long_rows, folder)
    return facts


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--row-bytes", type=int, default=600)
    parser.add_argument("--times", type=int, default=3, help="how often each one runs")
    parser.add_argument("--in-flight", type=int, default=5_000)
    parser.add_argument("--long-rows", type=int, default=20_000, help="rows with answers of 100 kB; 0 leaves them out")
    given = parser.parse_args()
    facts = asyncio.run(measure(given.rows, given.row_bytes, given.times, given.in_flight, given.long_rows))
    publish("direct", facts, given.out)


if __name__ == "__main__":
    main()
