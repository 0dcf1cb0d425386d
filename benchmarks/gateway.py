"""The gateway: a file of chat rows, uploaded, run as a batch in direct mode, and downloaded again.

    python benchmarks/gateway.py --rows 5000 50000 --times 3

What is measured is a whole batch server: `durabatch gateway`, `durabatch worker` and a real Temporal server share two
cores with the model server, which costs next to nothing, and with the client, which uploads, creates, asks every 0.1 s
how the batch is, and downloads. Time is the client's, from the first byte of the upload to the last one of the output
file. Processor time is that of the gateway, the worker and Temporal. Beside it, in turn, a bare aiohttp loop sends the
same rows to the same kind of server, from one core, with the server on the other.

Then a server that answers after 100 ms and 10 calls in flight: 100 rows a second at best, which are not to be lost to
what comes before, after and between the calls. Each output file is checked, and the server's books.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import httpx2
from direct import client as bare_client
from lab import LAST_CORE, Lab, Process, live_books, live_server, open_lab
from report import MIB, arguments, publish, say, spread
from rows import make_rows

#: Seconds between two looks at a batch, and after which there are no more.
_PAUSE, _PATIENCE = 0.1, 3600.0
#: Calls in flight where there is no latency.
_IN_FLIGHT = 256
#: The design's goals.
RATE, PROCESSOR_MS, STEADY = 1_900, 1.0, 97.0


async def through(url: str, file: Path, output: Path) -> dict[str, float]:
    """Bring a file through the gateway; return the seconds of each stage."""
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60.0) as http:
        times = [time.perf_counter()]
        with file.open("rb") as rows:
            sent = await http.post("/files", data={"purpose": "batch"}, files={"file": (file.name, rows)})
        times.append(time.perf_counter())
        order = {"input_file_id": _json(sent)["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        shown = _json(await http.post("/batches", json=order))
        deadline = time.monotonic() + _PATIENCE
        while shown["status"] not in ("completed", "failed", "expired", "cancelled"):
            if time.monotonic() > deadline:
                raise SystemExit(f"The batch has not ended: {shown}")
            await asyncio.sleep(_PAUSE)
            shown = _json(await http.get(f"/batches/{shown['id']}"))
        times.append(time.perf_counter())
        if shown["status"] != "completed" or shown["request_counts"]["failed"]:
            raise SystemExit(f"The batch has ended otherwise: {shown}")
        async with http.stream("GET", f"/files/{shown['output_file_id']}/content") as answer:
            with output.open("wb") as out:
                async for piece in answer.aiter_bytes():
                    out.write(piece)
        times.append(time.perf_counter())
    names = ("upload", "batch", "download")
    return {name: round(end - start, 3) for name, start, end in zip(names, times, times[1:], strict=False)}


def _json(answer: httpx2.Response) -> dict[str, Any]:
    if answer.status_code != 200:
        raise SystemExit(f"The gateway answered {answer.status_code}: {answer.text}")
    found: dict[str, Any] = answer.json()
    return found


def wrong_output(output: Path, rows: int) -> str | None:
    """Return what is wrong with an output file: it must answer each row, in order."""
    number = 0
    with output.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            found = json.loads(line)
            if found["custom_id"] != f"row-{number - 1:08}" or found["response"]["status_code"] != 200:
                return f"line {number}: {line[:200]!r}"
    return None if number == rows else f"{number} lines, of {rows}"


async def run(lab: Lab, file: Path, rows: int, *, in_flight: int, seconds: float = 0.0) -> dict[str, Any]:
    """Run a file through a fresh gateway and worker; return what it took."""
    queue = f"gateway-{uuid.uuid4().hex[:8]}"
    processes: dict[str, Process] = {"temporal": lab.server}
    async with live_server(lab.folder, seconds=seconds) as url:
        provider = f'[providers.live]\nkind = "openai"\nbase_url = "{url}/v1"\napi_key_env = "KEY"\n'
        provider += f'mode = "direct"\nmax_concurrent_requests = {in_flight}\n'
        try:
            processes["worker"] = await lab.worker(provider, queue, KEY="sk-bench")
            base_url, processes["gateway"] = await lab.gateway(provider, queue, "live", KEY="sk-bench")
            used = {name: process.cpu for name, process in processes.items()}
            output = lab.folder / f"{queue}.jsonl"
            stages = await through(base_url, file, output)
            cpu = {name: round(process.cpu - used[name], 2) for name, process in processes.items()}
            peak = {name: round(processes[name].peak / MIB, 1) for name in ("worker", "gateway")}
        finally:
            for name in processes.keys() - {"temporal"}:
                processes[name].stop()
        books = await live_books(url)
    wrong = wrong_output(output, rows)
    output.unlink()
    if wrong or not books["calls"] == books["distinct"] == rows:
        raise SystemExit(f"{wrong or ''} The server's books: {books}")
    took = sum(stages.values())
    return {
        "seconds": round(took, 2),
        "rows_per_second": round(rows / took, 1),
        "processor_ms_per_row": round(sum(cpu.values()) / rows * 1000, 3),
        "processor_seconds": cpu,
        "peak_mib": peak,
        "stages": stages,
    }


async def beside(lab: Lab, rows: int, times: int) -> dict[str, Any]:
    """Run the gateway and the bare loop in turn, at zero latency."""
    file = lab.store / "in" / f"{rows}.jsonl"
    make_rows(file, rows, 600)
    ours, bare = [], []
    for number in range(times):
        ours.append(await run(lab, file, rows, in_flight=_IN_FLIGHT))
        async with live_server(lab.folder, LAST_CORE) as url:
            bare.append((await bare_client("bare", file, url, _IN_FLIGHT))["all"]["seconds"])
        say(f"{rows} rows, {number + 1}/{times}: {ours[-1]}; bare {bare[-1]} s")
    rate = spread([one["rows_per_second"] for one in ours], 1)
    processor = spread([one["processor_ms_per_row"] for one in ours])
    return {
        "rows": rows,
        "rows_per_second": rate,
        "bare_rows_per_second": spread([rows / seconds for seconds in bare], 1),
        "processor_ms_per_row": processor,
        "goal": {
            "rows_per_second_at_least": RATE,
            "processor_ms_per_row_at_most": PROCESSOR_MS,
            "met": rate["median"] >= RATE and processor["median"] <= PROCESSOR_MS,
        },
        "peak_mib": {name: max(one["peak_mib"][name] for one in ours) for name in ("worker", "gateway")},
        "runs": ours,
    }


async def steady(lab: Lab, rows: int, in_flight: int, seconds: float) -> dict[str, Any]:
    """Run a file at a latency that decides what can be done."""
    file = lab.store / "in" / "steady.jsonl"
    make_rows(file, rows, 600)
    facts = await run(lab, file, rows, in_flight=in_flight, seconds=seconds)
    say(f"{rows} rows, {in_flight} in flight, {seconds} s: {facts}")
    percent = round(facts["rows_per_second"] / (in_flight / seconds) * 100, 1)
    goal = {"percent_of_best_at_least": STEADY, "met": percent >= STEADY}
    return {
        "rows": rows,
        "in_flight": in_flight,
        "latency_seconds": seconds,
        "percent_of_best": percent,
        "goal": goal,
        **facts,
    }


async def measure(rows: list[int], times: int, steady_rows: int) -> dict[str, Any]:
    async with open_lab() as lab:
        facts: dict[str, Any] = {"zero_latency": [await beside(lab, count, times) for count in rows]}
        facts["steady"] = await steady(lab, steady_rows, 10, 0.1)
    return facts


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--times", type=int, default=3, help="how often each one runs")
    parser.add_argument("--steady-rows", type=int, default=5_000, help="rows at 10 calls in flight, 100 a second")
    given = parser.parse_args()
    publish("gateway", asyncio.run(measure(given.rows, given.times, given.steady_rows)), given.out)


if __name__ == "__main__":
    main()
