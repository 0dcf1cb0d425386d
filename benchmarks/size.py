"""The size: time and memory per row, from ten thousand rows to a million, through one worker process.

    python benchmarks/size.py 10000 100000 1000000 --kill 2
    python benchmarks/size.py 2000 --shard-rows 1 --row-bytes 200    # what a shard costs, without its rows

Every result is checked, in order, and the sandbox's books: each provider batch was bought once, each row billed once.
With --kill, the largest size runs once more, and its worker is killed so many times on the way.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
from pathlib import Path
from typing import Any

from histories import histories, size, step_seconds
from lab import Lab, Run, open_lab, run_batch, sandbox
from report import MIB, arguments, publish, say, spread
from rows import make_rows, wrong_bill, wrong_rows

POLL = {"first": "0.2s", "factor": 1.5, "maximum": "2s"}


async def one(
    lab: Lab, rows: int, row_bytes: int, limits: dict[str, int], kills: int = 0
) -> tuple[Run, dict[str, Any]]:
    """Bring so many rows through a fresh worker, check them, and clear up; return also what the histories tell."""
    source = lab.store / "in" / f"rows-{rows}.jsonl"
    if not source.exists():
        make_rows(source, rows, row_bytes)
    async with sandbox(lab.folder) as (provider, process):
        run = await run_batch(lab, provider, process, source, kills, poll=POLL, limits=limits)
        say(f"{rows:,} rows{f', {kills} kills' if kills else ''}: {run.seconds:.1f} s, {run.peak / MIB:.0f} MiB")
        books = await provider.books()
        wrong = wrong_bill(books, rows)
        sandbox_peak = process.peak
    folder = lab.store / run.result.batch_id
    wrong += wrong_rows(folder / "results.jsonl", rows)
    if wrong or run.result.counts.succeeded != rows:
        raise SystemExit("\n".join([f"{run.result.counts.succeeded} of {rows} rows succeeded", *wrong]))
    shutil.rmtree(folder)
    history = await histories(lab.client, run.result.batch_id)
    return run, {
        "shards": len(books["batches"]),
        "steps": step_seconds(history),
        "history": size(history),
        "sandbox_peak": sandbox_peak,
    }


def facts(rows: int, found: list[tuple[Run, dict[str, Any]]]) -> dict[str, Any]:
    """Return the figures of one size."""
    runs = [run for run, _ in found]
    history = found[-1][1]
    return {
        "rows": rows,
        "shards": history["shards"],
        "seconds": spread([run.seconds for run in runs]),
        "microseconds_per_row": spread([run.seconds / rows * 1e6 for run in runs], 1),
        "worker_cpu_microseconds_per_row": spread([run.worker_cpu / rows * 1e6 for run in runs], 1),
        "sandbox_cpu_microseconds_per_row": spread([run.sandbox_cpu / rows * 1e6 for run in runs], 1),
        "temporal_cpu_seconds": spread([run.server_cpu for run in runs]),
        "worker_peak_mib": spread([run.peak / MIB for run in runs], 1),
        "worker_idle_mib": spread([run.idle / MIB for run in runs], 1),
        "sandbox_peak_mib": round(history["sandbox_peak"] / MIB, 1),
        "steps": history["steps"],
        "history": history["history"],
    }


async def measure(
    sizes: list[int], row_bytes: int, limits: dict[str, int], times: int, kills: int, folder: Path | None
) -> dict[str, Any]:
    found: dict[int, list[tuple[Run, dict[str, Any]]]] = {rows: [] for rows in sizes}
    killed: dict[str, Any] | None = None
    async with open_lab(folder) as lab:
        for _ in range(times):
            for rows in sizes:
                found[rows].append(await one(lab, rows, row_bytes, limits))
        if kills:
            run, history = await one(lab, sizes[-1], row_bytes, limits, kills)
            killed = {
                "rows": sizes[-1],
                "kills": run.kills,
                "seconds": round(run.seconds, 3),
                "worker_peak_mib": round(run.peak / MIB, 1),
                "history": history["history"],
                "results": "one for each row, in order",
                "provider_batches": history["shards"],
                "adopted": sum(batch.adopted for batch in run.result.provider_batches),
                "bought_twice": 0,  # looked up in the sandbox's books; anything else ends the benchmark
            }
    told_of = [facts(rows, found[rows]) for rows in sizes]
    smallest, largest = told_of[0], told_of[-1]
    time_ratio = largest["microseconds_per_row"]["median"] / smallest["microseconds_per_row"]["median"]
    cpu_ratio = (
        largest["worker_cpu_microseconds_per_row"]["median"] / smallest["worker_cpu_microseconds_per_row"]["median"]
    )
    memory_ratio = largest["worker_peak_mib"]["max"] / smallest["worker_peak_mib"]["max"]
    return {
        "row_bytes": row_bytes,
        "goal": {
            "time_per_row_ratio_at_most": 1.3,
            "peak_memory_ratio_at_most": 1.2,
            "met": time_ratio <= 1.3 and memory_ratio <= 1.2,
        },
        "time_per_row_ratio": round(time_ratio, 3),
        "cpu_per_row_ratio": round(cpu_ratio, 3),
        "peak_memory_ratio": round(memory_ratio, 3),
        "sizes": told_of,
        "killed": killed,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("rows", type=int, nargs="*", default=[10_000, 100_000], help="sizes")
    parser.add_argument("--row-bytes", type=int, default=1_000)
    parser.add_argument(
        "--shard-rows", type=int, metavar="N", help="cut shards after so many rows, for many small ones"
    )
    parser.add_argument("--times", type=int, default=1, help="how often each size runs, in turn")
    parser.add_argument("--kill", type=int, default=0, metavar="N", help="run the largest size with so many kills, too")
    parser.add_argument("--scratch", type=Path, help="where the files go: about 6 GB for a million rows")
    given = parser.parse_args()
    sizes = sorted(given.rows)
    limits = {"max_rows": given.shard_rows} if given.shard_rows else {}
    found = asyncio.run(measure(sizes, given.row_bytes, limits, given.times, given.kill, given.scratch))
    publish("shards" if limits else "size", found, given.out)


if __name__ == "__main__":
    main()
