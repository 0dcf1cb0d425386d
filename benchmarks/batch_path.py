"""The batch path: rows through plan, upload, submit, poll, fetch, settle and apply, beside a bare script.

    python benchmarks/batch_path.py --rows 50000 --times 3

Both meet a fresh sandbox at zero latency and poll alike, in turn, within one run. Wall time is the client's, from its
call to the batch's result; the script's is its own, without the start of the interpreter.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from histories import histories, step_seconds, waited
from lab import Lab, Run, clean_environment, open_lab, run_batch, sandbox
from report import MIB, arguments, publish, say, spread
from rows import make_rows, wrong_bill, wrong_rows

BARE = Path(__file__).with_name("bare_script.py")


async def durabatch(lab: Lab, source: Path, rows: int, poll: float) -> tuple[Run, dict[str, Any], float]:
    """Bring the rows through a worker and check them; return also how long its steps took, and how long it waited."""
    async with sandbox(lab.folder) as (provider, process):
        rhythm = {"first": f"{poll}s", "factor": 1, "maximum": f"{poll}s", "jitter": 0}
        run = await run_batch(lab, provider, process, source, poll=rhythm)
        wrong = wrong_bill(await provider.books(), rows)
    wrong += wrong_rows(lab.store / run.result.batch_id / "results.jsonl", rows)
    if wrong:
        raise SystemExit("\n".join(wrong))
    history = await histories(lab.client, run.result.batch_id)
    return run, step_seconds(history), waited(history)


async def bare(lab: Lab, source: Path, poll: float) -> dict[str, Any]:
    """Run the script; return what it says, and the sandbox's processor seconds."""
    async with sandbox(lab.folder) as (provider, process):
        os.sync()
        used = process.cpu
        command = [sys.executable, BARE, source, lab.folder / "bare.jsonl", f"{provider.url}/v1", "--poll", str(poll)]
        script = await asyncio.create_subprocess_exec(
            *map(str, command), stdout=asyncio.subprocess.PIPE, env=clean_environment()
        )
        out, _ = await script.communicate()
        if script.returncode:
            raise SystemExit("The bare script failed.")
        said: dict[str, Any] = json.loads(out)
        return {**said, "sandbox_cpu": process.cpu - used}


async def measure(rows: int, row_bytes: int, times: int, poll: float) -> dict[str, Any]:
    runs: list[tuple[Run, dict[str, Any], float]] = []
    scripts: list[dict[str, Any]] = []
    async with open_lab() as lab:
        source = lab.store / "in" / "rows.jsonl"
        make_rows(source, rows, row_bytes)
        for number in range(times):
            for ours in (False, True) if number % 2 else (True, False):
                began = time.perf_counter()
                if ours:
                    runs.append(await durabatch(lab, source, rows, poll))
                else:
                    scripts.append(await bare(lab, source, poll))
                took = time.perf_counter() - began
                say(f"{number + 1}/{times} {'durabatch' if ours else 'bare script'}: {took:.1f} s with its servers")
        size = source.stat().st_size
    ratios = [run.seconds / script["seconds"] for (run, _, _), script in zip(runs, scripts, strict=True)]
    # Without what both wait for, which is the sandbox's work, and the second that Temporal's timers may be late.
    bare_work = [
        (run.seconds - wait) / (script["seconds"] - script["parts"]["wait"])
        for (run, _, wait), script in zip(runs, scripts, strict=True)
    ]
    ratio, peak = spread(ratios), spread([run.peak / MIB for run, _, _ in runs], 1)
    return {
        "rows": rows,
        "input_bytes": size,
        "poll_seconds": poll,
        "goal": {
            "wall_ratio_at_most": 1.2,
            "peak_mib_at_most": 143,  # 150 MB
            "met": ratio["median"] <= 1.2 and peak["max"] <= 143,
        },
        "wall_ratio": ratio,
        "wall_ratio_without_waiting": spread(bare_work),
        "durabatch": {
            "seconds": spread([run.seconds for run, _, _ in runs]),
            "microseconds_per_row": spread([run.seconds / rows * 1e6 for run, _, _ in runs], 1),
            "worker_peak_mib": peak,
            "worker_idle_mib": spread([run.idle / MIB for run, _, _ in runs], 1),
            "worker_cpu_seconds": spread([run.worker_cpu for run, _, _ in runs]),
            "sandbox_cpu_seconds": spread([run.sandbox_cpu for run, _, _ in runs]),
            "temporal_cpu_seconds": spread([run.server_cpu for run, _, _ in runs]),
            "waited_seconds": spread([wait for _, _, wait in runs]),
            "step_seconds": {
                name: spread([steps[name]["seconds"] for _, steps, _ in runs if name in steps]) for name in runs[0][1]
            },
        },
        "bare_script": {
            "seconds": spread([script["seconds"] for script in scripts]),
            "peak_mib": spread([script["peak"] / MIB for script in scripts], 1),
            "sandbox_cpu_seconds": spread([script["sandbox_cpu"] for script in scripts]),
            "part_seconds": {
                name: spread([script["parts"][name] for script in scripts]) for name in scripts[0]["parts"]
            },
        },
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--row-bytes", type=int, default=2_000)
    parser.add_argument("--times", type=int, default=5, help="how often each side runs")
    parser.add_argument("--poll", type=float, default=0.2, help="seconds between two polls, on both sides")
    given = parser.parse_args()
    facts = asyncio.run(measure(given.rows, given.row_bytes, given.times, given.poll))
    publish("batch_path", facts, given.out)


if __name__ == "__main__":
    main()
